//! The log entries that Raft may still need, in memory.
//!
//! Owns the positions and the entries since the last trimming, and which snapshot a peer is
//! offered. Never touches a disk: what is here has been, or is just being, written by the caller.

use crate::{Error, Taken};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What an entry takes beside its data: its own fields and the allocations behind them.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// A snapshot that could not be sent this many times is not offered again: its file may be bad.
const MAX_SEND_FAILURES: u32 = 5;

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
    /// Whether a snapshot of `applied` is on disk, fit to be sent to a peer.
    pub is_snapshot: bool,
}

pub(crate) struct MemoryLog {
    origin: Position,
    entries: VecDeque<Entry>,
    bytes: usize,
    hard_state: HardState,
    members: ConfState,
    /// Written while the library reads, through `&self`.
    offers: RefCell<Offers>,
}

#[derive(Default)]
struct Offers {
    newest: Option<Taken>,
    by_peer: BTreeMap<u64, Offer>,
    is_wanted: bool,
}

struct Offer {
    taken: Taken,
    failures: u32,
}

impl MemoryLog {
    /// Checks that the parts fit together and drops nothing.
    pub(crate) fn restore(parts: Restored) -> Result<Self, Error> {
        let newest = parts.is_snapshot.then(|| Taken {
            position: parts.applied,
            members: parts.members.clone(),
        });
        let mut log = Self {
            origin: parts.origin,
            bytes: parts.entries.iter().map(weight).sum(),
            entries: parts.entries.into(),
            hard_state: parts.hard_state,
            members: parts.members,
            offers: RefCell::new(Offers {
                newest,
                ..Offers::default()
            }),
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

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn first(&self) -> u64 {
        self.origin.index + 1
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
        let keep = (first.index - self.origin.index - 1) as usize;
        let replaced: usize = self.entries.range(keep..).map(weight).sum();
        self.entries.truncate(keep);
        self.entries.extend(entries.iter().cloned());
        self.bytes = self.bytes - replaced + entries.iter().map(weight).sum::<usize>();
    }

    /// Forgets the oldest entries, but none after `limit`, until at most `max_entries` and about
    /// `max_bytes` are left.
    pub(crate) fn trim(&mut self, limit: u64, max_entries: usize, max_bytes: usize) {
        while let Some(entry) = self.entries.front()
            && entry.index <= limit
            && (self.entries.len() > max_entries || self.bytes > max_bytes)
        {
            self.origin = Position {
                index: entry.index,
                term: entry.term,
            };
            self.bytes -= weight(entry);
            self.entries.pop_front();
        }
        let offers = self.offers.get_mut();
        let origin = self.origin.index;
        offers
            .by_peer
            .retain(|_, offer| offer.taken.position.index >= origin);
    }

    /// Begins anew behind a snapshot that a leader has sent.
    pub(crate) fn replace(&mut self, taken: &Taken) {
        self.entries.clear();
        self.bytes = 0;
        self.origin = taken.position;
        self.members = taken.members.clone();
        *self.offers.get_mut() = Offers {
            newest: Some(taken.clone()),
            ..Offers::default()
        };
    }

    pub(crate) fn set_newest(&mut self, taken: Taken) {
        let offers = self.offers.get_mut();
        offers.newest = Some(taken);
        offers.is_wanted = false;
    }

    /// Whether somebody has asked for a snapshot that is not there, since the last question.
    pub(crate) fn take_wanted(&mut self) -> bool {
        std::mem::take(&mut self.offers.get_mut().is_wanted)
    }

    /// The snapshot that a peer has been offered.
    pub(crate) fn offered_to(&self, peer: u64) -> Option<u64> {
        let offers = self.offers.borrow();
        offers
            .by_peer
            .get(&peer)
            .map(|offer| offer.taken.position.index)
    }

    pub(crate) fn offered(&self) -> BTreeSet<u64> {
        let offers = self.offers.borrow();
        offers
            .by_peer
            .values()
            .map(|offer| offer.taken.position.index)
            .collect()
    }

    pub(crate) fn end_offer(&mut self, peer: u64, is_sent: bool) {
        let offers = self.offers.get_mut();
        let Some(offer) = offers.by_peer.get_mut(&peer) else {
            return;
        };
        // After a failure the same one is offered again, so that sending goes on where it broke.
        offer.failures += 1;
        if is_sent || offer.failures >= MAX_SEND_FAILURES {
            let bad = (!is_sent).then_some(offer.taken.position);
            offers.by_peer.remove(&peer);
            if bad.is_some() && offers.newest.as_ref().map(|taken| taken.position) == bad {
                offers.newest = None;
            }
        }
    }

    /// Forgets the offers to all but these peers.
    pub(crate) fn retain_offers(&mut self, keep: impl Fn(u64) -> bool) {
        self.offers.get_mut().by_peer.retain(|peer, _| keep(*peer));
    }
}

fn weight(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD_BYTES
}

/// Whether a member appears anywhere in a membership.
pub(crate) fn includes(members: &ConfState, id: u64) -> bool {
    members.voters.contains(&id)
        || members.learners.contains(&id)
        || members.voters_outgoing.contains(&id)
        || members.learners_next.contains(&id)
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
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The state travels beside the log: the message carries only what it is of. A snapshot will
    /// do if the log goes on behind it and the receiver is a member in it, which the library
    /// demands of what it installs.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let mut offers = self.offers.borrow_mut();
        let least = request_index.max(self.origin.index);
        let fits = |taken: &Taken| taken.position.index >= least && includes(&taken.members, to);
        let offered = offers.by_peer.get(&to).map(|offer| &offer.taken);
        let taken = match (offered, &offers.newest) {
            (Some(taken), _) if fits(taken) => taken.clone(),
            (_, Some(taken)) if fits(taken) => {
                let (taken, failures) = (taken.clone(), 0);
                let offer = Offer {
                    taken: taken.clone(),
                    failures,
                };
                offers.by_peer.insert(to, offer);
                taken
            }
            _ => {
                offers.is_wanted = true;
                return Err(StorageError::SnapshotTemporarilyUnavailable.into());
            }
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = taken.position.index;
        metadata.term = taken.position.term;
        metadata.set_conf_state(taken.members);
        Ok(snapshot)
    }
}
