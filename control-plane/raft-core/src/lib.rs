//! The pure consensus step of a Skep server: inputs in, one [`Output`] out.
//!
//! Owns the Raft rules of one member (elections, replication, commit, reads) and the entries
//! since the last compaction, in memory. Never reads a clock, a file, a socket or a random
//! number: time arrives as [`Input::Tick`], disk and network are the caller's, and election
//! timeouts are a function of (seed, member, term), so that a run is a function of its inputs.

mod core;
mod error;
mod event;
pub mod members;
mod storage;

pub use crate::core::{Config, Core, MAX_APPEND_BYTES, MAX_MESSAGE_BYTES, snapshot_of};
pub use crate::error::Error;
pub use crate::event::{
    Accepted, Body, Committed, Input, Outgoing, Output, Peer, ReadState, Reason, Refused, Role,
    SnapshotOut, Status, Taken,
};
pub use crate::storage::{Position, Restored};
pub use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
    EntryType, HardState,
};

#[cfg(test)]
mod tests;
