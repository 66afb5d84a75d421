//! Lines of several logs in the order of their times. A line waits for the others for a bounded time:
//! a log that says nothing holds nobody up for longer. Pure: the clock is the caller's.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use skep_model::id::AllocationId;
use skep_proto::v1::LogLine;
use tokio::time::Instant;

/// How long a line waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a log that was opened, until its first line.
    first: Duration,
    /// For a log that had lines, since this one came.
    next: Duration,
}

impl Patience {
    /// Lines that come as they are written: order within what a cluster's clocks and ways differ by.
    pub(super) const FOLLOWING: Self = Self {
        first: Duration::from_secs(1),
        next: Duration::from_millis(200),
    };
    /// Logs that are read to their end, and say so: longer than that only one that hangs takes.
    pub(super) const READING: Self = Self {
        first: Duration::from_secs(10),
        next: Duration::from_secs(10),
    };
}

#[derive(Debug)]
struct Source {
    lines: VecDeque<(Instant, LogLine)>,
    /// While it is empty others wait until then at least. None: nothing more comes.
    opened_until: Option<Instant>,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Pass this line on.
    Line(AllocationId, Box<LogLine>),
    /// Wait for more lines, until then at most; none: there are no lines.
    Wait(Option<Instant>),
}

/// The logs that are being read.
#[derive(Debug)]
pub(super) struct Merge {
    patience: Patience,
    sources: BTreeMap<AllocationId, Source>,
}

impl Merge {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            sources: BTreeMap::new(),
        }
    }

    /// Lines of this log are to come.
    pub(super) fn open(&mut self, id: AllocationId, now: Instant) {
        let source = self.sources.entry(id).or_insert_with(|| Source {
            lines: VecDeque::new(),
            opened_until: None,
        });
        source.opened_until = Some(now + self.patience.first);
    }

    /// Lines of a log came.
    pub(super) fn push(&mut self, id: AllocationId, lines: Vec<LogLine>, now: Instant) {
        if let Some(source) = self.sources.get_mut(&id)
            && !lines.is_empty()
        {
            source
                .lines
                .extend(lines.into_iter().map(|line| (now, line)));
            source.opened_until = source.opened_until.map(|_| now);
        }
    }

    /// Nothing more of this log is to come.
    pub(super) fn close(&mut self, id: AllocationId) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.opened_until = None;
        }
        self.sources
            .retain(|_, source| source.opened_until.is_some() || !source.lines.is_empty());
    }

    /// Whether a log's next lines are to be asked for: it holds none.
    pub(super) fn is_empty(&self, id: AllocationId) -> bool {
        let source = self.sources.get(&id);
        source.is_none_or(|source| source.lines.is_empty())
    }

    /// The next line in order, once nothing can come before it, or it has waited for long enough.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let heads = self.sources.iter().filter_map(|(id, source)| {
            let (came, line) = source.lines.front()?;
            Some((line.at_ns, *id, *came))
        });
        let Some((_, id, came)) = heads.min() else {
            return Next::Wait(None);
        };
        let silent = self.sources.values().filter(|it| it.lines.is_empty());
        let until = silent.filter_map(|source| source.opened_until).max();
        let until = until.map(|opened| opened.max(came + self.patience.next));
        if let Some(until) = until.filter(|until| *until > now) {
            return Next::Wait(Some(until));
        }
        let source = self.sources.get_mut(&id).expect("it has a line");
        let (_, line) = source.lines.pop_front().expect("it has a line");
        if source.opened_until.is_none() && source.lines.is_empty() {
            self.sources.remove(&id);
        }
        Next::Line(id, Box::new(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AllocationId = AllocationId::from_u128(1);
    const B: AllocationId = AllocationId::from_u128(2);

    fn lines(times: &[u64]) -> Vec<LogLine> {
        let line = |at_ns: &u64| LogLine {
            at_ns: *at_ns,
            ..LogLine::default()
        };
        times.iter().map(line).collect()
    }

    fn ready(merge: &mut Merge, now: Instant) -> Vec<u64> {
        let mut times = Vec::new();
        while let Next::Line(_, line) = merge.next(now) {
            times.push(line.at_ns);
        }
        times
    }

    #[test]
    fn lines_are_in_order_and_wait_only_for_logs_that_may_still_speak() {
        let now = Instant::now();
        let mut merge = Merge::new(Patience::READING);
        merge.open(A, now);
        merge.open(B, now);
        merge.push(A, lines(&[1, 4, 9]), now);
        assert_eq!(ready(&mut merge, now), [0; 0], "B may have earlier ones");
        merge.push(B, lines(&[2, 3]), now);
        assert_eq!(ready(&mut merge, now), [1, 2, 3]);
        assert!(merge.is_empty(B) && !merge.is_empty(A));
        merge.push(B, lines(&[5]), now);
        merge.close(B);
        assert_eq!(ready(&mut merge, now), [4, 5, 9], "B has ended");
        assert_eq!(merge.next(now), Next::Wait(None));
    }

    #[test]
    fn a_log_that_is_silent_holds_nobody_up_for_long() {
        let now = Instant::now();
        let Patience { first, next } = Patience::FOLLOWING;
        let mut merge = Merge::new(Patience::FOLLOWING);
        merge.open(A, now);
        merge.open(B, now);
        merge.push(A, lines(&[7]), now);
        assert_eq!(merge.next(now), Next::Wait(Some(now + first)));
        assert_eq!(ready(&mut merge, now + first), [7]);
        // Later on only as long as order is worth.
        let later = now + 10 * first;
        merge.push(A, lines(&[9]), later);
        assert_eq!(merge.next(later), Next::Wait(Some(later + next)));
        merge.push(B, lines(&[8]), later + next / 2);
        assert_eq!(ready(&mut merge, later + next / 2), [8]);
        assert_eq!(ready(&mut merge, later + next), [9]);
    }

    #[test]
    fn one_log_alone_waits_for_nothing() {
        let now = Instant::now();
        let mut merge = Merge::new(Patience::FOLLOWING);
        merge.open(A, now);
        merge.push(A, lines(&[3, 4]), now);
        assert_eq!(ready(&mut merge, now), [3, 4]);
    }
}
