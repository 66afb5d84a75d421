//! gRPC between the processes of one machine: a Unix socket with mode 0600 in a folder that only
//! its owner may enter. Takes connections from that user and from root alone.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::channel::settle;
use super::{Conn, Incoming};
use crate::secret_file;

/// See the TCP side: nothing signals that accepting works again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
const ROOT_UID: u32 = 0;

/// The socket cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum UdsError {
    /// Its folder is missing, or open to others.
    #[error("the folder of the socket")]
    Folder(#[from] secret_file::Error),
    /// Another process serves it.
    #[error("{} is served by another process: is it running already?", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has its name.
    #[error("{} exists and is not a socket: it is left alone", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot offer the socket {} (paths have at most 107 bytes)", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A socket of this machine, bound but not yet served.
#[derive(Debug)]
pub struct BoundUds {
    listener: StdListener,
    owner_uid: u32,
}

impl BoundUds {
    /// A socket that another process has bound at `path` and given to this one.
    ///
    /// # Errors
    /// It is not there any more, or the kernel refuses.
    pub fn inherited(path: &Path, listener: StdListener) -> Result<Self, UdsError> {
        let failed = |source| UdsError::Io {
            path: path.to_owned(),
            source,
        };
        let owner_uid = std::fs::metadata(path).map_err(failed)?.uid();
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            owner_uid,
        })
    }

    /// The listener itself: whoever takes it judges its callers.
    pub fn into_listener(self) -> StdListener {
        self.listener
    }

    /// Another handle of the same socket, to be given to another process.
    ///
    /// # Errors
    /// No file descriptors are left.
    pub fn duplicate(&self) -> io::Result<std::os::fd::OwnedFd> {
        Ok(self.listener.try_clone()?.into())
    }
}

/// Binds a Unix socket at `path`: makes its folder (0700) if missing, refuses one that others may
/// enter, and removes a socket file that nobody serves any more. Blocks on the disk, briefly.
pub fn bind_uds(path: &Path) -> Result<BoundUds, UdsError> {
    let failed = |source| UdsError::Io {
        path: path.to_owned(),
        source,
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    secret_file::ensure_private_dir(folder.unwrap_or(Path::new(".")))?;
    remove_stale(path)?;
    let listener = StdListener::bind(path).map_err(failed)?;
    // Nobody else could enter the folder between these two lines.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
    let owner_uid = std::fs::metadata(path).map_err(failed)?.uid();
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(BoundUds {
        listener,
        owner_uid,
    })
}

fn remove_stale(path: &Path) -> Result<(), UdsError> {
    let failed = |source| UdsError::Io {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(UdsError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Err(UdsError::InUse {
            path: path.to_owned(),
        }),
    }
}

/// Accepts connections of a bound socket until `shutdown`, or until the stream is dropped. Each has
/// a [`super::Peer`] that is local and without identity.
///
/// Must be called within a tokio runtime.
pub fn incoming_uds(bound: BoundUds, shutdown: CancellationToken) -> io::Result<Incoming> {
    let BoundUds {
        listener,
        owner_uid,
    } = bound;
    let listener = UnixListener::from_std(listener)?;
    let (ready, incoming) = Incoming::channel();
    tokio::spawn(async move {
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) if !is_allowed(&stream, owner_uid) => {
                        tracing::warn!("refused another user on the local socket");
                    }
                    Ok((stream, _)) => {
                        // Fails only when the server is gone, and then this task ends.
                        let _ = ready.send(Ok(Conn::unix(stream))).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a local connection");
                        sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = ready.closed() => {}
            () = accept => {}
        }
    });
    Ok(incoming)
}

fn is_allowed(stream: &UnixStream, owner_uid: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) => peer.uid() == owner_uid || peer.uid() == ROOT_UID,
        Err(_) => false,
    }
}

/// A channel to the Unix socket at `path`. Connects lazily, and again after a failure.
pub fn channel_uds(path: &Path) -> Channel {
    let path: Arc<Path> = Arc::from(path);
    let endpoint = settle(Endpoint::from_static("http://localhost"));
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(&*path).await.map(TokioIo::new) }
    }))
}
