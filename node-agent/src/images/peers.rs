//! What this node gives to other nodes of its cluster: blobs that are here, by their digest, under mTLS.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use skep_identity::grpc::{self, Peer};
use skep_identity::https;
use skep_identity::tls::{self, ClientAuth, Reloadable};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::digest::Digest;
use super::serve::{self, Source};
use super::store::Store;
use crate::metrics::Metrics;

/// One connection for one blob: what HTTP/2 adds costs more than it gives.
pub(super) const ALPN: &[&[u8]] = &[b"http/1.1"];

#[derive(Clone)]
struct Shared {
    store: Arc<Store>,
    metrics: Metrics,
}

/// Where a blob is.
pub(super) fn path(digest: Digest) -> String {
    format!("/v1/blobs/{digest}")
}

/// Serves until `shutdown`.
pub(super) async fn serve_peers(
    listener: TcpListener,
    credentials: Arc<Reloadable>,
    (store, metrics): (Arc<Store>, Metrics),
    shutdown: CancellationToken,
) {
    let config = tls::server_config(&credentials, ClientAuth::Required, ALPN);
    let incoming = grpc::incoming(listener, config, shutdown.clone());
    let router = Router::new()
        .route("/v1/blobs/{digest}", get(blob))
        .layer(middleware::from_fn(nodes_only))
        .with_state(Shared { store, metrics });
    https::serve(incoming, router, shutdown).await;
}

/// Operators and servers have other ways.
async fn nodes_only(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let node = peer.and_then(|peer| peer.identity?.node_id());
    match node {
        Some(_) => next.run(request).await,
        None => StatusCode::FORBIDDEN.into_response(),
    }
}

async fn blob(
    State(shared): State<Shared>,
    Path(digest): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let Ok(digest) = digest.parse::<Digest>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match shared.store.read(digest).await {
        Ok(Some((file, size))) => {
            let metrics = shared.metrics.clone();
            let source = Source::Whole { file, size };
            let given = move |bytes: u64| metrics.image_bytes("given", bytes);
            serve::blob(source, &method, &headers, given).await
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::warn!(%digest, %error, "a blob cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, Body::empty()).into_response()
        }
    }
}

/// The address at which others reach this node: of the interface that leads to `server`. Sends nothing.
pub(super) async fn own_address(server: &str) -> Option<std::net::IpAddr> {
    let servers: Vec<SocketAddr> = tokio::net::lookup_host(server).await.ok()?.collect();
    for server in servers {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let Ok(socket) = tokio::net::UdpSocket::bind(any).await else {
            continue;
        };
        if socket.connect(server).await.is_ok()
            && let Ok(own) = socket.local_addr()
        {
            return Some(own.ip());
        }
    }
    None
}
