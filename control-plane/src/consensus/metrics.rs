//! Numbers about the log, for `/metrics` and tests. Owns counters; decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers at one moment; each is read by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Index of the last committed entry.
    pub commit_index: u64,
    /// Current term.
    pub term: u64,
    /// Entries held in memory.
    pub log_entries: u64,
    /// Durable appends to the log since start.
    pub fsyncs: u64,
    /// Proposals that got a place in the log since start.
    pub proposals: u64,
    /// Index of the newest snapshot file; 0 if there is none.
    pub last_snapshot_index: u64,
    /// Snapshots that could not be written since start.
    pub snapshot_failures: u64,
    /// Snapshots handed to the transport for peers since start.
    pub snapshots_sent: u64,
    /// Snapshots of a leader that replaced the state since start.
    pub snapshots_installed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) applied_index: AtomicU64,
    pub(super) commit_index: AtomicU64,
    pub(super) term: AtomicU64,
    pub(super) log_entries: AtomicU64,
    pub(super) fsyncs: AtomicU64,
    pub(super) proposals: AtomicU64,
    pub(super) last_snapshot_index: AtomicU64,
    pub(super) snapshot_failures: AtomicU64,
    pub(super) snapshots_sent: AtomicU64,
    pub(super) snapshots_installed: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            applied_index: get(&self.applied_index),
            commit_index: get(&self.commit_index),
            term: get(&self.term),
            log_entries: get(&self.log_entries),
            fsyncs: get(&self.fsyncs),
            proposals: get(&self.proposals),
            last_snapshot_index: get(&self.last_snapshot_index),
            snapshot_failures: get(&self.snapshot_failures),
            snapshots_sent: get(&self.snapshots_sent),
            snapshots_installed: get(&self.snapshots_installed),
        }
    }
}

pub(super) fn set(counter: &AtomicU64, value: u64) {
    counter.store(value, Ordering::Relaxed);
}

pub(super) fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}
