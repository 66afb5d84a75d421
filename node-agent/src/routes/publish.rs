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
        let mut served: Option<(Arc<Content>, Means)> = None;
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
                && let wanted = (content, Means::of(status))
                && (served.as_ref() != Some(&wanted) || lost(status))
            {
                let (next, means) = (&wanted.0, wanted.1);
                let is_said =
                    |it: &(Arc<Content>, Means)| it.1 == means && it.0.says_the_same(next);
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
        (content, means): &(Arc<Content>, Means),
    ) -> Result<(), tonic::Status> {
        let table = means.table(sequence, content);
        match timeout(PUBLISH_TIMEOUT, self.client.publish(table)).await {
            Ok(published) => published,
            Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
        }
    }
}

/// What a data plane can do: one of an older version refuses a table that needs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Means {
    /// It has a way to other nodes.
    has_mesh: bool,
    /// It hands out files of static sites.
    serves_files: bool,
}

impl Means {
    fn of(status: NetStatusLocal) -> Self {
        Self {
            has_mesh: status.mesh_port != 0,
            serves_files: status.serves_files,
        }
    }

    fn knows(self, backend: &v1::NodeBackend) -> bool {
        match (backend.files.is_empty(), backend.address.is_empty()) {
            (false, _) => self.serves_files,
            (true, true) => self.has_mesh,
            (true, false) => true,
        }
    }

    /// `content` without what it does not know.
    fn table(self, sequence: u64, content: &Content) -> v1::NodeTable {
        let mut content = content.clone();
        let routes = content.routes.iter_mut().map(|it| &mut it.backends);
        let tcp = content.tcp.iter_mut().map(|it| &mut it.backends);
        let backends = routes.chain(tcp);
        backends.for_each(|it| it.retain(|backend| self.knows(backend)));
        if !self.serves_files {
            content.endpoints.retain(|it| it.files.is_empty());
            let services = content.networks.iter_mut().flat_map(|it| &mut it.services);
            let targets = services.map(|it| &mut it.backends);
            targets.for_each(|it| it.retain(|target| target.files.is_empty()));
        }
        let (ruled, routes) = apart(&content.routes);
        v1::NodeTable {
            sequence,
            revision: content.version.revision,
            routes,
            ruled,
            peers: content.peers,
            endpoints: content.endpoints,
            networks: content.networks,
            tcp: content.tcp,
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
    use super::super::Version;
    use super::*;

    #[test]
    fn a_data_plane_is_told_what_it_knows() {
        let backend = |address: &str, files: &str| v1::NodeBackend {
            address: address.into(),
            files: files.into(),
            ..v1::NodeBackend::default()
        };
        let backends = vec![
            backend("127.0.0.1:1", ""),
            backend("", "/b"),
            backend("", ""),
        ];
        let target = |files: &str| v1::PrivateTarget {
            files: files.into(),
            ..v1::PrivateTarget::default()
        };
        let endpoint = |files: &str| v1::NodeEndpoint {
            files: files.into(),
            ..v1::NodeEndpoint::default()
        };
        let content = Content {
            version: Version::default(),
            routes: vec![v1::NodeRoute {
                backends: backends.clone(),
                ..v1::NodeRoute::default()
            }],
            tcp: vec![v1::NodeTcpRoute {
                backends,
                ..v1::NodeTcpRoute::default()
            }],
            peers: Vec::new(),
            endpoints: vec![endpoint(""), endpoint("/b")],
            networks: vec![v1::PrivateNetwork {
                services: vec![v1::PrivateService {
                    backends: vec![target(""), target("/b")],
                    ..v1::PrivateService::default()
                }],
                ..v1::PrivateNetwork::default()
            }],
        };
        for (has_mesh, serves_files, backends, others) in [
            (true, true, 3, 2),
            (true, false, 2, 1),
            (false, true, 2, 2),
            (false, false, 1, 1),
        ] {
            let means = Means {
                has_mesh,
                serves_files,
            };
            let table = means.table(1, &content);
            assert_eq!(table.routes[0].backends.len(), backends, "{means:?}");
            assert_eq!(table.tcp[0].backends.len(), backends, "{means:?}");
            assert_eq!(table.endpoints.len(), others, "{means:?}");
            let service = &table.networks[0].services[0];
            assert_eq!(service.backends.len(), others, "{means:?}");
        }
    }

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
