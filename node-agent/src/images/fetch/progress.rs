//! One blob on its way, for those who read it meanwhile.

use std::io::{ErrorKind, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::try_unfold;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::watch;

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
        if self.file.is_none() {
            let mut file = match File::open(&self.coming.path).await {
                // It became whole before this reader began.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    File::open(&self.coming.kept).await?
                }
                opened => opened?,
            };
            file.seek(SeekFrom::Start(position)).await?;
            self.file = Some((file, now.epoch));
        }
        let (file, _) = self.file.as_mut().expect("it was just opened");
        let room = (now.written - position).min(PIECE_BYTES as u64) as usize;
        let mut piece = BytesMut::with_capacity(room);
        while piece.len() < room {
            let left = room - piece.len();
            if file.read_buf(&mut (&mut piece).limit(left)).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.position += room as u64;
        Ok(Some(piece.freeze()))
    }
}
