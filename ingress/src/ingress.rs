//! The handle: takes tables, chooses backends, tells how far it is. Owns the index in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;
use parking_lot::{Mutex, RwLock};
use skep_model::certificate::Challenge;
use skep_model::tcp::TlsMode;
use tokio::sync::{Semaphore, watch};

use crate::access::AccessLog;
use crate::acme::Challenges;
use crate::asker::Asker;
use crate::backend::{InFlight, LiveBackend};
use crate::body::RequestBody;
use crate::certificates::{Certificate, Certificates, From};
use crate::crew::Crew;
use crate::drain::{Drains, Status};
use crate::endpoint::{Addresses, Endpoint, Endpoints};
use crate::headers;
use crate::index::Index;
use crate::metrics::{Registry, ServiceMetrics, Snapshot};
use crate::options::Options;
use crate::reach::{NoWay, Reach};
use crate::ready::Ready;
use crate::reply::Refusal;
use crate::request_id::RequestIds;
use crate::rules::{Rules, Sought};
use crate::sticky::Sticky;
use crate::table::Table;
use crate::tcp::{self, At, Entries, Names};

/// The embedded ingress. Cheap to clone: all clones are one.
#[derive(Debug, Clone)]
pub struct Ingress {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) crew: Crew,
    pub(crate) reach: Arc<dyn Reach>,
    pub(crate) registry: Registry,
    /// Held for reading while a backend is chosen and entered, which never waits.
    index: RwLock<Index>,
    /// One publication at a time.
    publishing: Mutex<()>,
    drains: Arc<Drains>,
    choices: AtomicU64,
    pub(crate) endpoints: Endpoints,
    /// Routes of connections by name, for a proxy on this machine.
    pub(crate) names: Names,
    pub(crate) entries: Entries,
    /// Places for requests that wait for a service that sleeps.
    waiting: Semaphore,
    /// How many have begun to wait so far.
    waits: watch::Sender<u64>,
    pub(crate) ready: Ready,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) request_ids: RequestIds,
    pub(crate) asker: Asker,
    pub(crate) access_log: Option<AccessLog>,
}

impl Ingress {
    /// An ingress with an empty table at revision 0: every host is unknown. Backends of other nodes are
    /// out of its reach.
    pub fn new(options: Options) -> Self {
        Self::reaching(options, Crew::default(), Arc::new(NoWay), None)
    }

    /// The same, served by `crew`, where `reach` connects to backends of other nodes, with a line in
    /// `access_log` for each request.
    pub fn reaching(
        options: Options,
        crew: Crew,
        reach: Arc<dyn Reach>,
        access_log: Option<AccessLog>,
    ) -> Self {
        let shared = Shared {
            crew,
            reach,
            waiting: Semaphore::new(options.max_waiting),
            waits: watch::Sender::new(0),
            ready: Ready::default(),
            asker: Asker::new(&options.forward_auth_allow),
            options,
            registry: Registry::default(),
            index: RwLock::default(),
            publishing: Mutex::new(()),
            drains: Drains::new(),
            choices: AtomicU64::new(0),
            endpoints: Endpoints::default(),
            names: Names::default(),
            entries: Entries::default(),
            certificates: Arc::default(),
            challenges: Arc::default(),
            request_ids: RequestIds::new(),
            access_log,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Uses `table` from now on. When this returns, no request starts on a backend that is not
    /// in it; requests on such backends go on, and [`Status::drained_revision`] tells when the
    /// last has ended. Connections and backends that stay are not touched. Routes that cannot
    /// be served are left out with a warning.
    ///
    /// Tables are used in the order of the calls, whatever their revisions: refusing stale ones
    /// is the caller's.
    pub fn publish(&self, table: Table) {
        let shared = &*self.shared;
        let _one_at_a_time = shared.publishing.lock();
        let checked = table.check();
        for left in &checked.left_out {
            tracing::warn!(route = %left.name, host = %left.host, path = %left.path_prefix, "route left out: {}", left.fault);
        }
        let (old, old_rules) = {
            let index = shared.index.read();
            (index.backends.clone(), index.rules.clone())
        };
        let seats = shared.crew.seats();
        let make = |backend| LiveBackend::new(backend, seats, Arc::clone(&shared.drains));
        let index = Index::build(&checked, (&old, &old_rules), make, |service| {
            shared.registry.service(service)
        });
        let entries = index.tcp.entries();
        let removed: Vec<Arc<LiveBackend>> = old
            .into_iter()
            .filter(|(backend, _)| !index.backends.contains_key(backend))
            .map(|(_, live)| live)
            .collect();
        let replaced = std::mem::replace(&mut *shared.index.write(), index);
        shared.drains.published(table.revision, &removed);
        drop(replaced);
        shared.entries.want(entries);
        shared.registry.forget_unused();
    }

    /// `revision` routes as the table in use does: it stands for that, too.
    pub fn published_again(&self, revision: u64) {
        let _one_at_a_time = self.shared.publishing.lock();
        self.shared.drains.published(revision, &[]);
    }

    /// Addresses of this machine for the table in use, at `port` as [`Ingress::serve_endpoints`] serves them, and
    /// for connections at `tcp_port` as [`Ingress::serve_tcp_endpoints`] does. The same for the same table, also after a restart; what a newer table no longer has keeps its
    /// own for a minute, for whoever still uses the older one.
    pub fn addresses(&self, port: u16, tcp_port: u16) -> Addresses {
        let index = self.shared.index.read();
        Addresses {
            named: self.shared.names.name(&index.tcp.names(), tcp_port),
            ..self.shared.endpoints.name(&index, port)
        }
    }

    /// Shows these certificates of the operator's, and those of the cluster, and no others from now on:
    /// connections under way are not touched, each new handshake chooses among them. For one name the operator's
    /// is shown before the cluster's, and of two the one that ends later.
    pub fn set_certificates(&self, certificates: Vec<Certificate>) {
        self.shared
            .certificates
            .replace(From::Operator, certificates);
    }

    /// The same for those of the cluster.
    pub fn set_cluster_certificates(&self, certificates: Vec<Certificate>) {
        self.shared
            .certificates
            .replace(From::Cluster, certificates);
    }

    /// Proves these hosts to certificate authorities and no others from now on, before any route and any redirect.
    /// `is_expecting`: more may be on their way, and a request for one waits for it.
    pub fn set_challenges(&self, challenges: Vec<Challenge>, is_expecting: bool) {
        self.shared.challenges.replace(challenges, is_expecting);
    }

    /// How far this ingress is; changes wake the receiver.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.drains.subscribe()
    }

    /// Whether load balancers are to send requests here: what `/.well-known/skep/ready` of every host answers. Not
    /// at first.
    pub fn set_ready(&self, is_ready: bool) {
        self.shared.ready.set(is_ready);
    }

    /// Wakes whenever a request begins to wait for a service that sleeps; it is counted as in flight by then.
    pub fn waits(&self) -> watch::Receiver<u64> {
        self.shared.waits.subscribe()
    }

    /// All counters now.
    pub fn metrics(&self) -> Snapshot {
        let access_log = self.shared.access_log.as_ref();
        Snapshot {
            access_lines_lost: access_log.map_or(0, AccessLog::lost),
            ..self.shared.registry.snapshot()
        }
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Choice {
    /// The route's.
    pub(crate) name: Arc<str>,
    pub(crate) metrics: Arc<ServiceMetrics>,
    /// None: the service has no backend.
    pub(crate) in_flight: Option<InFlight>,
    /// It will have one when somebody asks for it.
    pub(crate) sleeps: bool,
    /// What is to be done to the request first.
    pub(crate) rules: Option<Arc<Rules>>,
    /// The client is to come back to the same backend.
    pub(crate) sticky: Option<Sticky>,
    /// The answer is to be compressed, where it can be.
    pub(crate) compress: bool,
}

impl Shared {
    /// Finds the route and enters one of its backends, in one step with regard to `publish`.
    pub(crate) fn choose<B>(
        &self,
        request: &Request<B>,
        endpoint: Option<&Endpoint>,
        tried: &[Arc<LiveBackend>],
    ) -> Result<Choice, Refusal> {
        if let Some(endpoint) = endpoint {
            return Ok(self.choose_behind(endpoint, tried));
        }
        let host = headers::host_name(request.headers()).ok_or(Refusal::BadHost)?;
        // A backend may see another path than the one that the route was found by.
        let sought = request.extensions().get();
        let sought = sought.map_or(request.uri(), |Sought(uri)| uri);
        let random = mix(self.choices.fetch_add(1, Ordering::Relaxed));
        let index = self.index.read();
        let target = index
            .find(&host, sought.path())
            .ok_or(Refusal::UnknownHost)?;
        let sticky = target.cookie.as_ref();
        let sticky = sticky.map(|name| Sticky::of(name, request.headers()));
        let again = sticky.as_ref().and_then(Sticky::had);
        let again = again.and_then(|token| target.enter_again(token, tried));
        let in_flight = again.or_else(|| target.enter(random, tried));
        let (name, metrics) = target.taker(in_flight.as_ref().map(InFlight::backend));
        Ok(Choice {
            name: Arc::clone(name),
            metrics: Arc::clone(metrics),
            in_flight,
            sleeps: target.sleeps,
            rules: target.rules.clone(),
            sticky,
            compress: target.compress,
        })
    }

    /// Enters the backend that somebody else chose, though it may have been removed since; one that does
    /// not answer only where there is no other. What the route says was done already.
    fn choose_behind(&self, endpoint: &Endpoint, tried: &[Arc<LiveBackend>]) -> Choice {
        let random = mix(self.choices.fetch_add(1, Ordering::Relaxed));
        let index = self.index.read();
        let target = index.at(&endpoint.at);
        let another = |tried: &[_]| match &endpoint.backend {
            Some(_) => target?.enter_for(endpoint.metrics.service(), random, tried),
            None => target?.enter(random, tried),
        };
        let chosen = endpoint.backend.as_ref().filter(|_| tried.is_empty());
        let in_flight = chosen.map_or_else(
            || another(tried),
            |chosen| match index.backends.get(&chosen.backend) {
                Some(live) if live.is_failing() => {
                    another(std::slice::from_ref(live)).or_else(|| Some(live.enter()))
                }
                Some(live) => Some(live.enter()),
                None => Some(chosen.enter_late()),
            },
        );
        Choice {
            name: Arc::clone(&endpoint.name),
            metrics: Arc::clone(&endpoint.metrics),
            in_flight,
            sleeps: target.is_some_and(|target| target.sleeps),
            rules: None,
            sticky: None,
            compress: false,
        }
    }

    /// Whether some connection may be led by the name in its handshake.
    pub(crate) fn has_names(&self) -> bool {
        self.index.read().tcp.has_names()
    }

    /// The route of connections that a name in a handshake leads to, and who speaks TLS on it.
    pub(crate) fn named(&self, host: &str) -> Option<(At, TlsMode)> {
        let index = self.index.read();
        index.tcp.named(host, || index.has_host(host))
    }

    /// Enters a backend for a connection, in one step with regard to `publish`. None: the route is gone.
    pub(crate) fn choose_tcp(&self, at: &At, tried: &[Arc<LiveBackend>]) -> Option<tcp::Choice> {
        let random = mix(self.choices.fetch_add(1, Ordering::Relaxed));
        let index = self.index.read();
        Some(index.tcp.at(at)?.choose(random, tried))
    }

    /// A backend of a service that had none, as soon as a table brings one. The route may be gone
    /// by then, or no longer sleep; or too many wait already.
    pub(crate) async fn awake<B>(
        &self,
        request: &Request<B>,
        endpoint: Option<&Endpoint>,
    ) -> Option<InFlight> {
        let _place = self.waiting.try_acquire().ok()?;
        let mut tables = self.drains.subscribe();
        self.waits.send_modify(|count| *count += 1);
        let woken = async {
            loop {
                // Seen before it is asked: no table comes between the two unnoticed.
                tables.mark_unchanged();
                match self.choose(request, endpoint, &[]) {
                    Ok(Choice {
                        in_flight: None,
                        sleeps: true,
                        ..
                    }) => tables.changed().await.ok()?,
                    Ok(choice) => return choice.in_flight,
                    Err(_) => return None,
                }
            }
        };
        tokio::time::timeout(self.options.wake_timeout, woken)
            .await
            .unwrap_or(None)
    }

    /// Another backend for a request that none of `tried` has seen.
    pub(crate) fn choose_another(
        &self,
        request: &Request<RequestBody>,
        endpoint: Option<&Endpoint>,
        tried: &[Arc<LiveBackend>],
    ) -> Option<InFlight> {
        self.choose(request, endpoint, tried)
            .ok()
            .and_then(|choice| choice.in_flight)
    }

    /// Closes connections to backends that have been idle for too long.
    pub(crate) fn sweep(&self) {
        let backends: Vec<Arc<LiveBackend>> =
            self.index.read().backends.values().cloned().collect();
        for live in backends {
            live.pool.sweep(self.options.backend_idle_timeout);
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): spreads a counter over 64 bits.
pub(crate) fn mix(count: u64) -> u64 {
    let mut bits = count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Backend, Place, Route};
    use skep_model::id::{AllocationId, ServiceId};
    use std::sync::atomic::AtomicBool;

    const TABLES: u64 = 20_000;

    /// A table whose only backend bears the number of the revision.
    fn table(revision: u64) -> Table {
        let backend = Backend {
            allocation: AllocationId::from_u128(u128::from(revision)),
            place: Place::Here(([127, 0, 0, 1], 1).into()),
        };
        let route = Route {
            sleeps: false,
            rules: None,
            parts: Vec::new(),
            host: "h".to_owned(),
            path_prefix: "/".to_owned(),
            service: ServiceId::from_u128(1),
            name: "r".to_owned(),
            backends: vec![backend],
            tried: Vec::new(),
        };
        Table {
            revision,
            routes: vec![route],
            ..Table::default()
        }
    }

    #[test]
    fn nothing_enters_a_removed_backend_and_drained_means_left() {
        let ingress = Ingress::new(Options::default());
        ingress.publish(table(1));
        let published = AtomicU64::new(1);
        let drained = AtomicU64::new(1);
        let stop = AtomicBool::new(false);
        let requests = || {
            let request = Request::get("/").header("host", "h").body(()).unwrap();
            while !stop.load(Ordering::SeqCst) {
                let floor = published.load(Ordering::SeqCst);
                let choice = ingress.shared.choose(&request, None, &[]).unwrap();
                let in_flight = choice.in_flight.unwrap();
                let entered = in_flight.backend().backend.allocation.as_u128() as u64;
                assert!(
                    entered >= floor,
                    "entered {entered} after {floor} was published"
                );
                std::thread::yield_now();
                let floor = drained.load(Ordering::SeqCst);
                assert!(
                    entered >= floor,
                    "{floor} is drained, {entered} is in flight"
                );
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3).map(|_| scope.spawn(requests)).collect();
            for revision in 2..=TABLES {
                ingress.publish(table(revision));
                published.store(revision, Ordering::SeqCst);
                let status = *ingress.status().borrow();
                assert_eq!(status.applied_revision, revision);
                drained.store(status.drained_revision, Ordering::SeqCst);
                if workers.iter().any(|worker| worker.is_finished()) {
                    break;
                }
            }
            stop.store(true, Ordering::SeqCst);
        });
        let status = *ingress.status().borrow();
        assert_eq!(status.drained_revision, status.applied_revision);
    }
}
