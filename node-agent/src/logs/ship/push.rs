//! One request to a receiver of logs, and what its answer means.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::destination::Destination;

/// For a receiver to take a batch.
const DEADLINE: Duration = Duration::from_secs(30);
/// What is read of an answer.
const ANSWER_MAX: usize = 4 << 10;

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The receiver has it.
    Taken,
    /// It never will: sent again it would be refused again.
    Refused(String),
    /// Not now.
    Failed(String),
}

/// Speaks to one receiver.
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// # Errors
    /// This machine has no certificates to check a receiver's by.
    pub(super) fn new(destination: &Destination) -> std::io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(DEADLINE));
        let builder = match destination.url().scheme_str() {
            Some("https") => HttpsConnectorBuilder::new().with_native_roots()?,
            _ => HttpsConnectorBuilder::new().with_tls_config(no_roots()),
        };
        let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
        let basic = destination.credentials().map(|pair| {
            let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))
                .expect("base64 is visible ASCII");
            value.set_sensitive(true);
            value
        });
        Ok(Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(https),
            url: destination.url().clone(),
            authorization: basic,
        })
    }

    pub(super) async fn push(&self, body: Bytes) -> Outcome {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let asked = async {
            let answer = self.http.request(request).await;
            let answer = answer.map_err(|error| crate::error_chain(&error))?;
            let status = answer.status();
            let text = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let text = text.map(|text| text.to_bytes()).unwrap_or_default();
            Ok((status, String::from_utf8_lossy(&text).trim().to_owned()))
        };
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(Ok((status, text))) => judge(status, &text),
            Ok(Err(why)) => Outcome::Failed(why),
            Err(_) => Outcome::Failed(format!("no answer within {} s", DEADLINE.as_secs())),
        }
    }
}

/// Nothing is checked where nothing is encrypted: no need to read this machine's certificates.
fn no_roots() -> rustls::ClientConfig {
    rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

fn judge(status: StatusCode, text: &str) -> Outcome {
    let why = || format!("the receiver answered {status}: {text}");
    match status {
        status if status.is_success() => Outcome::Taken,
        // Of which the receiver says itself that they pass; and those that an operator puts right.
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND => Outcome::Failed(why()),
        status if status.is_client_error() => Outcome::Refused(why()),
        _ => Outcome::Failed(why()),
    }
}
