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
    stage: Option<Stage>,
}

/// How far a guest is, as far as others write that down: phase, since when it becomes a copy, how it is resized and when
/// that was asked for.
type Stage = (Phase, Option<u64>, Option<(bool, u64)>);

fn stage(one: &PoolGuest) -> Stage {
    let guest = &one.guest;
    let resizing = guest.resizing.as_ref();
    (
        guest.phase,
        guest.restoring.as_ref().map(|it| it.asked_ms),
        resizing.map(|it| (it.stops, it.asked_ms)),
    )
}

impl Pace {
    /// When it is looked at next.
    pub(super) fn due_at(&mut self, one: &PoolGuest, now: Instant) -> Instant {
        // What was written down by others is looked at once.
        let stage = stage(one);
        if self.stage != Some(stage) {
            self.stage = Some(stage);
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

#[cfg(test)]
mod tests {
    use skep_model::id::GuestId;
    use skep_model::pool::Guest;

    use super::*;

    fn one(phase: Phase) -> PoolGuest {
        let mut guest = Guest::planned(GuestId::from_u128(1));
        guest.phase = phase;
        PoolGuest {
            pool: "web".into(),
            guest,
            edition: 1,
            token: None,
            node: None,
            is_retiring: false,
            planned_ms: 0,
            drain_deadline_ms: None,
        }
    }

    #[tokio::test]
    async fn a_provider_that_refuses_is_asked_ever_less_until_something_is_got_on_with() {
        let now = Instant::now();
        let (mut pace, one) = (Pace::default(), one(Phase::Cloning));
        assert_eq!(pace.due_at(&one, now), now);
        let pause = |pace: &mut Pace| {
            pace.take(&Outcome::Failed, now);
            (pace.due_at(&one, now) - now).as_secs()
        };
        let pauses: Vec<u64> = (0..8).map(|_| pause(&mut pace)).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 120, 120]);
        pace.take(&Outcome::GotOn, now);
        assert_eq!(pace.due_at(&one, now), now);
        assert_eq!(pause(&mut pace), 2);
    }

    #[tokio::test]
    async fn what_others_write_down_is_looked_at_at_once() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.due_at(&one(Phase::Ready), now);
        pace.take(&Outcome::Done, now);
        assert_eq!(pace.due_at(&one(Phase::Ready), now), now + QUIET);
        assert_eq!(pace.due_at(&one(Phase::Leaving), now), now);

        let mut pace = Pace::default();
        pace.due_at(&one(Phase::Ready), now);
        pace.take(&Outcome::Done, now);
        let mut copied = one(Phase::Ready);
        copied.guest.restoring = Some(skep_model::pool::Restoring {
            archive: String::new(),
            asked_ms: 0,
            is_back: false,
        });
        assert_eq!(pace.due_at(&copied, now), now);
        // Another one is named in its place.
        pace.take(&Outcome::Failed, now);
        assert!(pace.due_at(&copied, now) > now);
        copied.guest.restoring.as_mut().expect("said").asked_ms = 1_000;
        assert_eq!(pace.due_at(&copied, now), now);
    }

    #[tokio::test]
    async fn a_long_wait_is_told_once_in_a_while() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.due_at(&one(Phase::Starting), now);
        let later = |seconds: u64| now + Duration::from_secs(seconds);
        let mut told = Vec::new();
        for second in 0..60 {
            pace.take(&Outcome::Waits, later(second));
            if pace.is_told(later(second)) {
                told.push(second);
            }
        }
        assert_eq!(told, [20, 40]);
        pace.take(&Outcome::GotOn, later(60));
        assert!(!pace.is_told(later(60)));
    }
}
