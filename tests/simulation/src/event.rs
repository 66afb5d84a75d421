//! What happens in the world, and what a server's step asks of it.

use skep_raft_core::{Position, Taken};

use crate::client::{Answer, Request};

/// Where a server lives: the same across restarts and rebuilds, unlike its member id.
pub(crate) type Slot = usize;

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// A Raft message.
    Raft(Vec<u8>),
    /// A snapshot with its Raft message.
    Snapshot {
        message: Vec<u8>,
        taken: Taken,
        state: Vec<u8>,
        /// The sender, who is told how it went.
        from: u64,
    },
    /// A client's request, passed on at most once.
    Request { request: Request, hops: u32 },
}

/// What happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// Logical time passes on a server, if it is still the same run of it.
    Tick { slot: Slot, run: u64 },
    /// Something arrives at a member.
    Arrive { to: u64, payload: Payload },
    /// An answer arrives at a client.
    Answer { client: usize, answer: Answer },
    /// A client acts, or gives up waiting for the attempt of that number.
    Client { client: usize, attempt: u64 },
    /// The leader's duties on a server.
    Duties { slot: Slot, run: u64 },
    /// An agent looks around.
    Agent,
    /// A server starts (again).
    Start { slot: Slot },
    /// A sender learns how its snapshot went.
    SnapshotStatus { from: u64, to: u64, ok: bool },
    /// The next fault.
    Fault,
}

/// What one step of a server asks for, in order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send a Raft message.
    Send { to: u64, bytes: Vec<u8> },
    /// Send a snapshot.
    SendSnapshot {
        to: u64,
        message: Vec<u8>,
        taken: Taken,
        state: Vec<u8>,
    },
    /// Answer a client.
    Answer { client: usize, answer: Answer },
    /// Pass a request on to this member.
    Forward { to: u64, request: Request },
    /// This member leads this term.
    Leads { term: u64 },
    /// An entry was applied.
    Applied {
        position: Position,
        /// The command's bytes, or none for an entry without one.
        command: Option<Vec<u8>>,
        /// The command's idempotency key was new: it was obeyed now.
        is_first: bool,
        /// Digest of the state after it, at some indexes.
        digest: Option<u64>,
        /// Live allocations of the exclusive service after it.
        live: usize,
    },
    /// The membership from here on.
    Members(skep_raft_core::ConfState),
}
