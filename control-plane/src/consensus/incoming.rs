//! A snapshot on its way in: from the first byte to the consensus thread.
//!
//! Owns the files of half a snapshot, and their verification. Never decodes the state, and never
//! gives a file the name of a snapshot: that is done when the log goes on behind it.

use super::snapshot::{self, Snapshots};
use parking_lot::Mutex;
use skep_raft_core::{Taken, snapshot_of};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Largest snapshot accepted: far above the state of the largest cluster planned for.
pub const MAX_SNAPSHOT_BYTES: u64 = 16 << 30;
/// Synced at intervals, so that the last sync, and the log's in between, are short.
const SYNC_BYTES: u64 = 8 << 20;
/// Read back for verification in pieces of this size.
const READ_BYTES: usize = 1 << 20;
/// The consensus thread syncs the log and renames a file; even a very slow disk does it in this.
const INSTALL_DEADLINE: Duration = Duration::from_secs(60);

/// What a peer offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// The member that sends it.
    pub from: u64,
    /// The last entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Size of the file.
    pub bytes: u64,
    /// CRC-32 of the whole file.
    pub crc32: u32,
}

/// Why a snapshot was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Larger than any state.
    #[error("the snapshot has {bytes} bytes, at most {MAX_SNAPSHOT_BYTES} are accepted")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// More bytes than were offered, or fewer.
    #[error("the snapshot was offered with {offered} bytes, {received} arrived")]
    Length {
        /// As offered.
        offered: u64,
        /// As received.
        received: u64,
    },
    /// What arrived is not what was offered. It is thrown away; the next attempt starts anew.
    #[error("what arrived is not the snapshot that was offered: {what}")]
    Corrupt {
        /// What is wrong.
        what: String,
    },
    /// Another snapshot, or another attempt at this one, is being received.
    #[error("another snapshot is being received")]
    Superseded,
    /// The last one is still being decoded.
    #[error("an earlier snapshot is still being installed")]
    Busy,
    /// The consensus thread has ended or does not answer.
    #[error("the server is stopping, or its disk does not answer")]
    Stopped,
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
    /// The snapshot directory.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
}

pub(super) type Answer = SyncSender<Result<(), Error>>;
type Install = Box<dyn FnOnce(Vec<u8>, Option<Taken>, Answer) -> bool + Send>;

/// Where snapshots arrive: one at a time, the last that began.
pub(super) struct Inbox {
    snapshots: Snapshots,
    /// Counts the attempts; held while an attempt writes.
    newest: Arc<Mutex<u64>>,
}

impl Inbox {
    pub(super) fn new(snapshots: Snapshots) -> Self {
        Self {
            snapshots,
            newest: Arc::default(),
        }
    }

    pub(super) fn receive(
        &self,
        offer: SnapshotOffer,
        applied: u64,
        install: Install,
    ) -> Result<Incoming, Error> {
        if offer.bytes > MAX_SNAPSHOT_BYTES {
            let bytes = offer.bytes;
            return Err(Error::TooLarge { bytes });
        }
        let mut newest = self.newest.lock();
        *newest += 1;
        // What is applied here is not wanted again; the leader learns so from the message alone.
        let part = match offer.index <= applied {
            true => None,
            false => Some(Part::open(&self.snapshots, &offer)?),
        };
        Ok(Incoming {
            offer,
            part,
            snapshots: self.snapshots.clone(),
            number: *newest,
            newest: self.newest.clone(),
            install,
        })
    }
}

/// A snapshot being received. Its methods block on the disk. Dropping it keeps what has arrived,
/// for the next attempt.
pub struct Incoming {
    offer: SnapshotOffer,
    part: Option<Part>,
    snapshots: Snapshots,
    number: u64,
    newest: Arc<Mutex<u64>>,
    install: Install,
}

impl Incoming {
    /// Bytes that are here already: the sender goes on from there.
    pub fn offset(&self) -> u64 {
        self.part
            .as_ref()
            .map_or(self.offer.bytes, |part| part.length)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Error::Superseded`], [`Error::Length`] or [`Error::File`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let newest = self.newest.lock();
        if *newest != self.number {
            return Err(Error::Superseded);
        }
        match &mut self.part {
            Some(part) => part.write(bytes, &self.offer),
            None if bytes.is_empty() => Ok(()),
            None => Err(Error::Length {
                offered: self.offer.bytes,
                received: self.offer.bytes + bytes.len() as u64,
            }),
        }
    }

    /// Verifies the whole file, makes it durable, and hands it to Raft with the message that came
    /// with it. On return the log goes on behind the snapshot, or Raft had no use for it.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Length`], [`Error::Superseded`], [`Error::Busy`],
    /// [`Error::Stopped`] or [`Error::File`].
    pub fn finish(self, message: Vec<u8>) -> Result<(), Error> {
        let staged = match self.part {
            None => None,
            Some(part) => {
                let newest = self.newest.lock();
                if *newest != self.number {
                    return Err(Error::Superseded);
                }
                Some(part.stage(&self.snapshots, &self.offer, &message)?)
            }
        };
        let (reply, answer) = sync_channel(1);
        if !(self.install)(message, staged, reply) {
            return Err(Error::Stopped);
        }
        answer
            .recv_timeout(INSTALL_DEADLINE)
            .unwrap_or(Err(Error::Stopped))
    }
}

/// The file that grows. Its name says what it is a part of.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    unsynced: u64,
}

impl Part {
    fn open(snapshots: &Snapshots, offer: &SnapshotOffer) -> Result<Self, Error> {
        let path = snapshots.part_path(offer.index, offer.term, offer.bytes, offer.crc32);
        snapshots.remove_parts(Some(&path))?;
        let fail = |source| failed("open", &path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        let mut length = file.seek(SeekFrom::End(0)).map_err(fail)?;
        if length > offer.bytes {
            file.set_len(0).map_err(fail)?;
            length = file.seek(SeekFrom::Start(0)).map_err(fail)?;
        }
        Ok(Self {
            path,
            file,
            length,
            unsynced: 0,
        })
    }

    fn write(&mut self, bytes: &[u8], offer: &SnapshotOffer) -> Result<(), Error> {
        let received = self.length + bytes.len() as u64;
        if received > offer.bytes {
            let offered = offer.bytes;
            return Err(Error::Length { offered, received });
        }
        let fail = |source| failed("write", &self.path, source);
        if let Err(source) = self.file.write_all(bytes) {
            // Some of them may be there: the next attempt must not take them for all.
            let _already_failing = self.file.set_len(self.length);
            return Err(fail(source));
        }
        self.length = received;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data().map_err(fail)?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn stage(
        mut self,
        snapshots: &Snapshots,
        offer: &SnapshotOffer,
        message: &[u8],
    ) -> Result<Taken, Error> {
        if self.length != offer.bytes {
            return Err(Error::Length {
                offered: offer.bytes,
                received: self.length,
            });
        }
        let verified = self.verify(offer, message);
        if let Err(Error::Corrupt { .. }) = verified {
            let _gone = std::fs::remove_file(&self.path);
        }
        let taken = verified?;
        self.file
            .sync_all()
            .map_err(|source| failed("sync", &self.path, source))?;
        snapshots.stage(&self.path, offer.index)?;
        Ok(taken)
    }

    fn verify(&mut self, offer: &SnapshotOffer, message: &[u8]) -> Result<Taken, Error> {
        let corrupt = |what: String| Error::Corrupt { what };
        let crc32 = self.checksum()?;
        if crc32 != offer.crc32 {
            return Err(corrupt(format!(
                "its checksum is {crc32:08x}, {:08x} was offered",
                offer.crc32
            )));
        }
        let taken = snapshot::taken(&self.path).map_err(|error| corrupt(error.to_string()))?;
        let told = snapshot_of(message).map_err(|error| corrupt(error.to_string()))?;
        let position = told.position;
        if taken.position != position
            || (position.index, position.term) != (offer.index, offer.term)
        {
            return Err(corrupt(
                "file, message and offer speak of different places".to_owned(),
            ));
        }
        Ok(taken)
    }

    fn checksum(&mut self) -> Result<u32, Error> {
        let fail = |source| failed("read", &self.path, source);
        self.file.seek(SeekFrom::Start(0)).map_err(fail)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.file.read(&mut buffer).map_err(fail)? {
                0 => return Ok(hasher.finalize()),
                count => hasher.update(&buffer[..count]),
            }
        }
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}
