//! The log entries that Raft may still need, in memory.
//!
//! Owns the positions and the entries since the last compaction. Never touches a disk: what is
//! here has been, or is just being, written by the caller.

use crate::Error;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Log index.
    pub index: u64,
    /// Term of the entry there.
    pub term: u64,
}

/// Everything a member needs to go on after a restart.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The last position that the log has forgotten; entries start behind it.
    pub origin: Position,
    /// The entries behind `origin`, without a hole.
    pub entries: Vec<Entry>,
    /// Term, vote and commit as written. A commit below `applied` is raised to it, because a
    /// snapshot holds committed entries only.
    pub hard_state: HardState,
    /// What the restored state machine holds.
    pub applied: Position,
    /// The membership at `applied`.
    pub members: ConfState,
}

pub(crate) struct MemoryLog {
    origin: Position,
    entries: VecDeque<Entry>,
    hard_state: HardState,
    members: ConfState,
}

impl MemoryLog {
    /// Checks that the parts fit together and drops nothing.
    pub(crate) fn restore(parts: Restored) -> Result<Self, Error> {
        let mut log = Self {
            origin: parts.origin,
            entries: parts.entries.into(),
            hard_state: parts.hard_state,
            members: parts.members,
        };
        let mut previous = log.origin;
        for entry in &log.entries {
            if entry.index != previous.index + 1 || entry.term < previous.term {
                return Err(Error::Restore(format!(
                    "entry (index {}, term {}) follows (index {}, term {})",
                    entry.index, entry.term, previous.index, previous.term
                )));
            }
            previous = Position {
                index: entry.index,
                term: entry.term,
            };
        }
        let applied = parts.applied;
        if log.term_at(applied.index) != Some(applied.term) {
            return Err(Error::Restore(format!(
                "the state is at (index {}, term {}), the log covers index {} to {} and has term {:?} there",
                applied.index,
                applied.term,
                log.origin.index,
                previous.index,
                log.term_at(applied.index)
            )));
        }
        log.hard_state.commit = log.hard_state.commit.max(applied.index);
        log.hard_state.term = log.hard_state.term.max(applied.term);
        if log.hard_state.commit > previous.index || log.hard_state.term < previous.term {
            return Err(Error::Restore(format!(
                "the log ends at (index {}, term {}), the hard state says commit {} and term {}",
                previous.index, previous.term, log.hard_state.commit, log.hard_state.term
            )));
        }
        Ok(log)
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn last(&self) -> u64 {
        self.entries
            .back()
            .map_or(self.origin.index, |entry| entry.index)
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.origin.index {
            return Some(self.origin.term);
        }
        let offset = index.checked_sub(self.origin.index + 1)?;
        self.entries
            .get(usize::try_from(offset).ok()?)
            .map(|entry| entry.term)
    }

    /// Replaces everything from the first new entry on.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.origin.index < first.index && first.index <= self.last() + 1,
            "entry {} does not join the log ({} to {})",
            first.index,
            self.origin.index,
            self.last()
        );
        self.entries
            .truncate((first.index - self.origin.index - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to and including `to_index`; what is already gone is no error.
    pub(crate) fn compact(&mut self, to_index: u64) {
        let Some(term) = self.term_at(to_index) else {
            return;
        };
        let count = (to_index - self.origin.index) as usize;
        self.entries.drain(..count);
        self.origin = Position {
            index: to_index,
            term,
        };
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.members.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.origin.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let start = (low - self.origin.index - 1) as usize;
        let end = (high - self.origin.index - 1) as usize;
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        let mut bytes = 0_u64;
        for entry in self.entries.range(start..end) {
            bytes = bytes.saturating_add(u64::from(protobuf::Message::compute_size(entry)));
            if bytes > limit && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.origin.index {
            return Err(StorageError::Compacted.into());
        }
        self.term_at(index)
            .ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.origin.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// State is not carried inside Raft messages: a peer that needs entries which are gone waits
    /// until its state has been transferred beside the log.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}
