//! What Traefik has surely let go of. It polls and then applies in its own time, and says neither:
//! so a table counts as drained there only a while after Traefik has fetched it or a newer one. A
//! node that no Traefik polls waits for nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// After a fetch, until Traefik surely uses it: its default throttle of 2 s, and as long again.
const SETTLE: Duration = Duration::from_secs(4);
/// A Traefik that has not asked for so long is gone: twelve of its default polls.
const PRESENT: Duration = Duration::from_secs(60);
/// The same where Traefik is asked which table it uses: for one that does not answer.
const UNANSWERED: Duration = Duration::from_secs(60);
/// Fetched tables that are remembered; beyond, the oldest two count as fetched together, later.
const MAX_FETCHES: usize = 64;

/// The fetches that matter.
#[derive(Debug)]
pub(super) struct Polls {
    /// After a fetch, until Traefik surely uses it.
    settle: Duration,
    /// It is there even if it is not heard of: it reads a file.
    reads_file: bool,
    /// The newest table that it says to use.
    confirmed: u64,
    last: Option<Instant>,
    /// When each newer table was first fetched; rising in both.
    first: VecDeque<(Instant, u64)>,
}

impl Polls {
    /// `is_asked`: somebody asks Traefik itself, and says [`Polls::confirmed`].
    pub(super) fn new(is_asked: bool) -> Self {
        Self {
            settle: if is_asked { UNANSWERED } else { SETTLE },
            reads_file: false,
            confirmed: 0,
            last: None,
            first: VecDeque::new(),
        }
    }

    /// Traefik reads a file: it counts as there, and [`Polls::fetched`] says what is in the file.
    pub(super) fn of_file(self) -> Self {
        Self {
            reads_file: true,
            ..self
        }
    }

    /// Traefik uses this table.
    pub(super) fn confirmed(&mut self, sequence: u64) {
        self.confirmed = self.confirmed.max(sequence);
    }

    /// Traefik fetched the table of this sequence.
    pub(super) fn fetched(&mut self, sequence: u64, now: Instant) {
        self.last = Some(now);
        if self
            .first
            .back()
            .is_none_or(|(_, newest)| *newest < sequence)
        {
            self.first.push_back((now, sequence));
        }
        if self.first.len() > MAX_FETCHES {
            self.first.remove(1);
        }
    }

    /// The newest sequence that Traefik surely uses (none: no Traefik is there, nothing to wait
    /// for), and when this answer may change by time alone.
    pub(super) fn settled(&mut self, now: Instant) -> (Option<u64>, Option<Instant>) {
        let gone_at =
            (self.last.map(|last| last + PRESENT)).filter(|at| !self.reads_file && *at > now);
        if gone_at.is_none() && !self.reads_file {
            return (None, None);
        }
        while self
            .first
            .get(1)
            .is_some_and(|(at, _)| *at + self.settle <= now)
        {
            self.first.pop_front();
        }
        let settled = self
            .first
            .front()
            .filter(|(at, _)| *at + self.settle <= now);
        let waiting = self.first.iter().find(|(at, _)| *at + self.settle > now);
        let settles_at = waiting.map(|(at, _)| *at + self.settle);
        let next = settles_at.into_iter().chain(gone_at).min();
        (
            Some(
                settled
                    .map_or(0, |(_, sequence)| *sequence)
                    .max(self.confirmed),
            ),
            next,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_settles_a_while_after_its_first_fetch() {
        let (mut polls, start) = (Polls::new(false), Instant::now());
        assert_eq!(polls.settled(start), (None, None), "no Traefik, no wait");
        polls.fetched(7, start);
        let later = start + Duration::from_secs(1);
        polls.fetched(7, later);
        polls.fetched(9, later);
        assert_eq!(polls.settled(later), (Some(0), Some(start + SETTLE)));
        assert_eq!(
            polls.settled(start + SETTLE),
            (Some(7), Some(later + SETTLE))
        );
        assert_eq!(
            polls.settled(later + SETTLE),
            (Some(9), Some(later + PRESENT))
        );
        assert_eq!(polls.settled(later + PRESENT), (None, None), "it went away");
    }

    #[test]
    fn a_file_is_waited_for_before_it_is_written_and_long_after_the_last_change() {
        let (mut polls, start) = (Polls::new(false).of_file(), Instant::now());
        assert_eq!(polls.settled(start), (Some(0), None), "not written yet");
        polls.fetched(7, start);
        assert_eq!(polls.settled(start), (Some(0), Some(start + SETTLE)));
        let later = start + PRESENT * 10;
        assert_eq!(polls.settled(later), (Some(7), None), "nothing is newer");
        polls.fetched(8, later);
        assert_eq!(polls.settled(later), (Some(7), Some(later + SETTLE)));
    }

    #[test]
    fn what_traefik_says_itself_counts_at_once() {
        let (mut polls, start) = (Polls::new(true), Instant::now());
        polls.fetched(7, start);
        assert_eq!(polls.settled(start + SETTLE).0, Some(0), "it was not asked");
        polls.confirmed(7);
        assert_eq!(polls.settled(start).0, Some(7));
        polls.fetched(8, start);
        polls.fetched(8, start + UNANSWERED / 2);
        assert_eq!(
            polls.settled(start + UNANSWERED).0,
            Some(8),
            "it does not answer"
        );
    }

    #[test]
    fn what_is_remembered_is_bounded_and_never_settles_early() {
        let (mut polls, start) = (Polls::new(false), Instant::now());
        for n in 1..=1_000_u64 {
            polls.fetched(n, start + Duration::from_millis(n));
        }
        assert!(polls.first.len() <= MAX_FETCHES);
        let (settled, _) = polls.settled(start + SETTLE + Duration::from_millis(500));
        assert!(
            settled.is_some_and(|sequence| sequence <= 500),
            "{settled:?}"
        );
        let (settled, _) = polls.settled(start + SETTLE + Duration::from_millis(1_000));
        assert_eq!(settled, Some(1_000));
    }
}
