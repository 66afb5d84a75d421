//! Serving an HTTP service (an axum router, for example) over accepted TLS connections. Owns the
//! connections' limits and their end; never looks into requests, except to add who sent them.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming as RequestBody;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::grpc::Conn;

/// Open connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// A client that has not sent its headers by then is not going to.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Peers that vanished are noticed within the sum of these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What requests under way get on shutdown; followers of logs have no other end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `service` on each connection of `incoming` (see [`crate::grpc::incoming`], with
/// [`crate::tls::ALPN_HTTPS`]) until `shutdown`; then lets requests under way finish, for 10 s.
///
/// Each request carries a [`crate::grpc::Peer`] among its extensions. Upgrades (WebSocket) work. A request that `service` fails on
/// gets no answer: by HTTP/2 its stream is reset, for the reason of an `h2::Error` where that is what it failed with.
pub async fn serve<I, S, B>(incoming: I, service: S, shutdown: CancellationToken)
where
    I: Stream<Item = io::Result<Conn>>,
    S: tower::Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (http1, http2) = (server().http1_only(), server().http2_only());
    let graceful = GracefulShutdown::new();
    let mut incoming = pin!(incoming);
    let next = async |incoming: &mut std::pin::Pin<&mut I>| {
        let slot = slots
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        Some((incoming.next().await?, slot))
    };
    while let Some(Some((accepted, slot))) = shutdown.run_until_cancelled(next(&mut incoming)).await
    {
        let connection = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                continue;
            }
        };
        let peer = connection.peer();
        // By what the handshake agreed on: guessing from the first bytes has no deadline.
        let server = if connection.speaks_http2() {
            &http2
        } else {
            &http1
        };
        let service = service
            .clone()
            .map_request(move |mut request: Request<RequestBody>| {
                request.extensions_mut().insert(peer);
                request
            });
        let service = TowerToHyperService::new(service);
        let served = server.serve_connection_with_upgrades(TokioIo::new(connection), service);
        let served = graceful.watch(served.into_owned());
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(?peer, %error, "connection ended");
            }
            drop(slot);
        });
    }
    drain(graceful.shutdown()).await;
}

fn server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    server
}

async fn drain(finished: impl Future<Output = ()>) {
    if timeout(DRAIN_TIMEOUT, finished).await.is_err() {
        tracing::warn!("some requests were still under way at the end of the shutdown");
    }
}

#[cfg(test)]
mod tests;
