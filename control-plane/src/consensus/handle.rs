//! [`Handle`]: how the rest of the server proposes, reads and follows.
//!
//! Owns the limits and deadlines of requests. Never touches the log: everything is a message to
//! the consensus thread, or a look at what that thread has published.

mod error;

use super::group::Group;
use super::incoming::{self, Inbox, Incoming, SnapshotOffer};
use super::machine::{Batch, Leadership, StateMachine};
use super::metrics::{Counters, Metrics};
use super::snapshot::{self, Snapshots, Sum, Taken};
pub use error::Error;
use parking_lot::RwLock;
use skep_raft_core::{ConfChangeV2, MAX_MESSAGE_BYTES};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};
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
/// After this a change of members is given up on: it needs the slowest of two majorities.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// After this leadership is not handed over any more; the core itself gives up much earlier.
pub const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the consensus thread is told.
pub(super) enum Event<M: StateMachine> {
    Propose {
        command: Vec<u8>,
        reply: Reply<(u64, M::Outcome)>,
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
    ChangeMembers {
        change: ConfChangeV2,
        reply: Reply<()>,
        room: OwnedSemaphorePermit,
    },
    Transfer {
        to: Option<u64>,
        reply: Reply<()>,
    },
    Unreachable(u64),
    SnapshotSent {
        to: u64,
        ok: bool,
    },
    Install {
        message: Vec<u8>,
        staged: Option<Taken>,
        reply: SyncSender<Result<(), incoming::Error>>,
    },
    SnapshotDone(Result<(Taken, Sum), snapshot::Error>),
    /// The machine is back from the snapshot thread, with the state of the leader's snapshot.
    Restored(Result<(Box<M>, Sum), super::service::Error>),
    Stop,
}

/// What the consensus thread shows.
pub(super) struct Shared<M: StateMachine> {
    pub(super) published: RwLock<(u64, M::View)>,
    pub(super) applied: watch::Sender<u64>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) group: watch::Sender<Group>,
    pub(super) inbox: Inbox,
    pub(super) changes: broadcast::Sender<Arc<Batch<M::Change>>>,
    pub(super) counters: Counters,
}

impl<M: StateMachine> Shared<M> {
    pub(super) fn new(index: u64, view: M::View, snapshots: Snapshots) -> Self {
        Self {
            published: RwLock::new((index, view)),
            applied: watch::Sender::new(index),
            leadership: watch::Sender::new(Leadership::default()),
            group: watch::Sender::new(Group::default()),
            inbox: Inbox::new(snapshots),
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
        let (_, outcome) = self.propose_indexed(command).await?;
        Ok(outcome)
    }

    /// [`Handle::propose`] with the command's log index: a server that forwarded it waits until
    /// it has applied so much itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn propose_indexed(&self, command: Vec<u8>) -> Result<(u64, M::Outcome), Error> {
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

    /// Waits until the entry at `index`, and all before it, are applied here.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait_applied(&self, index: u64, deadline: Duration) -> Result<(), Error> {
        let mut applied = self.applied();
        within(deadline, false, async {
            let reached = applied.wait_for(|applied| *applied >= index).await;
            reached.map(drop).map_err(|_| Error::Stopped)
        })
        .await
    }

    /// Proposes a change of members; on return it is committed and applied, and a joint change is
    /// then left by itself. See [`skep_raft_core::members::plan`] for which changes are wise.
    ///
    /// # Errors
    /// [`Error::Refused`] while another change is under way, or for one that makes no sense.
    pub async fn change_members(&self, change: ConfChangeV2) -> Result<(), Error> {
        within(CHANGE_DEADLINE, true, async {
            let room = self.queue.clone().acquire_many_owned(1).await;
            let room = room.map_err(|_| Error::Stopped)?;
            self.ask(|reply| Event::ChangeMembers {
                change,
                reply,
                room,
            })
            .await
        })
        .await
    }

    /// Hands leadership to `to`, or to the voter that has most of the log. Returns when another
    /// server leads.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Refused`] if nobody can take over, [`Error::NotMoved`].
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<(), Error> {
        within(TRANSFER_DEADLINE, false, async {
            self.ask(|reply| Event::Transfer { to, reply }).await
        })
        .await
    }

    /// The group as this server sees it. Changes of leader, term and members are told at once,
    /// progress at most every 100 ms.
    pub fn group(&self) -> watch::Receiver<Group> {
        self.shared.group.subscribe()
    }

    /// Tells how the sending of a snapshot has ended; see
    /// [`Transport::send_snapshot`](super::Transport::send_snapshot).
    pub fn snapshot_sent(&self, to: u64, ok: bool) {
        self.tell(Event::SnapshotSent { to, ok });
    }

    /// Messages for `to` are being lost: it is probed instead of being sent ever more.
    pub fn unreachable(&self, to: u64) {
        self.tell(Event::Unreachable(to));
    }

    /// Begins, or goes on with, the receiving of a snapshot that an authenticated peer offers.
    /// Another one that was being received is superseded. Blocks on the disk.
    ///
    /// # Errors
    /// See [`incoming::Error`].
    pub fn receive_snapshot(&self, offer: SnapshotOffer) -> Result<Incoming, incoming::Error> {
        let events = self.events.clone();
        let applied = *self.shared.applied.borrow();
        let install = move |message, staged, reply| {
            let event = Event::Install {
                message,
                staged,
                reply,
            };
            events.send(event).is_ok()
        };
        self.shared.inbox.receive(offer, applied, Box::new(install))
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

    fn tell(&self, event: Event<M>) {
        // A service that has ended needs no telling.
        let _ended = self.events.send(event);
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
