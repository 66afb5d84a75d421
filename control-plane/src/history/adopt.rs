//! Brings rows of an older version into the journal when a history is opened: audit entries, and once
//! the timelines and where build logs are.

use skep_model::id::ServerId;
use sqlx::{Any, AnyPool, Row as _, Transaction};

use super::copies::{self, Pen};
use super::database::{Location, number_alone, signed, unsigned};

/// Audit entries of before the journal, and those of servers of an older version on the same database.
const AUDIT: &str = "INSERT INTO journal (store, seq, at_ms, kind, deployment, position, server, text, \
     principal, action, resource, outcome) \
     SELECT $1, $2 + ROW_NUMBER() OVER (ORDER BY id), at_ms, 'audit', '', 0, '', '', \
     principal, action, resource, outcome FROM audit";
const STEPS: &str = "INSERT INTO journal (store, seq, at_ms, kind, deployment, position, server, text, \
     principal, action, resource, outcome) \
     SELECT $1, $2 + ROW_NUMBER() OVER (ORDER BY deployment, origin_seq), at_ms, 'step', deployment, \
     origin_seq, '', text, '', '', '', '' FROM deployment_events WHERE origin = 'state'";
const LOGS: &str = "INSERT INTO journal (store, seq, at_ms, kind, deployment, position, server, text, \
     principal, action, resource, outcome) \
     SELECT $1, $2 + ROW_NUMBER() OVER (ORDER BY deployment), MIN(at_ms), 'log', deployment, 0, $3, '', \
     '', '', '', '' FROM deployment_events WHERE kind = 'log' GROUP BY deployment";

/// Moves what an older version wrote.
pub(super) async fn older(
    location: &Location,
    pool: &AnyPool,
    server: ServerId,
) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    number_alone(location, &mut tx).await?;
    let is_new = sqlx::query("SELECT 1 FROM stores WHERE is_own = 1")
        .fetch_optional(&mut *tx)
        .await?
        .is_none();
    let store = Pen::take(&mut tx).await?.store;
    let (id, mut upto) = (store.to_string(), copies::upto(&mut tx, store).await?);
    let first = upto;
    for sql in [AUDIT, STEPS].into_iter().take(if is_new { 2 } else { 1 }) {
        let moved = sqlx::query(sql).bind(&id).bind(signed(upto));
        upto += moved.execute(&mut *tx).await?.rows_affected();
    }
    if is_new {
        let told = sqlx::query(LOGS).bind(&id).bind(signed(upto));
        let told = told.bind(server.to_string()).execute(&mut *tx).await?;
        upto += told.rows_affected();
    }
    if upto > first {
        sqlx::query("DELETE FROM audit").execute(&mut *tx).await?;
        let newest = newest_ms(&mut tx, &id).await?;
        copies::reached(&mut tx, store, (upto, newest)).await?;
        tracing::info!(
            entries = upto - first,
            "the history's older rows are in its journal"
        );
    }
    tx.commit().await
}

async fn newest_ms(tx: &mut Transaction<'_, Any>, store: &str) -> Result<u64, sqlx::Error> {
    let row = sqlx::query("SELECT COALESCE(MAX(at_ms), 0) FROM journal WHERE store = $1")
        .bind(store)
        .fetch_one(&mut **tx)
        .await?;
    Ok(unsigned(row.try_get(0)?))
}
