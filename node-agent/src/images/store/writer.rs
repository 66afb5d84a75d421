//! A blob that is being written: its sum is taken as it comes, and it gets its name only when the sum is
//! the name. What was begun is gone on with after a restart.

use std::io;
use std::path::{Path, PathBuf};

use skep_identity::digest::Sha256;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::digest::Digest;

/// Bytes that are read at once where a part that is there already is summed up.
const READ_BYTES: usize = 256 << 10;

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
pub(crate) struct Writer {
    path: PathBuf,
    file: File,
    sum: Sha256,
    written: u64,
    limit: u64,
}

impl Writer {
    /// Goes on with the file at `path`, or begins it. It never exceeds `limit` bytes.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).await?;
        let mut sum = Sha256::default();
        let mut written = 0;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer).await? {
                0 => break,
                read => {
                    sum.update(&buffer[..read]);
                    written += read as u64;
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            sum,
            written,
            limit,
        })
    }

    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Appends.
    ///
    /// # Errors
    /// The disk's, or it grows too long.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.written + bytes.len() as u64;
        if written > self.limit {
            return Err(Error::TooLong { limit: self.limit });
        }
        self.file.write_all(bytes).await?;
        self.sum.update(bytes);
        self.written = written;
        Ok(())
    }

    /// Lets others who read the file see what was written.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        Ok(self.file.flush().await?)
    }

    /// Ends it: on disk, under its own name at `target`.
    ///
    /// # Errors
    /// It is not `expected`, or the disk's; the file is gone then.
    pub(super) async fn finish(mut self, expected: Digest, target: &Path) -> Result<u64, Error> {
        let found = Digest::from_sum(self.sum.finish());
        let kept = async {
            if found != expected {
                return Err(Error::Mismatch { expected, found });
            }
            self.file.flush().await?;
            self.file.sync_all().await?;
            tokio::fs::rename(&self.path, target).await?;
            let folder = target.parent().expect("blobs are in a folder");
            File::open(folder).await?.sync_all().await?;
            Ok(self.written)
        };
        let kept = kept.await;
        if kept.is_err() {
            let _ = tokio::fs::remove_file(&self.path).await;
        }
        kept
    }

    /// Gives it up: nothing of it stays.
    pub(crate) async fn discard(self) {
        let _ = tokio::fs::remove_file(&self.path).await;
    }
}
