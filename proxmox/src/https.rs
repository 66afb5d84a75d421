//! Carries requests to the hosts of a Proxmox cluster: HTTP/1.1 over TLS, any of the hosts for any request, and no trust
//! that nobody has asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::ext::ReasonPhrase;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use crate::error::Error;
use crate::transport::{Failure, Reply, Transport};

mod trust;

pub use trust::Trust;

/// Their servers close what is idle for 5 s, in the middle of a request that comes just then.
const IDLE: Duration = Duration::from_secs(3);
/// A host that does not answer this soon is not there: another one is asked.
const CONNECT: Duration = Duration::from_secs(5);
/// Their own limit for a request to another host is 30 s.
const DEADLINE: Duration = Duration::from_secs(40);
/// Largest answer: the guests of the largest cluster take some MiB.
const ANSWER_MAX_BYTES: usize = 32 << 20;
/// Larger requests have a file: a minute for each of so many bytes more.
const FILE_BYTES_PER_MINUTE: usize = 64 << 20;

type Connector = HttpsConnector<HttpConnector>;

/// The hosts of a Proxmox cluster, any of which answers for all.
#[derive(Debug)]
pub struct Https {
    hosts: Vec<Host>,
    /// The one that answered last.
    current: AtomicUsize,
    client: legacy::Client<Connector, Full<Bytes>>,
}

#[derive(Debug)]
struct Host {
    scheme: http::uri::Scheme,
    authority: http::uri::Authority,
}

impl Https {
    /// Hosts by their addresses, `https://pve1.example.com:8006`. What cannot be reached is left for the next.
    ///
    /// # Errors
    /// An address is none, or nothing is trusted.
    pub fn new(hosts: &[impl AsRef<str>], trust: &Trust) -> Result<Self, Error> {
        let hosts: Vec<Host> = hosts
            .iter()
            .map(|host| Host::parse(host.as_ref()))
            .collect::<Result<_, _>>()?;
        if hosts.is_empty() {
            return Err(Error::invalid("no host is named".to_owned()));
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust.config()?)
            .https_only()
            // Reason phrases, which say what is wrong, are HTTP/1's.
            .enable_http1()
            .wrap_connector(http);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self {
            hosts,
            current: AtomicUsize::new(0),
            client,
        })
    }

    async fn attempt(&self, host: &Host, request: &http::Request<Bytes>) -> Result<Reply, Failure> {
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(host.scheme.clone());
        parts.authority = Some(host.authority.clone());
        let uri = Uri::from_parts(parts).map_err(|error| Failure::NotSent(error.to_string()))?;
        let mut sent = http::Request::new(Full::new(request.body().clone()));
        *sent.method_mut() = request.method().clone();
        *sent.uri_mut() = uri;
        *sent.headers_mut() = request.headers().clone();
        let answer = self.client.request(sent).await.map_err(|error| {
            let text = format!("{}: {}", host.authority, chain(&error));
            match error.is_connect() {
                true => Failure::NotSent(text),
                false => Failure::Unknown(text),
            }
        })?;
        let (parts, body) = answer.into_parts();
        let reason = parts.extensions.get::<ReasonPhrase>();
        let reason = reason.map_or_else(
            || {
                let canonical = parts.status.canonical_reason().unwrap_or_default();
                canonical.to_owned()
            },
            |reason| String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        );
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| {
            Failure::Unknown(format!("{}: the answer broke off: {error}", host.authority))
        })?;
        Ok(Reply {
            status: parts.status.as_u16(),
            reason,
            body: body.to_bytes(),
        })
    }
}

impl Transport for Https {
    async fn send(&self, request: http::Request<Bytes>) -> Result<Reply, Failure> {
        let minutes = u32::try_from(request.body().len() / FILE_BYTES_PER_MINUTE).unwrap_or(60);
        let deadline = DEADLINE + Duration::from_secs(60) * minutes;
        let first = self.current.load(Ordering::Relaxed);
        let mut failed = Failure::NotSent("no host is named".to_owned());
        for offset in 0..self.hosts.len() {
            let number = (first + offset) % self.hosts.len();
            let attempt = timeout(deadline, self.attempt(&self.hosts[number], &request));
            failed = match attempt.await {
                Ok(Ok(reply)) => {
                    self.current.store(number, Ordering::Relaxed);
                    return Ok(reply);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Unknown(format!(
                    "{}: no answer within {} s",
                    self.hosts[number].authority,
                    deadline.as_secs()
                )),
            };
            let is_read = request.method() == http::Method::GET;
            if matches!(failed, Failure::Unknown(_)) && !is_read {
                // Another host would do it a second time. The next request goes elsewhere.
                self.current.store(number + 1, Ordering::Relaxed);
                return Err(failed);
            }
            tracing::debug!(why = %failed, "another host of the cluster is asked");
        }
        Err(failed)
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, Error> {
        let refused =
            |why: &str| Error::invalid(format!("`{text}` is not a host's address: {why}"));
        let uri: Uri = text.parse().map_err(|_| refused("it is no URL"))?;
        let parts = uri.into_parts();
        let has_path = parts.path_and_query.is_some_and(|path| path != "/");
        match (parts.scheme, parts.authority) {
            (Some(scheme), Some(authority)) if scheme == http::uri::Scheme::HTTPS => {
                if has_path || authority.as_str().contains('@') {
                    return Err(refused(
                        "it ends with the port: https://pve.example.com:8006",
                    ));
                }
                Ok(Self { scheme, authority })
            }
            _ => Err(refused("https://HOST:8006 is expected")),
        }
    }
}

/// An error with what caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// So that the verifier is shared with whoever needs one of its own.
pub(crate) type Verifier = Arc<dyn rustls::client::danger::ServerCertVerifier>;

#[cfg(test)]
mod tests;
