//! Pauses between attempts: doubling, capped, with jitter so that many agents do not return at
//! once.

use std::time::Duration;

/// The next pause, and the longest.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Begins with `first` and never exceeds `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            next: first,
            longest,
        }
    }

    /// The pause to make now: between half of the step and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        let draw = u32::from(u16::from_le_bytes(skep_identity::random::bytes()));
        step / 2 + step / 2 * draw / u32::from(u16::MAX)
    }

    /// Whether nothing has failed since it worked.
    pub(crate) fn is_first(&self) -> bool {
        self.next == self.first
    }

    /// It worked: begin with the first pause again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_begins_again() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        assert!((first / 2..=first).contains(&backoff.next()));
        for _ in 0..9 {
            backoff.next();
        }
        assert!((longest / 2..=longest).contains(&backoff.next()));
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
