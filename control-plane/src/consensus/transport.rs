//! The way out to the other servers. Owns the trait; Raft messages are opaque bytes here.

use skep_raft_core::Outgoing;

/// Carries messages to peers. It may lose, repeat and reorder them.
pub trait Transport: Send + 'static {
    /// Takes messages to be sent. Called on the consensus thread: it must not block, and drops
    /// what it has no room for.
    fn send(&mut self, messages: Vec<Outgoing>);
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
}
