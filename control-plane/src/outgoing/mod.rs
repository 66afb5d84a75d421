//! Requests that this server makes to where people say: receivers of notifications, and forges. One attempt that is over
//! in some seconds, goes nowhere that is off limits, follows nobody elsewhere, and reads little of an answer.

mod guard;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use skep_model::notify::{address_of, check_url};
use tokio::time::timeout;

pub(crate) use guard::Allowed;
use guard::Guarded;

/// All of an attempt. Whoever needs longer takes it first and works on it afterwards.
const DEADLINE: Duration = Duration::from_secs(10);
/// What is read of an answer's body.
const MAX_BODY: usize = 64 << 10;

type Client = legacy::Client<HttpsConnector<HttpConnector<Guarded>>, Full<Bytes>>;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// As far as it was read; empty where it was cut off.
    pub(crate) body: Bytes,
    /// When to come again, in the other side's words.
    pub(crate) retry_after_ms: Option<u64>,
}

/// Makes requests.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) allowed: Allowed,
    /// Made for the first request: reading what this machine trusts takes its time.
    client: OnceLock<Result<Client, String>>,
}

impl Outgoing {
    pub(crate) fn new(allowed: Allowed) -> Self {
        Self {
            allowed,
            client: OnceLock::new(),
        }
    }

    /// Makes a request of a URL that is checked here. `ca_pem` is trusted in place of what this machine trusts.
    ///
    /// # Errors
    /// Why there is no answer, for a person.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        ca_pem: Option<&str>,
    ) -> Result<Reply, String> {
        self.send_and_read(request, ca_pem, MAX_BODY).await
    }

    /// The same, where the answer is what was asked for: so many bytes of it are read.
    ///
    /// # Errors
    /// Why there is no answer, for a person.
    pub(crate) async fn send_and_read(
        &self,
        request: Request<Full<Bytes>>,
        ca_pem: Option<&str>,
        most: usize,
    ) -> Result<Reply, String> {
        match timeout(DEADLINE, self.attempt(request, ca_pem, most)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer within 10 s".to_owned()),
        }
    }

    async fn attempt(
        &self,
        mut request: Request<Full<Bytes>>,
        ca_pem: Option<&str>,
        most: usize,
    ) -> Result<Reply, String> {
        let uri = check_url(&request.uri().to_string()).map_err(|problem| problem.message)?;
        // The resolver is not asked for these.
        if let Some(address) = address_of(&uri) {
            let allowed = self.allowed.check(address);
            allowed.map_err(|problem| problem.message)?;
        }
        let agent = concat!("skep/", env!("CARGO_PKG_VERSION"));
        let agent = hyper::header::HeaderValue::from_static(agent);
        request.headers_mut().insert(USER_AGENT, agent);
        let client = self.client(ca_pem)?;
        let answer = client.request(request).await;
        let answer = answer.map_err(|error| chain(&error))?;
        let (parts, body) = answer.into_parts();
        // It has said what it says: what follows is only what it says to a person.
        let body = Limited::new(body, most).collect().await;
        Ok(Reply {
            status: parts.status,
            retry_after_ms: retry_after_ms(&parts.headers, SystemTime::now()),
            headers: parts.headers,
            body: body.map(|body| body.to_bytes()).unwrap_or_default(),
        })
    }

    fn client(&self, ca_pem: Option<&str>) -> Result<Client, String> {
        match ca_pem {
            Some(pem) => trusting(self.allowed.clone(), pem),
            None => {
                let made = self.client.get_or_init(|| usual(self.allowed.clone()));
                made.clone()
            }
        }
    }
}

/// Trusts what this machine does.
fn usual(allowed: Allowed) -> Result<Client, String> {
    let builder = HttpsConnectorBuilder::new().with_native_roots();
    let builder = builder.map_err(|error| {
        format!("this server trusts no certificate ({error}): install ca-certificates")
    })?;
    let tcp = tcp(allowed);
    let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
    Ok(built(https))
}

/// Trusts this CA alone.
fn trusting(allowed: Allowed, ca_pem: &str) -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let config = config
        .with_root_certificates(roots(ca_pem)?)
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    let tcp = tcp(allowed);
    let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
    Ok(built(https))
}

/// The certificates of a CA.
///
/// # Errors
/// There is none.
pub(crate) fn roots(ca_pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.is_empty() {
        true => Err("there is no certificate in it".to_owned()),
        false => Ok(roots),
    }
}

fn tcp(allowed: Allowed) -> HttpConnector<Guarded> {
    let mut tcp = HttpConnector::new_with_resolver(Guarded::new(allowed));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp
}

/// Connections are not kept: the next request for somebody may come in a week.
fn built(https: HttpsConnector<HttpConnector<Guarded>>) -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(https)
}

fn retry_after_ms(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let pause = at.duration_since(now).ok()?;
    u64::try_from(pause.as_millis()).ok()
}

/// An error with what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_say_in_two_ways_when_to_come_again() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let heard = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a value"));
            retry_after_ms(&headers, now)
        };
        assert_eq!(heard("60"), Some(60_000));
        assert_eq!(heard("Thu, 01 Jan 1970 01:00:00 GMT"), Some(2_600_000));
        assert_eq!(heard("Thu, 01 Jan 1970 00:00:00 GMT"), None, "past");
        assert_eq!(heard("soon"), None);
    }

    #[tokio::test]
    async fn what_is_off_limits_is_not_connected_to_by_number_or_name() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let outgoing = Outgoing::new(Allowed::new(&[]));
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let request = Request::post(format!("http://{host}:{port}/"));
            let request = request.body(Full::default()).expect("a request");
            let why = outgoing.send(request, None).await.expect_err("not taken");
            assert!(why.contains("--notify-allow"), "{host}: {why}");
        }
        let came = timeout(Duration::ZERO, listener.accept()).await;
        assert!(came.is_err(), "somebody connected");
    }

    #[test]
    fn a_ca_is_a_certificate() {
        for odd in [
            "",
            "nothing",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(roots(odd).is_err(), "{odd}");
        }
    }
}
