//! Which sequence of ours carried which of the cluster's tables. Pure.

use std::collections::VecDeque;

use super::Version;

/// Tables whose draining is not over; beyond that the oldest are forgotten, which only makes
/// what is reported coarser.
const PENDING_MAX: usize = 1_024;

/// What was published.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Tables and the first sequence of each, oldest first.
    firsts: VecDeque<(Version, u64)>,
    last_sequence: u64,
    applied: Version,
    drained: Version,
}

impl Book {
    /// Number of the next table, where the data plane has `applied`.
    pub(super) fn next_sequence(&self, applied: u64) -> u64 {
        self.last_sequence.max(applied) + 1
    }

    /// The newest sequence that was published; 0: none.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// The data plane has taken this one.
    pub(super) fn published(&mut self, sequence: u64, version: Version) {
        self.last_sequence = sequence;
        self.applied = version;
        if self.firsts.back().map(|(newest, _)| *newest) != Some(version) {
            self.firsts.push_back((version, sequence));
        }
        if self.firsts.len() > PENDING_MAX {
            self.firsts.pop_front();
        }
    }

    /// (applied, drained) table, where the data plane has drained up to `drained`.
    pub(super) fn status(&mut self, drained: u64) -> (Version, Version) {
        while let Some((version, first)) = self.firsts.front().copied()
            && first <= drained
        {
            self.drained = version;
            // The newest stays, so that its next table does not count as its first.
            if self.firsts.len() == 1 {
                break;
            }
            self.firsts.pop_front();
        }
        (self.applied, self.drained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(revision: u64) -> Version {
        Version {
            incarnation: 1,
            revision,
        }
    }

    #[test]
    fn a_revision_is_drained_when_its_first_table_is() {
        let mut book = Book::default();
        let status = |book: &mut Book, drained| {
            let (applied, drained) = book.status(drained);
            (applied.revision, drained.revision)
        };
        assert_eq!(book.next_sequence(41), 42);
        book.published(42, version(7));
        book.published(43, version(7));
        book.published(44, version(8));
        book.published(45, version(8));
        assert_eq!(status(&mut book, 41), (8, 0));
        assert_eq!(status(&mut book, 42), (8, 7));
        assert_eq!(status(&mut book, 43), (8, 7));
        assert_eq!(status(&mut book, 44), (8, 8));
        book.published(46, version(8));
        assert_eq!(status(&mut book, 45), (8, 8));
        assert_eq!(book.next_sequence(3), 47);
    }

    #[test]
    fn a_revision_may_share_the_table_of_the_one_before() {
        let mut book = Book::default();
        book.published(1, version(7));
        book.published(2, version(8));
        book.published(2, version(9));
        assert_eq!(book.status(1), (version(9), version(7)));
        assert_eq!(book.status(2), (version(9), version(9)));
        assert_eq!(book.next_sequence(2), 3);
    }

    #[test]
    fn a_new_incarnation_counts_anew_from_a_lower_revision() {
        let mut book = Book::default();
        book.published(1, version(90));
        assert_eq!(book.status(1), (version(90), version(90)));
        let next = Version {
            incarnation: 2,
            revision: 40,
        };
        book.published(2, next);
        assert_eq!(book.status(1), (next, version(90)));
        assert_eq!(book.status(2), (next, next));
    }
}
