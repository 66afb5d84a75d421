//! [`Service`]: opens a server's replicated log and runs it.
//!
//! Owns the data directory (one lock, `log/`, `log.mark`, `snapshots/`) and the consensus
//! thread. What others may ask of it is on [`Handle`].

use super::driver::{Driver, Pending};
use super::files;
use super::group::Publisher;
use super::handle::{Event, Handle, Shared};
use super::keeper::{Keeper, Policy, Tools};
use super::log::{self, EngineLog, LogStore};
use super::machine::StateMachine;
use super::metrics::set;
use super::recover::{Recovered, recover};
use super::snapshot::{self, Snapshots};
use super::transport::Transport;
use super::waiting::{Proposals, Reads};
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long a stop waits for another server to take over leadership: some round trips and an
/// fsync on either side.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(2);

/// How a server's log is kept. [`Options::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// This server's Raft id; not 0, never reused in the group.
    pub id: u64,
    /// Directory of log and snapshots; made if missing.
    pub dir: PathBuf,
    /// Whether an empty directory is a new group. False for a server that has run before: then
    /// an empty directory is a loss, and is reported as one.
    pub create: bool,
    /// The voters of a new group. Ignored once the log exists, and by a server that joins.
    pub founders: Vec<u64>,
    /// Whether an empty directory waits for the snapshot of a group that this server joins,
    /// instead of founding one.
    pub join: bool,
    /// Where election timeouts are drawn from, with id and term.
    pub seed: u64,
    /// Length of a tick.
    pub tick: Duration,
    /// Ticks without a leader before an election, at least; at most twice as many.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// A snapshot is taken after this many applied commands...
    pub snapshot_entries: u64,
    /// ...or after this many bytes of them.
    pub snapshot_bytes: u64,
    /// Applied entries that stay in memory, for peers a little behind.
    pub tail_entries: usize,
    /// How long a stop waits for a snapshot that is being written.
    pub stop_deadline: Duration,
}

impl Options {
    /// The defaults for a group of one in `dir`.
    pub fn new(id: u64, dir: impl Into<PathBuf>) -> Self {
        Self {
            id,
            dir: dir.into(),
            create: true,
            founders: vec![id],
            join: false,
            seed: 0,
            // Elections start 0.5 to 1 s after the leader is lost, so writes are back within 2 s.
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            // Some 100 ms of replay, and not many snapshots a minute at full load.
            snapshot_entries: 50_000,
            snapshot_bytes: 32 << 20,
            tail_entries: 10_000,
            stop_deadline: Duration::from_secs(10),
        }
    }
}

/// Why the log does not open, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the directory open.
    #[error("{dir} is in use by another process: is a server already running on it?")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The directory belongs to another server.
    #[error("{dir} holds the log of server {found}, this is server {expected}")]
    WrongServer {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who we are.
        expected: u64,
    },
    /// There should be data but there is none.
    #[error(
        "{dir} holds no Raft log, but this server has run before: its data is lost or the \
         directory is the wrong one. Rebuild this server from its peers with `skep server rebuild`, \
         or, if there are none, restore a backup"
    )]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// Snapshots without a log.
    #[error(
        "{dir} holds snapshots but no Raft log: what was written after them is lost. Rebuild this \
         server from its peers with `skep server rebuild`, or, if there are none, restore a backup"
    )]
    LogMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// No snapshot reaches up to where the log begins.
    #[error(
        "the log in {dir} begins at index {begins} and needs a snapshot that reaches up to there: \
         {newest}{damaged}. Rebuild this server from its peers with `skep server rebuild`, or, if \
         there are none, restore a backup"
    )]
    NoSnapshot {
        /// The directory.
        dir: PathBuf,
        /// First index of the log.
        begins: u64,
        /// What there is instead.
        newest: String,
        /// Those that cannot be read.
        damaged: String,
    },
    /// A sound snapshot that the state machine does not understand.
    #[error("the state in the snapshot {path} cannot be restored: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// In the state machine's words.
        reason: String,
    },
    /// Log and snapshot do not belong together.
    #[error(
        "log and snapshot in {dir} do not fit together. Rebuild this server from its peers with \
         `skep server rebuild`, or, if there are none, restore a backup"
    )]
    Restore {
        /// The directory.
        dir: PathBuf,
        /// Which parts.
        #[source]
        source: skep_raft_core::Error,
    },
    /// A step failed: something committed makes no sense.
    #[error("consensus cannot go on")]
    Core(#[from] skep_raft_core::Error),
    /// A command that this build does not know: passing over it would part this server's state from
    /// the others'.
    #[error("the command at index {index} cannot be applied: {reason}")]
    Halted {
        /// Log index of the command.
        index: u64,
        /// In the state machine's words.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start the {name} thread")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The core wants to install a snapshot that nobody has handed in.
    #[error("there is no file of the snapshot at index {index} that is to be installed")]
    NoArrival {
        /// Its index.
        index: u64,
    },
    /// The snapshot thread panicked: the log would grow without end.
    #[error("the snapshot thread has ended unexpectedly")]
    SnapshotThread,
    /// The consensus thread panicked.
    #[error("the consensus thread has ended unexpectedly")]
    Crashed,
}

/// An opened log, ready to run.
pub struct Service<M: StateMachine> {
    driver: Driver<M>,
    inbox: Receiver<Event<M>>,
    handle: Handle<M>,
}

impl<M: StateMachine> Service<M> {
    /// Opens the log in `options.dir`, restores `machine` (which must be in its initial state)
    /// from the newest snapshot and replays what is committed. A group of one is leading and up
    /// to date on return. Blocks on the disk: not for an async worker thread.
    ///
    /// # Errors
    /// See [`Error`]; nothing on disk was changed by a refusal to open, except that a torn,
    /// unacknowledged end of the log was cut.
    pub fn open(
        options: Options,
        machine: M,
        transport: Box<dyn Transport>,
    ) -> Result<(Self, Handle<M>), Error> {
        let lock = lock(&options.dir)?;
        let store = open_log(&options.dir)?;
        Self::assemble(&options, lock, Arc::new(store), machine, transport)
    }

    /// [`Service::open`] with a log of the caller's choice; snapshots stay in `options.dir`.
    ///
    /// # Errors
    /// See [`Service::open`].
    pub fn open_with_log(
        options: Options,
        store: Arc<dyn LogStore>,
        machine: M,
        transport: Box<dyn Transport>,
    ) -> Result<(Self, Handle<M>), Error> {
        let lock = lock(&options.dir)?;
        Self::assemble(&options, lock, store, machine, transport)
    }

    fn assemble(
        options: &Options,
        lock: Arc<File>,
        store: Arc<dyn LogStore>,
        mut machine: M,
        transport: Box<dyn Transport>,
    ) -> Result<(Self, Handle<M>), Error> {
        let snapshots = open_snapshots(&options.dir)?;
        let Recovered {
            core,
            base,
            kept,
            origin,
        } = recover(options, &*store, &snapshots, &mut machine)?;
        let (events, inbox) = channel();
        let policy = Policy {
            entries: options.snapshot_entries,
            bytes: options.snapshot_bytes,
        };
        let shared = Shared::new(base.position.index, machine.view(), snapshots.clone());
        let shared = Arc::new(shared);
        let newest = kept.first().map_or(0, |kept| kept.taken.position.index);
        set(&shared.counters.last_snapshot_index, newest);
        set(&shared.counters.applied_index, base.position.index);
        let tools = Tools {
            snapshots: snapshots.clone(),
            store: store.clone(),
            lock: lock.clone(),
            stop_deadline: options.stop_deadline,
        };
        let keeper =
            Keeper::start(policy, kept, tools, events.clone()).map_err(|source| Error::Thread {
                name: "snapshot",
                source,
            })?;
        let handle = Handle::new(events, shared.clone());
        let mut driver = Driver {
            core,
            machine: Some(machine),
            transport,
            shared,
            proposals: Proposals::new(),
            reads: Reads::new(RandomState::new().hash_one(options.id)),
            keeper,
            store,
            snapshots,
            server: options.id,
            applied: base.position,
            members: base.members,
            disk_origin: origin.position.index,
            tick: options.tick,
            pending: Pending::default(),
            publisher: Publisher::new(),
            _lock: lock,
        };
        driver.drive(Vec::new())?;
        let service = Self {
            driver,
            inbox,
            handle: handle.clone(),
        };
        Ok((service, handle))
    }

    /// Runs on a thread of its own until `token` is cancelled. A leader then hands leadership
    /// over, if somebody can take it. On return everything taken in has been written, a snapshot
    /// under way is finished or, after `stop_deadline`, given up, and the directory is free again
    /// (after giving up, as soon as the disk answers).
    /// Dropping the future stops the thread too, without waiting for it.
    ///
    /// # Errors
    /// What made it impossible to go on; the process should end, and a restart recovers.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self {
            mut driver,
            inbox,
            handle,
        } = self;
        let (done, mut ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("skep-consensus".to_owned())
            .spawn(move || {
                let result = driver.run(&inbox);
                drop(inbox);
                drop(driver);
                // Nobody listens any more if the future was dropped.
                let _nobody = done.send(result);
            })
            .map_err(|source| Error::Thread {
                name: "consensus",
                source,
            })?;
        let stop = StopOnDrop(handle.events.clone());
        let hand_over = async {
            token.cancelled().await;
            if handle.group().borrow().is_leader {
                // Without a successor the others elect one as they do after a crash.
                let transfer = handle.transfer_leader(None);
                let _nobody = tokio::time::timeout(HAND_OVER_DEADLINE, transfer).await;
            }
        };
        tokio::select! {
            () = hand_over => drop(stop),
            result = &mut ended => return result.unwrap_or(Err(Error::Crashed)),
        }
        ended.await.unwrap_or(Err(Error::Crashed))
    }
}

struct StopOnDrop<M: StateMachine>(Sender<Event<M>>);

impl<M: StateMachine> Drop for StopOnDrop<M> {
    fn drop(&mut self) {
        // A thread that has already ended needs no telling.
        let _ended = self.0.send(Event::Stop);
    }
}

pub(super) fn open_log(dir: &Path) -> Result<EngineLog, log::Error> {
    EngineLog::open(&dir.join("log"), &dir.join("log.mark"))
}

pub(super) fn open_snapshots(dir: &Path) -> Result<Snapshots, snapshot::Error> {
    Snapshots::open(&dir.join("snapshots"))
}

/// One process at a time: two would each think that they alone write the log.
pub(super) fn lock(dir: &Path) -> Result<Arc<File>, Error> {
    let fail = |action, source| Error::File {
        action,
        path: dir.to_owned(),
        source,
    };
    files::ensure_dir(dir).map_err(|source| fail("create", source))?;
    let file = files::open_rw(&dir.join("lock")).map_err(|source| fail("lock", source))?;
    match file.try_lock() {
        Ok(()) => Ok(Arc::new(file)),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(fail("lock", source)),
    }
}
