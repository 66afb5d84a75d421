//! What the environment tells the app to be. Reads nothing but the lookup that it is given.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Named so that a test reads like a sentence; unset means "behave".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `VERSION`: shown by `/`, to tell releases apart.
    pub(crate) version: String,
    /// `SKEP_ALLOCATION_ID`: shown by `/`, to tell replicas apart.
    pub(crate) allocation: String,
    /// `LISTEN=ip:port`, else every interface at `PORT`, else 8080.
    pub(crate) listen: SocketAddr,
    /// `START_DELAY_MS`: nothing listens before it has passed.
    pub(crate) start_delay: Duration,
    /// `FAIL_HEALTH=1`: `/healthz` answers 500.
    pub(crate) fail_health: bool,
    /// `FAIL_REQUESTS=1`: `/` answers 500.
    pub(crate) fail_requests: bool,
    /// `CRASH_AFTER_MS`: exits with `crash_code` after this time.
    pub(crate) crash_after: Option<Duration>,
    /// `CRASH_CODE`: for `CRASH_AFTER_MS` and `/crash`; 1 when unset.
    pub(crate) crash_code: u8,
    /// `EXIT_AT_ONCE=code`: exits before anything else.
    pub(crate) exit_at_once: Option<u8>,
    /// `LEAK_MIB_PER_S`: memory taken and touched each second, never given back.
    pub(crate) leak_mib_per_s: u32,
    /// `BURN_CPU=threads`: threads that never rest.
    pub(crate) burn_threads: u32,
    /// `FORK_BOMB=1`: makes threads that sleep, until the kernel gives no more, and goes on trying.
    pub(crate) fork_bomb: bool,
    /// `HOLD_MS`: each request except `/healthz` waits so long before its answer.
    pub(crate) hold: Duration,
    /// `IGNORE_SIGTERM=1`: only SIGKILL ends it.
    pub(crate) ignore_sigterm: bool,
    /// `LOG_LINES_PER_S`: numbered lines on standard output, `line 1`, `line 2`, ...
    pub(crate) log_lines_per_s: u32,
    /// `ECHO=1`: no HTTP: says `version=... allocation=...` and then back what it is told, to its end.
    pub(crate) echo: bool,
    /// `LOG_FLOOD_LINES`: so many numbered lines of a thousand bytes at once, as fast as they are taken.
    pub(crate) log_flood_lines: u64,
}

const DEFAULT_PORT: u16 = 8080;

impl Settings {
    /// Reads every setting through `get`; the error names the variable and what it accepts.
    pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
        let port = parse(&get, "PORT", "a port number")?.unwrap_or(DEFAULT_PORT);
        let every_interface = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let millis = |name| {
            let number = parse::<u64>(&get, name, "milliseconds")?;
            Ok::<_, String>(number.map(Duration::from_millis))
        };
        Ok(Settings {
            version: get("VERSION").unwrap_or_else(|| "none".into()),
            allocation: get("SKEP_ALLOCATION_ID").unwrap_or_else(|| "none".into()),
            listen: parse(&get, "LISTEN", "ip:port")?.unwrap_or(every_interface),
            start_delay: millis("START_DELAY_MS")?.unwrap_or_default(),
            fail_health: flag(&get, "FAIL_HEALTH")?,
            fail_requests: flag(&get, "FAIL_REQUESTS")?,
            crash_after: millis("CRASH_AFTER_MS")?,
            crash_code: parse(&get, "CRASH_CODE", "0 to 255")?.unwrap_or(1),
            exit_at_once: parse(&get, "EXIT_AT_ONCE", "0 to 255")?,
            leak_mib_per_s: parse(&get, "LEAK_MIB_PER_S", "MiB")?.unwrap_or(0),
            burn_threads: parse(&get, "BURN_CPU", "a number of threads")?.unwrap_or(0),
            fork_bomb: flag(&get, "FORK_BOMB")?,
            hold: millis("HOLD_MS")?.unwrap_or_default(),
            ignore_sigterm: flag(&get, "IGNORE_SIGTERM")?,
            log_lines_per_s: parse(&get, "LOG_LINES_PER_S", "lines")?.unwrap_or(0),
            echo: flag(&get, "ECHO")?,
            log_flood_lines: parse(&get, "LOG_FLOOD_LINES", "lines")?.unwrap_or(0),
        })
    }
}

fn parse<T: FromStr>(
    get: impl Fn(&str) -> Option<String>,
    name: &str,
    accepted: &str,
) -> Result<Option<T>, String> {
    match get(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(format!("{name}={text}: accepted is {accepted}")),
        },
    }
}

fn flag(get: impl Fn(&str) -> Option<String>, name: &str) -> Result<bool, String> {
    match get(name).as_deref() {
        None | Some("" | "0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(format!("{name}={other}: accepted is 0 or 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::from_env(|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn an_empty_environment_behaves() {
        let plain = settings(&[]).unwrap();
        assert_eq!(plain.listen.to_string(), "0.0.0.0:8080");
        assert!(!plain.fail_health && !plain.ignore_sigterm);
        assert_eq!((plain.crash_after, plain.exit_at_once), (None, None));
        assert_eq!(
            (
                plain.leak_mib_per_s,
                plain.burn_threads,
                plain.log_lines_per_s
            ),
            (0, 0, 0)
        );
    }

    #[test]
    fn listen_wins_over_port() {
        let by_port = settings(&[("PORT", "9000")]).unwrap();
        assert_eq!(by_port.listen.to_string(), "0.0.0.0:9000");
        let by_listen = settings(&[("PORT", "9000"), ("LISTEN", "127.0.0.1:7000")]).unwrap();
        assert_eq!(by_listen.listen.to_string(), "127.0.0.1:7000");
    }

    #[test]
    fn a_wrong_value_names_its_variable() {
        for (name, value) in [
            ("HOLD_MS", "soon"),
            ("FAIL_HEALTH", "yes"),
            ("EXIT_AT_ONCE", "256"),
            ("LISTEN", "8080"),
        ] {
            let error = settings(&[(name, value)]).unwrap_err();
            assert!(
                error.starts_with(&format!("{name}={value}: accepted is ")),
                "{error}"
            );
        }
    }
}
