//! The history as other servers see it: what is offered to them, what is taken from them, and the
//! contract of reading a deployment's events where they are. Who is dialed is not known here.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use skep_model::id::{DeploymentId, ServerId};
use skep_model::problem::{Code, Problem};
use tokio::sync::{oneshot, watch};

use super::journal::{Holder, MAX_ENTRIES, MAX_ENTRY_BYTES, Part, Places, StoreId, lacking};
use super::writer::Write;
use super::{Error, Event, History, KEEP_DEADLINE, copies, database, within};

/// What is said to another server that asks for news.
#[derive(Debug, Clone)]
pub struct Offer {
    /// This store.
    pub store: StoreId,
    /// All that is held.
    pub places: Places,
    /// What the other one lacks, or the beginning of it.
    pub parts: Vec<Part>,
}

/// Events of a deployment, as one store has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub events: Vec<Event>,
    /// Steps of the timeline among the events before this page.
    pub steps_before: u64,
    /// Lines of the build's log are in this store.
    pub holds_log: bool,
}

/// Which events of a deployment.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Whose.
    pub deployment: DeploymentId,
    /// Only events after this sequence number of the asked store.
    pub after: u64,
    /// Most events.
    pub limit: u32,
    /// Wait for some where there are none; not for ever.
    pub wait: bool,
    /// Steps up to this index of the log are wanted.
    pub index: u64,
}

/// Reads events that are at other servers.
pub trait Elsewhere: Send + Sync + 'static {
    /// The events as `server` has them. An error says why they cannot be had.
    fn events(&self, server: ServerId, ask: Ask) -> BoxFuture<'_, Result<Page, Problem>>;
}

/// No other server is reached.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Elsewhere for Nowhere {
    fn events(&self, _: ServerId, _: Ask) -> BoxFuture<'_, Result<Page, Problem>> {
        let problem = Problem::new(Code::Unavailable, "no other server is reached from here");
        Box::pin(async { Err(problem) })
    }
}

impl History {
    /// This store, and how far each store's entries are held here.
    ///
    /// # Errors
    /// The database failed, is not open, or was too slow.
    pub async fn places(&self) -> Result<(StoreId, Places), Error> {
        let pool = self.inner.pool().ok_or(Error::Closed)?;
        let (own, places) = within(copies::places(&pool)).await?;
        Ok((own.ok_or(Error::Closed)?, places))
    }

    /// What somebody who holds `theirs` lacks: a bounded part of it, and all that is held here.
    ///
    /// # Errors
    /// The database failed, is not open, or was too slow.
    pub async fn offer(&self, theirs: &Places) -> Result<Offer, Error> {
        let (store, places) = self.places().await?;
        let pool = self.inner.pool().ok_or(Error::Closed)?;
        let (mut rows, mut bytes) = (MAX_ENTRIES, MAX_ENTRY_BYTES);
        let mut parts = Vec::new();
        for (store, after) in lacking(&places, theirs) {
            if rows == 0 || bytes == 0 {
                break;
            }
            let entries = within(copies::entries(&pool, store, after, rows)).await?;
            let last = entries.last().map(|entry| entry.seq);
            let is_all = entries.len() < rows;
            let upto = places.get(&store).copied().unwrap_or(after);
            let mut part = Part {
                store,
                after,
                // What was written meanwhile is told, too, and next time is not too late for it.
                upto: last.map_or(upto, |last| if is_all { last.max(upto) } else { last }),
                entries,
            };
            bytes = part.cut(bytes);
            rows -= part.entries.len();
            parts.push(part);
        }
        Ok(Offer {
            store,
            places,
            parts,
        })
    }

    /// Keeps what another store wrote; answers how many entries were new.
    ///
    /// # Errors
    /// The database failed or was too slow: nothing of this was kept.
    pub async fn take(&self, parts: Vec<Part>) -> Result<u64, Error> {
        let (done, kept) = oneshot::channel();
        let waiting = async {
            let sent = self.queue.send(Write::Copied(parts, done)).await;
            sent.map_err(|_| Error::Stopped)?;
            kept.await.map_err(|_| Error::Stopped)?
        };
        let count = tokio::time::timeout(KEEP_DEADLINE, waiting)
            .await
            .unwrap_or(Err(Error::Timeout))?;
        self.inner.copied.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }

    /// Wakes when this store wrote entries of its own.
    pub fn told(&self) -> watch::Receiver<u64> {
        self.inner.told.subscribe()
    }

    /// Wakes when the database was opened anew: it may be another store now.
    pub fn renewed(&self) -> watch::Receiver<u64> {
        self.inner.renewed.subscribe()
    }

    /// Notes how many entries another server has that this one has not; none: nothing is copied from it.
    pub fn note_behind(&self, server: ServerId, entries: Option<u64>) {
        let mut behind = self.inner.behind.lock();
        match entries {
            Some(entries) => _ = behind.insert(server, entries),
            None => _ = behind.remove(&server),
        }
    }

    /// How many entries each other server has that this one has not, as of when it was last asked.
    pub fn behind(&self) -> BTreeMap<ServerId, u64> {
        self.inner.behind.lock().clone()
    }

    /// Up to `limit` events of a deployment after sequence number `after`, and where they stand.
    ///
    /// # Errors
    /// The database failed, is not open, or was too slow.
    pub async fn page(
        &self,
        deployment: DeploymentId,
        after: u64,
        limit: u32,
    ) -> Result<Page, Error> {
        let pool = self.inner.pool().ok_or(Error::Closed)?;
        let read = async {
            Ok(Page {
                steps_before: database::count_steps(&pool, deployment, after).await?,
                events: database::select(&pool, deployment, after, limit).await?,
                holds_log: false,
            })
        };
        let mut page = within(read).await?;
        page.holds_log = self
            .holders(deployment)
            .await?
            .iter()
            .any(|one| one.is_here);
        Ok(page)
    }

    /// Who holds lines of a deployment's build log, oldest first.
    ///
    /// # Errors
    /// The database failed, is not open, or was too slow.
    pub async fn holders(&self, deployment: DeploymentId) -> Result<Vec<Holder>, Error> {
        let pool = self.inner.pool().ok_or(Error::Closed)?;
        within(copies::holders(&pool, deployment)).await
    }
}
