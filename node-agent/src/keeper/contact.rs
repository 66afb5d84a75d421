//! How long no server has been in reach, by the monotonic clock, and what has to stop for it.

use std::time::Duration;

use skep_model::assignment::Assignment;
use skep_model::id::AllocationId;
use tokio::time::Instant;

use super::Keeper;

/// An agent that starts does not know how long it was away: it gives servers no longer than this before
/// it stops what may not run without them.
const AFTER_START: Duration = Duration::from_secs(10);

/// Since when no server has been in reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contact {
    since: Option<Instant>,
    is_first: bool,
}

impl Contact {
    /// Of an agent that starts.
    pub(super) fn none_yet(now: Instant) -> Self {
        Self {
            since: Some(now),
            is_first: true,
        }
    }

    /// Whether a server is in reach that has said what is to run here.
    pub(super) fn is_there(&self) -> bool {
        self.since.is_none()
    }

    /// When an assignment has to stop, as things are; none: it may run on.
    pub(super) fn stops_at(&self, assignment: &Assignment) -> Option<Instant> {
        let allowed = Duration::from_millis(assignment.stop_after_ms?);
        let allowed = match self.is_first {
            true => allowed.min(AFTER_START),
            false => allowed,
        };
        self.since?.checked_add(allowed)
    }

    /// Whether it had to by now.
    pub(super) fn is_cut_off(&self, assignment: &Assignment, now: Instant) -> bool {
        self.stops_at(assignment).is_some_and(|at| now >= at)
    }

    /// A server is in reach, or is not any more; whether that is news.
    fn change(&mut self, is_there: bool, now: Instant) -> bool {
        if is_there == self.since.is_none() {
            return false;
        }
        self.since = (!is_there).then_some(now);
        self.is_first = false;
        true
    }
}

impl Keeper {
    /// A server has said what is to run here, or the session with it is over.
    pub(super) async fn take_contact(&mut self, is_there: bool) {
        if !self.contact.change(is_there, Instant::now()) {
            return;
        }
        let concerned = self.assignments.values().chain(self.quarantine.values());
        let concerned: Vec<AllocationId> = concerned
            .filter(|assignment| assignment.stop_after_ms.is_some())
            .map(|assignment| assignment.allocation)
            .collect();
        for id in concerned {
            self.touch(id).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assignment;

    #[test]
    fn time_counts_from_the_last_word_and_is_short_after_a_start() {
        let keeps = assignment(1);
        let mut stops = assignment(2);
        stops.stop_after_ms = Some(30_000);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut contact = Contact::none_yet(start);
        assert!(!contact.is_cut_off(&stops, at(9_999)));
        assert!(contact.is_cut_off(&stops, at(10_000)));
        assert!(!contact.is_cut_off(&keeps, at(10_000)));
        assert!(contact.change(true, at(20_000)) && !contact.change(true, at(30_000)));
        assert!(!contact.is_cut_off(&stops, at(3_600_000)));
        assert!(contact.change(false, at(3_600_000)));
        // Said again it is no later.
        assert!(!contact.change(false, at(3_610_000)));
        assert!(!contact.is_cut_off(&stops, at(3_629_999)));
        assert!(contact.is_cut_off(&stops, at(3_630_000)));
        assert!(!contact.is_cut_off(&keeps, at(3_630_000)));
    }
}
