//! Asking the API of another server, over mTLS: its own report, and what the leader alone can do. Says
//! why there is no answer; what it means, the caller decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use skep_identity::name::Subject;
use skep_identity::tls::{Expected, Reloadable, client_config};
use skep_model::id::ServerId;
use skep_model::server::Server;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};

/// Everything from the connection to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// Largest answer: samples of ten thousand services.
const ANSWER_MAX: usize = 8 << 20;
/// Header with the answering server's clock, ms since the epoch.
pub(super) const CLOCK_HEADER: &str = "skep-clock-ms";

/// Another server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there, or the network does not reach it.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Its API's address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate shown there is not valid at this machine's time.
    #[error("a clock is wrong, there or here: {0}")]
    Clock(String),
    /// It broke off.
    #[error("the exchange with {address} failed: {source}")]
    Http {
        /// Its API's address.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("no answer from {address} within {} s", within.as_secs())]
    Silent {
        /// Its API's address.
        address: String,
        /// What it was given.
        within: Duration,
    },
}

/// What another server answered.
#[derive(Debug)]
pub struct Answer {
    /// Whether it did what was asked.
    pub status: StatusCode,
    /// Its clock when it answered, ms since the epoch.
    pub clock_ms: Option<u64>,
    /// The body.
    pub body: Bytes,
}

/// The other servers, as their APIs answer. Cheap to clone.
#[derive(Clone)]
pub struct Neighbours {
    own: ServerId,
    credentials: Arc<Reloadable>,
    /// When each last answered; no more of them than servers that ever were.
    heard: Arc<Mutex<BTreeMap<ServerId, Instant>>>,
}

impl Neighbours {
    /// Asks under the certificate of the own server.
    pub fn new(own: ServerId, credentials: Arc<Reloadable>) -> Self {
        Self {
            own,
            credentials,
            heard: Arc::default(),
        }
    }

    /// The server that asks.
    pub fn own(&self) -> ServerId {
        self.own
    }

    /// Asks `server`, whose certificate must name it, for `path`; `caller` is sent along as proof of
    /// who asks.
    ///
    /// # Errors
    /// There is no answer; one that is not a success is an answer.
    pub async fn ask(
        &self,
        server: &Server,
        (method, path): (Method, &str),
        caller: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        self.ask_within(DEADLINE, server, (method, path), caller)
            .await
    }

    /// Passes a request with a JSON body on to `server`.
    ///
    /// # Errors
    /// As [`Neighbours::ask`].
    pub async fn pass(
        &self,
        server: &Server,
        (method, path, body): (Method, &str, Bytes),
        caller: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        self.exchange_within(DEADLINE, server, (method, path, body), caller)
            .await
    }

    /// The same with another deadline.
    ///
    /// # Errors
    /// As [`Neighbours::ask`].
    pub async fn ask_within(
        &self,
        within: Duration,
        server: &Server,
        (method, path): (Method, &str),
        caller: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let request = (method, path, Bytes::new());
        self.exchange_within(within, server, request, caller).await
    }

    async fn exchange_within(
        &self,
        within: Duration,
        server: &Server,
        request: (Method, &str, Bytes),
        caller: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let address = server.api_address.clone();
        let asked = self.exchange(server, request, caller);
        let answer = tokio::time::timeout(within, asked)
            .await
            .unwrap_or(Err(Error::Silent { address, within }))?;
        self.heard.lock().insert(server.id, Instant::now());
        Ok(answer)
    }

    /// How long ago this server had an answer from that one; none: never.
    pub fn last_heard(&self, server: ServerId) -> Option<Duration> {
        self.heard.lock().get(&server).map(Instant::elapsed)
    }

    async fn exchange(
        &self,
        server: &Server,
        (method, path, body): (Method, &str, Bytes),
        caller: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let address = &server.api_address;
        let connect = |source| connect_error(address, source);
        let tcp = TcpStream::connect(address).await.map_err(connect)?;
        let expected = Expected::Exactly(Subject::Server(server.id));
        let tls = client_config(&self.credentials, expected, &[b"http/1.1"]);
        // Peers are known by the identity in their certificate; TLS still wants a name.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let stream = TlsConnector::from(tls).connect(name, tcp).await;
        let http = |source: Box<dyn std::error::Error + Send + Sync>| Error::Http {
            address: address.clone(),
            source,
        };
        let io = TokioIo::new(stream.map_err(connect)?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(|e| http(e.into()))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address);
        if let Some(caller) = caller {
            request = request.header(header::AUTHORIZATION, caller);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| http(error.into()))?;
        let answered = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| http(e.into()))?;
            let (status, clock_ms) = (response.status(), clock(response.headers()));
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
            let body = body.await.map_err(http)?.to_bytes();
            Ok(Answer {
                status,
                clock_ms,
                body,
            })
        };
        let mut answered = std::pin::pin!(answered);
        // The connection lives as long as the exchange.
        tokio::select! {
            answer = &mut answered => answer,
            ended = connection => match ended {
                Ok(()) => answered.await,
                Err(error) => Err(http(error.into())),
            },
        }
    }
}

fn clock(headers: &HeaderMap) -> Option<u64> {
    headers.get(CLOCK_HEADER)?.to_str().ok()?.parse().ok()
}

fn connect_error(address: &str, source: std::io::Error) -> Error {
    let tls = source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>());
    match tls {
        Some(TlsError::InvalidCertificate(
            reason @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }),
        )) => Error::Clock(format!("the certificate of {address}: {reason}")),
        _ => Error::Connect {
            address: address.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio_rustls::rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_certificate_out_of_its_time_is_told_as_a_wrong_clock() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let time = UnixTime::since_unix_epoch(now.expect("after 1970"));
        let later = UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs() + 172_800));
        let reason = CertificateError::NotValidYetContext {
            time,
            not_before: later,
        };
        let tls = TlsError::InvalidCertificate(reason);
        let error = connect_error("s2:7070", std::io::Error::other(tls));
        assert!(matches!(error, Error::Clock(_)), "{error}");
        assert!(error.to_string().contains("172800"), "{error}");
        let error = connect_error("s2:7070", std::io::Error::other("refused"));
        assert!(matches!(error, Error::Connect { .. }), "{error}");
    }
}
