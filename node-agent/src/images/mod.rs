//! Images between nodes: a store of blobs by their digest, a registry on the loopback for the node's
//! Docker, and the same blobs for the other nodes of the cluster. A release names the digest of a manifest,
//! and any node that is told who has it gets it, with no registry anywhere.

mod back;
mod book;
mod budget;
mod clean;
mod digest;
mod fetch;
mod manifest;
mod peers;
mod pull;
mod reference;
mod registry;
mod remote;
mod room;
mod serve;
mod share;
mod store;
mod take;
#[cfg(test)]
mod testing;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use parking_lot::Mutex;
use skep_identity::secret_file;
use skep_identity::tls::Reloadable;
use skep_model::id::ClusterId;
use skep_model::service::Image;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::build::Copies;
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::runtime::transport::Socket;
use book::Book;
use budget::Disk;
pub use budget::{Budget, LowWater};
pub(crate) use digest::Digest;
use fetch::{Fetcher, Peers};
pub(crate) use peers::ALPN as PEER_ALPN;
pub(crate) use reference::{DOCKER_HUB, Reference};
use registry::Registry;
pub(crate) use remote::{Error as RemoteError, Remote};
use room::Room;
pub(crate) use share::{Unshared, full, says_full};
use store::Store;
pub(crate) use store::writer::is_full;
pub(crate) use take::Taken;

/// The folder of all of it, under the agent's own.
const FOLDER: &str = "images";
/// What the node's Docker shows the registry.
const SECRET_FILE: &str = "registry.secret";
const SECRET_BYTES: usize = 32;
/// The registry's port, so that it is the same after a restart.
const PORT_FILE: &str = "registry.port";
const PEER_PORT_FILE: &str = "peers.port";

/// The node cannot keep images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder.
    #[error("the image store in {}", path.display())]
    Store {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The registry's secret.
    #[error("the secret of the node's image registry")]
    Secret(#[from] secret_file::Error),
    /// An address.
    #[error("cannot listen on {address} for {what}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// How a node keeps images.
#[derive(Debug, Clone)]
pub struct Options {
    /// The registry's port on the loopback; 0: any, the same after a restart where it is free.
    pub registry_port: u16,
    /// Where other nodes are served; port 0 as above.
    pub peer_listen: SocketAddr,
    /// What other nodes dial: a host, or `host:port`; none: the address that leads to the server.
    pub advertise: Option<String>,
    /// How much of the disk images may take.
    pub budget: Budget,
    /// How much of the disk is to stay free.
    pub low_water: LowWater,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            registry_port: 0,
            peer_listen: (Ipv4Addr::UNSPECIFIED, 0).into(),
            advertise: None,
            budget: Budget::default(),
            low_water: LowWater::default(),
        }
    }
}

/// The images of this node; cheap to clone.
#[derive(Clone)]
pub(crate) struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    fetcher: Arc<Fetcher>,
    docker: Docker,
    socket: Socket,
    cluster: ClusterId,
    registry: SocketAddr,
    secret: Zeroizing<String>,
    address: String,
    budget: Budget,
    /// Manifests that allocations here run.
    in_use: Mutex<BTreeSet<Digest>>,
    /// Something came: the budgets may be exceeded.
    grown: Notify,
    /// One cleans at a time.
    cleaning: tokio::sync::Mutex<()>,
    room: Room,
    /// What is known of Docker's images.
    book: Mutex<Book>,
    copies: Copies,
    /// As whom to ask registries.
    logins: Logins,
    /// One image at a time comes back from a registry.
    pulling_back: tokio::sync::Mutex<()>,
}

/// What the store is given by the rest of the agent.
pub(crate) struct Around<'a> {
    /// The agent's folder.
    pub(crate) data_dir: &'a Path,
    /// A server's address, which leads to the others' network.
    pub(crate) server: &'a str,
    /// What the node shows to others.
    pub(crate) credentials: Arc<Reloadable>,
    /// Whose images these are.
    pub(crate) cluster: ClusterId,
    /// The node's Docker.
    pub(crate) docker: Docker,
    /// Its socket, for what the client has no words for.
    pub(crate) socket: Socket,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// What goes with the rest where the disk fills up.
    pub(crate) copies: Copies,
    /// As whom to ask registries.
    pub(crate) logins: Logins,
}

impl Images {
    /// Opens the store, and serves the node's Docker and the other nodes until `shutdown`.
    ///
    /// # Errors
    /// The folder or an address cannot be had.
    pub(crate) async fn start(
        options: &Options,
        around: Around<'_>,
        (tasks, shutdown): (&TaskTracker, &CancellationToken),
    ) -> Result<Self, Error> {
        let folder = around.data_dir.join(FOLDER);
        let (store, secret, book) = open(folder.clone(), options.budget).await?;
        let store = Arc::new(store);
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, options.registry_port));
        let what = "the node's image registry";
        let registry_listener = listen(loopback, &folder.join(PORT_FILE), what).await?;
        let what = "images of other nodes";
        let peer_file = folder.join(PEER_PORT_FILE);
        let peer_listener = listen(options.peer_listen, &peer_file, what).await?;
        let address = advertised(options, around.server, &peer_listener).await;
        let registry = local(&registry_listener, loopback);

        let ask = Arc::new(Peers::new(around.credentials.clone()));
        let fetcher = Fetcher::new(store.clone(), ask, around.metrics.clone());
        let served = Registry::new(store.clone(), fetcher.clone(), secret.clone());
        tasks.spawn(served.serve(registry_listener, shutdown.clone()));
        let own = (store.clone(), around.metrics.clone());
        let shutdown = shutdown.clone();
        tasks.spawn(peers::serve_peers(
            peer_listener,
            around.credentials,
            own,
            shutdown.clone(),
        ));
        tracing::info!(%registry, %address, "images are kept for this node and for others");
        let images = Self {
            inner: Arc::new(Inner {
                store,
                fetcher,
                docker: around.docker,
                socket: around.socket,
                cluster: around.cluster,
                registry,
                secret,
                address,
                budget: options.budget,
                in_use: Mutex::default(),
                grown: Notify::new(),
                cleaning: tokio::sync::Mutex::default(),
                room: Room::new(options.low_water, folder),
                book: Mutex::new(book),
                copies: around.copies,
                logins: around.logins,
                pulling_back: tokio::sync::Mutex::default(),
            }),
        };
        tasks.spawn(clean::keep(images.clone(), shutdown));
        Ok(images)
    }

    /// Where other nodes are served.
    pub(crate) fn address(&self) -> &str {
        &self.inner.address
    }

    /// Says which images allocations here run: these stay, and no others have to.
    pub(crate) fn use_only<'a>(&self, images: impl Iterator<Item = &'a Image>) {
        let digests = images.filter_map(|image| image.digest.parse().ok());
        *self.inner.in_use.lock() = digests.collect();
    }

    fn credentials(&self) -> DockerCredentials {
        DockerCredentials {
            username: Some(registry::USER.to_owned()),
            password: Some(String::clone(&self.inner.secret)),
            serveraddress: Some(self.inner.registry.to_string()),
            ..DockerCredentials::default()
        }
    }

    /// The repository of the node's registry that an image goes by.
    fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.inner.registry)
    }
}

async fn open(folder: PathBuf, budget: Budget) -> Result<(Store, Zeroizing<String>, Book), Error> {
    let opened = spawn_blocking(move || {
        secret_file::ensure_private_dir(&folder)?;
        let file = folder.join(SECRET_FILE);
        secret_file::create_private(&file, skep_identity::random::hex(SECRET_BYTES).as_bytes())?;
        let secret = secret_file::read_private(&file)?;
        let secret = Zeroizing::new(String::from_utf8_lossy(&secret).trim().to_owned());
        let budget_bytes = budget.bytes(Disk::of(&folder).total_bytes);
        let book = Book::read(&folder);
        let opened = Store::open(&folder, budget_bytes);
        let store = opened.map_err(|source| Error::Store {
            path: folder,
            source,
        })?;
        Ok((store, secret, book))
    });
    opened.await.unwrap_or_else(|_| {
        Err(Error::Store {
            path: PathBuf::new(),
            source: io::Error::other("opening it panicked"),
        })
    })
}

/// Listens on a port that was said, else on the one of last time, else on any.
async fn listen(
    address: SocketAddr,
    file: &Path,
    what: &'static str,
) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen {
        address,
        what,
        source,
    };
    if address.port() != 0 {
        return TcpListener::bind(address).await.map_err(failed);
    }
    let last = tokio::fs::read_to_string(file).await.unwrap_or_default();
    if let Ok(port) = last.trim().parse()
        && let Ok(listener) = TcpListener::bind(SocketAddr::new(address.ip(), port)).await
    {
        return Ok(listener);
    }
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let port = local(&listener, address).port();
    // Only a convenience: others are told the port at each start.
    let _ = tokio::fs::write(file, port.to_string()).await;
    Ok(listener)
}

fn local(listener: &TcpListener, otherwise: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(otherwise)
}

/// What other nodes dial.
async fn advertised(options: &Options, server: &str, listener: &TcpListener) -> String {
    let bound = local(listener, options.peer_listen);
    let port = bound.port();
    match &options.advertise {
        Some(said) if said.parse::<SocketAddr>().is_ok() => said.clone(),
        // A name with its port; an IPv6 address has more than one colon.
        Some(said) if said.matches(':').count() == 1 => said.clone(),
        Some(said) => match said.parse() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{said}:{port}"),
        },
        None if !bound.ip().is_unspecified() => bound.to_string(),
        None => {
            let own = peers::own_address(server).await;
            SocketAddr::new(own.unwrap_or(Ipv4Addr::LOCALHOST.into()), port).to_string()
        }
    }
}
