//! How an app is asked whether it is well: the kinds of checks, when each is made, what each decides.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Longest text of a check: a path, a service's name, a line.
const MAX_TEXT: usize = 1_024;
/// Most words of a command.
const MAX_WORDS: usize = 64;

/// One question, asked by the agent: nothing is needed in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = HealthCheck))]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// GET this path; 2xx or 3xx is well.
    Http(String),
    /// The same over TLS; the certificate is not judged, since who answers is known.
    Https(String),
    /// A connection is enough.
    Tcp,
    /// The standard gRPC health service says `SERVING` of this service; empty: of the whole server.
    Grpc(String),
    /// This command in the container exits with 0.
    Exec(Vec<String>),
    /// A line of its log has this text; once is enough.
    Log(String),
}

impl Check {
    /// Whether it needs a port.
    pub const fn needs_port(&self) -> bool {
        matches!(
            self,
            Self::Http(_) | Self::Https(_) | Self::Tcp | Self::Grpc(_)
        )
    }

    /// Checks its text.
    ///
    /// # Errors
    /// Names the field when the text cannot be asked for.
    pub fn check(&self, field: &str) -> Result<(), Problem> {
        let bad = |text: &str, hint: &str| {
            Err(Problem::invalid(field, text.to_owned()).hint(hint.to_owned()))
        };
        match self {
            Self::Http(path) | Self::Https(path) => check_path(field, path),
            Self::Grpc(name) if name.len() > MAX_TEXT || name.chars().any(char::is_control) => bad(
                "not the name of a gRPC service",
                "for example shop.v1.Orders",
            ),
            Self::Exec(words) => check_command(field, words),
            Self::Log(text)
                if text.is_empty() || text.len() > MAX_TEXT || text.contains(['\n', '\0']) =>
            {
                bad(
                    "not a part of a line",
                    "for example \"ready to accept connections\"",
                )
            }
            Self::Tcp | Self::Grpc(_) | Self::Log(_) => Ok(()),
        }
    }
}

/// A path that can be asked for.
///
/// # Errors
/// Names the field when it is not absolute.
pub fn check_path(field: &str, path: &str) -> Result<(), Problem> {
    let is_odd = |c: char| c.is_control() || c == ' ';
    if path.starts_with('/') && path.len() <= MAX_TEXT && !path.chars().any(is_odd) {
        return Ok(());
    }
    Err(Problem::invalid(field, "not an absolute path").hint("for example /healthz"))
}

/// A command with its arguments.
///
/// # Errors
/// Names the field when there is none, or it is too long.
pub fn check_command(field: &str, words: &[String]) -> Result<(), Problem> {
    let is_empty = words.first().is_none_or(String::is_empty);
    let size: usize = words.iter().map(String::len).sum();
    if is_empty || words.len() > MAX_WORDS || size > 8 * MAX_TEXT {
        return Err(Problem::invalid(field, "not a command").hint(format!(
            "a list of 1 to {MAX_WORDS} words, for example [\"/app\", \"check\"]"
        )));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(Problem::invalid(field, "a word has a zero byte in it"));
    }
    Ok(())
}

/// A check with its own times, beside the one that decides on traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// On which port; none: the app's.
    #[serde(default)]
    pub port: Option<u16>,
    /// Pause between two, in ms.
    #[serde(default = "default_interval_ms")]
    pub interval_ms: u64,
    /// Longest wait for one answer, in ms.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// So many failures in a row count.
    #[serde(default = "default_failures")]
    pub failures: u32,
}

const fn default_interval_ms() -> u64 {
    10_000
}

const fn default_timeout_ms() -> u64 {
    5_000
}

const fn default_failures() -> u32 {
    3
}

impl Probe {
    /// Asks `check`, as often as probes do.
    pub const fn new(check: Check) -> Self {
        Self {
            check,
            port: None,
            interval_ms: default_interval_ms(),
            timeout_ms: default_timeout_ms(),
            failures: default_failures(),
        }
    }

    /// Checks every field; `has_port`: the app has a port of its own.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self, field: &str, has_port: bool) -> Result<(), Problem> {
        self.check.check(&format!("{field}.check"))?;
        check_port(field, &self.check, self.port, has_port)?;
        let ranges = [
            ("interval_ms", self.interval_ms, (100, 3_600_000)),
            ("timeout_ms", self.timeout_ms, (10, 600_000)),
            ("failures", self.failures.into(), (1, 1_000)),
        ];
        for (name, value, (low, high)) in ranges {
            if !(low..=high).contains(&value) {
                let text = format!("{value} is out of range");
                return Err(Problem::invalid(format!("{field}.{name}"), text)
                    .hint(format!("{low} to {high}")));
            }
        }
        Ok(())
    }
}

/// A check that needs a port has one.
///
/// # Errors
/// Names the field where there is none.
pub fn check_port(
    field: &str,
    check: &Check,
    port: Option<u16>,
    has_port: bool,
) -> Result<(), Problem> {
    let name = format!("{field}.port");
    if port == Some(0) {
        return Err(Problem::invalid(name, "0 is not a port").hint("1 to 65535"));
    }
    if check.needs_port() && port.is_none() && !has_port {
        return Err(Problem::invalid(name, "a worker has no port of its own")
            .hint("say which port to ask, or use a check by `exec` or `log`"));
    }
    Ok(())
}

/// How the agent finds out that an allocation may get traffic, and that it had better begin anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// GET this path and want 2xx or 3xx: short for a `check` of `http`.
    pub path: Option<String>,
    /// What decides on traffic; none: `path`, else a connection to the port, else that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// On which port; none: the app's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Pause between checks once healthy, in ms.
    pub interval_ms: u64,
    /// Longest wait for one answer, in ms.
    pub timeout_ms: u64,
    /// How long a new allocation may take to become healthy, in ms.
    pub deadline_ms: u64,
    /// Failed checks in a row that make a healthy allocation unhealthy.
    pub failures: u32,
    /// Has to succeed once, within the deadline, before the others begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Failures in a row of this one restart the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            check: None,
            port: None,
            interval_ms: 2_000,
            timeout_ms: 2_000,
            deadline_ms: 60_000,
            failures: 3,
            startup: None,
            liveness: None,
        }
    }
}

impl Health {
    /// What decides on traffic, of an app that has a port or has none; none: that it runs.
    pub fn readiness(&self, has_port: bool) -> Option<Check> {
        let short = || self.path.clone().map(Check::Http);
        let given = self.check.clone().or_else(short);
        match given {
            Some(check) => {
                (!check.needs_port() || has_port || self.port.is_some()).then_some(check)
            }
            None => has_port.then_some(Check::Tcp),
        }
    }

    /// Checks every field; `has_port`: the app has a port of its own.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self, has_port: bool) -> Result<(), Problem> {
        if let Some(path) = &self.path {
            check_path("health.path", path)?;
        }
        if self.path.is_some() && self.check.is_some() {
            return Err(
                Problem::invalid("health.check", "there is a `path` as well")
                    .hint("`path` is short for check = { http = ... }: leave one out"),
            );
        }
        if let Some(check) = &self.check {
            check.check("health.check")?;
            check_port("health", check, self.port, has_port)?;
        }
        let ranges = [
            ("interval_ms", self.interval_ms, (100, 3_600_000)),
            ("timeout_ms", self.timeout_ms, (10, 60_000)),
            ("deadline_ms", self.deadline_ms, (1_000, 3_600_000)),
            ("failures", self.failures.into(), (1, 100)),
        ];
        for (name, value, (low, high)) in ranges {
            if !(low..=high).contains(&value) {
                let text = format!("{value} is out of range");
                return Err(Problem::invalid(format!("health.{name}"), text)
                    .hint(format!("{low} to {high}")));
            }
        }
        if let Some(probe) = &self.startup {
            probe.check("health.startup", has_port)?;
        }
        match &self.liveness {
            Some(probe) if matches!(probe.check, Check::Log(_)) => Err(Problem::invalid(
                "health.liveness.check",
                "a line that was written stays written",
            )
            .hint("ask by `http`, `tcp`, `grpc` or `exec`")),
            Some(probe) => probe.check("health.liveness", has_port),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_written_by_their_kind() {
        let read = |text: &str| serde_json::from_str::<Check>(text).expect("a check");
        assert_eq!(read(r#""tcp""#), Check::Tcp);
        assert_eq!(read(r#"{"http": "/up"}"#), Check::Http("/up".into()));
        assert_eq!(
            read(r#"{"exec": ["/bin/check", "-q"]}"#),
            Check::Exec(vec!["/bin/check".into(), "-q".into()])
        );
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let bad = [
            Check::Http("up".into()),
            Check::Https("/a b".into()),
            Check::Exec(Vec::new()),
            Check::Log(String::new()),
            Check::Log("two\nlines".into()),
        ];
        for check in bad {
            let problem = check.check("health.check").expect_err("refused");
            assert_eq!(problem.field.as_deref(), Some("health.check"), "{check:?}");
        }
        let probe = Probe::new(Check::Tcp);
        assert!(probe.check("health.liveness", true).is_ok());
        let problem = probe.check("health.liveness", false).expect_err("no port");
        assert_eq!(problem.field.as_deref(), Some("health.liveness.port"));
        assert!(
            Probe::new(Check::Log("up".into()))
                .check("x", false)
                .is_ok()
        );
    }
}
