//! The contents of a file on their way: small ones out of memory, large ones piece by piece, each read when the
//! one before has gone. Reading blocks, so it is done where that is allowed, by a bounded number at a time.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Larger files are not kept in memory.
pub(super) const SMALL_BYTES: u64 = 64 << 10;
/// What is kept in memory of all sites together.
const CACHE_BYTES: u64 = 32 << 20;
/// What an entry takes beside its contents, at most.
const ENTRY_BYTES: u64 = 256;
/// A file as they usually are: the cache makes room for so many at first.
const USUAL_BYTES: u64 = 8 << 10;
/// Read of a large file at a time.
const PIECE_BYTES: u64 = 128 << 10;
/// Reads at a time, of all clients together: more would only wait for the same disk.
const READS_MAX: usize = 64;

static READS: Semaphore = Semaphore::const_new(READS_MAX);

/// Contents of a bundle: its number in this process, theirs, and whether they are gzipped.
pub(super) type Key = (u64, u32, bool);

/// Small files of all sites that are asked for often.
#[derive(Debug)]
pub(super) struct Memory(Cache<Key, Bytes, Weight>);

#[derive(Debug, Clone, Copy)]
struct Weight;

impl Weighter<Key, Bytes> for Weight {
    fn weight(&self, _: &Key, contents: &Bytes) -> u64 {
        contents.len() as u64 + ENTRY_BYTES
    }
}

impl Default for Memory {
    fn default() -> Self {
        let usual = usize::try_from(CACHE_BYTES / USUAL_BYTES).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(usual, CACHE_BYTES, Weight))
    }
}

impl Memory {
    /// The whole contents of a small file.
    ///
    /// # Errors
    /// They are not there as they are said to be.
    pub(super) async fn contents(
        &self,
        key: Key,
        path: impl FnOnce() -> PathBuf,
        size: u64,
    ) -> io::Result<Bytes> {
        if let Some(known) = self.0.get(&key) {
            return Ok(known);
        }
        let file = open(path(), size).await?;
        let contents = read(file, 0..size).await?;
        self.0.insert(key, contents.clone());
        Ok(contents)
    }
}

/// A file that has this size.
///
/// # Errors
/// There is none.
pub(super) async fn open(path: PathBuf, size: u64) -> io::Result<Arc<fs::File>> {
    blocking(move || {
        let file = fs::File::open(path)?;
        match file.metadata()?.len() {
            found if found == size => Ok(Arc::new(file)),
            found => Err(io::Error::other(format!(
                "it has {found} bytes in place of {size}"
            ))),
        }
    })
    .await
}

async fn read(file: Arc<fs::File>, part: Range<u64>) -> io::Result<Bytes> {
    blocking(move || {
        let length = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
        let mut piece = vec![0; length];
        file.read_exact_at(&mut piece, part.start)?;
        Ok(Bytes::from(piece))
    })
    .await
}

/// Does `work` where it may wait for the disk. Goes on to its end when nobody waits for it any more, and has its
/// place until then.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let place = READS.acquire().await.map_err(io::Error::other)?;
    let work = move || {
        let _place = place;
        work()
    };
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Body(Contents);

#[derive(Debug)]
enum Contents {
    /// All that is left of it.
    Memory(Bytes),
    Disk(Pieces),
}

impl Body {
    pub(super) fn whole(contents: Bytes) -> Self {
        Self(Contents::Memory(contents))
    }

    /// This part of a file.
    pub(super) fn part(file: Arc<fs::File>, part: Range<u64>) -> Self {
        Self(Contents::Disk(Pieces {
            file,
            left: part,
            reading: None,
        }))
    }

    fn left(&self) -> u64 {
        match &self.0 {
            Contents::Memory(contents) => contents.len() as u64,
            Contents::Disk(pieces) => pieces.left.end - pieces.left.start,
        }
    }
}

/// A large file.
struct Pieces {
    file: Arc<fs::File>,
    /// Not yet handed on.
    left: Range<u64>,
    reading: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Pieces {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let reading = self.reading.get_or_insert_with(|| {
            let end = self.left.end.min(self.left.start + PIECE_BYTES);
            Box::pin(read(Arc::clone(&self.file), self.left.start..end))
        });
        let read = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        match &read {
            Ok(piece) => self.left.start += piece.len() as u64,
            Err(_) => self.left.start = self.left.end,
        }
        Poll::Ready(Some(read))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().0 {
            Contents::Memory(contents) if contents.is_empty() => Poll::Ready(None),
            Contents::Memory(contents) => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(contents)))))
            }
            Contents::Disk(pieces) => {
                let read = ready!(pieces.poll(cx));
                Poll::Ready(read.map(|read| read.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_file_that_shrinks_meanwhile_ends_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1");
        fs::write(&path, vec![7; 300_000]).unwrap();
        assert!(open(path.clone(), 299_999).await.is_err());
        let file = open(path.clone(), 300_000).await.unwrap();
        let mut body = Body::part(file, 1..300_000);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len() as u64, PIECE_BYTES);
        assert_eq!(body.left(), 299_999 - PIECE_BYTES);
        fs::write(&path, b"short").unwrap();
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn what_is_in_memory_is_not_read_again_and_memory_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1");
        let memory = Memory::default();
        fs::write(&path, vec![7; SMALL_BYTES as usize]).unwrap();
        memory
            .contents((0, 1, false), || path.clone(), SMALL_BYTES)
            .await
            .unwrap();
        for number in 0..1_000 {
            let key = (1, number, false);
            memory
                .contents(key, || path.clone(), SMALL_BYTES)
                .await
                .unwrap();
            assert!(memory.0.weight() <= CACHE_BYTES);
        }
        fs::remove_file(&path).unwrap();
        let key = (1, 999, false);
        assert_eq!(
            memory
                .contents(key, || path.clone(), SMALL_BYTES)
                .await
                .unwrap()
                .len() as u64,
            SMALL_BYTES
        );
        assert!(
            memory
                .contents((2, 1, false), || path.clone(), SMALL_BYTES)
                .await
                .is_err()
        );
    }
}
