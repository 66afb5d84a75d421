//! The database under the history: opening, migrations, statements, and what is done about a
//! damaged file. One code base for SQLite and PostgreSQL. Never decides what is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use skep_model::id::{DeploymentId, ServerId};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor as _, Row as _,
    SqlSafeStr as _, Transaction,
};

use super::event::{Event, EventKind};
use super::{Error, adopt};
use crate::store::now_ms;

/// Connections: one writes, the others read; each costs a cache.
const CONNECTIONS: u32 = 3;
/// Unused connections are closed, and their caches given back.
const IDLE: Duration = Duration::from_secs(60);
/// How long a caller waits for a connection, and opening may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(3);
/// How long it may take, once, to bring rows of an older version into the journal.
const ADOPT_DEADLINE: Duration = Duration::from_secs(60);
/// Rows a statement: PostgreSQL takes one round trip for them.
const ROWS: usize = 64;
/// Key of the lock under which servers that share a PostgreSQL number events: `skep`.
const NUMBERING: i64 = 0x73_6b_65_70;
/// SQLite's primary result codes for a file that is damaged, or no database.
const DAMAGED_CODES: [u32; 2] = [11, 26];

/// Where the history is.
#[derive(Debug, Clone)]
pub(super) enum Location {
    /// A file of this server.
    Sqlite(PathBuf),
    /// A server of its own.
    Postgres(String),
}

impl Location {
    /// `postgres://...`, `sqlite://PATH`, or a path.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            // What cannot be understood is said at the start, not tried again for ever.
            PgConnectOptions::from_str(text).map_err(|_| Error::Location)?;
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite://").unwrap_or(text);
        if path.is_empty() || path.contains("://") {
            return Err(Error::Location);
        }
        let absolute = std::path::absolute(path).map_err(|_| Error::Location)?;
        Ok(Self::Sqlite(absolute))
    }

    /// The file that is there now: another one in its place has another number.
    pub(super) async fn file(&self) -> Option<(u64, u64)> {
        let Self::Sqlite(path) = self else {
            return None;
        };
        let found = tokio::fs::metadata(path).await.ok()?;
        Some((found.dev(), found.ino()))
    }

    fn options(&self) -> Result<AnyConnectOptions, sqlx::Error> {
        match self {
            Self::Postgres(url) => AnyConnectOptions::from_str(url),
            Self::Sqlite(path) => AnyConnectOptions::from_str(&sqlite_url(path)),
        }
    }
}

fn sqlite_url(path: &Path) -> String {
    let mut url = "sqlite://".to_owned();
    for byte in path.to_string_lossy().bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url.push_str("?mode=rwc");
    url
}

/// Opens the database and brings its tables up to date. A damaged file is moved aside and begun
/// anew: history is beside the truth.
pub(super) async fn open(location: &Location, server: ServerId) -> Result<AnyPool, sqlx::Error> {
    match connect(location, server).await {
        Err(error) if is_damage(&error) => {
            set_aside(location, &error).await;
            connect(location, server).await
        }
        other => other,
    }
}

/// The same; a damaged file is an error.
pub(super) async fn connect(location: &Location, server: ServerId) -> Result<AnyPool, sqlx::Error> {
    sqlx::any::install_default_drivers();
    let is_file = matches!(location, Location::Sqlite(_));
    let options = location.options()?;
    let pool = AnyPoolOptions::new()
        .max_connections(CONNECTIONS)
        .idle_timeout(IDLE)
        .acquire_timeout(OPEN_DEADLINE)
        .after_connect(move |connection, _| Box::pin(prepare(connection, is_file)))
        .connect_lazy_with(options.clone());
    let opening = async {
        // A connection of its own first: the pool would try again and again and never say why.
        let mut connection = AnyConnection::connect_with(&options).await?;
        prepare(&mut connection, is_file).await?;
        connection.close().await?;
        let migrated = migrations(is_file).run(&pool).await;
        migrated.map_err(|error| match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => source,
            other => sqlx::Error::Migrate(Box::new(other)),
        })
    };
    let opened = async {
        within(OPEN_DEADLINE, opening).await?;
        within(ADOPT_DEADLINE, adopt::older(location, &pool, server)).await
    };
    match opened.await {
        Ok(()) => Ok(pool),
        Err(error) => {
            pool.close().await;
            Err(error)
        }
    }
}

async fn within(
    deadline: Duration,
    work: impl Future<Output = Result<(), sqlx::Error>>,
) -> Result<(), sqlx::Error> {
    let done = tokio::time::timeout(deadline, work).await;
    done.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

async fn prepare(connection: &mut AnyConnection, is_file: bool) -> Result<(), sqlx::Error> {
    // WAL: readers and the one writer do not wait for each other.
    const FILE: &[&str] = &[
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
        "PRAGMA busy_timeout = 5000",
        "PRAGMA cache_size = -1024",
    ];
    // A server that stands still holds the others up no longer than this.
    const SHARED: &[&str] = &[
        "SET idle_in_transaction_session_timeout = 10000",
        "SET lock_timeout = 3000",
    ];
    for setting in if is_file { FILE } else { SHARED } {
        connection.execute(*setting).await?;
    }
    Ok(())
}

/// Until the transaction ends no other server numbers events: the numbers have no gap.
pub(super) async fn number_alone(
    location: &Location,
    transaction: &mut Transaction<'_, Any>,
) -> Result<(), sqlx::Error> {
    if let Location::Postgres(_) = location {
        let lock = format!("SELECT 1 FROM (SELECT pg_advisory_xact_lock({NUMBERING})) AS held");
        transaction.execute(AssertSqlSafe(lock)).await?;
    }
    Ok(())
}

fn migrations(is_file: bool) -> Migrator {
    const ALL: [(i64, &str, &str); 2] = [
        (
            1,
            "history",
            include_str!("../../migrations/0001_history.sql"),
        ),
        (
            2,
            "journal",
            include_str!("../../migrations/0002_journal.sql"),
        ),
    ];
    let all = ALL.into_iter().map(|(version, name, sql)| {
        let sql = match is_file {
            true => sql.into_sql_str(),
            // Ids order by age only byte by byte, which SQLite does by itself; a PostgreSQL may have
            // been set up with any language's order.
            false => AssertSqlSafe(sql.replace(" TEXT ", " TEXT COLLATE \"C\" ")).into_sql_str(),
        };
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(all.collect());
    // A server of an older version goes on with the tables that it knows.
    migrator.set_ignore_missing(true);
    migrator
}

/// Whether the file itself is broken, rather than one statement.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    // PostgreSQL's codes have five characters, and name SQLite's numbers nowhere.
    let code = error.code().filter(|code| code.len() < 5);
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| DAMAGED_CODES.contains(&(code & 0xff)))
}

/// Moves a damaged file aside, for whoever wants to look into it.
pub(super) async fn set_aside(location: &Location, error: &sqlx::Error) {
    let Location::Sqlite(path) = location else {
        return;
    };
    let aside = format!("{}.damaged-{}", path.display(), now_ms());
    tracing::error!(path = %path.display(), %aside, %error, "the history is damaged: moved aside, a new one is begun");
    for suffix in ["", "-wal", "-shm"] {
        let from = format!("{}{suffix}", path.display());
        let to = format!("{aside}{suffix}");
        // What is not there need not be moved; what cannot be moved shows when opening again.
        let _ = tokio::fs::rename(from, to).await;
    }
}

/// One event on its way in.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) at_ms: i64,
    pub(super) kind: EventKind,
    pub(super) text: String,
    pub(super) origin: String,
    pub(super) origin_seq: i64,
}

/// The highest sequence number of a deployment, 0 where it has none, and the highest one of the
/// origin, -1 where it has none.
pub(super) async fn newest(
    transaction: &mut Transaction<'_, Any>,
    deployment: DeploymentId,
    origin: &str,
) -> Result<(i64, i64), sqlx::Error> {
    let id = deployment.to_string();
    let seq: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(seq), 0) FROM deployment_events WHERE deployment = $1",
    )
    .bind(&id)
    .fetch_one(&mut **transaction)
    .await?;
    let origin_seq: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(origin_seq), -1) FROM deployment_events WHERE deployment = $1 AND origin = $2",
    )
    .bind(&id)
    .bind(origin)
    .fetch_one(&mut **transaction)
    .await?;
    Ok((seq, origin_seq))
}

pub(super) async fn insert(
    transaction: &mut Transaction<'_, Any>,
    deployment: DeploymentId,
    rows: &[Row],
) -> Result<(), sqlx::Error> {
    let id = deployment.to_string();
    for chunk in rows.chunks(ROWS) {
        let mut query = sqlx::query(AssertSqlSafe(insert_statement(chunk.len())));
        for row in chunk {
            query = query
                .bind(id.clone())
                .bind(row.seq)
                .bind(row.at_ms)
                .bind(row.kind.as_str())
                .bind(row.text.clone())
                .bind(row.origin.clone())
                .bind(row.origin_seq);
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Placeholders only: no data enters the text.
fn insert_statement(rows: usize) -> String {
    let mut sql = "INSERT INTO deployment_events (deployment, seq, at_ms, kind, text, origin, origin_seq) VALUES ".to_owned();
    for row in 0..rows {
        let separator = if row == 0 { "" } else { ", " };
        let places: Vec<String> = (1..=7).map(|n| format!("${}", row * 7 + n)).collect();
        // Writing to a string does not fail.
        let _ = write!(sql, "{separator}({})", places.join(", "));
    }
    sql
}

pub(super) async fn select(
    pool: &AnyPool,
    deployment: DeploymentId,
    after: u64,
    limit: u32,
) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query("SELECT seq, at_ms, kind, text FROM deployment_events WHERE deployment = $1 AND seq > $2 ORDER BY seq LIMIT $3")
        .bind(deployment.to_string())
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    rows.iter().map(event).collect()
}

fn event(row: &AnyRow) -> Result<Event, sqlx::Error> {
    let kind: String = row.try_get(2)?;
    Ok(Event {
        seq: unsigned(row.try_get(0)?),
        at_ms: unsigned(row.try_get(1)?),
        kind: EventKind::from_stored(&kind),
        text: row.try_get(3)?,
    })
}

/// Deployments that have events, in order, after one.
pub(super) async fn deployments(
    pool: &AnyPool,
    after: &str,
    limit: usize,
) -> Result<Vec<DeploymentId>, sqlx::Error> {
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT deployment FROM deployment_events WHERE deployment > $1 ORDER BY deployment LIMIT $2",
    )
    .bind(after)
    .bind(signed(limit as u64))
    .fetch_all(pool)
    .await?;
    let parse = |id: String| {
        id.parse()
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    ids.into_iter().map(parse).collect()
}

/// The highest number of each origin of a deployment's events.
pub(super) async fn origins(
    from: impl sqlx::Executor<'_, Database = Any>,
    deployment: DeploymentId,
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT origin, MAX(origin_seq) FROM deployment_events WHERE deployment = $1 GROUP BY origin",
    )
    .bind(deployment.to_string())
    .fetch_all(from)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// All events of a deployment as they are stored; their number is bounded where they are written.
pub(super) async fn rows(
    from: impl sqlx::Executor<'_, Database = Any>,
    deployment: DeploymentId,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT seq, at_ms, kind, text, origin, origin_seq FROM deployment_events WHERE deployment = $1 ORDER BY seq",
    )
    .bind(deployment.to_string())
    .fetch_all(from)
    .await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.try_get(2)?;
            Ok(Row {
                seq: row.try_get(0)?,
                at_ms: row.try_get(1)?,
                kind: EventKind::from_stored(&kind),
                text: row.try_get(3)?,
                origin: row.try_get(4)?,
                origin_seq: row.try_get(5)?,
            })
        })
        .collect()
}

/// Takes a deployment's events out, to be written in another order.
pub(super) async fn forget_events(
    transaction: &mut Transaction<'_, Any>,
    deployment: DeploymentId,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM deployment_events WHERE deployment = $1")
        .bind(deployment.to_string())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Steps of the timeline among the events up to `upto`.
pub(super) async fn count_steps(
    pool: &AnyPool,
    deployment: DeploymentId,
    upto: u64,
) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM deployment_events WHERE deployment = $1 AND seq <= $2 AND kind = $3",
    )
    .bind(deployment.to_string())
    .bind(signed(upto))
    .bind(EventKind::Step.as_str())
    .fetch_one(pool)
    .await?;
    Ok(unsigned(count))
}

/// Forgets the events of deployments of before `cutoff_ms`. Ids begin with their time, so they order by age.
pub(super) async fn delete_before(pool: &AnyPool, cutoff_ms: u64) -> Result<u64, sqlx::Error> {
    const RANDOM_BITS: u32 = 80;
    let oldest = DeploymentId::from_u128(u128::from(cutoff_ms) << RANDOM_BITS).to_string();
    let events = sqlx::query("DELETE FROM deployment_events WHERE deployment < $1")
        .bind(oldest)
        .execute(pool)
        .await?;
    Ok(events.rows_affected())
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
