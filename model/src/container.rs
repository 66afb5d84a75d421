//! What a container may do beside what it asks of the node: user, capabilities, limits, kernel settings.
//! Owns which of them are accepted; how Docker is told is the agent's part.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Capabilities that a container has where nothing else is said: what images need that begin as root
/// and then give it up. Of Docker's own default, those are left out that mostly attackers use.
pub const KEPT_CAPABILITIES: [&str; 8] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];
/// Capabilities that may be added: they reach no further than the container's own namespaces.
const ADDED_CAPABILITIES: [&str; 10] = [
    "AUDIT_WRITE",
    "IPC_LOCK",
    "MKNOD",
    "NET_ADMIN",
    "NET_RAW",
    "SETFCAP",
    "SETPCAP",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
];
/// Kernel settings of a container's own namespaces; with a dot at the end all that begin so.
const SYSCTLS: [&str; 21] = [
    "fs.mqueue.",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
/// Limits of the kernel for each process, as `ulimit` and Docker name them.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
/// Signals that may ask an app to end.
const STOP_SIGNALS: [&str; 8] = [
    "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL",
];
/// Most processes and threads where nothing else is said: a fork bomb ends here.
pub const DEFAULT_PIDS: u32 = 4_096;
/// Most of them that may be asked for.
const MAX_PIDS: u32 = 1 << 20;
/// Most entries of each list.
const MAX_ENTRIES: usize = 32;
/// Largest size of a tmpfs, of shared memory, of swap.
const MAX_SIZE: u64 = 1 << 50;

/// A soft and a hard limit, written `1024` (both) or `1024:4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GivenUlimit", into = "String")]
pub struct Ulimit {
    /// What a process begins with.
    pub soft: u64,
    /// Up to which it may raise that itself.
    pub hard: u64,
}

/// A number is easily written without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum GivenUlimit {
    Number(u64),
    Text(String),
}

impl TryFrom<GivenUlimit> for Ulimit {
    type Error = String;

    fn try_from(given: GivenUlimit) -> Result<Self, String> {
        let text = match given {
            GivenUlimit::Number(both) => {
                return Ok(Self {
                    soft: both,
                    hard: both,
                });
            }
            GivenUlimit::Text(text) => text,
        };
        let (soft, hard) = text.split_once(':').unwrap_or((&text, &text));
        let read = |text: &str| text.trim().parse::<u64>().ok();
        match (read(soft), read(hard)) {
            (Some(soft), Some(hard)) if soft <= hard => Ok(Self { soft, hard }),
            _ => Err(format!(
                "`{}` is no limit: a number like 1024, or soft:hard like 1024:4096",
                text.escape_debug()
            )),
        }
    }
}

impl From<Ulimit> for String {
    fn from(limit: Ulimit) -> Self {
        limit.to_string()
    }
}

impl std::str::FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        GivenUlimit::Text(text.to_owned()).try_into()
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.soft == self.hard {
            true => write!(to, "{}", self.soft),
            false => write!(to, "{}:{}", self.soft, self.hard),
        }
    }
}

/// How a service's containers are confined. No process in one ever gains privileges that it did not
/// begin with, whatever is said here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Container {
    /// `user`, `uid`, `user:group` or `uid:gid`; none: the image's own.
    pub user: Option<String>,
    /// The root filesystem cannot be written to; `tmpfs` and volumes can.
    pub read_only: bool,
    /// Capabilities beside those that every container has.
    pub cap_add: BTreeSet<String>,
    /// Capabilities that it does not have; `ALL`: none but those added.
    pub cap_drop: BTreeSet<String>,
    /// Most processes and threads at a time.
    pub pids: u32,
    /// Swap beyond the memory limit, in bytes; 0: none.
    pub swap_bytes: u64,
    /// Limits of each process, by name.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Folders in memory, with their sizes in bytes; what is in them counts as memory.
    pub tmpfs: BTreeMap<String, u64>,
    /// Size of `/dev/shm` in bytes; 0: Docker's own, 64 MiB.
    pub shm_bytes: u64,
    /// Kernel settings of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// A small init runs as its first process: passes signals on and reaps.
    pub init: bool,
    /// What asks it to end; none: the image's own, else SIGTERM.
    pub stop_signal: Option<String>,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            user: None,
            read_only: false,
            cap_add: BTreeSet::new(),
            cap_drop: BTreeSet::new(),
            pids: DEFAULT_PIDS,
            swap_bytes: 0,
            ulimits: BTreeMap::new(),
            tmpfs: BTreeMap::new(),
            shm_bytes: 0,
            sysctls: BTreeMap::new(),
            init: true,
            stop_signal: None,
        }
    }
}

impl Container {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        if let Some(user) = &self.user {
            check_user(user)?;
        }
        self.check_capabilities()?;
        if !(1..=MAX_PIDS).contains(&self.pids) {
            let text = format!("{} is out of range", self.pids);
            return Err(Problem::invalid("container.pids", text).hint(format!("1 to {MAX_PIDS}")));
        }
        for (field, size) in [
            ("swap_bytes", self.swap_bytes),
            ("shm_bytes", self.shm_bytes),
        ] {
            check_size(&format!("container.{field}"), size)?;
        }
        for (field, count) in [
            ("ulimits", self.ulimits.len()),
            ("tmpfs", self.tmpfs.len()),
            ("sysctls", self.sysctls.len()),
        ] {
            if count > MAX_ENTRIES {
                let text = format!("{count} are more than {MAX_ENTRIES}");
                return Err(Problem::invalid(format!("container.{field}"), text));
            }
        }
        for name in self.ulimits.keys() {
            one_of("container.ulimits", name, &ULIMITS)?;
        }
        for (path, size) in &self.tmpfs {
            check_mount("container.tmpfs", path)?;
            if *size == 0 {
                let text = format!("`{path}` has no size");
                return Err(Problem::invalid("container.tmpfs", text)
                    .hint("for example \"64MiB\": what is in it counts as the app's memory"));
            }
            check_size("container.tmpfs", *size)?;
        }
        for (name, value) in &self.sysctls {
            check_sysctl(name, value)?;
        }
        if let Some(signal) = &self.stop_signal {
            one_of("container.stop_signal", signal, &STOP_SIGNALS)?;
        }
        Ok(())
    }

    fn check_capabilities(&self) -> Result<(), Problem> {
        for name in &self.cap_add {
            let is_known = KEPT_CAPABILITIES.contains(&&**name);
            if is_known || ADDED_CAPABILITIES.contains(&&**name) {
                continue;
            }
            let text = format!("`{}` cannot be added", name.escape_debug());
            let accepted = ADDED_CAPABILITIES.join(", ");
            return Err(Problem::invalid("container.cap_add", text).hint(format!(
                "one of {accepted}; others would reach the node itself"
            )));
        }
        for name in self.cap_drop.iter().filter(|name| *name != "ALL") {
            one_of("container.cap_drop", name, &KEPT_CAPABILITIES)?;
        }
        Ok(())
    }

    /// Exactly the capabilities that its processes may have.
    pub fn capabilities(&self) -> BTreeSet<&str> {
        let drops = |name: &str| self.cap_drop.contains("ALL") || self.cap_drop.contains(name);
        let kept = KEPT_CAPABILITIES.into_iter().filter(|name| !drops(name));
        kept.chain(self.cap_add.iter().map(String::as_str))
            .collect()
    }
}

fn one_of(field: &str, text: &str, all: &[&str]) -> Result<(), Problem> {
    if all.contains(&text) {
        return Ok(());
    }
    let text = format!("`{}` is not accepted", text.escape_debug());
    Err(Problem::invalid(field, text).hint(format!("one of {}", all.join(", "))))
}

fn check_size(field: &str, size: u64) -> Result<(), Problem> {
    if size <= MAX_SIZE {
        return Ok(());
    }
    Err(
        Problem::invalid(field, format!("{size} bytes are out of range"))
            .hint(format!("at most {MAX_SIZE}")),
    )
}

fn check_user(user: &str) -> Result<(), Problem> {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.len() <= 64
            && !part.starts_with('-')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let (name, group) = user.split_once(':').unwrap_or((user, "0"));
    if is_part(name) && is_part(group) {
        return Ok(());
    }
    let text = format!("`{}` is not accepted", user.escape_debug());
    Err(Problem::invalid("container.user", text).hint("for example 1000, 1000:1000 or www-data"))
}

/// A place inside a container where something may be mounted.
///
/// # Errors
/// Names the field when the path is not absolute and plain, or would hide what the container needs.
pub fn check_mount(field: &str, path: &str) -> Result<(), Problem> {
    let is_plain = path.starts_with('/')
        && path.len() > 1
        && path.len() <= 512
        && !path.ends_with('/')
        && !path.contains(':')
        && !path.chars().any(char::is_control)
        && path[1..]
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."));
    let own = ["/proc", "/sys", "/dev"];
    let is_own = |top: &&&str| path == **top || path.starts_with(&format!("{top}/"));
    if let Some(top) = own.iter().find(is_own) {
        let text = format!("`{}` is inside {top}", path.escape_debug());
        return Err(Problem::invalid(field, text)
            .hint("that is the kernel's; shared memory is `container.shm`"));
    }
    if is_plain {
        return Ok(());
    }
    let text = format!("`{}` is not accepted", path.escape_debug());
    Err(Problem::invalid(field, text)
        .hint("an absolute path other than /, without `.`, `..`, `:` and a slash at its end"))
}

fn check_sysctl(name: &str, value: &str) -> Result<(), Problem> {
    let is_listed = SYSCTLS.iter().any(|listed| match listed.ends_with('.') {
        true => name.starts_with(listed) && name.len() > listed.len(),
        false => name == *listed,
    });
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b"-_. \t".contains(&b);
    if !is_listed || !name.bytes().all(is_word) {
        let text = format!("`{}` cannot be set", name.escape_debug());
        let hint = format!(
            "one of {}; others belong to the whole node",
            SYSCTLS.join(", ")
        );
        return Err(Problem::invalid("container.sysctls", text).hint(hint));
    }
    if value.is_empty() || value.len() > 128 || !value.bytes().all(is_word) {
        let text = format!("`{}` is no value of {name}", value.escape_debug());
        return Err(
            Problem::invalid("container.sysctls", text).hint("numbers, as sysctl shows them")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Container)) -> String {
        let mut container = Container::default();
        change(&mut container);
        let problem = container.check().expect_err("refused");
        problem.field.expect("a field")
    }

    #[test]
    fn what_would_reach_the_node_is_refused() {
        assert_eq!(Container::default().check(), Ok(()));
        for name in ["SYS_ADMIN", "SYS_MODULE", "ALL", "net_raw", "CAP_CHOWN"] {
            let field = refused(|it| it.cap_add = [name.to_owned()].into());
            assert_eq!(field, "container.cap_add", "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.mqueue.",
            "net.ipv4.ip_forward",
        ] {
            let field = refused(|it| it.sysctls = [(name.to_owned(), "1".to_owned())].into());
            assert_eq!(field, "container.sysctls", "{name}");
        }
        for path in [
            "/", "tmp", "/proc/x", "/dev", "/a/../b", "/a//b", "/a/", "/a:b",
        ] {
            let field = refused(|it| it.tmpfs = [(path.to_owned(), 1 << 20)].into());
            assert_eq!(field, "container.tmpfs", "{path}");
        }
        assert_eq!(
            refused(|it| it.user = Some("-x".to_owned())),
            "container.user"
        );
        assert_eq!(refused(|it| it.pids = 0), "container.pids");
        assert_eq!(
            refused(|it| it.stop_signal = Some("TERM".to_owned())),
            "container.stop_signal"
        );
    }

    #[test]
    fn capabilities_are_what_is_kept_less_what_is_dropped_and_what_is_added() {
        let mut container = Container::default();
        assert_eq!(container.capabilities().len(), KEPT_CAPABILITIES.len());
        container.cap_drop = ["CHOWN".to_owned()].into();
        assert!(!container.capabilities().contains("CHOWN"));
        container.cap_drop = ["ALL".to_owned()].into();
        container.cap_add = ["NET_RAW".to_owned()].into();
        assert_eq!(container.check(), Ok(()));
        assert_eq!(container.capabilities(), ["NET_RAW"].into());
    }

    #[test]
    fn ulimits_are_written_as_numbers_or_pairs() {
        let read = |text: &str| serde_json::from_str::<Ulimit>(text).map_err(|e| e.to_string());
        assert_eq!(read("64"), Ok(Ulimit { soft: 64, hard: 64 }));
        let pair = read(r#""10:20""#).expect("a pair");
        assert_eq!(
            (pair.soft, pair.hard, pair.to_string()),
            (10, 20, "10:20".into())
        );
        assert!(
            read(r#""20:10""#)
                .expect_err("the wrong way round")
                .contains("soft:hard")
        );
    }
}
