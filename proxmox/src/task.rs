//! How a task ends, and how long it is waited for: pure. [`crate::Client::wait`] does the waiting.

use std::time::Duration;

use crate::calls::tasks::Status;
use crate::error::{Error, Kind};
use crate::upid::Upid;

/// A task that has done what it was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Warnings that its log has; it is done all the same.
    pub warnings: u32,
}

/// How a task is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Before the second look; doubles.
    pub first: Duration,
    /// The longest between two looks.
    pub most: Duration,
    /// For all of it. A task that takes longer goes on.
    pub deadline: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            most: Duration::from_secs(2),
            deadline: Duration::from_secs(15 * 60),
        }
    }
}

impl Patience {
    /// With a deadline of its own.
    pub fn of(deadline: Duration) -> Self {
        Self {
            deadline,
            ..Self::default()
        }
    }
}

/// What a status says; none: it runs.
///
/// # Errors
/// It has failed: its text is told apart as an answer's is.
pub(crate) fn judge(upid: &Upid, status: &Status) -> Result<Option<Outcome>, Error> {
    if status.status != "stopped" {
        return Ok(None);
    }
    let exit = status.exitstatus.as_deref().unwrap_or_default();
    let warnings = exit.strip_prefix("WARNINGS: ");
    match (exit, warnings.and_then(|count| count.parse().ok())) {
        ("OK", _) => Ok(Some(Outcome { warnings: 0 })),
        (_, Some(warnings)) => Ok(Some(Outcome { warnings })),
        // The process that did it is gone, and nobody wrote down how it ended.
        ("", None) | ("unexpected status", None) => Err(Error {
            asked: Some(asked(upid)),
            ..Error::new(Kind::OutcomeUnknown, "the task has ended, and says not how")
        }),
        (text, None) => Err(Error {
            asked: Some(asked(upid)),
            ..Error::said(text)
        }),
    }
}

/// For errors: `task qmclone 9101 on pve`.
pub(crate) fn asked(upid: &Upid) -> String {
    format!("task {} {} on {}", upid.kind(), upid.about(), upid.host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: &str, exit: Option<&str>) -> Result<Option<Outcome>, Kind> {
        let upid: Upid = "UPID:pve:1:2:3:qmclone:9101:root@pam:"
            .parse()
            .expect("one");
        let status = Status {
            status: status.to_owned(),
            exitstatus: exit.map(str::to_owned),
            ..Status::default()
        };
        judge(&upid, &status).map_err(|error| error.kind)
    }

    #[test]
    fn only_ok_and_warnings_are_success() {
        let done = |warnings| Ok(Some(Outcome { warnings }));
        assert_eq!(judged("running", None), Ok(None));
        assert_eq!(judged("stopped", Some("OK")), done(0));
        assert_eq!(judged("stopped", Some("WARNINGS: 3")), done(3));
        for (exit, kind) in [
            (Some("VM 9101 already exists on node 'pve'"), Kind::Exists),
            (
                Some("VM is locked (clone)"),
                Kind::Locked("clone".to_owned()),
            ),
            (Some("interrupted by signal"), Kind::Refused),
            (Some("unexpected status"), Kind::OutcomeUnknown),
            (None, Kind::OutcomeUnknown),
        ] {
            assert_eq!(judged("stopped", exit), Err(kind), "{exit:?}");
        }
    }
}
