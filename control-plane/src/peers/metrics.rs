//! Numbers of the traffic between servers, for operators.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Raft messages handed to a connection.
    pub sent: u64,
    /// Raft messages dropped because their peer did not take them fast enough, or at all.
    pub dropped: u64,
    /// Raft messages that came in.
    pub received: u64,
    /// Streams to peers that broke.
    pub broken_streams: u64,
    /// Snapshots that a peer has taken in.
    pub snapshots_sent: u64,
    /// Snapshots that could not be sent.
    pub snapshots_failed: u64,
}

/// Where it is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) broken_streams: AtomicU64,
    pub(super) snapshots_sent: AtomicU64,
    pub(super) snapshots_failed: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            sent: get(&self.sent),
            dropped: get(&self.dropped),
            received: get(&self.received),
            broken_streams: get(&self.broken_streams),
            snapshots_sent: get(&self.snapshots_sent),
            snapshots_failed: get(&self.snapshots_failed),
        }
    }
}
