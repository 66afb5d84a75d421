//! Which sequence of ours carried which revision of the cluster's table. Pure.

use std::collections::VecDeque;

/// Revisions whose draining is not over; beyond that the oldest are forgotten, which only makes
/// what is reported coarser.
const PENDING_MAX: usize = 1_024;

/// What was published.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Revisions and the first sequence of each, oldest first.
    firsts: VecDeque<(u64, u64)>,
    last_sequence: u64,
    applied_revision: u64,
    drained_revision: u64,
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
    pub(super) fn published(&mut self, sequence: u64, revision: u64) {
        self.last_sequence = sequence;
        self.applied_revision = revision;
        if self.firsts.back().map(|(newest, _)| *newest) != Some(revision) {
            self.firsts.push_back((revision, sequence));
        }
        if self.firsts.len() > PENDING_MAX {
            self.firsts.pop_front();
        }
    }

    /// (applied, drained) revision, where the data plane has drained up to `drained`.
    pub(super) fn status(&mut self, drained: u64) -> (u64, u64) {
        while let Some((revision, first)) = self.firsts.front().copied()
            && first <= drained
        {
            self.drained_revision = revision;
            // The newest stays, so that its next table does not count as its first.
            if self.firsts.len() == 1 {
                break;
            }
            self.firsts.pop_front();
        }
        (self.applied_revision, self.drained_revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_drained_when_its_first_table_is() {
        let mut book = Book::default();
        assert_eq!(book.next_sequence(41), 42);
        book.published(42, 7);
        book.published(43, 7);
        book.published(44, 8);
        book.published(45, 8);
        assert_eq!(book.status(41), (8, 0));
        assert_eq!(book.status(42), (8, 7));
        assert_eq!(book.status(43), (8, 7));
        assert_eq!(book.status(44), (8, 8));
        book.published(46, 8);
        assert_eq!(book.status(45), (8, 8));
        assert_eq!(book.next_sequence(3), 47);
    }
}
