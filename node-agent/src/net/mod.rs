//! The data plane of a node, a process of its own: it serves the last route table that it got,
//! from its disk if need be, whatever becomes of the agent and of every server.
//!
//! Owns the table, the embedded ingress and the endpoint that Traefik polls. Never decides where
//! traffic goes: tables come whole from the agent, over a socket that only their user can open.

mod admin;
pub mod client;
mod measure;
mod polls;
mod service;
mod store;
mod table;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_identity::grpc::{self, BoundUds, UdsError};
use skep_identity::secret_file;
use skep_ingress::Ingress;
use skep_proto::v1::net_server::NetServer;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use service::Service;
use store::Store;
use table::Tables;

/// How long open requests may go on after the process was asked to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long the agent's and Traefik's connections may then take: they have nothing left to say.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
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
    /// Bearer token for all of the admin endpoint but its health checks.
    pub admin_token: Option<String>,
}

/// Where the process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Apps.
    pub ingress: SocketAddr,
    /// Traefik's configuration, metrics and health.
    pub admin: SocketAddr,
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
    bound: BoundUds,
    store: Store,
    last: Option<skep_proto::v1::NodeTable>,
}

/// Runs the data plane until `shutdown`; then lets open requests end, for 10 s at most. Calls
/// `ready` when every address is served, the last table already in use.
///
/// # Errors
/// An address, the socket or the data folder cannot be used.
pub async fn run(
    options: Options,
    ready: impl FnOnce(Addresses),
    shutdown: CancellationToken,
) -> Result<(), Error> {
    check(&options)?;
    let (socket, data_dir) = (options.socket.clone(), options.data_dir.clone());
    let prepared = tokio::task::spawn_blocking(move || prepare(&socket, data_dir)).await??;
    let ingress = Ingress::new(skep_ingress::Options {
        drain_timeout: DRAIN_LIMIT,
        ..Default::default()
    });
    let tables = Arc::new(Tables::new(ingress.clone(), prepared.store));
    if let Some(last) = prepared.last {
        tables.restore(&last);
    }
    let ingress_listener = listen("apps", options.ingress_addr).await?;
    let admin_listener = listen("the admin endpoint", options.admin_addr).await?;
    let addresses = Addresses {
        ingress: address_of("apps", options.ingress_addr, &ingress_listener)?,
        admin: address_of("the admin endpoint", options.admin_addr, &admin_listener)?,
    };
    // The agent still hears what is drained while the ingress drains.
    let closing = CancellationToken::new();
    let _close_at_the_end = closing.clone().drop_guard();
    let admin = tokio::spawn(admin::serve(
        admin_listener,
        admin::Admin::new(Arc::clone(&tables), options.admin_token.as_deref()),
        closing.clone(),
    ));
    let service = Service::new(tables, addresses.ingress.port(), closing.clone());
    let server = NetServer::new(service).max_decoding_message_size(MAX_TABLE_BYTES);
    let incoming = grpc::incoming_uds(prepared.bound, closing.clone()).map_err(Error::Serve)?;
    let agent = tonic::transport::Server::builder()
        .add_service(server)
        .serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
    let mut agent = tokio::spawn(agent);
    let mut apps = {
        let (ingress, shutdown) = (ingress.clone(), shutdown.clone());
        tokio::spawn(async move { ingress.serve(ingress_listener, shutdown).await })
    };
    ready(addresses);
    tracing::info!(ingress = %addresses.ingress, admin = %addresses.admin, "the data plane serves");
    tokio::select! {
        closed = &mut apps => {
            let closed = closed?;
            tracing::info!(cut = closed.cut, "the ingress has drained");
        }
        ended = &mut agent => {
            apps.abort();
            return Ok(ended??);
        }
    }
    closing.cancel();
    let all = async { (agent.await, admin.await) };
    // Whoever holds a connection open beyond that is cut off by the end of the process.
    let _ = timeout(CLOSE_LIMIT, all).await;
    let socket = options.socket;
    // A socket file that stays is harmless: the next start replaces it.
    let _ = tokio::fs::remove_file(socket).await;
    Ok(())
}

fn check(options: &Options) -> Result<(), Error> {
    match options.admin_token.as_deref() {
        Some("") => Err(Error::EmptyToken),
        None if !options.admin_addr.ip().is_loopback() => Err(Error::Exposed {
            address: options.admin_addr,
        }),
        _ => Ok(()),
    }
}

/// Everything at the start that waits for the disk. The socket first: it keeps a second process
/// from the same data.
fn prepare(socket: &std::path::Path, data_dir: PathBuf) -> Result<Prepared, Error> {
    let bound = grpc::bind_uds(socket)?;
    let store = Store::open(data_dir)?;
    let last = store.load();
    Ok(Prepared { bound, store, last })
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen {
            what,
            address,
            source,
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
