//! Statements about the journal: what is copied between stores, and which stores there are. Decides
//! nothing; `database` has the rest of the statements.

use std::collections::BTreeMap;

use skep_identity::random;
use skep_model::id::{DeploymentId, ServerId};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Row as _, Transaction};

use super::database::{signed, unsigned};
use super::event::{AuditEntry, storable};
use super::journal::{Entry, Holder, Places, StoreId, What};

const AUDIT: &str = "audit";
const STEP: &str = "step";
const LOG: &str = "log";
/// Most stores whose places are told: those with the newest entries.
const MAX_STORES: i64 = 256;

type Tx<'t> = Transaction<'t, Any>;

/// This store within a transaction: gives out its numbers.
pub(super) struct Pen {
    pub(super) store: StoreId,
    upto: u64,
    newest_ms: u64,
    written: u64,
}

impl Pen {
    /// Takes it up; a store that has no name yet is given one.
    pub(super) async fn take(tx: &mut Tx<'_>) -> Result<Self, sqlx::Error> {
        let own = sqlx::query("SELECT id, upto, newest_ms FROM stores WHERE is_own = 1")
            .fetch_optional(&mut **tx)
            .await?;
        if let Some(row) = own {
            return Ok(Self {
                store: parsed(&row, 0)?,
                upto: unsigned(row.try_get(1)?),
                newest_ms: unsigned(row.try_get(2)?),
                written: 0,
            });
        }
        Self::begin(tx).await
    }

    /// Begins a new store on what is here: the old one's numbers were given out elsewhere already.
    pub(super) async fn begin(tx: &mut Tx<'_>) -> Result<Self, sqlx::Error> {
        let store = StoreId::from_u128(random::new_id());
        sqlx::query("UPDATE stores SET is_own = 0 WHERE is_own = 1")
            .execute(&mut **tx)
            .await?;
        sqlx::query(
            "INSERT INTO stores (id, is_own, upto, newest_ms, carried_ms) VALUES ($1, 1, 0, 0, 0)",
        )
        .bind(store.to_string())
        .execute(&mut **tx)
        .await?;
        Ok(Self {
            store,
            upto: 0,
            newest_ms: 0,
            written: 0,
        })
    }

    /// Appends an entry of this store.
    pub(super) async fn write(
        &mut self,
        tx: &mut Tx<'_>,
        at_ms: u64,
        what: What,
    ) -> Result<(), sqlx::Error> {
        self.upto += 1;
        self.written += 1;
        self.newest_ms = self.newest_ms.max(at_ms);
        let seq = self.upto;
        insert(tx, self.store, &Entry { seq, at_ms, what }).await
    }

    /// Notes how far it got; whether anything was written.
    pub(super) async fn rest(self, tx: &mut Tx<'_>) -> Result<bool, sqlx::Error> {
        if self.written > 0 {
            reached(tx, self.store, (self.upto, self.newest_ms)).await?;
        }
        Ok(self.written > 0)
    }
}

/// Keeps an entry; one that is kept already stays as it is.
pub(super) async fn insert(
    tx: &mut Tx<'_>,
    store: StoreId,
    entry: &Entry,
) -> Result<(), sqlx::Error> {
    let none = String::new;
    let (kind, deployment, position, server, text) = match &entry.what {
        What::Audit { .. } => (AUDIT, none(), 0, none(), none()),
        What::Step {
            deployment,
            position,
            text,
        } => (
            STEP,
            deployment.to_string(),
            *position,
            none(),
            storable(text),
        ),
        What::Log { deployment, server } => {
            (LOG, deployment.to_string(), 0, server.to_string(), none())
        }
    };
    let words = match &entry.what {
        What::Audit {
            principal,
            action,
            resource,
            outcome,
        } => [principal, action, resource, outcome].map(|word| storable(word)),
        _ => [none(), none(), none(), none()],
    };
    let mut query = sqlx::query(
        "INSERT INTO journal (store, seq, at_ms, kind, deployment, position, server, text, \
         principal, action, resource, outcome) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
    )
    .bind(store.to_string())
    .bind(signed(entry.seq))
    .bind(signed(entry.at_ms))
    .bind(kind)
    .bind(deployment)
    .bind(signed(position))
    .bind(server)
    .bind(text);
    for word in words {
        query = query.bind(word);
    }
    query.execute(&mut **tx).await?;
    Ok(())
}

/// Notes that a store's entries are held up to a number, and the time of the newest.
pub(super) async fn reached(
    tx: &mut Tx<'_>,
    store: StoreId,
    (upto, newest_ms): (u64, u64),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO stores (id, is_own, upto, newest_ms, carried_ms) VALUES ($1, 0, $2, $3, 0) \
         ON CONFLICT (id) DO UPDATE SET upto = excluded.upto, \
         newest_ms = CASE WHEN stores.newest_ms > excluded.newest_ms THEN stores.newest_ms ELSE excluded.newest_ms END",
    )
    .bind(store.to_string())
    .bind(signed(upto))
    .bind(signed(newest_ms))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes that the build logs of a store up to this time are in this one.
pub(super) async fn carried(
    tx: &mut Tx<'_>,
    store: StoreId,
    upto_ms: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE stores SET carried_ms = $2 WHERE id = $1")
        .bind(store.to_string())
        .bind(signed(upto_ms))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Stores whose build logs up to a time are in this one.
pub(super) async fn carried_stores(pool: &AnyPool) -> Result<Vec<(StoreId, u64)>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, carried_ms FROM stores WHERE carried_ms > 0")
        .fetch_all(pool)
        .await?;
    let read = |row| Ok((parsed(row, 0)?, unsigned(row.try_get(1)?)));
    rows.iter().map(read).collect()
}

/// How far a store's entries are held.
pub(super) async fn upto(tx: &mut Tx<'_>, store: StoreId) -> Result<u64, sqlx::Error> {
    let upto: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(upto), 0) FROM stores WHERE id = $1")
        .bind(store.to_string())
        .fetch_one(&mut **tx)
        .await?;
    Ok(unsigned(upto))
}

/// This store, and how far each store's entries are held.
pub(super) async fn places(pool: &AnyPool) -> Result<(Option<StoreId>, Places), sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, upto, is_own FROM stores ORDER BY is_own DESC, newest_ms DESC LIMIT $1",
    )
    .bind(MAX_STORES)
    .fetch_all(pool)
    .await?;
    let (mut own, mut places) = (None, Places::new());
    for row in &rows {
        let store = parsed(row, 0)?;
        let is_own: i64 = row.try_get(2)?;
        if is_own == 1 {
            own = Some(store);
        }
        places.insert(store, unsigned(row.try_get(1)?));
    }
    Ok((own, places))
}

/// Entries of a store after a number, in order.
pub(super) async fn entries(
    pool: &AnyPool,
    store: StoreId,
    after: u64,
    limit: usize,
) -> Result<Vec<Entry>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT seq, at_ms, kind, deployment, position, server, text, principal, action, resource, outcome \
         FROM journal WHERE store = $1 AND seq > $2 ORDER BY seq LIMIT $3",
    )
    .bind(store.to_string())
    .bind(signed(after))
    .bind(signed(limit as u64))
    .fetch_all(pool)
    .await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &AnyRow) -> Result<Entry, sqlx::Error> {
    let kind: String = row.try_get(2)?;
    let what = match kind.as_str() {
        AUDIT => What::Audit {
            principal: row.try_get(7)?,
            action: row.try_get(8)?,
            resource: row.try_get(9)?,
            outcome: row.try_get(10)?,
        },
        STEP => What::Step {
            deployment: parsed(row, 3)?,
            position: unsigned(row.try_get(4)?),
            text: row.try_get(6)?,
        },
        _ => What::Log {
            deployment: parsed(row, 3)?,
            server: parsed(row, 5)?,
        },
    };
    Ok(Entry {
        seq: unsigned(row.try_get(0)?),
        at_ms: unsigned(row.try_get(1)?),
        what,
    })
}

fn parsed<T>(row: &AnyRow, column: usize) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.try_get(column)?;
    text.parse()
        .map_err(|error: T::Err| sqlx::Error::Decode(error.into()))
}

/// The next step of a deployment's timeline that no entry tells yet.
pub(super) async fn next_step(
    tx: &mut Tx<'_>,
    deployment: DeploymentId,
) -> Result<u64, sqlx::Error> {
    let last: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(position), -1) FROM journal WHERE deployment = $1 AND kind = $2",
    )
    .bind(deployment.to_string())
    .bind(STEP)
    .fetch_one(&mut **tx)
    .await?;
    Ok(unsigned(last + 1))
}

/// The steps from `first` on, without a gap: time and text.
pub(super) async fn steps(
    tx: &mut Tx<'_>,
    deployment: DeploymentId,
    first: u64,
) -> Result<Vec<(u64, String)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT position, at_ms, text FROM journal \
         WHERE deployment = $1 AND kind = $2 AND position >= $3 ORDER BY position",
    )
    .bind(deployment.to_string())
    .bind(STEP)
    .bind(signed(first))
    .fetch_all(&mut **tx)
    .await?;
    // Two servers that led one after the other may both have told one.
    let mut told = BTreeMap::new();
    for row in &rows {
        let position = unsigned(row.try_get(0)?);
        told.insert(position, (unsigned(row.try_get(1)?), row.try_get(2)?));
    }
    let in_a_row = told.into_iter().zip(first..);
    Ok(in_a_row
        .take_while(|((position, _), wanted)| position == wanted)
        .map(|((_, step), _)| step)
        .collect())
}

/// Whether an entry of this store says that lines of the deployment's build are in it.
pub(super) async fn says_log(
    tx: &mut Tx<'_>,
    store: StoreId,
    deployment: DeploymentId,
) -> Result<bool, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM journal WHERE deployment = $1 AND kind = $2 AND store = $3",
    )
    .bind(deployment.to_string())
    .bind(LOG)
    .bind(store.to_string())
    .fetch_one(&mut **tx)
    .await?;
    Ok(count > 0)
}

/// Who holds lines of a deployment's build log, oldest first.
pub(super) async fn holders(
    pool: &AnyPool,
    deployment: DeploymentId,
) -> Result<Vec<Holder>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT journal.server, journal.at_ms, stores.is_own, stores.carried_ms FROM journal \
         JOIN stores ON stores.id = journal.store \
         WHERE journal.deployment = $1 AND journal.kind = $2 ORDER BY journal.at_ms, journal.store",
    )
    .bind(deployment.to_string())
    .bind(LOG)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let since_ms = unsigned(row.try_get(1)?);
            let (is_own, carried_ms): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            Ok(Holder {
                server: parsed::<ServerId>(row, 0)?,
                since_ms,
                is_here: is_own == 1 || since_ms < unsigned(carried_ms),
            })
        })
        .collect()
}

pub(super) async fn select_audit(
    pool: &AnyPool,
    limit: u32,
) -> Result<Vec<AuditEntry>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT at_ms, principal, action, resource, outcome FROM journal WHERE kind = $1 \
         ORDER BY at_ms DESC, store DESC, seq DESC LIMIT $2",
    )
    .bind(AUDIT)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(AuditEntry {
                at_ms: unsigned(row.try_get(0)?),
                principal: row.try_get(1)?,
                action: row.try_get(2)?,
                resource: row.try_get(3)?,
                outcome: row.try_get(4)?,
            })
        })
        .collect()
}

/// Forgets entries of before `cutoff_ms`. How far a store was held is remembered for as long again, so
/// that nobody asks for what is forgotten.
pub(super) async fn delete_before(
    pool: &AnyPool,
    cutoff_ms: u64,
    keep_ms: u64,
) -> Result<u64, sqlx::Error> {
    let journal = sqlx::query("DELETE FROM journal WHERE at_ms < $1")
        .bind(signed(cutoff_ms))
        .execute(pool)
        .await?;
    sqlx::query("DELETE FROM stores WHERE is_own = 0 AND newest_ms < $1")
        .bind(signed(cutoff_ms.saturating_sub(keep_ms)))
        .execute(pool)
        .await?;
    Ok(journal.rows_affected())
}
