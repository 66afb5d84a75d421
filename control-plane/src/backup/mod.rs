//! Backups: the whole replicated state in one file, and a new cluster made of one. Owns the file's
//! format and what restoring writes; never speaks to a server, and opens no secret: what is sealed in
//! the state stays sealed in the file.
//!
//! A file is a plain tar archive, so that it can be looked into and checked without Skep:
//!
//! ```text
//! manifest.json   what it is a backup of, for people and for the checks
//! state.bin       the state as servers keep it in their snapshots
//! SHA256SUMS      of the two, as `sha256sum -c` reads them
//! ```
//!
//! History (audit, timelines, build logs) is beside the truth and not in it.

mod archive;
mod manifest;
mod restore;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use skep_identity::{key_file, secret_file};
use skep_model::problem::Problem;

use crate::{consensus, local};

pub use archive::{Backup, Maker};
pub use manifest::{Counts, Manifest};
pub use restore::{Restored, check_key, restore};

/// Newest format of the file that this build reads and writes.
pub const FORMAT: u32 = 1;

/// A backup cannot be read, or not be restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot read the backup {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Something else, or nothing of it is left.
    #[error("{} is not a backup of Skep: {why}", path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
        /// What speaks against it.
        why: String,
    },
    /// Not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// Written by a newer release.
    #[error(
        "the backup has format {found}, this build reads up to {FORMAT}: use the newer version of skep"
    )]
    Newer {
        /// Its format.
        found: u32,
    },
    /// The state inside.
    #[error("the backup's state cannot be used")]
    State(#[from] skep_state::SnapshotError),
    /// The folder is in use.
    #[error("{} is not empty: a backup is restored into a new folder", .0.display())]
    Occupied(PathBuf),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] secret_file::Error),
    /// There is no such key file, or it is none.
    #[error(
        "the operator's key file: it must be the one of the server that made the backup, or that founded \
         the cluster"
    )]
    KeyFile(#[source] key_file::Error),
    /// Another cluster's key file, or another server's.
    #[error(
        "{} does not open this backup: it must be the operator's key file of server {maker}, which made it, or \
         of the server that founded the cluster", path.display()
    )]
    WrongKey {
        /// The key file.
        path: PathBuf,
        /// Who made the backup.
        maker: String,
    },
    /// The key opens the backup, but not what is sealed in it.
    #[error("what is sealed in the backup does not open: {0}")]
    Sealed(Problem),
    /// Local facts of the new server.
    #[error(transparent)]
    Local(#[from] local::Error),
    /// The new server's log.
    #[error(transparent)]
    Log(#[from] consensus::service::Error),
}
