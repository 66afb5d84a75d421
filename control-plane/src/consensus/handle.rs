//! [`Handle`]: how the rest of the server proposes, reads and follows.
//!
//! Owns the limits and deadlines of requests. Never touches the log: everything is a message to
//! the consensus thread, or a look at what that thread has published.

use super::machine::{Batch, Leadership, StateMachine};
use super::metrics::{Counters, Metrics};
use parking_lot::RwLock;
use skep_raft_core::{MAX_MESSAGE_BYTES, Reason};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

/// Largest command. What is bigger belongs in history or on a node, not in the log.
pub const MAX_COMMAND_BYTES: usize = 256 << 10;
/// Bytes of proposals and peer messages that wait or are in flight, in units of 1 KiB; each
/// takes at least one unit. Callers wait for room.
pub const QUEUE_KIB: u32 = 32 << 10;
/// Reads that wait or are in flight.
pub const READ_QUEUE: usize = 16 << 10;
/// Batches that a slow follower of the feed may be behind before it has to start from a view.
pub const CHANGE_FEED: usize = 1 << 10;
/// After this a proposal is given up on; far above any election or slow disk.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);
/// After this a read is given up on.
pub const READ_DEADLINE: Duration = Duration::from_secs(5);

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The command is too large.
    #[error("the command has {bytes} bytes, at most {MAX_COMMAND_BYTES} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The command has no bytes.
    #[error("the command is empty")]
    Empty,
    /// Another server leads.
    #[error("this server does not lead{}", leader.map_or(String::new(), |id| format!("; server {id} does")))]
    NotLeader {
        /// Its id, if known.
        leader: Option<u64>,
    },
    /// This server has just been elected.
    #[error("this server has just been elected and is not ready yet")]
    NotReady,
    /// Too much is waiting to be committed.
    #[error("too many commands are waiting to be committed")]
    Busy,
    /// Another leader's entry took the command's place in the log.
    #[error("the leader changed and the command was not applied")]
    Superseded,
    /// No answer in time.
    #[error("no answer after {after_ms} ms; {}", if *.is_write { "the command may still be applied" } else { "nothing was read" })]
    Timeout {
        /// Whether a command was under way.
        is_write: bool,
        /// The deadline.
        after_ms: u64,
    },
    /// The consensus thread has ended.
    #[error("the server is stopping; a command under way may or may not have been applied")]
    Stopped,
}

impl Error {
    /// Whether the same request may succeed later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Empty)
    }

    /// Whether a command may have been, or may yet be, applied: retry it only if applying it
    /// twice does no harm.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Timeout { is_write: true, .. } | Self::Stopped)
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotLeader { leader } => Self::NotLeader { leader },
            Reason::NotReady => Self::NotReady,
            Reason::Busy => Self::Busy,
        }
    }
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the consensus thread is told.
pub(super) enum Event<M: StateMachine> {
    Propose {
        command: Vec<u8>,
        reply: Reply<M::Outcome>,
        room: OwnedSemaphorePermit,
    },
    Read {
        reply: Reply<(u64, M::View)>,
        room: OwnedSemaphorePermit,
    },
    Message {
        bytes: Vec<u8>,
        room: OwnedSemaphorePermit,
    },
    SnapshotDone(Result<super::snapshot::Meta, super::snapshot::Error>),
    Stop,
}

/// What the consensus thread shows.
pub(super) struct Shared<M: StateMachine> {
    pub(super) published: RwLock<(u64, M::View)>,
    pub(super) applied: watch::Sender<u64>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) changes: broadcast::Sender<Arc<Batch<M::Change>>>,
    pub(super) counters: Counters,
}

impl<M: StateMachine> Shared<M> {
    pub(super) fn new(index: u64, view: M::View) -> Self {
        Self {
            published: RwLock::new((index, view)),
            applied: watch::Sender::new(index),
            leadership: watch::Sender::new(Leadership::default()),
            changes: broadcast::Sender::new(CHANGE_FEED),
            counters: Counters::default(),
        }
    }
}

/// A cheap clone that any task may hold. It does not keep the service alive.
pub struct Handle<M: StateMachine> {
    pub(super) events: Sender<Event<M>>,
    pub(super) shared: Arc<Shared<M>>,
    pub(super) queue: Arc<Semaphore>,
    pub(super) reads: Arc<Semaphore>,
}

impl<M: StateMachine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self {
            events: self.events.clone(),
            shared: self.shared.clone(),
            queue: self.queue.clone(),
            reads: self.reads.clone(),
        }
    }
}

impl<M: StateMachine> Handle<M> {
    pub(super) fn new(events: Sender<Event<M>>, shared: Arc<Shared<M>>) -> Self {
        let queue = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        Self {
            events,
            shared,
            queue,
            reads: Arc::new(Semaphore::new(READ_QUEUE)),
        }
    }

    /// Commits a command and answers with what applying it gave, after views show it.
    ///
    /// # Errors
    /// See [`Error`]; dropping the future does not take the command back.
    pub async fn propose(&self, command: Vec<u8>) -> Result<M::Outcome, Error> {
        let bytes = command.len();
        if bytes > MAX_COMMAND_BYTES {
            return Err(Error::TooLarge { bytes });
        }
        if bytes == 0 {
            return Err(Error::Empty);
        }
        within(PROPOSE_DEADLINE, true, async {
            let queue = self.queue.clone();
            let room = queue
                .acquire_many_owned(units(bytes))
                .await
                .map_err(|_| Error::Stopped)?;
            self.ask(|reply| Event::Propose {
                command,
                reply,
                room,
            })
            .await
        })
        .await
    }

    /// A view that holds every write acknowledged, by any server, before this call.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read(&self) -> Result<M::View, Error> {
        self.read_indexed().await.map(|(_, view)| view)
    }

    /// [`Handle::read`] with the index of the view.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read_indexed(&self) -> Result<(u64, M::View), Error> {
        within(READ_DEADLINE, false, async {
            let room = self
                .reads
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| Error::Stopped)?;
            self.ask(|reply| Event::Read { reply, room }).await
        })
        .await
    }

    /// The newest view applied here; never waits, may be behind the group.
    pub fn view(&self) -> M::View {
        self.shared.published.read().1.clone()
    }

    /// [`Handle::view`] with its index: batches up to that index are in it.
    pub fn view_indexed(&self) -> (u64, M::View) {
        self.shared.published.read().clone()
    }

    /// The index of the last applied entry. The view is never older than it.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// The changes from now on. Whoever falls [`CHANGE_FEED`] batches behind is told so by the
    /// receiver; it then subscribes anew, takes [`Handle::view_indexed`], and passes over batches
    /// up to that index.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Batch<M::Change>>> {
        self.shared.changes.subscribe()
    }

    /// Whether this server leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// Numbers for operators.
    pub fn metrics(&self) -> Metrics {
        self.shared.counters.read()
    }

    /// Hands in a message from an authenticated peer. Dropped when there is no room: Raft sends
    /// again what matters.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Busy`] or [`Error::Stopped`].
    pub fn deliver(&self, bytes: Vec<u8>) -> Result<(), Error> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Error::TooLarge { bytes: bytes.len() });
        }
        let room = self
            .queue
            .clone()
            .try_acquire_many_owned(units(bytes.len()));
        let room = room.map_err(|_| Error::Busy)?;
        self.events
            .send(Event::Message { bytes, room })
            .map_err(|_| Error::Stopped)
    }

    async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event<M>) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.events.send(event(reply)).map_err(|_| Error::Stopped)?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }
}

fn units(bytes: usize) -> u32 {
    // At most MAX_MESSAGE_BYTES arrive here, so this fits and is below QUEUE_KIB.
    bytes.div_ceil(1 << 10).max(1) as u32
}

async fn within<T>(
    deadline: Duration,
    is_write: bool,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let after_ms = deadline.as_millis() as u64;
    tokio::time::timeout(deadline, request)
        .await
        .unwrap_or(Err(Error::Timeout { is_write, after_ms }))
}
