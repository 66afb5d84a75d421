//! Asks over HTTP whether requests may pass. Where it asks, owners of apps say: hence addresses of the node
//! itself and of its link are not asked, whatever name stands for them, unless the operator allows it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use skep_model::routing::{Cidr, is_off_limits};
use tokio::time::timeout;
use tower_service::Service;

/// A client waits for as long, and whoever decides about requests answers fast.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest answer that is passed on, in bytes: a page that asks for a password.
const MAX_ANSWER: usize = 1 << 20;
/// Below the minute after which many servers close.
const IDLE: Duration = Duration::from_secs(30);

type Client = legacy::Client<HttpsConnector<HttpConnector<Guarded>>, Empty<Bytes>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("{0}")]
    Failed(String),
    #[error("no answer within {DEADLINE:?}")]
    Silent,
    #[error("the answer has more than {MAX_ANSWER} bytes, or broke off")]
    Body,
}

/// Made when the first route needs it: reading what this machine trusts takes its time.
#[derive(Debug)]
pub(crate) struct Asker {
    allowed: Arc<[Cidr]>,
    client: OnceLock<Client>,
}

impl Asker {
    pub(crate) fn new(allowed: &[Cidr]) -> Self {
        Self {
            allowed: allowed.into(),
            client: OnceLock::new(),
        }
    }

    pub(crate) async fn ask(
        &self,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Bytes>, Unanswered> {
        let client = self.client.get_or_init(|| client(&self.allowed));
        let asked = async {
            let answer = client.request(request).await;
            let answer = answer.map_err(|error| Unanswered::Failed(chain(&error)))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|_| Unanswered::Body)?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        timeout(DEADLINE, asked)
            .await
            .unwrap_or(Err(Unanswered::Silent))
    }
}

fn client(allowed: &Arc<[Cidr]>) -> Client {
    let mut tcp = HttpConnector::new_with_resolver(Guarded {
        system: GaiResolver::new(),
        allowed: Arc::clone(allowed),
    });
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(DEADLINE));
    let builder = HttpsConnectorBuilder::new();
    let builder = builder.with_native_roots().unwrap_or_else(|error| {
        tracing::warn!(%error, "this machine trusts no certificate: install ca-certificates for `forward_auth` by https");
        let none = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        HttpsConnectorBuilder::new().with_tls_config(none.with_no_client_auth())
    });
    let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
    legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .build(https)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Names as the system resolves them, without the addresses that are off limits: what is connected to is
/// what was looked at.
#[derive(Debug, Clone)]
struct Guarded {
    system: GaiResolver,
    allowed: Arc<[Cidr]>,
}

impl Guarded {
    fn may_ask(allowed: &[Cidr], address: IpAddr) -> bool {
        !is_off_limits(address) || allowed.iter().any(|network| network.contains(address))
    }
}

impl Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let text = format!("`{name}`");
        let found = self.system.call(name);
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let all: Vec<_> = found.await?.collect();
            let some = all.iter().filter(|it| Self::may_ask(&allowed, it.ip()));
            let some: Vec<_> = some.copied().collect();
            if some.is_empty() && !all.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "{text} is the node itself or its link, which --forward-auth-allow does not name"
                    ),
                ));
            }
            Ok(some.into_iter())
        })
    }
}
