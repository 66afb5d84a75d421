//! One blob on its way, for those who read it meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// Bytes that are handed on at once.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// How far it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Raised when what was there turned out to be wrong and the blob is begun anew.
    pub(super) epoch: u32,
    /// Bytes that can be read.
    pub(super) written: u64,
    /// How it ended.
    pub(super) end: Option<Result<(), Arc<super::Error>>>,
}

/// A blob that is being fetched.
#[derive(Debug, Clone)]
pub(crate) struct Coming {
    /// Where it grows.
    pub(super) path: PathBuf,
    /// Where it is once it is whole.
    pub(super) kept: PathBuf,
    /// How far it is.
    pub(super) progress: watch::Receiver<Progress>,
    /// Its size, where its manifest has said it.
    pub(super) size: Option<u64>,
}

struct Reader {
    coming: Coming,
    file: Option<(File, u32)>,
    position: u64,
}

impl Coming {
    /// How many bytes it will have, where that is known.
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Waits until it is here.
    ///
    /// # Errors
    /// Why it did not come.
    pub(crate) async fn whole(mut self) -> Result<(), Arc<super::Error>> {
        match self.progress.wait_for(|now| now.end.is_some()).await {
            Ok(now) => now.end.clone().expect("it was waited for"),
            Err(_) => Err(Arc::new(super::Error::Closing)),
        }
    }

    /// Its bytes from `start` on, as they come. Whoever reads must check them: they are not proven yet.
    pub(crate) fn bytes(self, start: u64) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        let reader = Reader {
            coming: self,
            file: None,
            position: start,
        };
        try_unfold((reader, start), |(mut reader, start)| async move {
            let piece = reader.next(start).await?;
            Ok(piece.map(|piece| (piece, (reader, start))))
        })
    }
}

impl Reader {
    async fn next(&mut self, start: u64) -> Result<Option<Bytes>, std::io::Error> {
        let position = self.position;
        let is_news = |now: &Progress| now.written > position || now.end.is_some();
        let now = match self.coming.progress.wait_for(is_news).await {
            Ok(now) => now.clone(),
            Err(_) => return Err(std::io::Error::other("the agent ends")),
        };
        if let Some(Err(error)) = &now.end {
            return Err(std::io::Error::other(crate::error_chain(error)));
        }
        if let Some((_, epoch)) = &self.file
            && *epoch != now.epoch
        {
            if position > start {
                return Err(std::io::Error::other(
                    "what came so far was not what it should be",
                ));
            }
            self.file = None;
        }
        if now.written <= position {
            return Ok(None);
        }
        let room = (now.written - position).min(PIECE_BYTES as u64) as usize;
        let opened = self.file.take();
        let (path, kept) = (self.coming.path.clone(), self.coming.kept.clone());
        let read = spawn_blocking(move || {
            let file = match opened {
                Some((file, _)) => file,
                None => open(&path, &kept, position)?,
            };
            piece(file, room)
        });
        let (file, bytes) = read.await??;
        if bytes.len() < room {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.file = Some((file, now.epoch));
        self.position += room as u64;
        Ok(Some(bytes))
    }
}

fn open(path: &Path, kept: &Path, position: u64) -> std::io::Result<File> {
    let mut file = match File::open(path) {
        // It became whole before this reader began.
        Err(error) if error.kind() == ErrorKind::NotFound => File::open(kept)?,
        opened => opened?,
    };
    file.seek(SeekFrom::Start(position))?;
    Ok(file)
}

/// The next `room` bytes of a file, fewer at its end. Blocks.
pub(crate) fn piece(file: File, room: usize) -> std::io::Result<(File, Bytes)> {
    let mut bytes = Vec::with_capacity(room);
    (&file).take(room as u64).read_to_end(&mut bytes)?;
    Ok((file, bytes.into()))
}
