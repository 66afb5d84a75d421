//! A blob that is being written: its sum is taken as it comes, and it gets its name only when the sum is
//! the name. What was begun is gone on with after a restart.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use skep_identity::digest::Sha256;
use tokio::task::{JoinHandle, spawn_blocking};

use super::super::digest::Digest;

/// Bytes that are given to the disk at once: many more than a connection gives.
const WRITE_BYTES: usize = 256 << 10;

/// A blob did not become one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The disk.
    #[error("the image store's disk")]
    Disk(#[from] io::Error),
    /// Another content than was asked for.
    #[error("the content is {found}, and not {expected}")]
    Mismatch {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Longer than it may be.
    #[error("the content is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
}

impl Error {
    /// Whether the disk has no room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if is_full(error))
    }
}

/// Whether a disk says that it has no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A file that grows, and its sum.
#[derive(Debug)]
struct Part {
    file: File,
    sum: Sha256,
}

/// Who has the file.
#[derive(Debug)]
enum Hand {
    Free(Box<Part>),
    /// A write that is under way, and the buffer that comes back from it.
    Busy(JoinHandle<io::Result<(Box<Part>, Vec<u8>)>>),
    /// A write failed: the sum is not the file's any more.
    Broken,
}

/// Writes a file, and sums it up: one buffer is written while the next one fills. A caller that goes in the
/// middle of any of it leaves it as it is: what was begun ends, and the next call goes on.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    hand: Hand,
    /// Not given to the disk yet.
    pending: Vec<u8>,
    /// An empty buffer.
    spare: Vec<u8>,
    written: u64,
    /// Bytes that are in the file, and that will be once the write under way has ended.
    readable: u64,
    begun: u64,
    limit: u64,
}

impl Writer {
    /// Goes on with the file at `path`, or begins it. It never exceeds `limit` bytes.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let path = path.to_owned();
        let opened = spawn_blocking(move || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(&path)?;
            let mut sum = Sha256::default();
            let mut written = 0;
            let mut buffer = vec![0; WRITE_BYTES];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    read => {
                        sum.update(&buffer[..read]);
                        written += read as u64;
                    }
                }
            }
            Ok(Self {
                path,
                hand: Hand::Free(Box::new(Part { file, sum })),
                pending: Vec::new(),
                spare: Vec::new(),
                written,
                readable: written,
                begun: written,
                limit,
            })
        });
        opened.await?
    }

    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// How many of them others who read the file see.
    pub(crate) fn readable(&self) -> u64 {
        self.readable
    }

    /// Appends. An error may be that of an earlier piece.
    ///
    /// # Errors
    /// The disk's, or it grows too long.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.written + bytes.len() as u64;
        if written > self.limit {
            return Err(Error::TooLong { limit: self.limit });
        }
        self.pending.extend_from_slice(bytes);
        self.written = written;
        if self.pending.len() >= WRITE_BYTES {
            self.pass_on().await?;
        }
        Ok(())
    }

    /// Lets others who read the file see all that was written.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        self.pass_on().await?;
        Ok(self.settle().await?)
    }

    /// Gives what is pending to the disk, once that has taken what it has.
    async fn pass_on(&mut self) -> io::Result<()> {
        self.settle().await?;
        if self.pending.is_empty() {
            return Ok(());
        }
        match std::mem::replace(&mut self.hand, Hand::Broken) {
            Hand::Free(mut part) => {
                let bytes = std::mem::replace(&mut self.pending, std::mem::take(&mut self.spare));
                self.begun = self.written;
                self.hand = Hand::Busy(spawn_blocking(move || {
                    part.file.write_all(&bytes)?;
                    part.sum.update(&bytes);
                    Ok((part, bytes))
                }));
                Ok(())
            }
            other => {
                self.hand = other;
                Err(broken())
            }
        }
    }

    /// Waits for the write that is under way.
    async fn settle(&mut self) -> io::Result<()> {
        if let Hand::Busy(write) = &mut self.hand {
            let done = write.await;
            self.hand = Hand::Broken;
            let (part, mut spare) = done??;
            spare.clear();
            self.spare = spare;
            self.readable = self.begun;
            self.hand = Hand::Free(part);
        }
        match self.hand {
            Hand::Free(_) => Ok(()),
            _ => Err(broken()),
        }
    }

    /// Ends it: on disk, under its own name at `target`.
    ///
    /// # Errors
    /// It is not `expected`, or the disk's; the file is gone then.
    pub(super) async fn finish(mut self, expected: Digest, target: &Path) -> Result<u64, Error> {
        let flushed = self.flush().await;
        let hand = std::mem::replace(&mut self.hand, Hand::Broken);
        let kept = match (flushed, hand) {
            (Ok(()), Hand::Free(part)) => {
                let places = (self.path.clone(), target.to_owned());
                let kept = spawn_blocking(move || keep(part, expected, &places)).await;
                kept.unwrap_or_else(|error| Err(io::Error::from(error).into()))
            }
            (flushed, _) => flushed.and_then(|()| Err(broken().into())),
        };
        if kept.is_err() {
            let _ = tokio::fs::remove_file(&self.path).await;
        }
        kept.map(|()| self.written)
    }

    /// Gives it up: nothing of it stays.
    pub(crate) async fn discard(mut self) {
        let _ = self.settle().await;
        let _ = tokio::fs::remove_file(&self.path).await;
    }
}

fn keep(
    part: Box<Part>,
    expected: Digest,
    (path, target): &(PathBuf, PathBuf),
) -> Result<(), Error> {
    let found = Digest::from_sum(part.sum.finish());
    if found != expected {
        return Err(Error::Mismatch { expected, found });
    }
    part.file.sync_all()?;
    std::fs::rename(path, target)?;
    let folder = target.parent().expect("blobs are in a folder");
    Ok(File::open(folder)?.sync_all()?)
}

fn broken() -> io::Error {
    io::Error::other("an earlier write to it failed")
}
