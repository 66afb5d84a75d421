//! The thread that writes the access log, and the file it has open.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

use super::Queue;

/// Its owner writes, the group (of whoever ships logs) reads: addresses and paths are nobody else's.
const MODE: u32 = 0o640;
/// A file, a path and a few numbers.
const STACK_BYTES: usize = 128 << 10;
/// What a buffer may keep after a burst.
const KEPT_BYTES: usize = 64 << 10;

/// The access log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot open the access log {}: its folder must be there and writable", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The thread.
    #[error("cannot start the thread that writes the access log")]
    Thread(#[source] io::Error),
}

/// Writes the log. Dropping it waits until all that was taken is written.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(queue: Arc<Queue>, path: PathBuf) -> Result<Self, Error> {
        let log = match Log::open(path.clone()) {
            Ok(log) => log,
            Err(source) => return Err(Error::Open { path, source }),
        };
        let own = Arc::clone(&queue);
        let thread = Builder::new()
            .name("access-log".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || write_all(&own, log))
            .map_err(Error::Thread)?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// All that is queued goes out in one write: the busier, the fewer a line.
fn write_all(queue: &Queue, mut log: Log) {
    let mut spare = Vec::new();
    let (mut said_lost, mut failing) = (0, false);
    while let Some((mut bytes, count)) = queue.take(spare) {
        match log.append(&bytes) {
            Ok(()) if failing => {
                failing = false;
                tracing::info!(path = %log.path.display(), "the access log is written again");
            }
            Ok(()) => {}
            Err(error) => {
                queue.lost.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(path = %log.path.display(), %error, "the access log cannot be written: lines are lost");
                }
            }
        }
        let lost = queue.lost.load(Ordering::Relaxed);
        if lost > said_lost && !failing {
            tracing::warn!(
                lines = lost - said_lost,
                "lines of the access log were lost"
            );
            said_lost = lost;
        }
        bytes.clear();
        bytes.shrink_to(KEPT_BYTES);
        spare = bytes;
    }
}

/// The file at a path, as long as it is that one.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, file })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // One look a write, and none while nothing is asked: rotation needs no signal.
        if !self.is_in_place() {
            self.file = open(&self.path)?;
        }
        self.file.write_all(bytes)
    }

    fn is_in_place(&self) -> bool {
        let open = self.file.metadata();
        let Ok((open, there)) = open.and_then(|open| Ok((open, std::fs::metadata(&self.path)?)))
        else {
            return false;
        };
        (open.dev(), open.ino()) == (there.dev(), there.ino())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_renamed_away_keeps_its_lines_and_a_new_one_takes_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("access"), folder.path().join("access.1"));
        let mut log = Log::open(path.clone()).expect("opened");
        log.append(b"one\n").expect("written");
        fs::rename(&path, &old).expect("renamed");
        log.append(b"two\n").expect("written");
        fs::remove_file(&path).expect("removed");
        log.append(b"three\n").expect("written");
        assert_eq!(fs::read(&old).expect("read"), b"one\n");
        assert_eq!(fs::read(&path).expect("read"), b"three\n");
        let mode = fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o777 & !MODE, 0, "{mode:o}");
    }

    #[test]
    fn what_was_taken_is_written_before_the_writer_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access");
        let queue = Arc::new(Queue::default());
        let writer = Writer::start(Arc::clone(&queue), path.clone()).expect("started");
        for _ in 0..1000 {
            queue.push(b"line\n");
        }
        drop(writer);
        assert_eq!(fs::read(&path).expect("read"), b"line\n".repeat(1000));
        assert_eq!(queue.lost.load(Ordering::Relaxed), 0);
        let nowhere = Writer::start(queue, folder.path().join("no/access"));
        assert!(matches!(nowhere, Err(Error::Open { .. })));
    }
}
