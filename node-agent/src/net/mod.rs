//! The data plane of a node, a process of its own: it serves the last route table that it got,
//! from its disk if need be, whatever becomes of the agent and of every server.
//!
//! Owns the table, the embedded ingress and the endpoint that Traefik polls. Never decides where
//! traffic goes: tables come whole from the agent, over a socket that only their user can open.

mod admin;
mod certificates;
mod certified;
pub mod client;
mod edge;
mod files;
mod handover;
mod lease;
mod measure;
mod mesh;
mod polls;
mod private;
mod service;
mod sockets;
mod store;
mod supervised;
mod table;
mod traefik;
mod traefik_file;
mod understand;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use skep_identity::grpc::{self, BoundUds, UdsError};
use skep_identity::secret_file;
pub use skep_ingress::trust::Proxies;
use skep_proto::v1::net_server::NetServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use edge::Edge;
pub(crate) use mesh::ALPN as MESH_ALPN;
use mesh::Mesh;
use private::Private;
use service::{Places, Service};
use sockets::sockets;
use store::Store;
pub use supervised::Supervised;
use supervised::{Doors, Ends, Supervision};
use table::Tables;

/// How long open requests may go on after the process was asked to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long open requests and tunnels may go on after a successor has taken over: chats and downloads are
/// given time, and drained allocations are not held for ever.
const HANDOVER_LIMIT: Duration = Duration::from_secs(600);
/// How long the agent's and Traefik's connections may then take: they have nothing left to say.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// What the addresses for a proxy on this machine are for.
const TRAEFIK: &str = "Traefik on this machine";
/// Largest table, encoded, in bytes: far above the 10,000 routes that Traefik itself can bear.
pub const MAX_TABLE_BYTES: usize = 64 << 20;

/// What the process is told at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Private folder for the table and its key.
    pub data_dir: PathBuf,
    /// Where the agent finds this process; its folder is private.
    pub socket: PathBuf,
    /// Where apps are served. Port 0: any.
    pub ingress_addr: SocketAddr,
    /// Where Traefik's configuration and metrics are served. Port 0: any. Not a loopback address
    /// only with a token.
    pub admin_addr: SocketAddr,
    /// Where other nodes reach this node's containers. Port 0: any.
    pub mesh_addr: SocketAddr,
    /// The port of the addresses in 127.64.0.0/10 that a Traefik on this machine is given for containers. 0:
    /// any, another one after a restart.
    pub traefik_port: u16,
    /// The same for connections of TCP routes.
    pub traefik_tcp_port: u16,
    /// Where that Traefik's own API is: it is asked which routes it uses. None: enough time is given.
    pub traefik_api: Option<SocketAddr>,
    /// Where its configuration is written, for its file provider. None: it polls the admin endpoint.
    pub traefik_file: Option<PathBuf>,
    /// The Traefik that this process runs. None: it runs none.
    pub run_traefik: Option<Supervised>,
    /// What the ingress does beside serving: TLS, proxies in front, the access log.
    pub edge: Edge,
    /// Take the listeners over from the data plane that serves the socket, without a connection lost.
    pub takeover: bool,
    /// Bearer token for all of the admin endpoint but its health checks.
    pub admin_token: Option<String>,
}

/// Where the process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Apps.
    pub ingress: SocketAddr,
    /// Apps under TLS, if they are served so.
    pub https: Option<SocketAddr>,
    /// Traefik's configuration, metrics and health.
    pub admin: SocketAddr,
    /// Other nodes.
    pub mesh: SocketAddr,
    /// A Traefik on this machine: the port of the addresses that it is given.
    pub traefik_port: u16,
    /// The same for connections of TCP routes.
    pub traefik_tcp_port: u16,
}

/// The process cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its tables would be open to the network.
    #[error("the admin address {address} is not a loopback address: set a token, or use 127.0.0.1")]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// The token proves nothing.
    #[error("the admin token is empty: set one, or none at all")]
    EmptyToken,
    /// What the ingress is told does not fit together.
    #[error(transparent)]
    Edge(#[from] edge::Error),
    /// Traefik's file cannot be where it is to be.
    #[error(transparent)]
    TraefikFile(#[from] traefik_file::Error),
    /// Traefik cannot be run.
    #[error(transparent)]
    Traefik(#[from] supervised::Error),
    /// The folder for the table and its key.
    #[error("the data folder")]
    DataDir(#[from] secret_file::Error),
    /// The socket for the agent.
    #[error("the socket for the agent")]
    Socket(#[from] UdsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}")]
    Listen {
        /// What for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The sockets of the running data plane could not be taken over.
    #[error("taking over")]
    Handover(#[from] handover::Error),
    /// The runtime refused the socket.
    #[error("cannot serve the socket for the agent")]
    Serve(#[source] io::Error),
    /// gRPC ended by itself.
    #[error("serving the agent ended")]
    Grpc(#[from] tonic::transport::Error),
    /// A step panicked.
    #[error("a part of the data plane panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

struct Prepared {
    store: Store,
    last: Option<skep_proto::v1::NodeTable>,
    own: Option<skep_proto::v1::NodeCredentials>,
    certificates: Option<skep_proto::v1::CertificateList>,
}

/// Runs the data plane until `shutdown`; then lets open requests end, for 10 s at most. Calls
/// `ready` when every address is served, the last table already in use. A successor ends it too: then
/// open requests have ten minutes.
///
/// # Errors
/// An address, the socket or the data folder cannot be used.
pub async fn run(
    options: Options,
    ready: impl FnOnce(Addresses),
    shutdown: CancellationToken,
) -> Result<(), Error> {
    check(&options)?;
    supervised::check(&options).await?;
    // A Traefik of ours ends first: what it has taken is answered here.
    let (asked, shutdown) = (shutdown, CancellationToken::new());
    let (mut sockets, mut succession) = sockets(&options).await?;
    let doors = Doors::open(&options, &mut sockets.entries)?.map(Arc::new);
    let data_dir = options.data_dir.clone();
    let edge = options.edge.clone();
    let mesh = Mesh::new();
    let reach = mesh.clone();
    let start = move || Ok::<_, Error>((prepare(data_dir)?, edge::start(&edge, reach)?));
    let (prepared, (ingress, log)) = tokio::task::spawn_blocking(start).await??;
    if let Some(own) = &prepared.own {
        table::identify(&mesh, own.clone());
    }
    let handed = CancellationToken::new();
    let predecessor = watch::Sender::new(succession.as_ref().map(|older| older.drained));
    let endpoints = address_of(
        TRAEFIK,
        sockets::at_traefik(options.traefik_port),
        &sockets.endpoints,
    )?;
    let named = address_of(
        TRAEFIK,
        sockets::at_traefik(options.traefik_tcp_port),
        &sockets.named,
    )?;
    let endpoint_ports = (endpoints.port(), named.port());
    let until = shutdown.child_token();
    let private = Private::new(mesh.clone(), until.clone());
    let tables = Tables::new(
        ingress.clone(),
        prepared.store,
        (mesh.clone(), private.clone()),
        (
            endpoint_ports,
            options.traefik_api.is_some() || doors.is_some(),
        ),
        predecessor.subscribe(),
    );
    let own_ingress = address_of("apps", options.ingress_addr, &sockets.apps)?;
    // Nobody but its user can read the file, and the endpoint is shut then.
    let (by_file, has_token) = (
        options.traefik_file.is_some(),
        options.admin_token.is_some(),
    );
    let tables = tables.proving_at(own_ingress, has_token || by_file);
    let tables = Arc::new(if by_file { tables.by_file() } else { tables });
    if let Some(list) = prepared.certificates {
        tables.show(list);
    }
    if let Some(last) = prepared.last {
        tables.restore(last).await;
    }
    let addresses = Addresses {
        ingress: address_of("apps", options.ingress_addr, &sockets.apps)?,
        https: edge::address_of(&options.edge, sockets.https.as_ref())?,
        admin: address_of("the admin endpoint", options.admin_addr, &sockets.admin)?,
        mesh: (sockets.mesh.local_addr()).map_err(failed("other nodes", options.mesh_addr))?,
        traefik_port: endpoints.port(),
        traefik_tcp_port: named.port(),
    };
    let ends = Ends {
        asked: asked.clone(),
        handed: handed.clone(),
        older_shut: CancellationToken::new(),
    };
    let older_shut = ends.older_shut.clone();
    let supervision = match &doors {
        Some(doors) => supervised::start(&options, (doors, addresses.admin), &tables, ends)?,
        None => Supervision::none(),
    };
    tokio::spawn(supervision.clone().end_first(asked, shutdown.clone()));
    // The agent still hears what is drained while the ingress drains.
    let closing = CancellationToken::new();
    let _close_at_the_end = closing.clone().drop_guard();
    let admin = admin::Admin::new(Arc::clone(&tables), options.admin_token.as_deref());
    let admin = Arc::new(admin.with_traefik(supervision.figures.clone()));
    let admin = tokio::spawn(admin::serve(sockets.admin, admin, closing.clone()));
    let service = Service::new(
        Arc::clone(&tables),
        Places {
            apps: addresses.ingress,
            https: addresses.https,
            mesh: addresses.mesh,
        },
        closing.clone(),
    );
    let server = NetServer::new(service).max_decoding_message_size(MAX_TABLE_BYTES);
    let incoming = grpc::incoming_uds(sockets.agent, closing.clone()).map_err(Error::Serve)?;
    let agent = tonic::transport::Server::builder()
        .add_service(server)
        .serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
    let mut agent = tokio::spawn(agent);
    tokio::spawn(
        closing
            .clone()
            .run_until_cancelled_owned(lease::follow(mesh.clone())),
    );
    let tell = readiness(Arc::clone(&tables));
    tokio::spawn(closing.clone().run_until_cancelled_owned(tell));
    let others = {
        let handed = handed.clone();
        let drain = move || match handed.is_cancelled() {
            true => HANDOVER_LIMIT,
            false => DRAIN_LIMIT,
        };
        tokio::spawn(mesh::serve(sockets.mesh, mesh, until.clone(), drain))
    };
    let privately = {
        let (until, handed) = (until.clone(), handed.clone());
        tokio::spawn(async move {
            until.cancelled().await;
            let limit = match handed.is_cancelled() {
                true => HANDOVER_LIMIT,
                false => DRAIN_LIMIT,
            };
            let _ = timeout(limit, private.idle()).await;
        })
    };
    let mut apps = {
        let doors = edge::Doors {
            plain: sockets.apps,
            encrypted: sockets.https,
            endpoints: sockets.endpoints,
            named: sockets.named,
            entries: (own_ingress.ip(), sockets.entries),
        };
        let ends = (shutdown.clone(), handed.clone());
        tokio::spawn(edge::serve(ingress.clone(), doors, ends))
    };
    if let Some(api) = options.traefik_api {
        let provider = if by_file { "file" } else { "http" };
        let asks = traefik::follow(api, provider, Arc::clone(&tables));
        tokio::spawn(closing.clone().run_until_cancelled_owned(asks));
    }
    if let Some(path) = options.traefik_file {
        let writes = traefik_file::follow(path, Arc::clone(&tables));
        tokio::spawn(closing.clone().run_until_cancelled_owned(writes));
    }
    if let Some(folder) = options.edge.certificates {
        let hangups = certificates::hangups().map_err(edge::Error::from)?;
        tokio::spawn(certificates::follow(
            folder,
            ingress,
            hangups,
            closing.clone(),
        ));
    }
    if let Some(older) = &mut succession {
        older.ready().await?;
    }
    if let Some(mut older) = succession {
        tokio::spawn(async move {
            older.let_go().await;
            older_shut.cancel();
            older.over().await;
            tracing::info!("the older data plane has ended");
            predecessor.send_replace(None);
        });
    }
    let waiting = bind(handover::path(&options.socket)).await?.into_listener();
    let freeze = move || {
        let (tables, doors) = (Arc::clone(&tables), doors.clone());
        async move {
            let frozen = tables.freeze().await;
            let entries = tables.ingress().entry_listeners();
            let entries = entries.unwrap_or_else(|error| {
                tracing::error!(%error, "the ports of TCP routes cannot be handed over: they are refused for a moment");
                Vec::new()
            });
            let of_traefik = doors.as_ref().map_or(Ok(Vec::new()), |doors| doors.sockets());
            let of_traefik = of_traefik.unwrap_or_else(|error| {
                tracing::error!(%error, "Traefik's addresses cannot be handed over");
                Vec::new()
            });
            let entries = entries.into_iter().chain(of_traefik);
            let entries = entries.map(Into::into).collect();
            (frozen, drained(&tables), entries)
        }
        .boxed()
    };
    let mut successor = std::pin::pin!(handover::offer(waiting, &sockets.handles, freeze));
    ready(addresses);
    tracing::info!(ingress = %addresses.ingress, admin = %addresses.admin, "the data plane serves");
    let mut held = None;
    let closed = tokio::select! {
        closed = &mut apps => closed??,
        ended = &mut agent => {
            apps.abort();
            return Ok(ended??);
        }
        successor = &mut successor => {
            let successor = held.insert(successor.map_err(Error::Serve)?);
            handed.cancel();
            until.cancel();
            closing.cancel();
            successor.confirm().await;
            tracing::info!("a successor serves: finishing what is open");
            supervision.shut.cancelled().await;
            successor.let_go().await;
            apps.await??
        }
    };
    tracing::info!(cut = closed.cut, "the ingress has drained");
    closing.cancel();
    // Has a limit of its own, which began with that of the ingress.
    if let Ok(Err(error)) = others.await {
        tracing::error!(%error, "serving other nodes ended");
    }
    // As long at most.
    let _ = privately.await;
    supervision.ended.cancelled().await;
    let log = tokio::task::spawn_blocking(move || drop(log));
    let all = async { (agent.await, admin.await, log.await) };
    // Whoever holds a connection open beyond that is cut off by the end of the process.
    let _ = timeout(CLOSE_LIMIT, all).await;
    // The successor's names are the same.
    if held.is_none() {
        // A socket file that stays is harmless: the next start replaces it.
        let _ = tokio::fs::remove_file(handover::path(&options.socket)).await;
        let _ = tokio::fs::remove_file(options.socket).await;
    }
    Ok(())
}

/// Tells the ingress whether load balancers are to send requests here.
async fn readiness(tables: Arc<Tables>) {
    let (mut behind, mut kept) = (tables.mesh().lease().is_behind(), tables.kept());
    loop {
        behind.mark_unchanged();
        kept.mark_unchanged();
        tables.ingress().set_ready(tables.unready().is_none());
        let changed = tokio::select! {
            changed = behind.changed() => changed,
            changed = kept.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Up to which sequence every request on what was removed has ended.
fn drained(tables: &Tables) -> u64 {
    let here = tables.ingress().status().borrow().drained_revision;
    let here = here.min(*tables.private().drained().borrow());
    tables
        .predecessor()
        .borrow()
        .map_or(here, |older| here.min(older))
}

fn failed(what: &'static str, address: SocketAddr) -> impl Fn(io::Error) -> Error + Copy {
    move |source| Error::Listen {
        what,
        address,
        source,
    }
}

async fn bind(path: PathBuf) -> Result<BoundUds, Error> {
    Ok(tokio::task::spawn_blocking(move || grpc::bind_uds(&path)).await??)
}

fn check(options: &Options) -> Result<(), Error> {
    options.edge.check()?;
    if let Some(path) = &options.traefik_file {
        traefik_file::check(path)?;
    }
    match options.admin_token.as_deref() {
        Some("") => Err(Error::EmptyToken),
        None if !options.admin_addr.ip().is_loopback() => Err(Error::Exposed {
            address: options.admin_addr,
        }),
        _ => Ok(()),
    }
}

/// Everything at the start that waits for the disk.
fn prepare(data_dir: PathBuf) -> Result<Prepared, Error> {
    let store = Store::open(data_dir)?;
    let (last, own) = (store.load(), store.identity());
    let certificates = store.certificates();
    Ok(Prepared {
        store,
        last,
        own,
        certificates,
    })
}

fn address_of(
    what: &'static str,
    address: SocketAddr,
    listener: &TcpListener,
) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|source| Error::Listen {
        what,
        address,
        source,
    })
}

#[cfg(test)]
mod tests;
