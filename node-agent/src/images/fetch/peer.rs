//! Asking another node's agent for a blob: HTTP under mTLS, and only of the node that was named.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_RANGE, HOST, HeaderMap, RANGE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use skep_identity::grpc;
use skep_identity::name::Subject;
use skep_identity::tls::{self, Expected, Reloadable};
use skep_model::assignment::ImagePeer;
use tokio::time::timeout;

use super::super::digest::Digest;
use super::super::peers::{ALPN, path};
use super::{Answer, Ask, Refusal};

/// Connecting, with the handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Asks other nodes with this node's certificate.
pub(crate) struct Peers {
    credentials: Arc<Reloadable>,
}

impl Peers {
    /// As this node.
    pub(crate) fn new(credentials: Arc<Reloadable>) -> Self {
        Self { credentials }
    }
}

impl Ask for Peers {
    fn ask(
        &self,
        peer: &ImagePeer,
        digest: Digest,
        start: u64,
    ) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let expected = Expected::Exactly(Subject::Node(peer.node));
        let config = tls::client_config(&self.credentials, expected, ALPN);
        let address = peer.address.clone();
        Box::pin(async move {
            let broken = |why: &dyn std::error::Error| Refusal::Broken(crate::error_chain(why));
            let dialed = timeout(CONNECT_LIMIT, grpc::dial(&address, config)).await;
            let stream = match dialed {
                Ok(dialed) => dialed.map_err(|error| broken(&error))?,
                Err(_) => return Err(Refusal::Broken("it cannot be reached in time".into())),
            };
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| broken(&error))?;
            // Ends with the answer's body, or when whoever reads it does.
            tokio::spawn(connection);
            let request = Request::get(path(digest))
                .header(HOST, "node")
                .header(RANGE, format!("bytes={start}-"))
                .body(Empty::<Bytes>::new())
                .expect("a digest is a path");
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(|error| broken(&error))?;
            let start = match answer.status() {
                StatusCode::OK => 0,
                StatusCode::PARTIAL_CONTENT => begins(answer.headers()).ok_or_else(|| {
                    Refusal::Broken("it does not say where its answer begins".into())
                })?,
                StatusCode::NOT_FOUND => return Err(Refusal::Missing),
                status => return Err(Refusal::Broken(format!("it answers {status}"))),
            };
            let bytes = answer.into_body().into_data_stream();
            let bytes = bytes.map_err(|error| crate::error_chain(&error)).boxed();
            // The sender lives as long as the body: dropping it would end the connection.
            let bytes = bytes.chain(futures_util::stream::poll_fn(move |_| {
                let _sender = &sender;
                std::task::Poll::Ready(None)
            }));
            Ok(Answer {
                start,
                bytes: bytes.boxed(),
            })
        })
    }
}

/// The first byte of `bytes 7-9/10`.
fn begins(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .parse()
        .ok()
}
