//! What the audit trail says of shells: one entry when one begins, one when it ends, and one of each
//! that was refused. Never what passed through.

use std::time::{Duration, Instant};

use axum::http::Uri;
use parking_lot::Mutex;
use skep_model::id::AllocationId;
use skep_model::problem::Problem;
use skep_model::shell::Wish;

use super::super::access::{Action, Principal};
use super::super::{App, error};
use super::bridge::Ending;
use crate::history::{AuditEntry, History};
use crate::store::now_ms;

/// Outcome of an entry of a shell that begins: the HTTP status.
const BEGUN: &str = "101";
/// Refusals that are audited a minute: whoever hammers at the door must not fill the trail.
const REFUSALS_PER_MINUTE: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// The entries of one shell.
pub(super) struct Trail {
    history: History,
    principal: Principal,
    action: Action,
    resource: String,
    begun: Instant,
    /// Begun and not ended: then its end is told in any case.
    is_open: bool,
}

impl Trail {
    /// Of a shell that is about to be opened.
    pub(super) fn new(
        app: &App,
        (principal, action, uri): (Principal, Action, Uri),
        (allocation, node, wish): (AllocationId, &str, &Wish),
    ) -> Self {
        let path = uri.path();
        let path = path.strip_prefix("/v1/").unwrap_or(path);
        let asked = wish.describe();
        let separator = if asked.is_empty() { "" } else { ": " };
        Self {
            history: app.history.clone(),
            principal,
            action,
            resource: format!("{path} in {allocation} on {node}{separator}{asked}"),
            begun: Instant::now(),
            is_open: false,
        }
    }

    /// It was not opened.
    pub(super) fn refused(self, problem: &Problem) {
        self.write(error::status(problem.code).as_u16().to_string());
    }

    /// It begins.
    pub(super) fn begin(mut self) -> Self {
        self.is_open = true;
        self.write(BEGUN.to_owned());
        self
    }

    /// It has ended.
    pub(super) fn end(mut self, ending: &Ending) {
        self.is_open = false;
        let seconds = self.begun.elapsed().as_secs();
        self.write(format!("{ending}, after {seconds} s"));
    }

    fn write(&self, outcome: String) {
        self.history.audit(AuditEntry {
            at_ms: now_ms(),
            principal: self.principal.as_str().to_owned(),
            action: self.action.as_str().to_owned(),
            resource: self.resource.clone(),
            outcome,
        });
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if self.is_open {
            self.write("the caller went away before it began".to_owned());
        }
    }
}

/// Callers who were refused before anything was looked at: without a good token, or not allowed.
pub(in crate::api) struct Refusals {
    /// Since when is counted, and how many there were.
    counted: Mutex<(Instant, u32)>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            counted: Mutex::new((Instant::now(), 0)),
        }
    }
}

impl Refusals {
    /// Writes that somebody was refused a shell; `who` is not known where the token was no good one.
    pub(in crate::api) fn note(
        &self,
        history: &History,
        who: Option<Principal>,
        (action, resource): (Action, &str),
        problem: &Problem,
    ) {
        if !self.has_room(Instant::now()) {
            return;
        }
        history.audit(AuditEntry {
            at_ms: now_ms(),
            principal: who.map_or("nobody", Principal::as_str).to_owned(),
            action: action.as_str().to_owned(),
            resource: resource.to_owned(),
            outcome: error::status(problem.code).as_u16().to_string(),
        });
    }

    fn has_room(&self, now: Instant) -> bool {
        let mut counted = self.counted.lock();
        if now.duration_since(counted.0) >= MINUTE {
            *counted = (now, 0);
        }
        counted.1 += 1;
        counted.1 <= REFUSALS_PER_MINUTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_refusals_a_minute_and_no_more() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        let admitted = |at| (0..100).filter(|_| refusals.has_room(at)).count();
        assert_eq!(admitted(begin), REFUSALS_PER_MINUTE as usize);
        assert_eq!(admitted(begin + MINUTE / 2), 0);
        assert_eq!(admitted(begin + MINUTE * 2), REFUSALS_PER_MINUTE as usize);
    }
}
