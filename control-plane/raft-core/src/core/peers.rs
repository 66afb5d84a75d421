//! What a leader knows of its peers.
//!
//! Owns the memory of who has answered lately, because the library forgets it at every quorum
//! check. Decides nothing about membership.

use crate::event::Peer;
use crate::storage::MemoryLog;
use raft::{Progress, ProgressState, RawNode, StateRole};
use std::collections::BTreeMap;

/// When peers were last heard of, in ticks of this leadership.
#[derive(Default)]
pub(super) struct Heard {
    now: u64,
    at: BTreeMap<u64, u64>,
}

impl Heard {
    /// Looks before the tick, which may forget.
    pub(super) fn tick(&mut self, raw: &RawNode<MemoryLog>) {
        for (&id, progress) in raw.raft.prs().iter() {
            if progress.recent_active {
                self.at.insert(id, self.now);
            }
        }
        self.now += 1;
    }

    /// At a change of role, leader or term what was heard before says nothing any more.
    pub(super) fn restart(&mut self) {
        self.at.clear();
    }

    fn is_active(&self, id: u64, progress: &Progress, within: u64) -> bool {
        let heard = self.at.get(&id);
        progress.recent_active || heard.is_some_and(|at| self.now - at <= within)
    }
}

/// The peers in ascending order, empty unless this member leads.
pub(super) fn of(raw: &RawNode<MemoryLog>, heard: &Heard, within: u64) -> Vec<Peer> {
    if raw.raft.state != StateRole::Leader {
        return Vec::new();
    }
    let mut peers: Vec<Peer> = others(raw)
        .map(|(id, progress)| Peer {
            member: id,
            matched: progress.matched,
            is_active: heard.is_active(id, progress, within),
            snapshot: (progress.state == ProgressState::Snapshot)
                .then_some(progress.pending_snapshot),
        })
        .collect();
    peers.sort_unstable_by_key(|peer| peer.member);
    peers
}

/// The last index that no peer has use for: the live ones read on from where they are, and those
/// that have been offered a snapshot from there.
pub(super) fn least_needed(raw: &RawNode<MemoryLog>, heard: &Heard, within: u64) -> u64 {
    if raw.raft.state != StateRole::Leader {
        return u64::MAX;
    }
    others(raw)
        .filter_map(|(id, progress)| {
            let offered = raw.store().offered_to(id);
            let is_read =
                progress.state != ProgressState::Snapshot && heard.is_active(id, progress, within);
            offered.or_else(|| is_read.then_some(progress.matched))
        })
        .min()
        .unwrap_or(u64::MAX)
}

fn others(raw: &RawNode<MemoryLog>) -> impl Iterator<Item = (u64, &Progress)> {
    let own = raw.raft.id;
    raw.raft
        .prs()
        .iter()
        .map(|(id, progress)| (*id, progress))
        .filter(move |(id, _)| *id != own)
}
