//! History: the timeline and build log of deployments, and the audit trail. Append-only rows beside
//! the truth, in SQLite or PostgreSQL. Losing it never stops the cluster: what cannot be kept is
//! counted and said once.
//!
//! What is small is in a journal that servers copy from each other; a build's log stays where it was
//! written, and the journal says where that is. Who speaks to whom is not known here.

mod adopt;
pub mod carry;
mod copies;
mod database;
mod event;
pub mod journal;
mod serving;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use skep_model::deployment::Step;
use skep_model::id::{DeploymentId, ServerId};
use sqlx::AnyPool;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use event::{AuditEntry, Event, EventKind, MAX_LINES, MAX_TEXT};
pub use serving::{Ask, Elsewhere, Nowhere, Offer, Page};

use crate::store::now_ms;
use database::Location;
use writer::{Origin, Rows, Write};

/// Writes that may wait: agents wait for room, the rest is dropped and counted.
const QUEUE: usize = 1_024;
/// How long a caller waits for its rows to be kept.
const KEEP_DEADLINE: Duration = Duration::from_secs(5);
/// How long reading may take.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Deployments of which the number of kept steps is remembered.
const REMEMBERED: usize = 10_000;

/// Why the history did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Not a place for a history.
    #[error("the history is a path, sqlite://PATH or postgres://...")]
    Location,
    /// Not from a file to a shared database.
    #[error("a history is carried from sqlite://PATH to postgres://...")]
    Ends,
    /// There is no such file.
    #[error("there is no history at {}: give the file that the server wrote, history.db in its data folder", .0.display())]
    NoFile(std::path::PathBuf),
    /// The database.
    #[error("the history's database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// It could not be opened, and is not tried again yet.
    #[error("the history's database is not open")]
    Closed,
    /// Too slow.
    #[error("the history's database did not answer in time")]
    Timeout,
    /// The writer has ended.
    #[error("the history is closed: the server is stopping")]
    Stopped,
}

impl Error {
    fn database(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// How the history does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// The last write went well, or the database has been opened again since.
    pub is_ok: bool,
    /// Writes that failed since start.
    pub failures: u64,
    /// Rows that were dropped since start.
    pub dropped: u64,
    /// Entries that were copied from other servers since start.
    pub copied: u64,
}

struct Inner {
    location: Location,
    /// The server that writes here.
    server: ServerId,
    /// The file that is open.
    file: Mutex<Option<(u64, u64)>>,
    /// Counts transactions with entries of this store.
    told: watch::Sender<u64>,
    /// Counts how often the database was opened.
    renewed: watch::Sender<u64>,
    /// Entries that each other server has and this one has not.
    behind: Mutex<BTreeMap<ServerId, u64>>,
    copied: AtomicU64,
    pool: Mutex<(Option<AnyPool>, Option<Instant>)>,
    watchers: Mutex<BTreeMap<DeploymentId, watch::Sender<u64>>>,
    steps_kept: Mutex<BTreeMap<(DeploymentId, bool), u64>>,
    is_failing: AtomicBool,
    /// The trouble that was said last, until writing goes well again.
    said: Mutex<Option<String>>,
    failures: AtomicU64,
    dropped: AtomicU64,
}

/// Reads the history and hands rows to its writer. Cheap to clone.
#[derive(Clone)]
pub struct History {
    inner: Arc<Inner>,
    queue: mpsc::Sender<Write>,
}

impl History {
    /// Opens the history of a server at a path, `sqlite://PATH` or `postgres://...`, and brings its tables up to
    /// date. The future is its writer: it ends when every handle is dropped and all is written. A
    /// database that cannot be opened now is tried again by the writer.
    ///
    /// # Errors
    /// [`Error::Location`] alone.
    pub async fn open(
        location: &str,
        server: ServerId,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), Error> {
        let inner = Arc::new(Inner {
            location: Location::parse(location)?,
            server,
            file: Mutex::default(),
            told: watch::Sender::new(0),
            renewed: watch::Sender::new(0),
            behind: Mutex::default(),
            copied: AtomicU64::new(0),
            pool: Mutex::default(),
            watchers: Mutex::default(),
            steps_kept: Mutex::default(),
            is_failing: AtomicBool::new(false),
            said: Mutex::default(),
            failures: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let opened = database::open(&inner.location, server).await;
        *inner.file.lock() = inner.location.file().await;
        match opened {
            Ok(pool) => inner.set_pool(Some(pool), Instant::now()),
            Err(error) => {
                inner.set_pool(None, Instant::now());
                inner.failed(&Error::database(error), 0);
            }
        }
        let (queue, writes) = mpsc::channel(QUEUE);
        let writing = writer::run(Arc::clone(&inner), writes);
        Ok((Self { inner, queue }, writing))
    }

    /// Keeps a deployment's timeline, all of it so far, and tells it to the other servers, which the
    /// leader does; what is kept already is not kept twice. When the queue is full the steps are left
    /// out: the next call brings them again.
    pub fn steps(&self, deployment: DeploymentId, steps: &[Step]) {
        if let Some(rows) = self.inner.new_steps((deployment, true), steps) {
            self.hand_over(Write::Rows(rows));
        }
    }

    /// Keeps a deployment's timeline, returning once that is done.
    ///
    /// # Errors
    /// The database failed or was too slow.
    pub async fn flush_steps(&self, deployment: DeploymentId, steps: &[Step]) -> Result<(), Error> {
        match self.inner.new_steps((deployment, false), steps) {
            Some(rows) => self.keep(rows).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Keeps lines of a deployment's build, the first of which is line `first` (from 0) of the run
    /// `run` of that build. Answers, after commit, with the first line of the run that is not kept
    /// yet. Lines that are kept already are not kept twice; another run's lines follow those of the
    /// run before, in the one sequence of the deployment.
    ///
    /// # Errors
    /// The database failed or was too slow: nothing of this was kept.
    pub async fn build_lines(
        &self,
        deployment: DeploymentId,
        run: u128,
        first: u64,
        lines: Vec<String>,
    ) -> Result<u64, Error> {
        let now = now_ms();
        self.keep(Rows {
            deployment,
            origin: Origin::Build { run },
            first,
            rows: lines.into_iter().map(|line| (now, line)).collect(),
            is_told: false,
            done: None,
        })
        .await
    }

    /// Notes who did what.
    pub fn audit(&self, entry: AuditEntry) {
        self.hand_over(Write::Audit(entry));
    }

    /// Up to `limit` events of a deployment after sequence number `after` (0: from the first).
    ///
    /// # Errors
    /// The database failed, is not open, or was too slow.
    pub async fn events(
        &self,
        deployment: DeploymentId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        let pool = self.inner.pool().ok_or(Error::Closed)?;
        within(database::select(&pool, deployment, after, limit)).await
    }

    /// The newest `limit` entries of the audit trail, newest first.
    ///
    /// # Errors
    /// The database failed, is not open, or was too slow.
    pub async fn audit_entries(&self, limit: u32) -> Result<Vec<AuditEntry>, Error> {
        let pool = self.inner.pool().ok_or(Error::Closed)?;
        within(copies::select_audit(&pool, limit)).await
    }

    /// Wakes when the deployment has new events; the value is the newest sequence number seen since
    /// somebody watches. Subscribe first, then read: nothing is missed between the two.
    pub fn watch(&self, deployment: DeploymentId) -> watch::Receiver<u64> {
        let mut watchers = self.inner.watchers.lock();
        watchers.retain(|_, sender| sender.receiver_count() > 0);
        watchers
            .entry(deployment)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// How it does.
    pub fn health(&self) -> Health {
        Health {
            is_ok: !self.inner.is_failing.load(Ordering::Relaxed),
            failures: self.inner.failures.load(Ordering::Relaxed),
            dropped: self.inner.dropped.load(Ordering::Relaxed),
            copied: self.inner.copied.load(Ordering::Relaxed),
        }
    }

    fn hand_over(&self, write: Write) {
        if self.queue.try_send(write).is_err() {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn keep(&self, mut rows: Rows) -> Result<u64, Error> {
        let (done, kept) = oneshot::channel();
        rows.done = Some(done);
        let waiting = async {
            let sent = self.queue.send(Write::Rows(rows)).await;
            sent.map_err(|_| Error::Stopped)?;
            kept.await.map_err(|_| Error::Stopped)?
        };
        tokio::time::timeout(KEEP_DEADLINE, waiting)
            .await
            .unwrap_or(Err(Error::Timeout))
    }
}

async fn within<T>(reading: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(READ_DEADLINE, reading).await {
        // The pool tells no other cause: a database that is gone, or is overwhelmed.
        Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => Err(Error::Timeout),
        Ok(result) => result.map_err(Error::database),
    }
}

impl Inner {
    fn pool(&self) -> Option<AnyPool> {
        self.pool.lock().0.clone()
    }

    /// When the database may be opened again; none: it is open.
    fn reopens_at(&self) -> Option<Instant> {
        let (pool, tried_at) = &*self.pool.lock();
        let is_closed = pool.is_none();
        is_closed.then(|| tried_at.map_or_else(Instant::now, |at| at + writer::REOPEN_PAUSE))
    }

    fn set_pool(&self, pool: Option<AnyPool>, at: Instant) {
        *self.pool.lock() = (pool, Some(at));
    }

    /// Closes the database, to be opened again at once.
    async fn close(&self) {
        let pool = std::mem::take(&mut *self.pool.lock()).0;
        if let Some(pool) = pool {
            pool.close().await;
        }
        // A new file begins without the steps of the old one.
        self.steps_kept.lock().clear();
    }

    /// The steps that are not known to be kept.
    fn new_steps(
        &self,
        (deployment, is_told): (DeploymentId, bool),
        steps: &[Step],
    ) -> Option<Rows> {
        let kept = self
            .steps_kept
            .lock()
            .get(&(deployment, is_told))
            .copied()
            .unwrap_or(0);
        let fresh = steps.get(usize::try_from(kept).ok()?..)?;
        (!fresh.is_empty()).then(|| Rows {
            deployment,
            origin: Origin::State,
            first: kept,
            rows: fresh
                .iter()
                .map(|step| (step.at_ms, step.text.clone()))
                .collect(),
            is_told,
            done: None,
        })
    }

    fn remember_steps(&self, timeline: (DeploymentId, bool), count: u64) {
        let mut kept = self.steps_kept.lock();
        if kept.len() >= REMEMBERED {
            // The oldest deployments are the least likely to change.
            kept.pop_first();
        }
        kept.insert(timeline, count);
    }

    fn notify(&self, deployment: DeploymentId, seq: u64) {
        let watchers = self.watchers.lock();
        if let Some(sender) = watchers.get(&deployment) {
            sender.send_replace(seq);
        }
    }

    fn wake(&self, deployment: DeploymentId) {
        if let Some(sender) = self.watchers.lock().get(&deployment) {
            sender.send_modify(|_| {});
        }
    }

    /// Counts a failure and says it.
    fn failed(&self, error: &Error, lost: usize) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        self.is_failing.store(true, Ordering::Relaxed);
        self.say(error);
    }

    /// Each trouble is said once until writing goes well again; a database that is not tried is
    /// none: why it is not open was said.
    fn say(&self, error: &Error) {
        if matches!(error, Error::Closed) {
            return;
        }
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let trouble = format!("{error}: {}", cause.as_deref().unwrap_or_default());
        let mut said = self.said.lock();
        if said.as_ref() != Some(&trouble) {
            tracing::error!(%error, cause, "the history cannot be written; the cluster goes on without it");
            *said = Some(trouble);
        }
    }

    fn recovered(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            self.said.lock().take();
            tracing::info!("the history is written again");
        }
    }
}
