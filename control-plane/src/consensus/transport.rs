//! The way out to the other servers. Owns the trait; Raft messages are opaque bytes here.

use skep_raft_core::{Outgoing, Taken};
use std::path::PathBuf;

/// A snapshot for one peer: a Raft message and the file that it speaks of.
#[derive(Debug, Clone)]
pub struct SnapshotSend {
    /// The member it is for.
    pub to: u64,
    /// Opaque; handed in at the other end with the last byte of the file.
    pub message: Vec<u8>,
    /// What the snapshot is of.
    pub meta: Taken,
    /// The file. It stays until sending has ended, however it ends.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// CRC-32 of the whole file.
    pub crc32: u32,
}

/// Carries messages to peers. It may lose, repeat and reorder them.
pub trait Transport: Send + 'static {
    /// Takes messages to be sent. Called on the consensus thread: it must not block, and drops
    /// what it has no room for.
    fn send(&mut self, messages: Vec<Outgoing>);

    /// Takes a snapshot to be streamed beside the messages, which must not wait behind it. Must
    /// not block. However it ends, [`Handle::snapshot_sent`](super::Handle::snapshot_sent) is
    /// told: until then nothing else is sent to that peer.
    fn send_snapshot(&mut self, snapshot: SnapshotSend);
}

/// The transport of a group of one, which has nobody to write to.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&mut self, messages: Vec<Outgoing>) {
        for message in messages {
            tracing::warn!(
                to = message.to,
                "message to a server dropped: this group has no peers"
            );
        }
    }

    fn send_snapshot(&mut self, snapshot: SnapshotSend) {
        tracing::warn!(
            to = snapshot.to,
            "snapshot for a server dropped: this group has no peers"
        );
    }
}
