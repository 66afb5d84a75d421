//! The replicated log of a server: proposals in, applied state out.
//!
//! Owns the Raft member, its log on disk and its snapshots, and the one thread on which they
//! move. Knows commands and states as bytes and types of a [`StateMachine`]; never looks inside,
//! never speaks to agents or users, and hands messages for other servers to a [`Transport`].
//!
//! ```text
//! Handle::propose ──► queue ──► thread: step ─► append + fsync ─► apply ─► publish ──► answer
//!                                        ▲                          │
//!                                   raft-core (pure)                └─► view, changes, index
//! ```

pub mod group;
pub mod handle;
pub mod incoming;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod offline;
pub mod service;
pub mod snapshot;
pub mod transport;

mod driver;
mod files;
mod keeper;
mod recover;
mod waiting;

pub use group::Group;
pub use handle::{Handle, MAX_COMMAND_BYTES};
pub use incoming::{Incoming, SnapshotOffer};
pub use machine::{Batch, Leadership, StateMachine};
pub use metrics::Metrics;
pub use service::{Options, Service};
pub use transport::{NoPeers, SnapshotSend, Transport};

#[cfg(test)]
mod tests;
