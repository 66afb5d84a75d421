//! Asks an HTTP API with a token: JSON there and back, bounded in time and size.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy;
use serde_json::Value;
use zeroize::Zeroizing;

use super::Error;
use crate::acme::http::{Plain, plain};

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// An API, and what opens it.
pub(super) struct Rest {
    who: String,
    client: legacy::Client<Plain, Full<Bytes>>,
    token: Option<Zeroizing<String>>,
}

impl Rest {
    /// The API of `who`; requests carry `token`.
    pub(super) fn new(who: &str, token: Option<String>) -> Result<Self, Error> {
        let token = token.map(|it| Zeroizing::new(it.trim().to_owned()));
        Ok(Self {
            who: who.to_owned(),
            client: plain().map_err(Error::Unusable)?,
            token,
        })
    }

    /// Who answers.
    pub(super) fn who(&self) -> &str {
        &self.who
    }

    /// One request: its status, and the text of its answer.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, String), Error> {
        let unusable = |error: String| Error::Unusable(format!("{}: {error}", self.who));
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(USER_AGENT, concat!("skep/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            let value = Zeroizing::new(format!("Bearer {}", token.as_str()));
            let wrong = |_| unusable("its token has characters that no token has".to_owned());
            let mut value = HeaderValue::from_str(&value).map_err(wrong)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                body.to_string()
            }
            None => String::new(),
        };
        let request = request.body(Full::from(body));
        let request = request.map_err(|error| unusable(error.to_string()))?;
        let unreachable = |why: String| Error::Unreachable {
            who: self.who.clone(),
            why,
        };
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| unreachable(chain(&error)))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| unreachable(error.to_string()))?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok((parts.status, text))
    }
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
