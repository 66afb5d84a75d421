//! A disk: what was synced survives a crash, of what was not a prefix may. Batches are atomic, as
//! the log's are; a damaged record is found when the disk is read.

use std::collections::{BTreeMap, BTreeSet};

use skep_raft_core::{ConfState, Entry, HardState, Position, Restored, Taken};

/// Snapshots that stay, besides those that are being sent.
const KEPT_SNAPSHOTS: usize = 2;

/// One atomic write.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Entries, the first replacing what is at its index and after, and the hard state.
    Append(Vec<Entry>, HardState),
    /// The log begins here now.
    Compact(Taken, HardState),
    /// A snapshot beside the log.
    Snapshot(Taken, Vec<u8>),
    /// A received snapshot, staged: it counts for nothing until it is installed.
    Stage(Taken, Vec<u8>),
    /// The log is replaced by the staged snapshot.
    Install(Taken, HardState),
}

#[derive(Debug, Clone, Default)]
struct Content {
    origin: Taken,
    entries: Vec<Entry>,
    hard_state: HardState,
    snapshots: BTreeMap<u64, (Taken, Vec<u8>)>,
    staged: BTreeMap<u64, (Taken, Vec<u8>)>,
}

/// The disk of one member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    synced: Content,
    unsynced: Vec<Write>,
    is_damaged: bool,
}

/// What is read at a start.
pub(crate) struct Loaded {
    pub(crate) restored: Restored,
    /// The state's bytes, unless everything begins with nothing.
    pub(crate) state: Option<Vec<u8>>,
}

impl Disk {
    /// The disk of a founder.
    pub(crate) fn founder(voters: &[u64]) -> Self {
        let members = ConfState {
            voters: voters.to_vec(),
            ..ConfState::default()
        };
        let position = Position { index: 1, term: 1 };
        let hard_state = HardState {
            term: 1,
            commit: 1,
            ..HardState::default()
        };
        let origin = Taken { position, members };
        Self {
            synced: Content {
                origin,
                hard_state,
                ..Content::default()
            },
            ..Self::default()
        }
    }

    pub(crate) fn write(&mut self, write: Write) {
        self.unsynced.push(write);
    }

    pub(crate) fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            self.synced.take(write);
        }
    }

    /// The power fails: of what was not synced, the first writes may have made it.
    pub(crate) fn crash(&mut self, rng: &mut fastrand::Rng) {
        let kept = match rng.bool() {
            true => 0,
            false => rng.usize(..=self.unsynced.len()),
        };
        for write in self.unsynced.drain(..).take(kept) {
            self.synced.take(write);
        }
    }

    /// A record of the acknowledged log goes bad.
    pub(crate) fn damage(&mut self, rng: &mut fastrand::Rng) {
        self.unsynced.clear();
        self.is_damaged = true;
        let keep = rng.usize(..=self.synced.entries.len());
        self.synced.entries.truncate(keep);
        let last = self.synced.last();
        let hard_state = &mut self.synced.hard_state;
        hard_state.vote = 0;
        hard_state.commit = hard_state.commit.min(last);
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    pub(crate) fn snapshot(&self, index: u64) -> Option<&(Taken, Vec<u8>)> {
        let content = &self.synced;
        content
            .snapshots
            .get(&index)
            .or_else(|| content.staged.get(&index))
    }

    /// Forgets snapshots that nobody needs.
    pub(crate) fn purge(&mut self, offered: &BTreeSet<u64>) {
        let snapshots = &mut self.synced.snapshots;
        let old: Vec<u64> = snapshots
            .keys()
            .rev()
            .skip(KEPT_SNAPSHOTS)
            .copied()
            .collect();
        for index in old.into_iter().filter(|index| !offered.contains(index)) {
            snapshots.remove(&index);
        }
    }

    /// Synced entries up to `index`, for the mistakes that look at them.
    pub(crate) fn entry(&self, index: u64) -> Option<&Entry> {
        self.synced
            .entries
            .iter()
            .find(|entry| entry.index == index)
    }

    pub(crate) fn load(&self) -> Loaded {
        let content = &self.synced;
        let newest = content.snapshots.values().next_back();
        let base = match newest {
            Some((taken, _)) if taken.position.index >= content.origin.position.index => taken,
            _ => &content.origin,
        };
        Loaded {
            state: newest.map(|(_, bytes)| bytes.clone()),
            restored: Restored {
                origin: content.origin.position,
                entries: content.entries.clone(),
                hard_state: content.hard_state.clone(),
                applied: base.position,
                members: base.members.clone(),
                is_snapshot: newest.is_some(),
            },
        }
    }
}

impl Content {
    fn last(&self) -> u64 {
        self.entries
            .last()
            .map_or(self.origin.position.index, |entry| entry.index)
    }

    fn take(&mut self, write: Write) {
        match write {
            Write::Append(entries, hard_state) => {
                if let Some(first) = entries.first() {
                    self.entries.retain(|entry| entry.index < first.index);
                    self.entries.extend(entries);
                }
                self.hard_state = hard_state;
            }
            Write::Compact(taken, hard_state) => {
                self.entries
                    .retain(|entry| entry.index > taken.position.index);
                self.origin = taken;
                self.hard_state = hard_state;
            }
            Write::Snapshot(taken, bytes) => {
                self.snapshots.insert(taken.position.index, (taken, bytes));
            }
            Write::Stage(taken, bytes) => {
                self.staged.insert(taken.position.index, (taken, bytes));
            }
            Write::Install(taken, hard_state) => {
                let index = taken.position.index;
                let staged = std::mem::take(&mut self.staged);
                self.snapshots
                    .extend(staged.into_iter().filter(|(staged, _)| *staged == index));
                self.entries.clear();
                self.origin = taken;
                self.hard_state = hard_state;
            }
        }
    }
}
