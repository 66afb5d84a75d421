//! The name of the service that a smoke test makes says who made it and until when it may be at work: so the next
//! one knows what a killed one left behind, and leaves alone what another is busy with.

use std::collections::BTreeSet;
use std::os::linux::fs::MetadataExt as _;
use std::time::Duration;

use crate::output::time;

/// What begins the name of a service that goes with its smoke test.
const PASSING: &str = "run-";
/// What begins the name of one that was to stay.
const KEPT: &str = "kept-";
/// Clocks differ, and the removal takes its time, in seconds.
const SLACK_S: u64 = 300;

/// Who made a service, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Its smoke test has ended by then, in seconds since the epoch.
    until_s: u64,
    /// Where the numbers of processes mean something.
    space: u32,
    pid: u32,
}

/// This machine since it was started, as processes here see each other.
#[derive(Debug, Clone)]
pub(super) struct Here {
    now_s: u64,
    space: u32,
    pids: BTreeSet<u32>,
}

impl Here {
    /// Looks around.
    pub(super) fn look() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot
            .get(..8)
            .and_then(|it| u32::from_str_radix(it, 16).ok());
        let namespace = std::fs::metadata("/proc/self/ns/pid").map_or(0, |it| it.st_ino());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self {
            now_s: time::now_ms() / 1_000,
            // Both are 32 bits of their own.
            space: boot.unwrap_or(0) ^ (namespace as u32),
            pids: pids.collect(),
        }
    }
}

impl Mark {
    /// Of this process, for a smoke test that begins now.
    pub(super) fn new(here: &Here, timeout: Duration) -> Self {
        Self {
            until_s: here.now_s.saturating_add(timeout.as_secs()),
            space: here.space,
            pid: std::process::id(),
        }
    }

    /// The name of the service.
    pub(super) fn name(&self, is_kept: bool) -> String {
        let Self {
            until_s,
            space,
            pid,
        } = self;
        let prefix = if is_kept { KEPT } else { PASSING };
        format!("{prefix}{until_s:x}-{space:08x}-{pid:x}")
    }

    /// What a name says; none: it is not of a smoke test that would have removed it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PASSING)?.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (until_s, space, pid) = (number()?, number()?, number()?);
        let mark = Self {
            until_s,
            space: space.try_into().ok()?,
            pid: pid.try_into().ok()?,
        };
        parts.next().is_none().then_some(mark)
    }

    /// Whether nobody will come back for it.
    pub(super) fn is_left(&self, here: &Here) -> bool {
        let is_over = here.now_s > self.until_s.saturating_add(SLACK_S);
        let is_ours = self.space == here.space;
        is_over || (is_ours && !here.pids.contains(&self.pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn here() -> Here {
        Here {
            now_s: NOW,
            space: 7,
            pids: [1, 40].into(),
        }
    }

    #[test]
    fn what_is_left_behind_is_known_from_its_name() {
        let over = NOW - SLACK_S - 1;
        let cases = [
            ("its process runs", (NOW + 60, 7, 40), false),
            ("its process is gone", (NOW + 60, 7, 41), true),
            ("another machine's, in its time", (NOW + 60, 8, 41), false),
            (
                "another machine's, just late",
                (NOW - SLACK_S, 8, 41),
                false,
            ),
            ("another machine's, long over", (over, 8, 41), true),
            ("over, and a process has its number", (over, 7, 40), true),
        ];
        for (case, (until_s, space, pid), is_left) in cases {
            let mark = Mark {
                until_s,
                space,
                pid,
            };
            assert_eq!(Mark::parse(&mark.name(false)).as_ref(), Some(&mark));
            assert_eq!(mark.is_left(&here()), is_left, "{case}");
            assert_eq!(Mark::parse(&mark.name(true)), None, "it was to stay");
        }
    }

    #[test]
    fn other_names_are_other_peoples() {
        for name in [
            "web",
            "run-",
            "run-1-2",
            "run-1-2-3-4",
            "run-1-100000000-3",
            "run-x-2-3",
        ] {
            assert_eq!(Mark::parse(name), None, "{name}");
        }
    }

    #[test]
    fn this_process_is_seen_and_its_name_is_one() {
        let here = Here::look();
        let mark = Mark::new(&here, Duration::from_secs(86_400));
        assert!(!mark.is_left(&here));
        for is_kept in [false, true] {
            let longest = Mark {
                pid: 1 << 22,
                ..mark.clone()
            };
            skep_model::name::check("service", &longest.name(is_kept)).expect("a name");
        }
    }
}
