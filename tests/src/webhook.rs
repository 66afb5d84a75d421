//! Webhook deliveries as GitHub makes them, signed by hand.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::Full;
use ring::hmac;
use serde_json::Value;

use crate::api::Api;
use crate::http::{Answer, send, send_over};
use crate::place;

/// One delivery, ready to be sent any number of times.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `X-GitHub-Event`.
    pub event: String,
    /// `X-GitHub-Delivery`.
    pub id: String,
    /// `X-Hub-Signature-256`; none: the header is missing.
    pub signature: Option<String>,
    /// The body, byte by byte.
    pub body: Bytes,
}

impl Delivery {
    /// A delivery signed with `secret`.
    pub fn signed(event: &str, id: &str, body: impl Into<Bytes>, secret: &str) -> Self {
        let body = body.into();
        let signature = Some(sign(secret, &body));
        Self {
            event: event.to_owned(),
            id: id.to_owned(),
            signature,
            body,
        }
    }

    /// Posts it to the path of a hook.
    ///
    /// # Errors
    /// No answer.
    pub async fn post(&self, server: SocketAddr, path: &str) -> Result<Answer> {
        send(server, self.request(server, path)?).await
    }

    /// The same at a server of its own CA.
    ///
    /// # Errors
    /// No answer.
    pub async fn post_to(&self, api: &Api, path: &str) -> Result<Answer> {
        let request = self.request(api.address(), path)?;
        send_over(api.address(), api.tls(), request).await
    }

    fn request(&self, server: SocketAddr, path: &str) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::post(path)
            .header(HOST, server.to_string())
            .header(CONTENT_TYPE, "application/json")
            .header("X-GitHub-Event", &self.event)
            .header("X-GitHub-Delivery", &self.id);
        if let Some(signature) = &self.signature {
            request = request.header("X-Hub-Signature-256", signature);
        }
        Ok(request.body(Full::new(self.body.clone()))?)
    }
}

/// The value of `X-Hub-Signature-256`: HMAC-SHA256 over the raw bytes.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

/// A recorded GitHub push, with this branch and these commits in it.
///
/// # Errors
/// The fixture cannot be read.
pub fn push_body(branch: &str, before: &str, after: &str) -> Result<Vec<u8>> {
    let text = std::fs::read(place::fixture("webhooks/github/HookPush.json"))?;
    let mut body: Value = serde_json::from_slice(&text).context("HookPush.json")?;
    body["ref"] = format!("refs/heads/{branch}").into();
    body["before"] = before.into();
    body["after"] = after.into();
    Ok(serde_json::to_vec(&body)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_signature_is_the_one_that_github_documents() {
        // docs.github.com, "Validating webhook deliveries", test values.
        let signature = super::sign("It's a Secret to Everybody", b"Hello, World!");
        assert_eq!(
            signature,
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
