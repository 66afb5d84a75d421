//! Accepting mTLS connections: each handshake in a task of its own, so that a slow or hostile
//! client delays nobody, with a deadline and a limit on how many are under way.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

use super::Conn;

/// A handshake takes milliseconds; whoever needs longer is not a client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at a time; further clients wait in the kernel's backlog.
const HANDSHAKES_MAX: usize = 256;
/// Connections ready but not yet taken up by the server.
const READY_MAX: usize = 32;
/// Pause after a failed accept (no file descriptors left, for example): nothing signals recovery.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A stream of accepted connections. Ends after shutdown.
pub struct Incoming {
    ready: mpsc::Receiver<io::Result<Conn>>,
}

impl Incoming {
    pub(super) fn channel() -> (mpsc::Sender<io::Result<Conn>>, Self) {
        let (sender, ready) = mpsc::channel(READY_MAX);
        (sender, Self { ready })
    }
}

impl Stream for Incoming {
    type Item = io::Result<Conn>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx)
    }
}

/// Accepts TLS connections from `listener` until `shutdown`, or until the stream is dropped. Works
/// for gRPC (`serve_with_incoming_shutdown`) and for [`crate::https::serve`]. Failed handshakes are
/// logged at debug level and never end the stream.
///
/// Must be called within a tokio runtime.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    shutdown: CancellationToken,
) -> Incoming {
    let (ready, incoming) = Incoming::channel();
    let acceptor = Acceptor {
        tls: TlsAcceptor::from(config),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        ready,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = acceptor.ready.closed() => {}
            () = acceptor.run(&listener, &shutdown) => {}
        }
    });
    incoming
}

struct Acceptor {
    tls: TlsAcceptor,
    handshakes: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Conn>>,
}

impl Acceptor {
    async fn run(&self, listener: &TcpListener, shutdown: &CancellationToken) {
        loop {
            let slot = self.handshakes.clone().acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, address)) => self.handshake(stream, address, slot, shutdown.clone()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        slot: OwnedSemaphorePermit,
        shutdown: CancellationToken,
    ) {
        let (tls, ready) = (self.tls.clone(), self.ready.clone());
        tokio::spawn(async move {
            let accepted = shutdown.run_until_cancelled(accept(tls, stream)).await;
            match accepted {
                Some(Ok(stream)) => {
                    // Fails only when the server is gone, and the connection with it.
                    let _ = ready.send(Ok(Conn::tls(stream, address))).await;
                }
                Some(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
                None => {}
            }
            drop(slot);
        });
    }
}

async fn accept(
    tls: TlsAcceptor,
    stream: TcpStream,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    timeout(HANDSHAKE_TIMEOUT, tls.accept(stream))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
