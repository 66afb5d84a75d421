//! Carries the history in a server's file over to a shared database: everything, once, while servers
//! run on either. What is there already stays as it is, so it may be broken off and run again.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::{DeploymentId, ServerId};
use sqlx::AnyPool;

use super::database::{self, Location, Row, number_alone};
use super::event::EventKind;
use super::journal::{MAX_ENTRIES, Part, StoreId, fresh};
use super::writer::bring_on;
use super::{Error, copies};
use crate::store::now_ms;

/// Deployments looked up at once.
const DEPLOYMENTS: usize = 500;
/// Events written at once: no server waits long for its turn.
const PIECE: usize = 2_000;
/// Origin of the steps of a timeline.
const STATE: &str = "state";

/// What was carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Carried {
    /// Deployments that were looked at.
    pub deployments: u64,
    /// Events of theirs that were not there yet.
    pub events: u64,
    /// Entries of the audit trail, timelines and places of logs that were not there yet.
    pub entries: u64,
}

/// The two ends.
struct Ends {
    from: AnyPool,
    to: AnyPool,
    location: Location,
}

/// Carries what is in the file `from` to the database `to`; `progress` is told as it goes on.
///
/// # Errors
/// `from` is no file that is there, `to` is no PostgreSQL, or one of the two fails. What was carried
/// by then stays.
pub async fn over(
    (from, to): (&str, &str),
    mut progress: impl FnMut(Carried),
) -> Result<Carried, Error> {
    let (source, target) = (Location::parse(from)?, Location::parse(to)?);
    let (Location::Sqlite(path), Location::Postgres(_)) = (&source, &target) else {
        return Err(Error::Ends);
    };
    if !tokio::fs::try_exists(path).await.unwrap_or(false) {
        return Err(Error::NoFile(path.clone()));
    }
    // Nothing is written in the name of a server here.
    let nobody = ServerId::from_u128(0);
    let begun_ms = now_ms();
    let from = database::connect(&source, nobody)
        .await
        .map_err(Error::database)?;
    let to = database::connect(&target, nobody)
        .await
        .map_err(Error::database)?;
    let ends = Ends {
        from,
        to,
        location: target,
    };
    let carried = ends.run(begun_ms, &mut progress).await;
    ends.from.close().await;
    ends.to.close().await;
    carried.map_err(Error::database)
}

impl Ends {
    async fn run(
        &self,
        begun_ms: u64,
        progress: &mut impl FnMut(Carried),
    ) -> Result<Carried, sqlx::Error> {
        let mut carried = Carried::default();
        // Events first: where their order is known, the journal's steps add nothing.
        let mut after = String::new();
        loop {
            let some = database::deployments(&self.from, &after, DEPLOYMENTS).await?;
            let Some(last) = some.last() else { break };
            after = last.to_string();
            for deployment in some {
                carried.events += self.deployment(deployment).await?;
                carried.deployments += 1;
            }
            progress(carried);
        }
        let (own, places) = copies::places(&self.from).await?;
        for store in places.keys() {
            while let Some(count) = self.entries(*store).await? {
                carried.entries += count;
                progress(carried);
            }
        }
        let mut here = copies::carried_stores(&self.from).await?;
        here.extend(own.map(|own| (own, begun_ms)));
        let mut tx = self.to.begin().await?;
        for (store, upto_ms) in here {
            copies::carried(&mut tx, store, upto_ms).await?;
        }
        tx.commit().await?;
        Ok(carried)
    }

    /// One page of a store's journal; none: all of it is there.
    async fn entries(&self, store: StoreId) -> Result<Option<u64>, sqlx::Error> {
        let mut tx = self.to.begin().await?;
        number_alone(&self.location, &mut tx).await?;
        let after = copies::upto(&mut tx, store).await?;
        let entries = copies::entries(&self.from, store, after, MAX_ENTRIES).await?;
        let (_, places) = copies::places(&self.from).await?;
        let told = places.get(&store).copied().unwrap_or(0);
        let is_all = entries.len() < MAX_ENTRIES;
        let last = entries.last().map_or(0, |entry| entry.seq);
        let part = Part {
            store,
            after,
            upto: if is_all { told.max(last) } else { last },
            entries,
        };
        let Some(new) = fresh(&part, after, 0) else {
            return Ok(None);
        };
        let mut deployments = BTreeSet::new();
        for entry in &new {
            copies::insert(&mut tx, store, entry).await?;
            deployments.extend(entry.what.deployment());
        }
        let newest_ms = new.iter().map(|entry| entry.at_ms).max().unwrap_or(0);
        copies::reached(&mut tx, store, (part.upto, newest_ms)).await?;
        for deployment in deployments {
            bring_on(&mut tx, deployment, &mut BTreeMap::new()).await?;
        }
        tx.commit().await?;
        Ok(Some(new.len() as u64))
    }

    /// The events of one deployment, in the file's order where no line of the build is there yet. Piece by
    /// piece: servers that write to the database wait for each.
    async fn deployment(&self, deployment: DeploymentId) -> Result<u64, sqlx::Error> {
        let theirs = database::origins(&self.from, deployment).await?;
        let (mut file, mut count) = (Vec::new(), 0);
        loop {
            let mut tx = self.to.begin().await?;
            number_alone(&self.location, &mut tx).await?;
            let ours = database::origins(&mut *tx, deployment).await?;
            let is_there = |(origin, last): (&String, &i64)| ours.get(origin) >= Some(last);
            if theirs.iter().all(is_there) {
                // Steps that were taken out and that the file does not have are in the journal.
                bring_on(&mut tx, deployment, &mut BTreeMap::new()).await?;
                tx.commit().await?;
                return Ok(count);
            }
            if file.is_empty() {
                file = database::rows(&self.from, deployment).await?;
            }
            let (rows, kept) = if ours.keys().any(|origin| origin != STATE) {
                let (last, _) = database::newest(&mut tx, deployment, STATE).await?;
                (appended(&file, &ours, last), 0)
            } else {
                let steps = database::rows(&mut *tx, deployment).await?;
                database::forget_events(&mut tx, deployment).await?;
                let rows = woven(&file, &steps);
                let was_there = |row: &&Row| {
                    row.kind == EventKind::Step && Some(&row.origin_seq) <= ours.get(STATE)
                };
                let kept = rows.iter().filter(was_there).count();
                (rows, kept)
            };
            if rows.is_empty() {
                // The file says more of itself than it holds: it was written to meanwhile.
                return Ok(count);
            }
            database::insert(&mut tx, deployment, &rows).await?;
            tx.commit().await?;
            count += rows.len().saturating_sub(kept) as u64;
        }
    }
}

/// The next rows that are not there yet, numbered on from `last`.
fn appended(file: &[Row], there: &BTreeMap<String, i64>, last: i64) -> Vec<Row> {
    let is_new = |row: &&Row| {
        let kept = there.get(&row.origin);
        kept.is_none_or(|kept| row.origin_seq > *kept)
    };
    let new = file.iter().filter(is_new).take(PIECE).cloned();
    new.zip(last + 1..)
        .map(|(row, seq)| Row { seq, ..row })
        .collect()
}

/// The first rows of the file; where these are all, behind them the steps that it does not have.
fn woven(file: &[Row], steps: &[Row]) -> Vec<Row> {
    let of_file = file.iter().filter(|row| row.kind == EventKind::Step);
    let last = of_file.map(|row| row.origin_seq).max();
    let further = steps.iter().filter(|step| Some(step.origin_seq) > last);
    file.iter()
        .chain(further)
        .take(PIECE)
        .cloned()
        .zip(1..)
        .map(|(row, seq)| Row { seq, ..row })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: i64, origin: &str, origin_seq: i64) -> Row {
        let kind = if origin == STATE {
            EventKind::Step
        } else {
            EventKind::Log
        };
        Row {
            seq,
            at_ms: 0,
            kind,
            text: String::new(),
            origin: origin.to_owned(),
            origin_seq,
        }
    }

    fn shown(rows: &[Row]) -> Vec<String> {
        let show = |row: &Row| format!("{}:{}{}", row.seq, row.origin, row.origin_seq);
        rows.iter().map(show).collect()
    }

    #[test]
    fn the_order_of_the_file_is_kept_and_later_steps_follow() {
        let file = vec![row(1, STATE, 0), row(2, "build", 0), row(3, STATE, 1)];
        let there = vec![row(1, STATE, 0), row(2, STATE, 1), row(3, STATE, 2)];
        let rows = woven(&file, &there);
        assert_eq!(
            shown(&rows),
            ["1:state0", "2:build0", "3:state1", "4:state2"]
        );
    }

    #[test]
    fn lines_that_are_there_are_not_carried_again() {
        let file = vec![row(1, STATE, 0), row(2, "build", 0), row(3, "build", 1)];
        let there = BTreeMap::from([(STATE.to_owned(), 3), ("build".to_owned(), 0)]);
        assert_eq!(shown(&appended(&file, &there, 7)), ["8:build1"]);
    }
}
