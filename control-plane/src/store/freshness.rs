//! How old the state here may be, for those who read it as it is. Durations by the own monotonic clock:
//! servers need not agree on the time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::consensus::Group;

/// For as long a server that was just cut off cannot know it: the longest election timeout.
pub const UNAWARE: Duration = Duration::from_secs(1);

/// What was last known to be newest, and when.
#[derive(Debug)]
struct Seen {
    /// Nobody else could have written meanwhile: a group of one.
    is_alone: bool,
    /// All that a known leader had committed was applied when last looked at, and that holds until the
    /// next look.
    is_current: bool,
    /// When that was last so.
    at: Instant,
    /// While behind: what was committed at some time, and that time.
    goal: Option<(Instant, u64)>,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self {
            is_alone: false,
            is_current: false,
            at: now,
            goal: None,
        }
    }

    fn observe(&mut self, now: Instant, group: &Group) {
        let has_leader = group.leader.is_some();
        if self.is_current {
            self.at = now;
        }
        self.is_alone = group.is_leader && group.members.voters.len() == 1;
        self.is_current = has_leader && group.applied >= group.commit;
        if self.is_current {
            self.at = now;
        }
        if self.is_current || !has_leader {
            self.goal = None;
            return;
        }
        match self.goal {
            Some((at, commit)) if group.applied >= commit => {
                self.at = at;
                self.goal = Some((now, group.commit));
            }
            Some(_) => {}
            None => self.goal = Some((now, group.commit)),
        }
    }

    fn age(&self, now: Instant) -> Duration {
        if self.is_alone {
            return Duration::ZERO;
        }
        if self.is_current {
            return UNAWARE;
        }
        UNAWARE + now.saturating_duration_since(self.at)
    }
}

/// Follows the group; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Freshness {
    seen: Arc<Mutex<Seen>>,
}

impl Freshness {
    /// Follows until the consensus service and its handles are gone. Within a tokio runtime.
    pub(super) fn follow(mut group: watch::Receiver<Group>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::new(Instant::now())));
        let weak = Arc::downgrade(&seen);
        seen.lock()
            .observe(Instant::now(), &group.borrow_and_update());
        tokio::spawn(async move {
            while group.changed().await.is_ok() {
                let Some(seen) = weak.upgrade() else { return };
                let now = Instant::now();
                seen.lock().observe(now, &group.borrow_and_update());
            }
        });
        Self { seen }
    }

    /// At most this old is what the state here shows.
    pub(super) fn age(&self) -> Duration {
        self.seen.lock().age(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(leader: Option<u64>, applied: u64, commit: u64) -> Group {
        let mut group = Group {
            leader,
            applied,
            commit,
            ..Group::default()
        };
        group.members.voters = vec![1, 2, 3];
        group
    }

    #[test]
    fn age_counts_from_when_all_that_was_committed_was_here() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let age = |seen: &Seen, s| seen.age(at(s)).saturating_sub(UNAWARE).as_secs();
        let mut seen = Seen::new(start);
        seen.observe(at(1), &group(Some(2), 10, 10));
        assert_eq!(
            age(&seen, 50),
            0,
            "a leader is known and nothing is missing"
        );
        seen.observe(at(50), &group(Some(2), 10, 20));
        assert_eq!(age(&seen, 53), 3, "behind since 50");
        seen.observe(at(53), &group(Some(2), 15, 30));
        assert_eq!(age(&seen, 53), 3);
        seen.observe(at(54), &group(Some(2), 20, 40));
        assert_eq!(age(&seen, 54), 4, "all of second 50 is here");
        seen.observe(at(55), &group(Some(2), 39, 50));
        seen.observe(at(56), &group(Some(2), 40, 50));
        assert_eq!(age(&seen, 56), 2, "all of second 54 is here");
        seen.observe(at(60), &group(Some(2), 50, 50));
        seen.observe(at(70), &group(None, 50, 50));
        assert_eq!(age(&seen, 75), 5, "no leader since 70");
    }

    #[test]
    fn alone_nothing_is_old() {
        let mut alone = group(Some(1), 9, 10);
        alone.members.voters = vec![1];
        alone.is_leader = true;
        let mut seen = Seen::new(Instant::now());
        seen.observe(Instant::now(), &alone);
        assert_eq!(seen.age(Instant::now()), Duration::ZERO);
    }
}
