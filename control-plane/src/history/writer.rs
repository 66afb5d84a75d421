//! The one writer of the history: a queue in, transactions out. Numbers are given out here, so they
//! have no gap; what is sent twice is kept once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skep_model::deployment::MAX_STEPS;
use skep_model::id::DeploymentId;
use sqlx::AnyPool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::copies::{self, Pen};
use super::database::{self, Row, signed};
use super::event::{AuditEntry, EventKind, MAX_LINES, storable};
use super::journal::{Entry, Part, What, fresh};
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
pub(super) const KEEP_MS: u64 = 90 * 24 * 3_600_000;
/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_secs(5);
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
    /// Steps: they are told in the journal, for the other servers. The leader alone does so.
    pub(super) is_told: bool,
    /// Told the first number that is not kept yet, after commit.
    pub(super) done: Option<oneshot::Sender<Result<u64, Error>>>,
}

/// What the writer is told.
pub(super) enum Write {
    Rows(Rows),
    Audit(AuditEntry),
    /// Parts of other stores' journals.
    Copied(Vec<Part>, oneshot::Sender<Result<u64, Error>>),
}

/// What a transaction brought.
struct Written {
    /// For each write, the first number that is not kept yet; for what is copied, the number of entries.
    next: Vec<u64>,
    /// Newest sequence number of each deployment that was written to.
    newest: BTreeMap<DeploymentId, u64>,
    /// Deployments of which it became known where their build log is.
    located: BTreeSet<DeploymentId>,
    /// Entries of this store were written.
    has_told: bool,
}

/// Writes until every handle is gone and the queue is empty.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Write>) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            _ = look.tick() => renew_lost(&inner).await,
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
            for deployment in &written.located {
                inner.wake(*deployment);
            }
            if written.has_told {
                inner.told.send_modify(|count| *count += 1);
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
        let outcome = result(at);
        let rows = match write {
            Write::Audit(_) => continue,
            Write::Copied(_, done) => {
                // As below.
                let _ = done.send(outcome);
                continue;
            }
            Write::Rows(rows) => rows,
        };
        if rows.origin == Origin::State
            && let Ok(next) = &outcome
        {
            inner.remember_steps((rows.deployment, rows.is_told), *next);
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
    let opened = database::open(&inner.location, inner.server).await;
    let file = inner.location.file().await;
    inner.set_pool(opened.as_ref().ok().cloned(), Instant::now());
    *inner.file.lock() = file;
    inner.renewed.send_modify(|count| *count += 1);
    opened.map_err(Error::database)
}

async fn transact(inner: &Inner, pool: &AnyPool, batch: &[Write]) -> Result<Written, sqlx::Error> {
    let mut written = Written {
        next: Vec::with_capacity(batch.len()),
        newest: BTreeMap::new(),
        located: BTreeSet::new(),
        has_told: false,
    };
    let mut transaction = pool.begin().await?;
    database::number_alone(&inner.location, &mut transaction).await?;
    let mut pen = Pen::take(&mut transaction).await?;
    for write in batch {
        let next = match write {
            Write::Audit(entry) => {
                let entry = Entry::from(entry.clone());
                pen.write(&mut transaction, entry.at_ms, entry.what).await?;
                0
            }
            Write::Rows(rows) => {
                let before = written.newest.get(&rows.deployment).copied();
                let next = store(&mut transaction, rows, &mut written.newest).await?;
                let is_fresh = written.newest.get(&rows.deployment).copied() != before;
                if tell(&mut transaction, &mut pen, (rows, is_fresh), inner).await? {
                    written.located.insert(rows.deployment);
                }
                next
            }
            Write::Copied(parts, _) => {
                copy(&mut transaction, &mut pen, parts, &mut written).await?
            }
        };
        written.next.push(next);
    }
    written.has_told = pen.rest(&mut transaction).await?;
    transaction.commit().await?;
    Ok(written)
}

/// Tells the other servers: of steps what they say, of a build's log where it is. Answers whether that
/// was new.
async fn tell(
    transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
    pen: &mut Pen,
    (rows, is_fresh): (&Rows, bool),
    inner: &Inner,
) -> Result<bool, sqlx::Error> {
    let deployment = rows.deployment;
    match rows.origin {
        Origin::State if rows.is_told => {
            let next = copies::next_step(transaction, deployment).await?;
            let steps = (rows.first..).zip(&rows.rows);
            for (position, (at_ms, text)) in steps.filter(|(position, _)| *position >= next) {
                let text = text.clone();
                let step = What::Step {
                    deployment,
                    position,
                    text,
                };
                pen.write(transaction, *at_ms, step).await?;
            }
            Ok(false)
        }
        Origin::Build { .. } if is_fresh => {
            if copies::says_log(transaction, pen.store, deployment).await? {
                return Ok(false);
            }
            let server = inner.server;
            let at_ms = rows.rows.first().map_or(0, |(at_ms, _)| *at_ms);
            let log = What::Log { deployment, server };
            pen.write(transaction, at_ms, log).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Keeps what other stores wrote, and brings the timelines of their deployments on; answers how many
/// entries were new.
async fn copy(
    transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
    pen: &mut Pen,
    parts: &[Part],
    written: &mut Written,
) -> Result<u64, sqlx::Error> {
    let cutoff_ms = now_ms().saturating_sub(KEEP_MS);
    let (mut count, mut deployments) = (0, BTreeSet::new());
    for part in parts {
        let kept = copies::upto(transaction, part.store).await?;
        let Some(entries) = fresh(part, kept, cutoff_ms) else {
            continue;
        };
        if part.store == pen.store {
            // They hold what this store has not written: an older copy of its file was put back. Its
            // numbers are taken.
            tracing::warn!(store = %pen.store, "the history's file is older than what the other servers copied from it");
            copies::carried(transaction, pen.store, now_ms()).await?;
            let new = Pen::begin(transaction).await?;
            std::mem::replace(pen, new).rest(transaction).await?;
        }
        for entry in &entries {
            copies::insert(transaction, part.store, entry).await?;
            match entry.what {
                What::Step { deployment, .. } => _ = deployments.insert(deployment),
                What::Log { deployment, .. } => _ = written.located.insert(deployment),
                What::Audit { .. } => {}
            }
        }
        let newest_ms = entries.iter().map(|entry| entry.at_ms).max();
        copies::reached(transaction, part.store, (part.upto, newest_ms.unwrap_or(0))).await?;
        count += entries.len() as u64;
    }
    for deployment in deployments {
        bring_on(transaction, deployment, &mut written.newest).await?;
    }
    Ok(count)
}

/// Appends the steps that only the journal has.
pub(super) async fn bring_on(
    transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
    deployment: DeploymentId,
    newest: &mut BTreeMap<DeploymentId, u64>,
) -> Result<(), sqlx::Error> {
    let origin = Origin::State;
    let (_, kept) = database::newest(transaction, deployment, &origin.name()).await?;
    let first = u64::try_from(kept + 1).unwrap_or(0);
    let rows = copies::steps(transaction, deployment, first).await?;
    let rows = Rows {
        deployment,
        origin,
        first,
        rows,
        is_told: false,
        done: None,
    };
    store(transaction, &rows, newest).await.map(drop)
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
    let deleted = async {
        let events = database::delete_before(&pool, cutoff).await?;
        Ok(events + copies::delete_before(&pool, cutoff, KEEP_MS).await?)
    };
    match deleted.await {
        Ok(0) => {}
        Ok(rows) => tracing::info!(rows, "old history deleted"),
        Err(error) => inner.failed(&Error::database(error), 0),
    }
}

/// A file that was removed or replaced is written no longer: what is there now is opened, or made.
async fn renew_lost(inner: &Inner) {
    let opened = *inner.file.lock();
    if inner.pool().is_none() || opened.is_none() || inner.location.file().await == opened {
        return;
    }
    tracing::error!("the history's file is gone, or another one: it is opened anew");
    inner.close().await;
    reopen(inner).await;
}
