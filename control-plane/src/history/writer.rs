//! The one writer of the history: a queue in, transactions out. Numbers are given out here, so they
//! have no gap; what is sent twice is kept once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_identity::random;
use skep_model::deployment::MAX_STEPS;
use skep_model::id::{DeploymentId, UploadId};
use sqlx::AnyPool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::database::{self, Row, signed};
use super::event::{AuditEntry, EventKind, MAX_LINES, storable};
use super::{Error, Inner};
use crate::store::now_ms;

/// Writes taken into one transaction.
const BATCH: usize = 256;
/// After this a transaction is given up on: well below the silence after which a node is lost, since
/// a node's session waits for its build's lines to be kept.
const WRITE_DEADLINE: Duration = Duration::from_secs(4);
/// Pause before a database that could not be opened is tried again.
pub(super) const REOPEN_PAUSE: Duration = Duration::from_secs(5);
/// How often old rows are deleted.
const SWEEP: Duration = Duration::from_secs(24 * 3_600);
/// How long events and audit are kept.
const KEEP_MS: u64 = 90 * 24 * 3_600_000;
/// Origin of the marker that a build's log goes on beyond what is kept.
const LIMIT_ORIGIN: &str = "limit";

/// Where rows come from; each numbers its own from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The timeline in the replicated state.
    State,
    /// One run of the build on its node; 0 is the run of a node that names none.
    Build { run: u128 },
}

impl Origin {
    /// As it is stored.
    fn name(self) -> String {
        match self {
            Self::State => "state".to_owned(),
            Self::Build { run: 0 } => "build".to_owned(),
            Self::Build { run } => format!("build:{run:032x}"),
        }
    }
}

/// Rows of one origin, the first of which has number `first` there.
pub(super) struct Rows {
    pub(super) deployment: DeploymentId,
    pub(super) origin: Origin,
    pub(super) first: u64,
    /// Time in ms since the epoch, and text.
    pub(super) rows: Vec<(u64, String)>,
    /// Told the first number that is not kept yet, after commit.
    pub(super) done: Option<oneshot::Sender<Result<u64, Error>>>,
}

/// What the writer is told.
pub(super) enum Write {
    Rows(Rows),
    Audit(AuditEntry),
}

/// What a transaction brought.
struct Written {
    /// For each write, the first number that is not kept yet.
    next: Vec<u64>,
    /// Newest sequence number of each deployment that was written to.
    newest: BTreeMap<DeploymentId, u64>,
}

/// Writes until every handle is gone and the queue is empty.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Write>) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            count = queue.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    break;
                }
                write(&inner, std::mem::take(&mut batch)).await;
            }
            // Readers need it, too: it is opened again though nothing is written.
            () = until(inner.reopens_at()) => reopen(&inner).await,
            _ = sweep.tick() => forget_old(&inner).await,
        }
    }
    if let Some(pool) = inner.pool() {
        // Folds the write-ahead log into the file.
        pool.close().await;
    }
}

async fn write(inner: &Inner, batch: Vec<Write>) {
    let result = match tokio::time::timeout(WRITE_DEADLINE, attempt(inner, &batch)).await {
        Ok(result) => result,
        Err(_) => {
            // A database that hangs is left alone for a while: those who wait are answered at once.
            inner.set_pool(None, Instant::now());
            Err(Error::Timeout)
        }
    };
    match result {
        Ok(written) => {
            inner.recovered();
            for (deployment, seq) in &written.newest {
                inner.notify(*deployment, *seq);
            }
            answer(inner, batch, |at| Ok(written.next[at]));
        }
        Err(error) => {
            inner.failed(&error, batch.len());
            answer(inner, batch, |_| Err(error.clone()));
        }
    }
}

fn answer(inner: &Inner, batch: Vec<Write>, result: impl Fn(usize) -> Result<u64, Error>) {
    for (at, write) in batch.into_iter().enumerate() {
        let Write::Rows(rows) = write else { continue };
        let outcome = result(at);
        if rows.origin == Origin::State
            && let Ok(next) = &outcome
        {
            inner.remember_steps(rows.deployment, *next);
        }
        if let Some(done) = rows.done {
            // Whoever asked may have gone: the rows are kept all the same.
            let _ = done.send(outcome);
        }
    }
}

/// One transaction; a damaged file is replaced.
async fn attempt(inner: &Inner, batch: &[Write]) -> Result<Written, Error> {
    let mut may_replace = true;
    loop {
        let pool = ensure_open(inner).await?;
        match transact(inner, &pool, batch).await {
            Ok(written) => return Ok(written),
            Err(error) if database::is_damage(&error) && may_replace => {
                may_replace = false;
                inner.close().await;
                database::set_aside(&inner.location, &error).await;
            }
            Err(error) => {
                if matches!(error, sqlx::Error::PoolTimedOut) {
                    // The pool does not say why it gets no connection: opening anew does.
                    inner.set_pool(None, Instant::now());
                }
                return Err(Error::database(error));
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn reopen(inner: &Inner) {
    match ensure_open(inner).await {
        Ok(_) => inner.recovered(),
        Err(error) => inner.say(&error),
    }
}

async fn ensure_open(inner: &Inner) -> Result<AnyPool, Error> {
    if let Some(pool) = inner.pool() {
        return Ok(pool);
    }
    if inner.reopens_at().is_some_and(|at| at > Instant::now()) {
        return Err(Error::Closed);
    }
    let opened = database::open(&inner.location).await;
    inner.set_pool(opened.as_ref().ok().cloned(), Instant::now());
    opened.map_err(Error::database)
}

async fn transact(inner: &Inner, pool: &AnyPool, batch: &[Write]) -> Result<Written, sqlx::Error> {
    let mut written = Written {
        next: Vec::with_capacity(batch.len()),
        newest: BTreeMap::new(),
    };
    let mut transaction = pool.begin().await?;
    if batch.iter().any(|write| matches!(write, Write::Rows(_))) {
        database::number_alone(&inner.location, &mut transaction).await?;
    }
    for write in batch {
        match write {
            Write::Audit(entry) => {
                // An id of its own, sorted by time; only its text is used.
                let id = UploadId::from_u128(random::new_id()).to_string();
                database::insert_audit(&mut transaction, id, entry).await?;
                written.next.push(0);
            }
            Write::Rows(rows) => {
                let next = store(&mut transaction, rows, &mut written.newest).await?;
                written.next.push(next);
            }
        }
    }
    transaction.commit().await?;
    Ok(written)
}

/// Stores what is not kept yet; gives the first number that is not kept then.
async fn store(
    transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
    rows: &Rows,
    newest: &mut BTreeMap<DeploymentId, u64>,
) -> Result<u64, sqlx::Error> {
    let (seq, kept) = database::newest(transaction, rows.deployment, &rows.origin.name()).await?;
    let (mut fresh, is_cut) = fresh_rows(rows, seq, kept);
    if is_cut {
        let (_, marked) = database::newest(transaction, rows.deployment, LIMIT_ORIGIN).await?;
        fresh.extend(limit_marker(&fresh, seq, marked));
    }
    database::insert(transaction, rows.deployment, &fresh).await?;
    if let Some(last) = fresh.last() {
        newest.insert(rows.deployment, u64::try_from(last.seq).unwrap_or(0));
    }
    let end = rows.first + rows.rows.len() as u64;
    Ok(end.max(u64::try_from(kept + 1).unwrap_or(0)))
}

/// The rows that are not kept yet, numbered on from `seq`; and whether some are beyond the limit.
fn fresh_rows(rows: &Rows, seq: i64, kept: i64) -> (Vec<Row>, bool) {
    let (kind, limit, room) = match rows.origin {
        Origin::State => (EventKind::Step, u64::MAX, usize::MAX),
        Origin::Build { .. } => {
            // All runs of a build share it; `seq` counts the lines of all, and few steps.
            let room = signed(MAX_LINES + MAX_STEPS as u64) - seq;
            (
                EventKind::Log,
                MAX_LINES,
                usize::try_from(room).unwrap_or(0),
            )
        }
    };
    let origin = rows.origin.name();
    let unkept = (rows.first..)
        .zip(&rows.rows)
        .filter(|(number, _)| signed(*number) > kept);
    let wanted = unkept.clone().count();
    let fresh: Vec<Row> = unkept
        .filter(|(number, _)| *number < limit)
        .take(room)
        .zip(seq + 1..)
        .map(|((number, (at_ms, text)), seq)| Row {
            seq,
            at_ms: signed(*at_ms),
            kind,
            text: storable(text),
            origin: origin.clone(),
            origin_seq: signed(number),
        })
        .collect();
    let is_cut = fresh.len() < wanted;
    (fresh, is_cut)
}

fn limit_marker(fresh: &[Row], seq: i64, marked: i64) -> Option<Row> {
    (marked < 0).then(|| Row {
        seq: fresh.last().map_or(seq, |row| row.seq) + 1,
        at_ms: signed(now_ms()),
        kind: EventKind::Log,
        text: format!("... the build goes on; only its first {MAX_LINES} lines are kept"),
        origin: LIMIT_ORIGIN.to_owned(),
        origin_seq: 0,
    })
}

async fn forget_old(inner: &Inner) {
    let Some(pool) = inner.pool() else { return };
    let cutoff = now_ms().saturating_sub(KEEP_MS);
    match database::delete_before(&pool, cutoff).await {
        Ok(0) => {}
        Ok(rows) => tracing::info!(rows, "old history deleted"),
        Err(error) => inner.failed(&Error::database(error), 0),
    }
}
