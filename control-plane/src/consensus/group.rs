//! What this server knows of its group, for those who watch over it.
//!
//! Owns the shape and how often it is told. Decides nothing.

use skep_raft_core::{ConfState, Peer};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Indexes move with every write; whoever watches need not.
pub(super) const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// The group as this server sees it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Group {
    /// The current term.
    pub term: u64,
    /// The leader's member id, if known.
    pub leader: Option<u64>,
    /// Whether this server leads and has applied all that earlier leaders acknowledged.
    pub is_leader: bool,
    /// The membership at `applied`: voters, learners, and, in a joint change, outgoing voters.
    pub members: ConfState,
    /// Index of the last entry known to be committed.
    pub commit: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// First index that is in memory: a peer behind it gets a snapshot.
    pub first_index: u64,
    /// Last index of the log.
    pub last_index: u64,
    /// The other members; known to the leader only.
    pub peers: Vec<Peer>,
}

/// Tells of changes, but of mere progress at most each [`PUBLISH_INTERVAL`].
pub(super) struct Publisher {
    published: Option<Instant>,
    is_stale: bool,
}

impl Publisher {
    pub(super) fn new() -> Self {
        Self {
            published: None,
            is_stale: true,
        }
    }

    /// Something may have changed.
    pub(super) fn touch(&mut self) {
        self.is_stale = true;
    }

    /// When something is left to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.is_stale
            .then(|| self.published.map_or(now, |at| at + PUBLISH_INTERVAL))
    }

    pub(super) fn publish(
        &mut self,
        group: &watch::Sender<Group>,
        is_urgent: bool,
        make: impl FnOnce() -> Group,
    ) {
        let now = Instant::now();
        if !is_urgent && self.due().is_none_or(|due| due > now) {
            return;
        }
        self.published = Some(now);
        self.is_stale = false;
        let next = make();
        group.send_if_modified(|current| {
            let has_changed = *current != next;
            *current = next;
            has_changed
        });
    }
}
