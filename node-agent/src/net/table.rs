//! The table in use: taken from the agent, given to the ingress, kept on disk, rendered for
//! Traefik. Tables only go forward.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::RwLock;
use skep_ingress::{Backend, Ingress, Route, Table, traefik};
use skep_model::id::{AllocationId, ServiceId};
use skep_proto::convert::{id_bits, rules_in};
use skep_proto::v1::{NodeBackend, NodeRoute, NodeTable};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::polls::Polls;
use super::store::Store;

/// A table that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// A field of a message.
    #[error("the table cannot be read")]
    Message(#[from] skep_proto::convert::Error),
    /// An address.
    #[error("route {route}: `{address}` is not ip:port")]
    Address {
        /// Name of the route.
        route: String,
        /// What was given.
        address: String,
    },
}

/// One table with what is made of it.
#[derive(Debug)]
pub(super) struct Current {
    table: Table,
    /// Made when Traefik first asks: many nodes have none.
    body: OnceLock<Bytes>,
}

impl Current {
    /// Traefik's dynamic configuration.
    pub(super) fn traefik(&self) -> Bytes {
        let render = || {
            let rendered = traefik::render(&self.table, &traefik::Options::default());
            Bytes::from(rendered.body)
        };
        self.body.get_or_init(render).clone()
    }

    /// Its sequence.
    pub(super) fn sequence(&self) -> u64 {
        self.table.revision
    }
}

/// The node's tables.
#[derive(Debug)]
pub(super) struct Tables {
    ingress: Ingress,
    store: Arc<Store>,
    /// Held while a table is taken: one after the other.
    taking: Arc<Mutex<()>>,
    /// What is drained in the process that this one took over from; none: it is gone.
    predecessor: watch::Receiver<Option<u64>>,
    current: RwLock<Option<Arc<Current>>>,
    /// Up to which table the disk cannot show an older one any more.
    kept: watch::Sender<u64>,
    /// What Traefik fetched; the sender wakes when that was a newer table.
    polls: parking_lot::Mutex<Polls>,
    fetched: watch::Sender<u64>,
    failures: AtomicU64,
}

impl Tables {
    pub(super) fn new(
        ingress: Ingress,
        store: Store,
        predecessor: watch::Receiver<Option<u64>>,
    ) -> Self {
        Self {
            ingress,
            store: Arc::new(store),
            taking: Arc::default(),
            predecessor,
            current: RwLock::new(None),
            kept: watch::Sender::new(0),
            polls: parking_lot::Mutex::default(),
            fetched: watch::Sender::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Uses the table that was kept on disk: before anything else is taken.
    pub(super) fn restore(&self, last: &NodeTable) {
        match table(last) {
            Ok(table) => {
                tracing::info!(
                    sequence = table.revision,
                    routes = table.routes.len(),
                    "serving the table from disk"
                );
                self.kept.send_replace(table.revision);
                self.apply(table);
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
        let table = table(&message)?;
        let _one_at_a_time = self.taking.lock().await;
        let sequence = table.revision;
        if self
            .current()
            .is_some_and(|current| current.sequence() >= sequence)
        {
            tracing::debug!(sequence, "an older table is left alone");
            return Ok(());
        }
        self.apply(table);
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

    fn apply(&self, table: Table) {
        let current = Current {
            table: table.clone(),
            body: OnceLock::new(),
        };
        self.ingress.publish(table);
        *self.current.write() = Some(Arc::new(current));
    }

    /// The table in use; none: there never was one.
    pub(super) fn current(&self) -> Option<Arc<Current>> {
        self.current.read().clone()
    }

    /// Up to which sequence the disk has followed; changes wake the receiver.
    pub(super) fn kept(&self) -> watch::Receiver<u64> {
        self.kept.subscribe()
    }

    /// Traefik's configuration, for Traefik itself: what it fetches is remembered.
    pub(super) fn fetch(&self) -> Option<Bytes> {
        let current = self.current()?;
        let sequence = current.sequence();
        self.polls.lock().fetched(sequence, Instant::now());
        self.fetched.send_if_modified(|newest| {
            let is_newer = *newest < sequence;
            *newest = sequence.max(*newest);
            is_newer
        });
        Some(current.traefik())
    }

    /// The newest sequence that Traefik surely uses, where one polls, and when time changes that.
    pub(super) fn settled(&self) -> (Option<u64>, Option<Instant>) {
        self.polls.lock().settled(Instant::now())
    }

    /// Wakes when Traefik fetched a newer table.
    pub(super) fn fetched(&self) -> watch::Receiver<u64> {
        self.fetched.subscribe()
    }

    pub(super) fn ingress(&self) -> &Ingress {
        &self.ingress
    }

    /// How often a table could not be written.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

fn table(message: &NodeTable) -> Result<Table, Error> {
    let all = message.routes.iter().chain(&message.ruled);
    let routes = all.map(route).collect::<Result<_, _>>()?;
    Ok(Table {
        revision: message.sequence,
        routes,
    })
}

fn route(message: &NodeRoute) -> Result<Route, Error> {
    let backend = |backend: &NodeBackend| {
        let address: SocketAddr = backend.address.parse().map_err(|_| Error::Address {
            route: message.name.clone(),
            address: backend.address.clone(),
        })?;
        let allocation = AllocationId::from_u128(id_bits("allocation", &backend.allocation)?);
        Ok::<_, Error>(Backend {
            allocation,
            address,
        })
    };
    Ok(Route {
        host: message.host.clone(),
        path_prefix: message.path_prefix.clone(),
        service: ServiceId::from_u128(id_bits("service", &message.service)?),
        name: message.name.clone(),
        backends: message
            .backends
            .iter()
            .map(backend)
            .collect::<Result<_, _>>()?,
        sleeps: message.sleeps,
        rules: rules_in(message.rules.clone())?,
    })
}
