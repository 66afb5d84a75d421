//! The log on disk: one narrow trait and its implementations.
//!
//! Owns the stored formats of entries and Raft state. Never interprets a command.

use skep_raft_core::{ConfState, Entry, HardState, Position};
use std::path::PathBuf;

pub mod engine;
pub mod mark;
pub mod memory;

pub use engine::EngineLog;
pub use memory::MemoryLog;

/// Format of every record written to the log.
pub const FORMAT_VERSION: u8 = 1;

/// Where the log begins: what is before it lives in snapshots only.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The server whose log this is.
    pub server: u64,
    /// The last forgotten position.
    pub position: Position,
    /// The membership there.
    pub members: ConfState,
}

/// Everything in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Where it begins.
    pub origin: Origin,
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// The entries behind the origin, without a hole.
    pub entries: Vec<Entry>,
}

/// Holds entries and Raft state. One thread writes; [`LogStore::purge`] may run beside it.
pub trait LogStore: Send + Sync + 'static {
    /// Reads everything; `None` if nothing was ever written.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the file or record when anything written is missing.
    fn load(&self) -> Result<Option<Loaded>, Error>;

    /// Writes entries and Raft state as one atomic batch, durable on return. The first entry
    /// replaces what the log holds at its index and after.
    ///
    /// # Errors
    /// After an error the log's content is unknown: the caller must stop.
    fn append(&self, entries: &[Entry], hard_state: &HardState) -> Result<(), Error>;

    /// Moves the beginning to `origin`, durably and atomically. On an empty log it creates it.
    ///
    /// # Errors
    /// As for [`LogStore::append`].
    fn compact(&self, origin: &Origin, hard_state: &HardState) -> Result<(), Error>;

    /// Forgets every entry and begins anew at `origin`, durably and atomically: what a leader's
    /// snapshot replaces.
    ///
    /// # Errors
    /// See [`LogStore::append`].
    fn reset(&self, origin: &Origin, hard_state: &HardState) -> Result<(), Error>;

    /// Gives the space of forgotten entries back to the file system.
    ///
    /// # Errors
    /// Nothing is lost by an error; it may be called again.
    fn purge(&self) -> Result<(), Error>;
}

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that was written is missing or unreadable.
    #[error(
        "the Raft log is damaged at {path}: {what}. The server does not start, so that it cannot \
         act or vote on half a log. Keep the directory as it is; rebuild this server from its peers \
         with `skep server rebuild`, or, if there are none, restore a backup"
    )]
    Damaged {
        /// File or directory.
        path: PathBuf,
        /// Which record, and what is wrong with it.
        what: String,
    },
    /// Written by a newer release.
    #[error(
        "{what} has format {found}, this release reads up to {known}: start the newer release of \
         skep again"
    )]
    NewerFormat {
        /// The record or file.
        what: String,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A file could not be opened, read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The storage engine failed.
    #[error("cannot {action} the Raft log in {path}")]
    Engine {
        /// What was tried.
        action: &'static str,
        /// The log's directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: raft_engine::Error,
    },
}
