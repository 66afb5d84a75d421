//! [`Service`]: opens a server's replicated log and runs it.
//!
//! Owns the data directory (one lock, `log/`, `log.mark`, `snapshots/`) and the consensus
//! thread. What others may ask of it is on [`Handle`].

use super::driver::Driver;
use super::files;
use super::handle::{Event, Handle, Shared};
use super::keeper::{Keeper, Policy};
use super::log::{self, EngineLog, LogStore};
use super::machine::StateMachine;
use super::metrics::set;
use super::recover::{Recovered, recover};
use super::snapshot::{self, Snapshots};
use super::transport::Transport;
use super::waiting::{Proposals, Reads};
use skep_raft_core::Input;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

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
    /// The voters of a new group. Ignored once the log exists.
    pub founders: Vec<u64>,
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
    /// Entries before a snapshot that stay in memory, for peers a little behind.
    pub tail_entries: u64,
}

impl Options {
    /// The defaults for a group of one in `dir`.
    pub fn new(id: u64, dir: impl Into<PathBuf>) -> Self {
        Self {
            id,
            dir: dir.into(),
            create: true,
            founders: vec![id],
            seed: 0,
            // Elections start 0.5 to 1 s after the leader is lost, so writes are back within 2 s.
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            snapshot_entries: 10_000,
            snapshot_bytes: 32 << 20,
            tail_entries: 1_000,
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
         directory is the wrong one. Restore a backup, or rebuild this server from its peers"
    )]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// Snapshots without a log.
    #[error(
        "{dir} holds snapshots but no Raft log: what was written after them is lost. Restore a \
         backup, or rebuild this server from its peers"
    )]
    LogMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// No snapshot reaches up to where the log begins.
    #[error(
        "the log in {dir} begins at index {begins} and needs a snapshot that reaches up to there: \
         {newest}{damaged}. Restore a backup, or rebuild this server from its peers"
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
        "log and snapshot in {dir} do not fit together; restore a backup, or rebuild this server from its peers"
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
    /// A thread could not be started.
    #[error("cannot start the {name} thread")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
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
    events: Sender<Event<M>>,
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
        let lock = lock(&options)?;
        let store = EngineLog::open(&options.dir.join("log"), &options.dir.join("log.mark"))?;
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
        let lock = lock(&options)?;
        Self::assemble(&options, lock, store, machine, transport)
    }

    fn assemble(
        options: &Options,
        lock: File,
        store: Arc<dyn LogStore>,
        mut machine: M,
        transport: Box<dyn Transport>,
    ) -> Result<(Self, Handle<M>), Error> {
        let snapshots = Snapshots::open(&options.dir.join("snapshots"))?;
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
        let shared = Arc::new(Shared::new(base.position.index, machine.view()));
        let newest = kept.first().map_or(0, |meta| meta.position.index);
        set(&shared.counters.last_snapshot_index, newest);
        set(&shared.counters.applied_index, base.position.index);
        let keeper = Keeper::start(policy, kept, snapshots, store.clone(), events.clone())
            .map_err(|source| Error::Thread {
                name: "snapshot",
                source,
            })?;
        let handle = Handle::new(events.clone(), shared.clone());
        let mut driver = Driver {
            core,
            machine,
            transport,
            shared,
            proposals: Proposals::new(),
            reads: Reads::new(RandomState::new().hash_one(options.id)),
            keeper,
            store,
            server: options.id,
            applied: base.position,
            disk_origin: origin.position.index,
            tail_entries: options.tail_entries,
            tick: options.tick,
            is_commit_unsaved: false,
            _lock: lock,
        };
        let to_index = base.position.index.saturating_sub(options.tail_entries);
        driver.drive(vec![Input::Compact { to_index }])?;
        Ok((
            Self {
                driver,
                inbox,
                events,
            },
            handle,
        ))
    }

    /// Runs on a thread of its own until `token` is cancelled; then everything taken in has been
    /// written, a snapshot under way is finished, and the directory is free again on return.
    /// Dropping the future stops the thread too, without waiting for it.
    ///
    /// # Errors
    /// What made it impossible to go on; the process should end, and a restart recovers.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self {
            mut driver,
            inbox,
            events,
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
        let stop = StopOnDrop(events);
        tokio::select! {
            () = token.cancelled() => drop(stop),
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

/// One process at a time: two would each think that they alone write the log.
fn lock(options: &Options) -> Result<File, Error> {
    let fail = |action, source| Error::File {
        action,
        path: options.dir.clone(),
        source,
    };
    files::ensure_dir(&options.dir).map_err(|source| fail("create", source))?;
    let file = files::open_rw(&options.dir.join("lock")).map_err(|source| fail("lock", source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            dir: options.dir.clone(),
        }),
        Err(TryLockError::Error(source)) => Err(fail("lock", source)),
    }
}
