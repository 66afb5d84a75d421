//! The agent as a whole: which parts there are and how they are connected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_identity::secret_file;
use skep_model::id::{ClusterId, NodeId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build;
use crate::builds::Builds;
use crate::bundles::Bundles;
use crate::executor::Executor;
use crate::images::{self, Images};
use crate::keeper::{Events, Keeper, Parts};
use crate::ledger::{self, Contents, SledLedger, Writer};
use crate::logs::ship::Shipper;
use crate::logs::{Logs, Watcher};
use crate::metrics::Metrics;
use crate::net::client::Client;
use crate::network::{Checks, Networks};
use crate::options::Options;
use crate::registries::{self, Registries};
use crate::routes::{self, Publisher};
use crate::runtime::{self, Runtime};
use crate::seat::{self, Seat};
use crate::session::{Outbox, ServerUploads, Session};
use crate::shell::Shells;
use crate::sources::Sources;
use crate::storage::Shelf;
use crate::witness::Witness;
use crate::{credentials, facts, metrics, samples, servers};

/// Events that wait for the keeper, of each kind.
const EVENTS_MAX: usize = 256;
/// The ledger's last writes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory.
    #[error("the data directory")]
    DataDir(#[from] secret_file::Error),
    /// No identity.
    #[error("the node's identity")]
    Credentials(#[from] credentials::Error),
    /// The ledger.
    #[error("the ledger in {}: is another agent running there?", path.display())]
    Ledger {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        source: ledger::Error,
    },
    /// The folder is another machine's.
    #[error(transparent)]
    Seat(#[from] seat::Error),
    /// Another agent speaks for this node.
    #[error("this agent keeps its hands off the containers: {0}")]
    Doubled(String),
    /// Docker's socket.
    #[error("docker: {0}")]
    Docker(String),
    /// The metrics' address.
    #[error("cannot serve metrics on {address}")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The images.
    #[error(transparent)]
    Images(#[from] crate::images::Error),
    /// The folders of static sites.
    #[error("the folder of static sites, `bundles` in the data directory")]
    Bundles(#[source] std::io::Error),
    /// The operating system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// An agent that is about to run.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    metrics: Metrics,
    metrics_listener: tokio::net::TcpListener,
    credentials: credentials::Own,
    seat: Arc<Seat>,
    identity: (ClusterId, NodeId),
}

impl Agent {
    /// Prepares an agent: makes its data directory, joins the cluster where it has no identity
    /// yet (waiting for a server that cannot be reached), and binds the metrics' address.
    ///
    /// # Errors
    /// The directory, the identity or the address cannot be had; [`credentials::Error::Closing`]
    /// when `shutdown` came first.
    pub async fn start(options: Options, shutdown: &CancellationToken) -> Result<Self, Error> {
        let folder = options.data_dir.clone();
        let made = spawn_blocking(move || secret_file::ensure_private_dir(&folder)).await;
        made.unwrap_or(Ok(()))?;
        let address = options.metrics_addr;
        let metrics_listener = metrics::bind(address)
            .await
            .map_err(|source| Error::Metrics { address, source })?;
        let facts = facts::machine(&options);
        let (folder, machine, moved) = (
            options.data_dir.clone(),
            facts.machine.clone(),
            options.moved,
        );
        let drawn = spawn_blocking(move || Seat::draw(&folder, &machine, moved)).await;
        let seat = drawn.map_err(|_| credentials::Error::Closing)??;
        let credentials = credentials::ensure(&options, &facts, shutdown).await?;
        let identity = credentials.reloadable().identity();
        let node = identity.node_id().ok_or(credentials::Error::NotANode)?;
        Ok(Self {
            options,
            metrics: Metrics::default(),
            metrics_listener,
            credentials,
            seat: Arc::new(seat),
            identity: (identity.cluster, node),
        })
    }

    /// Whether the agent of this data folder has joined already.
    pub fn has_identity(data_dir: &std::path::Path) -> bool {
        credentials::is_there(data_dir)
    }

    /// Where `/metrics` is served.
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.metrics_listener.local_addr().ok()
    }

    /// The node that it is.
    pub fn node(&self) -> NodeId {
        self.identity.1
    }

    /// Runs until `shutdown`; then the containers run on, or with
    /// [`Options::stop_on_exit`] have been stopped.
    ///
    /// # Errors
    /// The ledger cannot be opened, or the server's address is not one.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self {
            options,
            metrics,
            metrics_listener,
            credentials,
            seat,
            identity: (cluster, node),
        } = self;
        // Another agent's word ends this one, not whoever runs it.
        let shutdown = shutdown.child_token();
        let (ledger, contents) = open_ledger(&options).await?;
        let (writer, thread) = Writer::start(ledger, metrics.clone()).map_err(Error::Thread)?;
        let runtime = Runtime::new(&options.docker_socket, (cluster, node), metrics.clone())
            .map_err(|error| Error::Docker(crate::error_chain(&error)))?
            .with_log_budget(options.log_budget_bytes);
        let servers = credentials::servers(&options, &credentials).await?;
        let outbox = Arc::new(Outbox::default());
        let net = Client::new(options.net_socket.clone());
        let status = net.watch(shutdown.child_token());
        let tasks = TaskTracker::new();
        tasks.spawn(servers::keep(
            servers.clone(),
            credentials.clone(),
            options.data_dir.clone(),
            shutdown.clone(),
        ));
        let own = credentials.reloadable().clone();
        tasks.spawn(routes::introduce(
            net.clone(),
            status.clone(),
            credentials.clone(),
            shutdown.clone(),
        ));
        let certificates = routes::Certificates::default();
        tasks.spawn(certificates.clone().hand_on(
            net.clone(),
            (status.clone(), outbox.clone()),
            shutdown.clone(),
        ));
        tasks.spawn(credentials::renew(
            credentials,
            servers.clone(),
            shutdown.clone(),
        ));
        let volumes_made = Arc::new(Notify::new());
        let copies = build::Copies::new(options.data_dir.join("copies"));
        let stores = build::Stores::new(options.data_dir.join("pushed"));
        let around = images::Around {
            data_dir: &options.data_dir,
            server: &servers.address(),
            credentials: own.clone(),
            cluster,
            docker: runtime.docker().clone(),
            socket: runtime.socket().clone(),
            metrics: metrics.clone(),
            copies: copies.clone(),
            logins: runtime.logins().clone(),
        };
        let images = Images::start(&options.images, around, (&tasks, &shutdown)).await?;
        let data_dir = options.data_dir.clone();
        let pushed = stores.clone();
        let bundles = tokio::task::spawn_blocking(move || {
            build::clean(&data_dir.join("builds"));
            pushed.clean();
            Bundles::open(&data_dir)
        });
        let bundles = bundles.await;
        let bundles = bundles
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(Error::Bundles)?;
        let (wanted, wanted_now) = watch::channel(None);
        let networks = Networks::new(
            runtime.clone(),
            node,
            options.private_network,
            (wanted_now.clone(), status.clone()),
        );
        tasks.spawn(networks.clone().keep(shutdown.clone()));
        let keep_facts = facts::keep(
            (runtime.clone(), images.clone(), networks.clone()),
            status.clone(),
            outbox.clone(),
            (options.clone(), volumes_made.clone()),
            shutdown.clone(),
        );
        tasks.spawn(keep_facts);
        let running = samples::Board::default();
        tasks.spawn(samples::keep(
            running.clone(),
            outbox.clone(),
            shutdown.clone(),
        ));
        tasks.spawn(samples::follow(
            net.clone(),
            outbox.clone(),
            shutdown.clone(),
        ));

        let held = contents.generation;
        let (places, places_now) = watch::channel(Default::default());
        let (down, down_events) = mpsc::channel(EVENTS_MAX);
        let scrape = samples::Scrape::new(
            running.clone(),
            places_now.clone(),
            options.data_dir.clone(),
        );
        tasks.spawn(metrics::serve(
            metrics_listener,
            metrics.clone(),
            scrape,
            shutdown.clone(),
        ));
        let lease = watch::Sender::new(None);
        let told = routes::tell_lease(net.clone(), status.clone(), lease.subscribe());
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(told));
        let publisher = Publisher {
            client: net,
            status,
            wanted: wanted_now,
            outbox: outbox.clone(),
        };
        tasks.spawn(publisher.run(shutdown.clone()));
        let shelf = Arc::new(Shelf::new(&options, node, volumes_made));
        tasks.spawn(shelf.clone().tidy());
        let shells = Shells::new(
            (runtime.clone(), shelf.clone(), stores.clone()),
            servers.clone(),
            tasks.clone(),
            shutdown.clone(),
        );
        let witness = Witness::new(
            own.clone(),
            servers.clone(),
            outbox.clone(),
            (tasks.clone(), shutdown.clone()),
        );
        let checks = Checks::new(
            own.clone(),
            networks.clone(),
            outbox.clone(),
            (tasks.clone(), shutdown.clone()),
        );
        let sources = Sources::new(
            options.data_dir.join("builds"),
            outbox.clone(),
            (tasks.clone(), shutdown.clone()),
        );
        let registries = Registries::new(
            registries::with(images.clone(), runtime.docker().clone()),
            outbox.clone(),
            (tasks.clone(), shutdown.clone()),
        );
        let watcher = Watcher::start(shutdown.clone());
        for destination in &options.ship_logs_to {
            let shipper = Shipper {
                destination: destination.clone(),
                node: options.name.clone(),
                runtime: runtime.clone(),
                places: places_now.clone(),
                watcher: watcher.clone(),
                writer: writer.clone(),
                metrics: metrics.clone(),
                positions: contents.shipped.clone(),
            };
            tasks.spawn(shipper.run(shutdown.clone()));
        }
        let session = Session {
            servers: servers.clone(),
            cluster,
            outbox: outbox.clone(),
            down,
            logins: runtime.logins().clone(),
            certificates,
            shells,
            witness,
            checks,
            sources,
            registries,
            logs: Logs::new(runtime.clone(), places_now, servers.clone(), watcher),
            held,
            metrics: metrics.clone(),
            credentials: own,
            seat: seat.clone(),
            lease,
        };
        let session = tokio::spawn(speak(session, seat.clone(), shutdown.clone()));

        let (told, told_events) = mpsc::channel(EVENTS_MAX);
        tasks.spawn(runtime::events::watch(
            runtime.clone(),
            told,
            shutdown.clone(),
        ));
        let (done, done_events) = mpsc::channel(EVENTS_MAX);
        let (reports, report_events) = mpsc::channel(EVENTS_MAX);
        let (finished, finished_events) = mpsc::channel(EVENTS_MAX);
        let env = build::Env {
            docker: runtime.docker().clone(),
            socket: runtime.socket().clone(),
            cluster,
            node,
            work_dir: options.data_dir.join("builds"),
            copies,
            stores,
            uploads: Arc::new(ServerUploads { servers }),
            images: Some(images.clone()),
            logins: runtime.logins().clone(),
            tools: options.tools.clone(),
        };
        let parts = Parts {
            node,
            executor: Executor {
                runtime: runtime.clone(),
                images: images.clone(),
                bundles,
                running: running.clone(),
                writer: writer.clone(),
                done,
                tasks: TaskTracker::new(),
                shelf,
                networks: networks.clone(),
            },
            builds: Builds::new(env, outbox.clone(), metrics.clone(), finished),
            runtime,
            images,
            writer,
            outbox,
            metrics,
            wanted,
            places,
            running,
            reports,
            stop_on_exit: options.stop_on_exit,
            devices: options.devices,
            seat: seat.clone(),
        };
        let events = Events {
            down: down_events,
            told: told_events,
            done: done_events,
            reports: report_events,
            finished: finished_events,
            bridges: networks.bridges(),
        };
        if seat.is_refused() {
            tracing::warn!(
                "a server has said that another agent speaks for this node: nothing is touched before a \
                 server takes this one"
            );
            shutdown.run_until_cancelled(seat.admitted()).await;
        }
        Keeper::new(parts, contents, shutdown.clone())
            .run(events)
            .await;
        shutdown.cancel();
        let refusal = session.await.unwrap_or_default();
        tasks.close();
        close(thread, tasks).await;
        refusal.map_or(Ok(()), |why| Err(Error::Doubled(why)))
    }
}

/// Keeps the session; where another agent speaks for this node everything ends, with what was said.
async fn speak(session: Session, seat: Arc<Seat>, shutdown: CancellationToken) -> Option<String> {
    let refusal = session.run(shutdown.clone()).await;
    if let Some(why) = &refusal {
        tracing::error!(%why, "another agent speaks for this node: this one ends");
        let _ = spawn_blocking(move || seat.refuse()).await;
        shutdown.cancel();
    }
    refusal
}

/// Lets the parts end and the ledger write what it was given.
async fn close(ledger: std::thread::JoinHandle<()>, tasks: TaskTracker) {
    let closed = async {
        tasks.wait().await;
        // The thread ends with the last handle: work that still runs may hold one.
        let _ = spawn_blocking(move || ledger.join()).await;
    };
    if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
        tracing::warn!("some parts of the agent did not end in time");
    }
}

async fn open_ledger(options: &Options) -> Result<(SledLedger, Contents), Error> {
    let path = options.data_dir.join("ledger");
    let key = options.data_dir.join("node.key");
    let folder = path.clone();
    let opened = spawn_blocking(move || {
        let key = ledger::load_or_create_key(&key)?;
        SledLedger::open_or_rebuild(&folder, &key)
    });
    let opened = opened.await.unwrap_or(Err(ledger::Error::Closed));
    opened.map_err(|source| Error::Ledger { path, source })
}

/// Starts an agent and runs it until `shutdown`.
///
/// # Errors
/// Those of [`Agent::start`] and [`Agent::run`].
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    Agent::start(options, &shutdown).await?.run(shutdown).await
}
