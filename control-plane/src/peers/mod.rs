//! Server and server: Raft messages and snapshots, writes on their way to the leader, what is heard
//! from nodes, and what passes through one server and is wanted at another. Everything is mTLS, and
//! both ends are servers of this cluster, or the call is refused. Decides nothing: what a message
//! means is known to consensus, the state and the sessions.
//!
//! ```text
//! consensus ─► PeerTransport ─► Outbox ─(one stream a peer)─► PeersService ─► consensus
//! Store     ─► Forwarder     ─(Propose, to the leader)──────► PeersService ─► consensus
//! Fleet     ─► presence      ─(Presence, to each peer)──────► PeersService ─► Fleet
//! History   ─► copying       ─(FetchHistory, of each peer)──► PeersService ─► History
//! API       ─► Fetcher       ─(FetchEvents)─────────────────► PeersService ─► History
//! Samples   ─► samples       ─(Samples, to the leader)──────► PeersService ─► Samples
//! Relay, Uploads ─► Fetcher  ─(FetchLogs, FetchUpload)──────► PeersService ─► Relay, Uploads
//! Relay     ─► Fetcher       ─(Shell, both ways)────────────► PeersService ─► Relay
//! ```

mod backoff;
pub mod control;
pub mod copying;
pub mod directory;
pub mod fetch;
pub mod forward;
mod history;
pub mod links;
mod mailbox;
pub mod metrics;
pub mod presence;
mod proposals;
mod receive;
pub mod samples;
mod send;
pub mod service;
mod shells;
pub mod transport;

pub use control::ControlService;
pub use directory::{Contact, Directory};
pub use fetch::Fetcher;
pub use forward::Forwarder;
pub use links::Links;
pub use metrics::Metrics;
pub use service::{JoinServers, PeersService};
pub use transport::{Outbox, PeerTransport};

/// Largest gRPC message between servers: one batch of Raft messages (see `mailbox`), with room.
pub const MAX_WIRE_BYTES: usize = 16 << 20;
