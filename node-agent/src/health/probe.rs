//! One probe: a TCP connection, or one GET over it. Follows no redirects, sends no body.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// None was made yet.
    Unprobed,
    /// Nothing listens.
    Refused,
    /// No connection, or no answer, within the time for one.
    TimedOut {
        /// A connection was made, but nothing was answered.
        connected: bool,
    },
    /// It answered, but not well.
    Status(u16),
    /// It spoke no HTTP.
    NotHttp,
    /// The network said otherwise.
    Network(io::ErrorKind),
}

/// Good when it connects and, with `path`, answers 2xx or 3xx: within the first limit in all, and
/// the second for connecting.
pub(super) async fn probe(
    at: SocketAddr,
    path: Option<&str>,
    (limit, dial): (Duration, Duration),
) -> Result<(), Fault> {
    let mut connected = false;
    let probed = async {
        let dialed = timeout(dial, TcpStream::connect(at)).await;
        let stream = dialed
            .map_err(|_| Fault::TimedOut { connected: false })?
            .map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => Fault::Refused,
                kind => Fault::Network(kind),
            })?;
        connected = true;
        match path {
            None => Ok(()),
            Some(path) => get(stream, at, path).await,
        }
    };
    match timeout(limit, probed).await {
        Ok(result) => result,
        Err(_) => Err(Fault::TimedOut { connected }),
    }
}

async fn get(stream: TcpStream, at: SocketAddr, path: &str) -> Result<(), Fault> {
    let not_http = |_| Fault::NotHttp;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(not_http)?;
    let request = Request::get(path)
        .header(header::HOST, at.to_string())
        .header(header::USER_AGENT, "skep-health")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Fault::NotHttp)?;
    let answered = async move {
        sender
            .send_request(request)
            .await
            .map(|response| response.status())
    };
    let mut answered = std::pin::pin!(answered);
    let mut connection = std::pin::pin!(connection);
    let status = tokio::select! {
        status = &mut answered => status,
        // The connection ends by itself only when the answer is complete, or none will come.
        _ = &mut connection => answered.await,
    };
    match status.map_err(not_http)? {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(Fault::Status(status.as_u16())),
    }
}
