//! Hands every new table to the data plane and reports how far it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_proto::v1;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Content;
use super::book::Book;
use crate::backoff::Backoff;
use crate::net::client::{Client, NetStatusLocal};
use crate::session::Outbox;

/// The data plane answers in milliseconds.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause before it is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// A data plane that came back without our newest table gets it again within this.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

type NetStatus = watch::Receiver<Option<NetStatusLocal>>;

/// The way to the data plane.
pub(crate) struct Publisher {
    /// To it.
    pub(crate) client: Client,
    /// What it says of itself; none: it is away.
    pub(crate) status: NetStatus,
    /// What it should serve; none: not known yet.
    pub(crate) wanted: watch::Receiver<Option<Arc<Content>>>,
    /// Where its progress goes.
    pub(crate) outbox: Arc<Outbox>,
}

impl Publisher {
    /// Publishes until `cancel`.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut book = Book::default();
        // And whether the data plane has a way to other nodes.
        let mut served: Option<(Arc<Content>, bool)> = None;
        let mut since = Instant::now();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut check = interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let status = *self.status.borrow_and_update();
            let lost = |status: NetStatusLocal| {
                status.applied_sequence < book.last_sequence() && since.elapsed() >= CHECK_INTERVAL
            };
            if let (Some(content), Some(status)) = (wanted, status)
                && let wanted = (content, status.mesh_port != 0)
                && (served.as_ref() != Some(&wanted) || lost(status))
            {
                let (next, way) = (&wanted.0, wanted.1);
                let is_said = |it: &(Arc<Content>, bool)| it.1 == way && it.0.says_the_same(next);
                if served.as_ref().is_some_and(is_said) && !lost(status) {
                    // To the data plane it is the table that it has.
                    book.published(book.last_sequence(), next.version);
                    served = Some(wanted);
                    continue;
                }
                let sequence = book.next_sequence(status.applied_sequence);
                match self.publish(sequence, &wanted).await {
                    Ok(()) => {
                        book.published(sequence, wanted.0.version);
                        served = Some(wanted);
                        since = Instant::now();
                        backoff.reset();
                    }
                    Err(status) => {
                        let why = crate::error_chain(&status);
                        tracing::warn!(%why, "the data plane did not take the routes");
                        if cancel
                            .run_until_cancelled(sleep(backoff.next()))
                            .await
                            .is_none()
                        {
                            return;
                        }
                        continue;
                    }
                }
            }
            if let Some(status) = status {
                let (applied, drained) = book.status(status.drained_sequence);
                self.outbox.set_routes(applied, drained);
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = self.wanted.changed() => if changed.is_err() { return },
                changed = self.status.changed() => if changed.is_err() { return },
                _ = check.tick() => {}
            }
        }
    }

    async fn publish(
        &self,
        sequence: u64,
        (content, has_mesh): &(Arc<Content>, bool),
    ) -> Result<(), tonic::Status> {
        let mut routes = content.routes.clone();
        if !has_mesh {
            // An older data plane refuses a table that names other nodes.
            let backends = routes.iter_mut().map(|route| &mut route.backends);
            backends.for_each(|it| it.retain(|backend| !backend.address.is_empty()));
        }
        let mut tcp = content.tcp.clone();
        if !has_mesh {
            let backends = tcp.iter_mut().map(|route| &mut route.backends);
            backends.for_each(|it| it.retain(|backend| !backend.address.is_empty()));
        }
        let (ruled, routes) = apart(&routes);
        let table = v1::NodeTable {
            sequence,
            revision: content.version.revision,
            routes,
            ruled,
            peers: content.peers.clone(),
            endpoints: content.endpoints.clone(),
            networks: content.networks.clone(),
            tcp,
        };
        match timeout(PUBLISH_TIMEOUT, self.client.publish(table)).await {
            Ok(published) => published,
            Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
        }
    }
}

/// The routes of hosts of which one has rules, and the others: a data plane that does not know of rules
/// serves the latter alone.
fn apart(routes: &[v1::NodeRoute]) -> (Vec<v1::NodeRoute>, Vec<v1::NodeRoute>) {
    let ruled = routes.iter().filter(|route| route.rules.is_some());
    let hosts: BTreeSet<&str> = ruled.map(|route| route.host.as_str()).collect();
    let all = routes.iter().cloned();
    all.partition(|route| hosts.contains(route.host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_rules_is_apart_with_all_its_paths() {
        let route = |host: &str, path: &str, rules: bool| v1::NodeRoute {
            host: host.into(),
            path_prefix: path.into(),
            rules: rules.then(v1::RouteSpec::default),
            ..v1::NodeRoute::default()
        };
        let routes = [
            route("a", "/", false),
            route("a", "/admin", true),
            route("b", "/", false),
        ];
        let (ruled, plain) = apart(&routes);
        assert_eq!(ruled, routes[..2]);
        assert_eq!(plain, routes[2..]);
    }
}
