//! Connections as they come in, whatever is spoken on them: options of the socket, the thread that serves them,
//! and whose they are.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::ingress::Shared;
use crate::proxy_protocol;
use crate::trust::Trust;

/// The pause after the kernel could not give a connection (no file descriptors left): nothing
/// tells when it can again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A silent peer is asked after this time whether it is still there, and again at this
/// distance; the kernel gives up after `PROBES`.
pub(crate) const PROBE_AFTER: Duration = Duration::from_secs(60);
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

pub(crate) async fn pause_after(error: &io::Error) {
    let of_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !of_one_connection {
        tracing::warn!(%error, "cannot accept connections");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// A connection on the thread that serves it.
pub(crate) fn arrived(stream: StdStream) -> Option<TcpStream> {
    let stream = TcpStream::from_std(stream);
    stream
        .inspect_err(|error| tracing::warn!(%error, "a connection cannot be served"))
        .ok()
}

/// Failures mean that the peer has gone already: the first read will tell.
pub(crate) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES);
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
}

/// Whose connection it is: what a load balancer in front says of it, where they say so. None: it did not say,
/// or not in time.
pub(crate) async fn introduce(
    shared: &Shared,
    peer: SocketAddr,
    stream: &mut TcpStream,
) -> Option<SocketAddr> {
    let options = &shared.options;
    let from_proxy = || options.trusted_proxies.of(peer.ip()) != Trust::Client;
    if !options.proxy_protocol || !from_proxy() {
        return Some(peer);
    }
    told_by_proxy(shared, peer, stream).await
}

/// The same where somebody has to say.
pub(crate) async fn told_by_proxy(
    shared: &Shared,
    peer: SocketAddr,
    stream: &mut TcpStream,
) -> Option<SocketAddr> {
    match timeout(
        shared.options.handshake_timeout,
        proxy_protocol::read(stream),
    )
    .await
    {
        Ok(Ok(source)) => return Some(source.unwrap_or(peer)),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a load balancer did not say whose connection this is");
        }
        Err(_) => {
            tracing::debug!(%peer, "a load balancer did not say in time whose connection this is");
        }
    }
    shared.registry.failed_arrival();
    None
}
