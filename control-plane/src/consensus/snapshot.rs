//! Snapshot files: the whole state at one index, checksummed.
//!
//! Owns the directory `snapshots/` and the file format. Never decodes the state inside.
//!
//! A file is `.tmp` while it is written, `.part` while it arrives from a leader, `.staged` when
//! all of it has arrived, and `.snap` once the log on disk goes on behind it.

mod file;

use super::files;
pub use file::{FORMAT_VERSION, taken};
use parking_lot::Mutex;
pub use skep_raft_core::Taken;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The newest and the one before it, should the newest turn out damaged.
pub const KEPT: usize = 2;
/// Written and synced in pieces of this size, so that the log's own syncs never wait for long.
const WRITE_BYTES: usize = 4 << 20;
/// What can go wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file's content is not what was written.
    #[error("the snapshot {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer release.
    #[error(
        "the snapshot {path} has format {found}, this release reads up to {FORMAT_VERSION}: start \
         the newer release of skep again"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
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
        source: io::Error,
    },
}

/// Size and CRC-32 of a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Size.
    pub bytes: u64,
    /// CRC-32 over all of it.
    pub crc32: u32,
}

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest that is sound, with its state.
    pub newest: Option<Loaded>,
    /// The next older one, by its header.
    pub older: Option<Taken>,
    /// Newer ones that are not sound.
    pub damaged: Vec<Error>,
}

/// A snapshot that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What it is of.
    pub taken: Taken,
    /// The state's bytes.
    pub state: Vec<u8>,
    /// Of the file.
    pub sum: Sum,
}

/// The snapshot directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
    /// Indexes that are being sent: they are kept beyond [`KEPT`].
    pinned: Arc<Mutex<BTreeSet<u64>>>,
    is_stopping: Arc<AtomicBool>,
}

impl Snapshots {
    /// Opens or creates the directory, and removes what an interrupted write left.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let snapshots = Self {
            dir: dir.to_owned(),
            pinned: Arc::default(),
            is_stopping: Arc::default(),
        };
        files::ensure_dir(dir).map_err(|source| failed("create", dir, source))?;
        for path in snapshots.list("tmp")? {
            std::fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(snapshots)
    }

    /// Where the snapshot at `index` is.
    pub fn path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:020}.snap"))
    }

    /// Reads the newest sound snapshot. Damaged ones are passed over and reported.
    ///
    /// # Errors
    /// [`Error::NewerFormat`] and [`Error::File`]: falling back would go back in time.
    pub fn load(&self) -> Result<Found, Error> {
        let mut found = Found::default();
        for path in self.list("snap")?.into_iter().rev() {
            if found.newest.is_none() {
                match file::read(&path) {
                    Ok(snapshot) => found.newest = Some(snapshot),
                    Err(error @ Error::Damaged { .. }) => found.damaged.push(error),
                    Err(error) => return Err(error),
                }
            } else if let Ok(taken) = taken(&path) {
                found.older = Some(taken);
                break;
            }
        }
        Ok(found)
    }

    /// Renames a damaged file, so that it does not count as one of those kept.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn set_aside(&self, path: &Path) -> Result<(), Error> {
        std::fs::rename(path, path.with_extension("damaged"))
            .and_then(|()| files::sync_dir(&self.dir))
            .map_err(|source| failed("set aside", path, source))
    }

    /// Writes a snapshot beside, syncs it, gives it its name, and removes all but the newest
    /// [`KEPT`] and those that are pinned.
    ///
    /// # Errors
    /// [`Error::File`]; what was there before is untouched.
    pub fn write(&self, taken: &Taken, state: &[u8]) -> Result<Sum, Error> {
        let path = self.path(taken.position.index);
        let beside = path.with_extension("tmp");
        let written = self
            .write_synced(&beside, taken, state)
            .and_then(|sum| std::fs::rename(&beside, &path).map(|()| sum))
            .and_then(|sum| files::sync_dir(&self.dir).map(|()| sum));
        let sum = written.map_err(|source| {
            let _already_failing = std::fs::remove_file(&beside);
            failed("write", &path, source)
        })?;
        let pinned: Vec<PathBuf> = self.pinned.lock().iter().map(|at| self.path(*at)).collect();
        for old in self.list("snap")?.into_iter().rev().skip(KEPT) {
            if !pinned.contains(&old) {
                remove(&old)?;
            }
        }
        Ok(sum)
    }

    fn write_synced(&self, path: &Path, taken: &Taken, state: &[u8]) -> io::Result<Sum> {
        let header = file::encode_header(taken, state)?;
        let mut file = files::open_rw(path)?;
        file.set_len(0)?;
        let mut hasher = crc32fast::Hasher::new();
        for piece in std::iter::once(&header[..]).chain(state.chunks(WRITE_BYTES)) {
            if self.is_stopping.load(Ordering::Relaxed) {
                return Err(io::Error::other("the server is stopping"));
            }
            hasher.update(piece);
            file.write_all(piece)?;
            file.sync_data()?;
        }
        file.sync_all()?;
        Ok(Sum {
            bytes: (header.len() + state.len()) as u64,
            crc32: hasher.finalize(),
        })
    }

    /// Gives up what is being written, from another thread.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Says which snapshots are being sent.
    pub fn pin(&self, indexes: BTreeSet<u64>) {
        *self.pinned.lock() = indexes;
    }

    /// Removes the snapshot at `index`; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, index: u64) -> Result<(), Error> {
        remove(&self.path(index))
    }

    /// The file in which a snapshot arrives. The name tells attempts at the same one.
    pub fn part_path(&self, index: u64, term: u64, bytes: u64, crc32: u32) -> PathBuf {
        self.dir
            .join(format!("{index:020}-{term}-{bytes}-{crc32:08x}.part"))
    }

    fn staged_path(&self, index: u64) -> PathBuf {
        self.path(index).with_extension("staged")
    }

    /// Removes what has half arrived, except `keep`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove_parts(&self, keep: Option<&Path>) -> Result<(), Error> {
        for path in self.list("part")? {
            if Some(&*path) != keep {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// All of it has arrived, verified and synced: from now on only the log decides.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn stage(&self, part: &Path, index: u64) -> Result<(), Error> {
        std::fs::rename(part, self.staged_path(index))
            .and_then(|()| files::sync_dir(&self.dir))
            .map_err(|source| failed("rename", part, source))
    }

    /// Gives the staged snapshot its name, because the log now begins behind it, and removes the
    /// older ones, from which no log leads on. One that has its name already is no error.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn adopt(&self, index: u64) -> Result<(), Error> {
        let (staged, path) = (self.staged_path(index), self.path(index));
        if staged.exists() {
            std::fs::rename(&staged, &path)
                .and_then(|()| files::sync_dir(&self.dir))
                .map_err(|source| failed("rename", &staged, source))?;
        }
        for old in self.list("snap")? {
            if old < path {
                remove(&old)?;
            }
        }
        Ok(())
    }

    /// After a crash: finishes an installation that the log has seen, and forgets others.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn settle_staged(&self, log_begins: u64) -> Result<(), Error> {
        if self.staged_path(log_begins).exists() {
            self.adopt(log_begins)?;
        }
        for staged in self.list("staged")? {
            remove(&staged)?;
        }
        Ok(())
    }

    /// Forgets a staged snapshot that Raft had no use for.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn discard_staged(&self, index: u64) -> Result<(), Error> {
        remove(&self.staged_path(index))
    }

    /// Reads the snapshot at `index`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(&self, index: u64) -> Result<Loaded, Error> {
        file::read(&self.path(index))
    }

    /// Files of one kind, oldest first: names are indexes of fixed width.
    fn list(&self, extension: &str) -> Result<Vec<PathBuf>, Error> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(|e| failed("list", &self.dir, e))? {
            let path = entry.map_err(|e| failed("list", &self.dir, e))?.path();
            if path.extension().is_some_and(|found| found == extension) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", path, source))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
