//! The access log: a line of JSON for each request, written by a thread of its own. Requests never wait for
//! the disk: what does not fit into the queue is counted and lost.

mod line;
mod logged;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

pub(crate) use line::Line;
pub(crate) use logged::Logged;
pub use writer::{Error, Writer};

/// Lines that wait for the disk, in bytes: some 10,000. A disk that is behind by more has failed or is far
/// too slow.
const MAX_QUEUED_BYTES: usize = 4 << 20;

/// Takes lines. Clones are one.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: Arc<Queue>,
    /// Paths are written with their query.
    with_query: bool,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Mutex<Lines>,
    /// Something is there to be done.
    filled: Condvar,
    /// Lines that nobody will read.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
    /// Nothing comes after what is there.
    closed: bool,
}

impl AccessLog {
    /// Appends to the file at `path`, which is made (readable by the owner's group) where it is not there;
    /// when it was renamed away, the next line goes to a new one. The log is complete when the [`Writer`]
    /// has been dropped.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread started.
    pub fn open(path: PathBuf, with_query: bool) -> Result<(Self, Writer), Error> {
        let queue = Arc::new(Queue::default());
        let writer = Writer::start(Arc::clone(&queue), path)?;
        Ok((Self { queue, with_query }, writer))
    }

    /// Lines lost since the start: the queue was full, or the disk refused them.
    pub(crate) fn lost(&self) -> u64 {
        self.queue.lost.load(Ordering::Relaxed)
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut lines = self.lines.lock();
        if lines.closed || lines.bytes.len() + line.len() > MAX_QUEUED_BYTES {
            drop(lines);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = lines.bytes.is_empty();
        lines.bytes.extend_from_slice(line);
        lines.count += 1;
        drop(lines);
        // Later ones are found by the writer when it comes back.
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits for lines and takes all there are, `spare` in their place. None: there will be no more.
    fn take(&self, spare: Vec<u8>) -> Option<(Vec<u8>, u64)> {
        let mut lines = self.lines.lock();
        while lines.bytes.is_empty() {
            if lines.closed {
                return None;
            }
            self.filled.wait(&mut lines);
        }
        let bytes = std::mem::replace(&mut lines.bytes, spare);
        Some((bytes, std::mem::take(&mut lines.count)))
    }

    fn close(&self) {
        self.lines.lock().closed = true;
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_not_waited_for() {
        let queue = Queue::default();
        let line = vec![b'x'; MAX_QUEUED_BYTES / 2];
        for _ in 0..3 {
            queue.push(&line);
        }
        assert_eq!(queue.lost.load(Ordering::Relaxed), 1);
        let (bytes, count) = queue.take(Vec::new()).expect("lines");
        assert_eq!((bytes.len(), count), (MAX_QUEUED_BYTES, 2));
        queue.push(b"y");
        queue.close();
        queue.push(b"z");
        assert_eq!(queue.take(Vec::new()), Some((b"y".to_vec(), 1)));
        assert_eq!(queue.take(Vec::new()), None);
        assert_eq!(queue.lost.load(Ordering::Relaxed), 2);
    }
}
