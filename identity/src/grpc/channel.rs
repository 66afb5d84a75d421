//! Dialing: a tonic channel over mTLS that connects when first used, notices a dead peer by itself
//! and connects again.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// Name resolution, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished or froze without a word is noticed within the sum of these two: an agent has
/// to find another server before it is taken for lost itself (10 s).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Enough for uploads and logs over a 100 ms path; HTTP/2's 64 KiB are not.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes that `dial`'s connections take from the kernel at once: some records of TLS.
const READ_AHEAD_BYTES: usize = 128 * 1024;

/// The address cannot be dialed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{authority}` is not an address: `host:port` is expected")]
pub struct ChannelError {
    /// What was given.
    pub authority: String,
}

/// A channel to `authority` (`host:port`, `[v6]:port`) over `config`, whose ALPN must be
/// [`crate::tls::ALPN_GRPC`]. Connects lazily, and again after a failure: the calls made meanwhile
/// fail, it never queues them up. Deadlines of calls are the caller's.
pub fn channel(authority: &str, config: Arc<ClientConfig>) -> Result<Channel, ChannelError> {
    let refused = || ChannelError {
        authority: authority.to_owned(),
    };
    let parsed: http::uri::Authority = authority.parse().map_err(|_| refused())?;
    if parsed.port_u16().is_none() || authority.contains('@') {
        return Err(refused());
    }
    let origin: Uri = format!("https://{parsed}").parse().map_err(|_| refused())?;
    let endpoint = Endpoint::from_shared(format!("http://{parsed}")).map_err(|_| refused())?;
    let connector = TlsConnector::from(config);
    let target: Arc<str> = Arc::from(parsed.as_str());
    Ok(settle(endpoint)
        .origin(origin)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let (connector, target) = (connector.clone(), target.clone());
            async move { connect(connector, &target).await.map(TokioIo::new) }
        })))
}

/// What every channel has in common.
pub(super) fn settle(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// One connection to `target` (`host:port`), for whoever speaks something else than gRPC. Reads ahead:
/// rustls alone asks the kernel for 4 KiB at a time. Waits as long as the network does: callers set
/// their own deadline.
///
/// # Errors
/// Nobody listens, or the handshake fails.
pub async fn dial(
    target: &str,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<BufReader<TcpStream>>> {
    secure(reach(target).await?, config).await
}

/// The same on a connection that is made already: of interest to whoever tells a closed port from a wrong
/// identity.
///
/// # Errors
/// The handshake fails.
pub async fn secure(
    stream: TcpStream,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<BufReader<TcpStream>>> {
    let stream = BufReader::with_capacity(READ_AHEAD_BYTES, stream);
    shake_hands(TlsConnector::from(config), stream).await
}

async fn connect(connector: TlsConnector, target: &str) -> io::Result<TlsStream<TcpStream>> {
    shake_hands(connector, reach(target).await?).await
}

async fn reach(target: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn shake_hands<S>(connector: TlsConnector, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Peers are verified by the identity in their certificate; rustls still wants a name.
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    connector.connect(name, stream).await
}
