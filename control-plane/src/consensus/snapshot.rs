//! Snapshot files: the whole state at one index, checksummed.
//!
//! Owns the directory `snapshots/` and the file format. Never decodes the state inside.
//!
//! ```text
//! magic 8 | format u32 | index u64 | term u64 | members length u32 | state length u64
//!         | crc32 of all but itself u32 | members | state          (integers little endian)
//! ```

use super::files;
use protobuf::Message as _;
use skep_raft_core::{ConfState, Position};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"SKEPSNAP";
/// Format of the file around the state.
pub const FORMAT_VERSION: u32 = 1;
const FIXED_BYTES: usize = 8 + 4 + 8 + 8 + 4 + 8;
const HEADER_BYTES: usize = FIXED_BYTES + 4;
/// The newest and the one before it, should the newest turn out damaged.
pub const KEPT: usize = 2;
/// A membership of some servers has tens of bytes; more is damage.
const MAX_MEMBERS_BYTES: usize = 64 << 10;

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

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// The last entry in it.
    pub position: Position,
    /// The membership there.
    pub members: ConfState,
}

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest that is sound, with its state.
    pub newest: Option<(Meta, Vec<u8>)>,
    /// The next older one, by its header.
    pub older: Option<Meta>,
    /// Newer ones that are not sound.
    pub damaged: Vec<Error>,
}

/// The snapshot directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
}

impl Snapshots {
    /// Opens or creates the directory, and removes what an interrupted write left.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let snapshots = Self {
            dir: dir.to_owned(),
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
                match read(&path) {
                    Ok(snapshot) => found.newest = Some(snapshot),
                    Err(error @ Error::Damaged { .. }) => found.damaged.push(error),
                    Err(error) => return Err(error),
                }
            } else if let Ok((meta, ..)) = open_header(&path) {
                found.older = Some(meta);
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
    /// [`KEPT`].
    ///
    /// # Errors
    /// [`Error::File`]; what was there before is untouched.
    pub fn write(&self, meta: &Meta, state: &[u8]) -> Result<(), Error> {
        let path = self.path(meta.position.index);
        let beside = path.with_extension("tmp");
        let result = write_synced(&beside, meta, state)
            .and_then(|()| std::fs::rename(&beside, &path))
            .and_then(|()| files::sync_dir(&self.dir));
        if let Err(source) = result {
            let _already_failing = std::fs::remove_file(&beside);
            return Err(failed("write", &path, source));
        }
        for old in self.list("snap")?.into_iter().rev().skip(KEPT) {
            std::fs::remove_file(&old).map_err(|source| failed("remove", &old, source))?;
        }
        Ok(())
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

fn write_synced(path: &Path, meta: &Meta, state: &[u8]) -> io::Result<()> {
    let members = meta.members.write_to_bytes().map_err(io::Error::other)?;
    let mut header = Vec::with_capacity(HEADER_BYTES + members.len());
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&meta.position.index.to_le_bytes());
    header.extend_from_slice(&meta.position.term.to_le_bytes());
    header.extend_from_slice(&(members.len() as u32).to_le_bytes());
    header.extend_from_slice(&(state.len() as u64).to_le_bytes());
    let sum = checksum(&header, &members, state);
    header.extend_from_slice(&sum.to_le_bytes());
    header.extend_from_slice(&members);
    let mut file = files::open_rw(path)?;
    file.set_len(0)?;
    file.write_all(&header)?;
    file.write_all(state)?;
    file.sync_all()
}

fn checksum(fixed: &[u8], members: &[u8], state: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [fixed, members, state]
        .iter()
        .for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn read(path: &Path) -> Result<(Meta, Vec<u8>), Error> {
    let (meta, mut file, header) = open_header(path)?;
    let length = file
        .metadata()
        .map_err(|source| failed("read", path, source))?
        .len();
    let before = (HEADER_BYTES + header.members.len()) as u64;
    if length.checked_sub(before) != Some(header.state_bytes) {
        let what = format!(
            "it has {length} bytes, its header says {} and {before} before them",
            header.state_bytes
        );
        return Err(Error::Damaged {
            path: path.to_owned(),
            what,
        });
    }
    let mut state = Vec::with_capacity(header.state_bytes as usize);
    file.read_to_end(&mut state)
        .map_err(|source| failed("read", path, source))?;
    if checksum(&header.fixed, &header.members, &state) != header.checksum {
        let what = "its checksum does not match".to_owned();
        return Err(Error::Damaged {
            path: path.to_owned(),
            what,
        });
    }
    Ok((meta, state))
}

struct Header {
    fixed: [u8; FIXED_BYTES],
    members: Vec<u8>,
    state_bytes: u64,
    checksum: u32,
}

fn open_header(path: &Path) -> Result<(Meta, File, Header), Error> {
    let damaged = |what: &str| Error::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let short = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends inside its header"),
        _ => failed("read", path, source),
    };
    let mut file = File::open(path).map_err(|source| failed("open", path, source))?;
    let mut fixed = [0; FIXED_BYTES];
    file.read_exact(&mut fixed).map_err(short)?;
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| fixed[at + i]));
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| fixed[at + i]));
    if !fixed.starts_with(MAGIC) {
        return Err(damaged("it does not begin like a snapshot"));
    }
    if half(8) > FORMAT_VERSION {
        return Err(Error::NewerFormat {
            path: path.to_owned(),
            found: half(8),
        });
    }
    let members_bytes = half(28) as usize;
    if half(8) == 0 || members_bytes > MAX_MEMBERS_BYTES {
        return Err(damaged("its header makes no sense"));
    }
    let mut sum = [0; 4];
    file.read_exact(&mut sum).map_err(short)?;
    let mut members = vec![0; members_bytes];
    file.read_exact(&mut members).map_err(short)?;
    let mut decoded = ConfState::default();
    decoded
        .merge_from_bytes(&members)
        .map_err(|_| damaged("its membership does not decode"))?;
    let position = Position {
        index: word(12),
        term: word(20),
    };
    let checksum = u32::from_le_bytes(sum);
    let header = Header {
        fixed,
        members,
        state_bytes: word(32),
        checksum,
    };
    Ok((
        Meta {
            position,
            members: decoded,
        },
        file,
        header,
    ))
}

#[cfg(test)]
mod tests;
