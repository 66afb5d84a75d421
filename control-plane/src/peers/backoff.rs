//! Pauses between attempts to reach a server: doubled from one to the next, up to a limit.

use std::time::Duration;

/// First pause: a server that restarts is back soon.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause: well below what an election takes to be worth waiting for.
const LONGEST: Duration = Duration::from_secs(2);

/// The next pause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// How long to pause now.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        pause
    }

    /// It was reached: the next failure is a new one.
    pub(super) fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_begin_again() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(), FIRST);
        assert_eq!(backoff.next(), 2 * FIRST);
        for _ in 0..10 {
            backoff.next();
        }
        assert_eq!(backoff.next(), LONGEST);
        backoff.reset();
        assert_eq!(backoff.next(), FIRST);
    }
}
