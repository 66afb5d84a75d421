//! The server as a process: opens what is on disk, founds the cluster where there is none, and
//! wires consensus, history, API, agents' sessions and the leader's duties together.

mod found;
mod identity;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use skep_identity::ca::ClusterCa;
use skep_identity::tls::{ALPN_GRPC, ALPN_HTTPS, ClientAuth, server_config};
use skep_identity::{grpc, https, key_file, random, secret_file};
use skep_model::id::ServerId;
use skep_proto::v1::agents_server::AgentsServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agents::fleet::Fleet;
use crate::agents::relay::Relay;
use crate::agents::service::{AgentsService, Shared};
use crate::agents::uploads::Uploads;
use crate::history::History;
use crate::local::Local;
use crate::machine::Machine;
use crate::secrets::Secrets;
use crate::store::Store;
use crate::{api, consensus, history, local, reconcile};

/// Largest gRPC message: a desired set of a full node, with its variables.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// How often an idle agent's connection is probed, and how long an answer may take.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// The one Raft member of a cluster of one.
const FIRST_MEMBER: u64 = 1;

/// How a server runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Log, snapshots, history, local facts.
    pub data_dir: PathBuf,
    /// The operator's key: outside of `data_dir`, made if missing.
    pub key_file: PathBuf,
    /// The API, on TLS.
    pub api_addr: SocketAddr,
    /// The API on plain HTTP, loopback only, for a browser on the same machine.
    pub http_addr: Option<SocketAddr>,
    /// Agents, on mTLS.
    pub agent_addr: SocketAddr,
    /// URL of the history; none: SQLite in `data_dir`.
    pub history: Option<String>,
    /// Generated host names end in this.
    pub base_domain: String,
    /// Where to write how to reach this server, with secrets, mode 0600, once it is ready.
    pub bootstrap: Option<PathBuf>,
    /// Further names and addresses that the server's certificate is good for.
    pub names: Vec<String>,
}

/// Why a server does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A private file or folder.
    #[error(transparent)]
    File(#[from] secret_file::Error),
    /// The operator's key.
    #[error(transparent)]
    Key(#[from] key_file::Error),
    /// Local facts.
    #[error(transparent)]
    Local(#[from] local::Error),
    /// The log.
    #[error(transparent)]
    Consensus(#[from] consensus::service::Error),
    /// The history.
    #[error("the history cannot be opened")]
    History(#[from] history::Error),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// Founding or reading the cluster.
    #[error(transparent)]
    Found(#[from] found::Error),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; is another skep running? choose another address"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Plain HTTP asked for beyond loopback.
    #[error("the API is served without TLS on loopback only, not on {0}: leave --http-addr out")]
    NotLoopback(SocketAddr),
    /// The gRPC listener failed.
    #[error("the agents' listener failed")]
    Agents(#[from] tonic::transport::Error),
    /// A part of the server ended by itself.
    #[error("a part of the server stopped: {0}")]
    Part(String),
    /// The bootstrap file does not encode.
    #[error("the bootstrap file cannot be written")]
    Bootstrap(#[from] serde_json::Error),
}

/// How to reach a server: for `skep dev`, tests and installers.
#[derive(Debug, Serialize)]
struct Bootstrap {
    api: String,
    http: Option<String>,
    agents: String,
    ca_fingerprint: String,
    ca_pem: String,
    token: String,
    join_token: String,
}

/// The listeners of a server, bound before anything is announced.
struct Listeners {
    api: TcpListener,
    http: Option<TcpListener>,
    agents: TcpListener,
}

impl Listeners {
    async fn bind(options: &Options) -> Result<Self, Error> {
        let http = match options.http_addr {
            Some(address) if !address.ip().is_loopback() => {
                return Err(Error::NotLoopback(address));
            }
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok(Self {
            api: listen(options.api_addr).await?,
            http,
            agents: listen(options.agent_addr).await?,
        })
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener
        .local_addr()
        .map_err(|error| Error::Part(error.to_string()))
}

/// Runs a server until `shutdown`, or until a part of it fails.
///
/// # Errors
/// What kept it from starting, or made it stop.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let opened = tokio::task::spawn_blocking({
        let options = options.clone();
        move || open(&options)
    })
    .await
    .map_err(|error| Error::Part(error.to_string()))??;
    let listeners = Listeners::bind(&options).await?;
    let store = Store::new(opened.consensus);
    // Consensus outlives the rest: what is under way at shutdown can still be committed.
    let log_token = CancellationToken::new();
    let log = tokio::spawn(opened.service.run(log_token.clone()));
    let result = serve(
        &options,
        store,
        (opened.operator, opened.server),
        listeners,
        &shutdown,
    )
    .await;
    log_token.cancel();
    let log_result = log.await.map_err(|error| Error::Part(error.to_string()))?;
    result.and(log_result.map_err(Error::from))
}

/// What is opened from disk, off the async threads.
struct Opened {
    operator: skep_identity::seal::SealingKey,
    server: ServerId,
    service: consensus::Service<Machine>,
    consensus: consensus::Handle<Machine>,
}

fn open(options: &Options) -> Result<Opened, Error> {
    secret_file::ensure_private_dir(&options.data_dir)?;
    let operator = key_file::load_or_create(&options.key_file, &options.data_dir)?;
    let local = Local::open(&options.data_dir.join("local"))?;
    let server = local.server_id(ServerId::from_u128(random::new_id()))?;
    let mut settings = consensus::Options::new(FIRST_MEMBER, options.data_dir.join("raft"));
    settings.create = !local.has_begun()?;
    settings.seed = u64::from_be_bytes(random::bytes());
    let (service, consensus) =
        consensus::Service::open(settings, Machine::default(), Box::new(consensus::NoPeers))?;
    local.set_begun()?;
    Ok(Opened {
        operator,
        server,
        service,
        consensus,
    })
}

async fn serve(
    options: &Options,
    store: Store,
    (operator, server): (skep_identity::seal::SealingKey, ServerId),
    listeners: Listeners,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let founded = found::ensure_cluster(&store, options, &operator).await?;
    let secrets = Secrets::new(founded.data_key.clone());
    let (history, writer) = History::open(&history_url(options)).await?;
    let ca = Arc::new(founded.ca);
    let names = identity::names(options, &listeners)?;
    let credentials = identity::Own::issue(&ca, server, names)?;
    let mut parts = JoinSet::new();
    parts.spawn(named("history", writer));
    let keeper = credentials
        .clone()
        .keep_fresh(Arc::clone(&ca), shutdown.clone());
    parts.spawn(named("certificate renewal", keeper));
    let shared = Shared {
        store: store.clone(),
        secrets: secrets.clone(),
        history: history.clone(),
        fleet: Fleet::default(),
        relay: Relay::default(),
        uploads: Uploads::default(),
        ca: Arc::clone(&ca),
        shutdown: shutdown.clone(),
    };
    let bootstrap = bootstrap(options, &store, &ca, &listeners).await?;
    serve_agents(
        &mut parts,
        shared.clone(),
        &credentials,
        listeners.agents,
        shutdown,
    );
    serve_api(
        &mut parts,
        &shared,
        &credentials,
        (listeners.api, listeners.http),
        shutdown,
    );
    let duties = reconcile::Parts {
        store,
        fleet: shared.fleet.clone(),
        history,
        secrets,
    };
    parts.spawn(named("duties", reconcile::run(duties, shutdown.clone())));
    if let (Some(path), Some(content)) = (&options.bootstrap, bootstrap) {
        write_bootstrap(path, content).await?;
    }
    // The history's writer ends when nobody can write to it any more.
    drop(shared);
    tracing::info!(api = %options.api_addr, agents = %options.agent_addr, "server is ready");
    wait(parts, shutdown).await
}

/// Waits until shutdown, then for the parts; a part that ends before is a fault.
async fn wait(mut parts: JoinSet<String>, shutdown: &CancellationToken) -> Result<(), Error> {
    tokio::select! {
        () = shutdown.cancelled() => {}
        Some(ended) = parts.join_next() => {
            let name = ended.unwrap_or_else(|error| error.to_string());
            if !shutdown.is_cancelled() {
                return Err(Error::Part(name));
            }
        }
    }
    // Each part has its own deadline for what is under way; this one is for all of them.
    let _ = tokio::time::timeout(Duration::from_secs(15), async {
        while parts.join_next().await.is_some() {}
    })
    .await;
    Ok(())
}

async fn named<T>(name: &str, part: impl Future<Output = T>) -> String {
    part.await;
    name.to_owned()
}

fn serve_agents(
    parts: &mut JoinSet<String>,
    shared: Shared,
    credentials: &identity::Own,
    listener: TcpListener,
    shutdown: &CancellationToken,
) {
    let tls = server_config(credentials.reloadable(), ClientAuth::Optional, ALPN_GRPC);
    let incoming = grpc::incoming(listener, tls, shutdown.clone());
    let service = AgentsServer::new(AgentsService::new(shared))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    parts.spawn(named("agents", server));
}

fn serve_api(
    parts: &mut JoinSet<String>,
    shared: &Shared,
    credentials: &identity::Own,
    listeners: (TcpListener, Option<TcpListener>),
    shutdown: &CancellationToken,
) {
    let router = api::router(api::Context {
        store: shared.store.clone(),
        secrets: shared.secrets.clone(),
        history: shared.history.clone(),
        uploads: shared.uploads.clone(),
        relay: shared.relay.clone(),
        fleet: shared.fleet.clone(),
        shutdown: shutdown.clone(),
    });
    let tls = server_config(credentials.reloadable(), ClientAuth::Optional, ALPN_HTTPS);
    let incoming = grpc::incoming(listeners.0, tls, shutdown.clone());
    parts.spawn(named(
        "api",
        https::serve(incoming, router.clone(), shutdown.clone()),
    ));
    if let Some(plain) = listeners.1 {
        // With the caller's address: some answers are for callers on this machine alone.
        let router = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving =
            axum::serve(plain, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        parts.spawn(named("http", serving.into_future()));
    }
}

async fn bootstrap(
    options: &Options,
    store: &Store,
    ca: &ClusterCa,
    listeners: &Listeners,
) -> Result<Option<Bootstrap>, Error> {
    if options.bootstrap.is_none() {
        return Ok(None);
    }
    let http = listeners.http.as_ref().map(local_address).transpose()?;
    Ok(Some(Bootstrap {
        api: format!("https://{}", local_address(&listeners.api)?),
        http: http.map(|address| format!("http://{address}")),
        agents: local_address(&listeners.agents)?.to_string(),
        ca_fingerprint: ca.fingerprint().to_string(),
        ca_pem: ca.cert_pem().to_owned(),
        token: found::admin_token(options).await?,
        join_token: found::join_token(store, ca).await?,
    }))
}

async fn write_bootstrap(path: &Path, content: Bootstrap) -> Result<(), Error> {
    let bytes = serde_json::to_vec_pretty(&content)?;
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || secret_file::write_private(&path, &bytes))
        .await
        .map_err(|error| Error::Part(error.to_string()))??;
    Ok(())
}

fn history_url(options: &Options) -> String {
    options
        .history
        .clone()
        .unwrap_or_else(|| format!("sqlite://{}", options.data_dir.join("history.db").display()))
}
