//! Ships logs to where operators keep theirs: Loki, or anything that takes OTLP. Reads the same files as
//! everybody, so that no app ever waits for it; how far each container's log has been taken is in the
//! ledger, so that neither this agent's end nor the receiver's costs a line of what Docker keeps.

mod batch;
mod destination;
mod push;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::files::{Position, Watcher};
use super::places::Places;
use crate::backoff::Backoff;
use crate::ledger::{Change, Writer};
use crate::metrics::Metrics;
use crate::runtime::Runtime;

use batch::Batch;
pub use destination::Destination;
use push::{Client, Outcome};
use sources::Sources;

/// Lines of so long go together: a request for each would cost more than they do.
const LINGER: Duration = Duration::from_secs(1);
/// First and longest pause before a receiver that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// What a shipper works with.
pub(crate) struct Shipper {
    /// Where to.
    pub(crate) destination: Destination,
    /// Name of this node, for labels.
    pub(crate) node: String,
    /// Knows where Docker writes.
    pub(crate) runtime: Runtime,
    /// Which containers there are.
    pub(crate) places: watch::Receiver<Places>,
    /// Tells how often files were turned over.
    pub(crate) watcher: Watcher,
    /// Keeps positions.
    pub(crate) writer: Writer,
    /// Counts.
    pub(crate) metrics: Metrics,
    /// Positions of an earlier life, by key.
    pub(crate) positions: BTreeMap<String, Position>,
}

impl Shipper {
    /// Ships until `cancel`.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let client = match Client::new(&self.destination) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, to = %self.destination, "no logs are shipped");
                return;
            }
        };
        let run = self.ship(client);
        cancel.run_until_cancelled(run).await;
    }

    async fn ship(self, client: Client) {
        let mut sources = Sources::new(self.destination.key(), self.positions.clone());
        let mut tick = interval(LINGER);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            sources
                .sync(&self.places, &self.runtime, &self.watcher)
                .await;
            loop {
                let Some((same, batch)) = sources.read(Batch::new(self.node.clone())).await else {
                    tracing::error!(to = %self.destination, "reading logs panicked: none are shipped");
                    return;
                };
                sources = same;
                let is_full = batch.is_full();
                if !batch.is_empty() {
                    self.deliver(&client, &batch, &mut sources).await;
                }
                let changes = sources.moved();
                if !changes.is_empty() {
                    self.writer.write_soon(changes).await;
                }
                if !is_full {
                    break;
                }
            }
        }
    }

    /// Hands a batch over, however long the receiver is away. It is kept in memory, this one alone.
    async fn deliver(&self, client: &Client, batch: &Batch, sources: &mut Sources) {
        let body = batch.encode(self.destination.kind());
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let since = Instant::now();
        loop {
            match client.push(body.clone()).await {
                Outcome::Taken => {
                    if !backoff.is_first() {
                        let away_s = since.elapsed().as_secs();
                        tracing::info!(to = %self.destination, away_s, "logs are shipped again");
                    }
                    self.metrics.shipped(batch.lines(), 0);
                    return;
                }
                Outcome::Refused(why) => {
                    let lines = batch.lines();
                    tracing::warn!(to = %self.destination, %why, lines, "lines were refused for good");
                    self.metrics.shipped(0, lines);
                    return;
                }
                Outcome::Failed(why) => {
                    if backoff.is_first() {
                        tracing::warn!(to = %self.destination, %why, "logs cannot be shipped now");
                    }
                    self.metrics.shipping_failed();
                }
            }
            sleep(backoff.next()).await;
            // What begins and what is turned over meanwhile is held on to.
            sources
                .sync(&self.places, &self.runtime, &self.watcher)
                .await;
        }
    }
}

/// The change that remembers how far a container's log was taken.
fn remember(key: String, position: Option<Position>) -> Change {
    Change::Shipped(key, position)
}
