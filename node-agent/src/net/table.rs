//! The table in use: taken from the agent, given to the ingress, kept on disk, rendered for
//! Traefik. Tables only go forward.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::RwLock;
use skep_identity::keypair::Credentials;
use skep_identity::tls::LoadError;
use skep_ingress::files::Bundles;
use skep_ingress::{Addresses, Ingress, Table, traefik};
use skep_model::certificate::MAX_CHALLENGES;
use skep_proto::v1::{CertificateList, ChallengeList, NodeCredentials, NodeTable};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use zeroize::Zeroizing;

use super::certified::Certified;
use super::files::{self, Opened};
use super::mesh::Mesh;
use super::polls::Polls;
use super::private::Private;
use super::store::Store;
use super::understand::{Error, Understood, understand};

/// Why a data plane without a table is not ready.
pub(super) const NO_TABLE: &str = "no route table has come from the agent yet";
/// Why one is not that others are better than.
const BEHIND: &str =
    "no server hears of this node, and other nodes are heard: its routes may be old";

/// How requests and connections are led: the same for tables that differ in other things alone, which many do.
/// Traefik, which takes most of a second over thousands of routes, hears nothing of those.
#[derive(Debug)]
pub(super) struct Routing {
    /// The first that leads so.
    table: Table,
    /// For Traefik; made when it first asks: many nodes have none.
    body: OnceLock<Bytes>,
}

impl Routing {
    fn of(table: Table) -> Arc<Self> {
        Arc::new(Self {
            table,
            body: OnceLock::new(),
        })
    }

    /// Of the first table: what Traefik is asked for.
    fn since(&self) -> u64 {
        self.table.revision
    }

    fn is_of(&self, table: &Table) -> bool {
        self.table.routes == table.routes && self.table.tcp == table.tcp
    }

    /// Traefik's dynamic configuration; `took` is told when it had to be rendered, with how long that lasted.
    fn traefik(
        &self,
        addresses: impl FnOnce() -> Addresses,
        certified: &Certified,
        took: impl FnOnce(Duration),
    ) -> Bytes {
        let render = || {
            let (options, addresses) = (certified.options(), addresses());
            let begun = Instant::now();
            let rendered = traefik::render(&self.table, &addresses, &options);
            took(begun.elapsed());
            Bytes::from(rendered.body)
        };
        self.body.get_or_init(render).clone()
    }
}

/// The table in use.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) sequence: u64,
    pub(super) routing: Arc<Routing>,
}

impl Current {
    /// The newest sequence whose routing a Traefik has that has the one of `since`.
    fn reached_by(&self, since: u64) -> u64 {
        match since >= self.routing.since() {
            true => self.sequence,
            false => since,
        }
    }
}

/// The node's tables.
#[derive(Debug)]
pub(super) struct Tables {
    ingress: Ingress,
    store: Arc<Store>,
    bundles: Arc<Bundles>,
    mesh: Arc<Mesh>,
    /// Of the addresses that Traefik is given, for requests and for connections.
    endpoint_ports: (u16, u16),
    private: Arc<Private>,
    /// Held while a table is taken: one after the other.
    taking: Arc<Mutex<()>>,
    /// What is drained in the process that this one took over from; none: it is gone.
    predecessor: watch::Receiver<Option<u64>>,
    current: RwLock<Option<Current>>,
    /// Up to which table the disk cannot show an older one any more.
    kept: watch::Sender<u64>,
    /// What Traefik fetched; the sender wakes when that was a newer table.
    polls: parking_lot::Mutex<Polls>,
    fetched: watch::Sender<u64>,
    /// Wakes when Traefik's configuration is another one.
    changes: watch::Sender<()>,
    /// Traefik reads a file instead of polling.
    by_file: bool,
    failures: AtomicU64,
    /// How long the newest configuration for Traefik took to make, in nanoseconds.
    rendered_in_ns: AtomicU64,
    certified: Certified,
}

impl Tables {
    pub(super) fn new(
        ingress: Ingress,
        store: Store,
        (mesh, private): (Arc<Mesh>, Arc<Private>),
        (endpoint_ports, is_traefik_asked): ((u16, u16), bool),
        predecessor: watch::Receiver<Option<u64>>,
    ) -> Self {
        Self {
            ingress,
            store: Arc::new(store),
            bundles: Arc::default(),
            mesh,
            endpoint_ports,
            private,
            taking: Arc::default(),
            predecessor,
            current: RwLock::new(None),
            kept: watch::Sender::new(0),
            polls: parking_lot::Mutex::new(Polls::new(is_traefik_asked)),
            fetched: watch::Sender::new(0),
            changes: watch::Sender::new(()),
            by_file: false,
            failures: AtomicU64::new(0),
            rendered_in_ns: AtomicU64::new(0),
            certified: Certified::default(),
        }
    }

    /// Where this node's own ingress answers certificate authorities, also for Traefik; `is_guarded`: whoever asks
    /// for Traefik's configuration shows a token.
    pub(super) fn proving_at(mut self, ingress: SocketAddr, is_guarded: bool) -> Self {
        self.certified = Certified::new(ingress, is_guarded);
        self
    }

    /// Traefik is told by a file, that [`Tables::reached`] tells of, and not by its polls.
    pub(super) fn by_file(mut self) -> Self {
        let polls = self.polls.into_inner().of_file();
        self.polls = parking_lot::Mutex::new(polls);
        self.by_file = true;
        self
    }

    /// Whether Traefik is told by a file.
    pub(super) fn is_by_file(&self) -> bool {
        self.by_file
    }

    /// Shows these certificates from now on, and after a restart.
    pub(super) async fn certify(&self, list: CertificateList) {
        let _one_at_a_time = self.taking.lock().await;
        let (store, kept) = (Arc::clone(&self.store), list.clone());
        // First: what clients have seen is not taken back by a restart.
        let saved = tokio::task::spawn_blocking(move || store.save_certificates(&kept)).await;
        self.show(list);
        if let Ok(Err(error)) = saved {
            let why = crate::error_chain(&error);
            tracing::error!(%why, "certificates are shown and not on disk: after a restart older ones are until the agent speaks");
        }
    }

    /// Shows these certificates from now on.
    pub(super) fn show(&self, list: CertificateList) {
        self.ingress
            .set_cluster_certificates(self.certified.take(list));
        self.render_anew();
    }

    /// Answers these challenges from now on.
    pub(super) fn challenge(&self, list: ChallengeList) {
        let challenges = list.challenges.into_iter().take(MAX_CHALLENGES);
        let understood = challenges.filter_map(|message| message.try_into().ok());
        self.ingress
            .set_challenges(understood.collect(), list.has_issuer);
        if self.certified.expect(list.has_issuer) {
            self.render_anew();
        }
    }

    /// What is told to Traefik besides the table has changed.
    fn render_anew(&self) {
        let mut current = self.current.write();
        if let Some(now) = current.as_mut() {
            now.routing = Routing::of(now.routing.table.clone());
        }
        drop(current);
        self.changes.send_replace(());
    }

    /// Uses the table that was kept on disk: before anything else is taken.
    pub(super) async fn restore(&self, last: NodeTable) {
        let (last, opened) = self.open(last).await;
        match understand(&last, &opened) {
            Ok(understood) => {
                let table = &understood.table;
                tracing::info!(
                    sequence = table.revision,
                    routes = table.routes.len(),
                    "serving the table from disk"
                );
                self.kept.send_replace(table.revision);
                self.apply(understood);
                // A Traefik that used them before goes on until it asks again.
                self.addresses();
            }
            Err(error) => {
                tracing::error!(%error, "the table on disk cannot be used: starting without")
            }
        }
    }

    /// Uses `message` from now on, unless a newer table is in use: then nothing happens. When this
    /// returns no new request can use an older table, not even after a crash: an allocation that
    /// stops then may leave its address to another, which old tables would send its traffic to.
    pub(super) async fn take(&self, message: NodeTable) -> Result<(), Error> {
        let _one_at_a_time = self.taking.lock().await;
        let (message, opened) = self.open(message).await;
        let understood = understand(&message, &opened)?;
        let sequence = understood.table.revision;
        if self
            .current()
            .is_some_and(|current| current.sequence >= sequence)
        {
            tracing::debug!(sequence, "an older table is left alone");
            return Ok(());
        }
        self.apply(understood);
        let store = Arc::clone(&self.store);
        let saved = tokio::task::spawn_blocking(move || store.save(&message)).await;
        match saved {
            Ok(Ok(())) => {}
            // A full disk must not stop traffic from following its allocations.
            Ok(Err(error)) => self.not_kept(&error),
            Err(error) => self.not_kept(&error),
        }
        self.kept.send_replace(sequence);
        Ok(())
    }

    /// The bundles that `message` names.
    async fn open(&self, message: NodeTable) -> (NodeTable, Opened) {
        let bundles = Arc::clone(&self.bundles);
        let open = move || {
            let opened = files::open(&bundles, &message);
            (message, opened)
        };
        let opened = tokio::task::spawn_blocking(open).await;
        // What panics here is a mistake of this program's, as it would be without a thread of its own.
        opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Is this node from now on, and after a restart.
    pub(super) async fn identify(&self, own: NodeCredentials) -> Result<(), LoadError> {
        self.mesh.identify(&credentials(own.clone()))?;
        let store = Arc::clone(&self.store);
        let saved = tokio::task::spawn_blocking(move || store.save_identity(&own)).await;
        if let Ok(Err(error)) = saved {
            let why = crate::error_chain(&error);
            tracing::error!(%why, "who this node is is not on disk: after a restart other nodes are not reached until the agent speaks");
        }
        Ok(())
    }

    pub(super) fn private(&self) -> &Private {
        &self.private
    }

    pub(super) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// No table is taken while what this answers lives.
    pub(super) async fn freeze(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.taking).lock_owned().await
    }

    /// What is drained in the process that this one took over from; changes wake the receiver.
    pub(super) fn predecessor(&self) -> watch::Receiver<Option<u64>> {
        self.predecessor.clone()
    }

    fn not_kept(&self, error: &(dyn std::error::Error + 'static)) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            error,
            "the table is in use but not on disk: after a restart an older one would be served until the agent speaks"
        );
    }

    fn apply(&self, understood: Understood) {
        let Understood {
            table,
            peers,
            local,
            networks,
        } = understood;
        // Before the table that needs it.
        self.mesh.publish(peers, local);
        self.private.publish(table.revision, networks);
        let sequence = table.revision;
        let current = self.current();
        if let Some(Current { routing, .. }) = current.filter(|it| it.routing.is_of(&table)) {
            self.ingress.published_again(sequence);
            *self.current.write() = Some(Current { sequence, routing });
            return;
        }
        self.ingress.publish(table.clone());
        let routing = Routing::of(table);
        *self.current.write() = Some(Current { sequence, routing });
        self.changes.send_replace(());
    }

    /// Why load balancers are to leave this node; none: it is ready.
    pub(super) fn unready(&self) -> Option<&'static str> {
        let is_behind = *self.mesh().lease().is_behind().borrow();
        match self.current() {
            None => Some(NO_TABLE),
            Some(_) => is_behind.then_some(BEHIND),
        }
    }

    /// The table in use; none: there never was one.
    pub(super) fn current(&self) -> Option<Current> {
        self.current.read().clone()
    }

    /// Up to which sequence the disk has followed; changes wake the receiver.
    pub(super) fn kept(&self) -> watch::Receiver<u64> {
        self.kept.subscribe()
    }

    /// Traefik's configuration, for Traefik itself: what it fetches is remembered.
    pub(super) fn fetch(&self) -> Option<Bytes> {
        let (since, body) = self.render()?;
        self.reached(since);
        Some(body)
    }

    /// Traefik's configuration, and since which table it is that.
    pub(super) fn render(&self) -> Option<(u64, Bytes)> {
        let current = self.current()?;
        let took = |time: Duration| {
            let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.rendered_in_ns.store(ns, Ordering::Relaxed);
        };
        let routing = current.routing;
        let body = routing.traefik(|| self.addresses(), &self.certified, took);
        Some((routing.since(), body))
    }

    /// Traefik has the configuration of `since`: it polled it, or it is in its file.
    pub(super) fn reached(&self, since: u64) {
        self.polls.lock().fetched(since, Instant::now());
        self.fetched.send_if_modified(|newest| {
            let is_newer = *newest < since;
            *newest = since.max(*newest);
            is_newer
        });
    }

    /// Wakes when Traefik's configuration is another one.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn addresses(&self) -> Addresses {
        let (requests, connections) = self.endpoint_ports;
        self.ingress.addresses(requests, connections)
    }

    /// Traefik says that it uses the configuration of `since`.
    pub(super) fn confirmed(&self, since: u64) {
        self.polls.lock().confirmed(since);
        self.fetched.send_modify(|_| {});
    }

    /// The newest sequence that Traefik surely uses, where one polls, and when time changes that.
    pub(super) fn settled(&self) -> (Option<u64>, Option<Instant>) {
        // Before the polls are asked: what is newer then is only said later.
        let current = self.current();
        let (since, changes_at) = self.polls.lock().settled(Instant::now());
        let reached = |since| current.map_or(since, |current| current.reached_by(since));
        (since.map(reached), changes_at)
    }

    /// Wakes when Traefik fetched a newer configuration; the value is its first table.
    pub(super) fn fetched(&self) -> watch::Receiver<u64> {
        self.fetched.subscribe()
    }

    pub(super) fn ingress(&self) -> &Ingress {
        &self.ingress
    }

    /// How long the newest configuration for Traefik took to make.
    pub(super) fn rendered_in(&self) -> Duration {
        Duration::from_nanos(self.rendered_in_ns.load(Ordering::Relaxed))
    }

    /// How often a table could not be written.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// Uses what was kept on disk.
pub(super) fn identify(mesh: &Mesh, own: NodeCredentials) {
    if let Err(error) = mesh.identify(&credentials(own)) {
        let why = crate::error_chain(&error);
        tracing::error!(%why, "who this node is cannot be read from disk: other nodes are not reached until the agent speaks");
    }
}

fn credentials(own: NodeCredentials) -> Credentials {
    Credentials {
        cert_chain_pem: own.certificate,
        key_pem: Zeroizing::new(own.key),
        ca_pem: own.ca,
    }
}
