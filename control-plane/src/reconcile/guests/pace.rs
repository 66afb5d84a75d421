//! When a guest is looked at next. Owns the waits between looks; asks nobody.

use std::time::Duration;

use skep_model::guest_pool::PoolGuest;
use skep_model::pool::Phase;
use tokio::time::Instant;

use super::drive::Outcome;

/// Between two looks at what waits for something outside: a task, an address, somebody who joins.
const WAIT: Duration = Duration::from_secs(2);
/// Between two looks at a guest that is as it should be: whether somebody has removed it.
const QUIET: Duration = Duration::from_secs(60);
/// After the first failure; doubled with each, up to [`LONGEST`]. A cluster that is full, or away, is not stormed.
const FIRST: Duration = Duration::from_secs(2);
/// After many failures.
const LONGEST: Duration = Duration::from_secs(120);
/// Waits that are longer than this are told where people look.
const TOLD_AFTER: Duration = Duration::from_secs(20);

/// The pace of one guest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    due_at: Option<Instant>,
    failures: u32,
    /// Since when it waits for one thing or another without getting on.
    waits_since: Option<Instant>,
    told_at: Option<Instant>,
    phase: Option<Phase>,
}

impl Pace {
    /// When it is looked at next.
    pub(super) fn due_at(&mut self, one: &PoolGuest, now: Instant) -> Instant {
        // What was written down by others is looked at once.
        if self.phase != Some(one.guest.phase) {
            self.phase = Some(one.guest.phase);
            self.waits_since = None;
            self.due_at = None;
        }
        self.due_at.unwrap_or(now)
    }

    /// A step has ended.
    pub(super) fn take(&mut self, outcome: &Outcome, now: Instant) {
        let pause = match outcome {
            Outcome::GotOn => {
                (self.failures, self.waits_since) = (0, None);
                Duration::ZERO
            }
            Outcome::Waits => {
                self.waits_since.get_or_insert(now);
                self.failures = 0;
                WAIT
            }
            Outcome::Done => QUIET,
            Outcome::Failed => {
                self.waits_since.get_or_insert(now);
                let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
                self.failures = self.failures.saturating_add(1);
                pause.min(LONGEST)
            }
        };
        self.due_at = Some(now + pause);
    }

    /// Whether it has waited for so long that people should know why. Said once in a while: the reason may change with each
    /// look, and is written down each time.
    pub(super) fn is_told(&mut self, now: Instant) -> bool {
        let passed = |since: Option<Instant>| {
            since.is_some_and(|at| now.saturating_duration_since(at) >= TOLD_AFTER)
        };
        let is_told = passed(self.waits_since) && self.told_at.is_none_or(|at| passed(Some(at)));
        if is_told {
            self.told_at = Some(now);
        }
        is_told
    }
}
