//! What the nodes measure, on its way from their sessions to whoever asks. Owns two things, both in
//! memory alone: the newest word of this server's own nodes, and, while it leads, what all nodes said
//! in the last minute. Nothing of it enters the log; losing it costs a period.
//!
//! ```text
//! session ─► Board (newest word of each own node) ─► relay ─► the leader's Book ─► autoscaling, people
//! ```

mod admit;
mod board;
mod book;
pub mod latency;
mod pace;
mod read;
mod ring;
mod track;
mod tried;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skep_model::id::NodeId;
use skep_model::sample;
use skep_state::State;
use tokio::sync::watch;

use board::Board;
pub use board::Word;
use book::Book;
pub use read::{AllocationSample, Detail, NodeSample, ServiceSample};

/// What was said last by somebody silent for so long counts no more: five periods.
pub const STALE_AFTER: Duration = Duration::from_secs(10);
/// Over how much of the past rates are taken at most.
pub const MAX_WINDOW: Duration = Duration::from_secs(30);
/// Over how much of the past people are shown rates: five periods, so that one that is lost does not
/// show.
pub const SHOWN_WINDOW: Duration = Duration::from_secs(10);

/// A reading, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Readings of containers that a newer one replaced before the leader had them.
    pub dropped: u64,
    /// Readings of what the node has no say in, or of more than a node may have.
    pub refused: u64,
    /// How long the oldest word that the leader does not have yet has waited, in ms.
    pub lag_ms: u64,
    /// Nodes of which this server has fresh samples: all, where it leads; else its own.
    pub nodes: u64,
}

#[derive(Debug)]
struct Inner {
    board: Mutex<Board>,
    book: Mutex<Book>,
    is_leading: AtomicBool,
    began: Instant,
    refused: AtomicU64,
    /// Moves when a service that sleeps is asked for at a node of this server's.
    hurry: watch::Sender<u64>,
    /// Moves whenever the book has learned something.
    learned: watch::Sender<u64>,
}

/// The samples as this server knows them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Samples {
    inner: Arc<Inner>,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                board: Mutex::default(),
                book: Mutex::default(),
                is_leading: AtomicBool::new(false),
                began: Instant::now(),
                refused: AtomicU64::new(0),
                hurry: watch::Sender::new(0),
                learned: watch::Sender::new(0),
            }),
        }
    }
}

impl Samples {
    /// What a node says in its session; what it has no say in is left out.
    pub fn hear(&self, view: &State, (node, session): (NodeId, u64), said: sample::Samples) {
        let (said, refused) = admit::admit(view, node, said);
        if refused > 0 {
            self.inner.refused.fetch_add(refused, Ordering::Relaxed);
        }
        let is_hurry = wakes(view, &said);
        let now = Instant::now();
        self.inner.board.lock().hear((node, session), said, now);
        if is_hurry {
            self.inner.hurry.send_modify(|count| *count += 1);
        }
    }

    /// Wakes when what was heard is to be told without waiting for its turn.
    pub(crate) fn hurry(&self) -> watch::Receiver<u64> {
        self.inner.hurry.subscribe()
    }

    /// Wakes when this server, leading, has learned something.
    pub(crate) fn learned(&self) -> watch::Receiver<u64> {
        self.inner.learned.subscribe()
    }

    /// A node said what means nothing.
    pub fn refuse(&self) {
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A session ended: another server may hear the node now.
    pub fn disconnect(&self, node: NodeId, session: u64) {
        self.inner.board.lock().disconnect(node, session);
    }

    /// Everything is to be told again: to another leader, or over another connection.
    pub(crate) fn rewind(&self) {
        self.inner.board.lock().rewind();
    }

    /// What was not told yet, of about `items` things at most.
    pub(crate) fn take(&self, items: usize) -> Vec<Word> {
        self.inner.board.lock().take(items, Instant::now())
    }

    /// This server leads from now on, or does not any more: what it knows of all nodes begins anew.
    pub(crate) fn lead(&self, is_leading: bool) {
        let mut book = self.inner.book.lock();
        *book = Book::default();
        self.inner.is_leading.store(is_leading, Ordering::Relaxed);
    }

    /// Whether this server leads, as far as samples are concerned.
    pub(crate) fn is_leading(&self) -> bool {
        self.inner.is_leading.load(Ordering::Relaxed)
    }

    /// What a server, this one included, hears from its nodes.
    pub(crate) fn learn(&self, words: Vec<Word>) {
        let now_ms = self.now_ms();
        let mut book = self.inner.book.lock();
        for word in words {
            let held_ms = u64::try_from(word.held.as_millis()).unwrap_or(u64::MAX);
            book.learn(word.node, word.said, now_ms.saturating_sub(held_ms));
        }
        drop(book);
        self.inner.learned.send_modify(|count| *count += 1);
    }

    /// Forgets what the state does not have any more, and what is too old to matter.
    pub(crate) fn sweep(&self, view: &State) {
        let now_ms = self.now_ms();
        self.inner.book.lock().sweep(view, now_ms);
    }

    /// For operators.
    pub fn metrics(&self) -> Metrics {
        let now = Instant::now();
        let board = self.inner.board.lock();
        let (dropped, lag, own) = (board.dropped(), board.lag(now), board.fresh(now));
        drop(board);
        let nodes = match self.is_leading() {
            true => self.inner.book.lock().fresh(self.now_ms()),
            false => own,
        };
        Metrics {
            dropped,
            refused: self.inner.refused.load(Ordering::Relaxed),
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            nodes: nodes as u64,
        }
    }

    /// This server's steady clock, ms. It begins well above 0, so that what was heard before it began
    /// has a time of its own.
    fn now_ms(&self) -> u64 {
        let age = self.inner.began.elapsed() + Duration::from_secs(3_600);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether a request waits for a service of which nothing runs.
fn wakes(view: &State, said: &sample::Samples) -> bool {
    let mut counted = said.ingress.iter().flat_map(|it| &it.services);
    counted.any(|(id, counters)| {
        counters.in_flight > 0 && view.service(*id).is_some_and(|it| it.is_asleep())
    })
}
