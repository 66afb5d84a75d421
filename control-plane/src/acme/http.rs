//! The connection to an issuer: whom it trusts, how long it waits, and what the issuer says of when to come again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::time::timeout;

/// What a TCP connection and TLS may take, together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What one answer may take: some issuers sign within it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes; a chain has some KiB.
const MAX_ANSWER: usize = 256 << 10;

/// When the issuer wants to be asked again; none: it has not said.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience(Arc<Mutex<Option<SystemTime>>>);

impl Patience {
    /// What it said last; forgotten then.
    pub(super) fn take(&self) -> Option<SystemTime> {
        self.0.lock().take()
    }

    fn hear(&self, status: StatusCode, headers: &HeaderMap, now: SystemTime) {
        let waits = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        let said = headers.get(RETRY_AFTER).filter(|_| waits);
        let said = said.and_then(|value| value.to_str().ok());
        let at = said.and_then(|text| match text.trim().parse() {
            Ok(seconds) => now.checked_add(Duration::from_secs(seconds)),
            Err(_) => httpdate::parse_http_date(text).ok(),
        });
        if at.is_some() {
            *self.0.lock() = at;
        }
    }
}

/// Speaks HTTPS to one issuer.
pub(super) struct Http {
    client: legacy::Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    patience: Patience,
}

impl Http {
    /// `root_pem` proves who answers; empty: the certificates that this machine trusts.
    ///
    /// # Errors
    /// The PEM has no certificate, or this machine trusts none.
    pub(super) fn new(root_pem: &str, patience: Patience) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        let builder = HttpsConnectorBuilder::new();
        let builder = match root_pem.is_empty() {
            true => builder.with_native_roots().map_err(trusts_none)?,
            false => builder.with_tls_config(trusting(root_pem)?),
        };
        let https = builder.https_only().enable_http1().wrap_connector(tcp);
        Ok(Self {
            client: legacy::Client::builder(TokioExecutor::new()).build(https),
            patience,
        })
    }
}

/// HTTP under TLS or in clear.
pub(super) type Plain = HttpsConnector<HttpConnector>;

/// A client for whoever else is asked, trusted as this machine trusts.
///
/// # Errors
/// This machine trusts nobody.
pub(super) fn plain() -> Result<legacy::Client<Plain, Full<Bytes>>, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    let builder = HttpsConnectorBuilder::new().with_native_roots();
    let builder = builder.map_err(trusts_none)?;
    let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
    Ok(legacy::Client::builder(TokioExecutor::new()).build(https))
}

fn trusts_none(error: std::io::Error) -> String {
    format!("this server trusts no certificate ({error}): install ca-certificates")
}

/// Checks that a PEM holds certificates that can be trusted.
///
/// # Errors
/// Says what is wrong.
pub(crate) fn check_roots(root_pem: &str) -> Result<(), String> {
    trusting(root_pem).map(|_| ())
}

fn trusting(root_pem: &str) -> Result<rustls::ClientConfig, String> {
    let wrong = || "the root certificates are no PEM of certificates".to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(root_pem.as_bytes()) {
        let certificate = certificate.map_err(|_| wrong())?;
        roots.add(certificate).map_err(|_| wrong())?;
    }
    if roots.is_empty() {
        return Err(wrong());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asked = self.client.request(request);
        let patience = self.patience.clone();
        Box::pin(async move {
            let whole = async {
                let (parts, body) = asked.await.map_err(other)?.into_parts();
                patience.hear(parts.status, &parts.headers, SystemTime::now());
                let body = Limited::new(body, MAX_ANSWER).collect().await;
                let body = body.map_err(Error::Other)?.to_bytes();
                Ok(Response::from_parts(parts, Full::new(body)).into())
            };
            let late = |_| Error::Str("an answer in time");
            timeout(ANSWER_LIMIT, whole).await.map_err(late)?
        })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_says_in_two_ways_when_to_come_again() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let heard = |status, text: &str| {
            let patience = Patience::default();
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a value"));
            patience.hear(status, &headers, now);
            let at = patience.take()?;
            assert_eq!(patience.take(), None);
            Some(
                at.duration_since(SystemTime::UNIX_EPOCH)
                    .expect("later")
                    .as_secs(),
            )
        };
        let limited = StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(heard(limited, "60"), Some(1_060));
        let date = "Thu, 01 Jan 1970 01:00:00 GMT";
        assert_eq!(heard(StatusCode::SERVICE_UNAVAILABLE, date), Some(3_600));
        assert_eq!(heard(StatusCode::OK, "60"), None, "it tells when to poll");
        assert_eq!(heard(limited, "soon"), None);
    }

    #[test]
    fn roots_are_certificates() {
        let made = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).expect("made");
        assert_eq!(check_roots(&made.cert.pem()), Ok(()));
        check_roots("").expect_err("none");
        check_roots("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .expect_err("none");
    }
}
