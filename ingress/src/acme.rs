//! Proofs for certificate authorities that a host is ours: a file in clear (RFC 8555, 8.3) and a certificate under TLS
//! (RFC 8737). Answers what it was given; whose hosts are and who asked is others' to know.
//!
//! A file that is asked for and not here may be on its way: the authority was told before every ingress had heard.
//! Such a request waits a moment for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;
use skep_model::certificate::{Challenge, ChallengeKind};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::body::ReplyBody;
use crate::certificates::provider;
use crate::headers;

/// Authorities ask here, in clear.
pub(crate) const PATH: &str = "/.well-known/acme-challenge/";
/// The protocol in which authorities ask under TLS.
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";
/// How long a request waits for a challenge: far above what one takes from a server to an ingress, below the
/// 10 s that authorities wait.
const PATIENCE: Duration = Duration::from_secs(4);
/// Requests that may wait so: authorities come from five places or so for each order.
const MAX_WAITING: usize = 128;
/// Longest token that is waited for, in bytes; theirs have 43.
const MAX_TOKEN: usize = 256;

/// What is to be proved just now.
#[derive(Debug, Default)]
struct Set {
    /// By host and token.
    files: HashMap<(String, String), String>,
    /// By host.
    keys: HashMap<String, Arc<CertifiedKey>>,
    /// More may come.
    is_expecting: bool,
}

/// The proofs of one ingress.
#[derive(Debug)]
pub(crate) struct Challenges {
    set: watch::Sender<Arc<Set>>,
    waiting: Semaphore,
}

impl Default for Challenges {
    fn default() -> Self {
        Self {
            set: watch::Sender::default(),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }
}

impl Challenges {
    /// Proves these and no others from now on.
    pub(crate) fn replace(&self, challenges: Vec<Challenge>, is_expecting: bool) {
        let mut set = Set {
            is_expecting,
            ..Set::default()
        };
        for it in challenges {
            match it.kind {
                ChallengeKind::Http01 => {
                    set.files.insert((it.host, it.token), it.key_authorization);
                }
                ChallengeKind::TlsAlpn01 => match certify(&it) {
                    Ok(key) => {
                        set.keys.insert(it.host, Arc::new(key));
                    }
                    Err(error) => {
                        tracing::warn!(host = %it.host, error = &*error, "a host cannot be proved");
                    }
                },
                // Zones answer for that, no ingress does.
                ChallengeKind::Dns01 => {}
            }
        }
        self.set.send_replace(Arc::new(set));
    }

    /// The answer to an authority. None: it is somebody else's request.
    pub(crate) async fn answer<B>(&self, request: &Request<B>) -> Option<Response<ReplyBody>> {
        let token = request.uri().path().strip_prefix(PATH)?;
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if !is_read || token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(is_token) {
            return None;
        }
        let key = (headers::asked_host(request)?.into_owned(), token.to_owned());
        let proof = self.file(&key).await?;
        let mut answer = Response::new(ReplyBody::owned(proof));
        let headers = answer.headers_mut();
        let kind = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(answer)
    }

    async fn file(&self, key: &(String, String)) -> Option<String> {
        let mut sets = self.set.subscribe();
        {
            let set = sets.borrow_and_update();
            if let Some(proof) = set.files.get(key) {
                return Some(proof.clone());
            }
            if !set.is_expecting {
                return None;
            }
        }
        let _place = self.waiting.try_acquire().ok()?;
        let comes = sets.wait_for(|set| set.files.contains_key(key));
        let set = timeout(PATIENCE, comes).await.ok()?.ok()?;
        set.files.get(key).cloned()
    }

    /// Whether an authority asks, and nobody else does: no browser speaks that protocol alone.
    pub(crate) fn is_asked(hello: &ClientHello<'_>) -> bool {
        let mut protocols = hello.alpn().into_iter().flatten();
        protocols.next() == Some(PROTOCOL) && protocols.next().is_none()
    }

    /// What an authority is shown; none: the handshake ends.
    pub(crate) fn key(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.set.borrow().keys.get(host).cloned()
    }
}

/// Self-signed, with a digest of what is expected in a critical extension.
fn certify(
    challenge: &Challenge,
) -> Result<CertifiedKey, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new([challenge.host.clone()])?;
    let expected = digest(&SHA256, challenge.key_authorization.as_bytes());
    let extension = CustomExtension::new_acme_identifier(expected.as_ref());
    params.custom_extensions.push(extension);
    let key = KeyPair::generate()?;
    let chain = vec![params.self_signed(&key)?.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    // Not `from_der`: it refuses certificates with an extension that it does not know and that is critical.
    let key = provider().key_provider.load_private_key(key)?;
    Ok(CertifiedKey::new(chain, key))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn challenge(kind: ChallengeKind, token: &str) -> Challenge {
        Challenge {
            kind,
            host: "a.example".into(),
            token: token.into(),
            key_authorization: format!("{token}.thumb"),
            expires_ms: 0,
        }
    }

    async fn asked(challenges: &Challenges, host: &str, path: &str) -> Option<String> {
        let request = Request::get(path).header("host", host).body(());
        let answer = challenges.answer(&request.expect("a request")).await?;
        let body = answer.into_body().collect().await.expect("a body");
        Some(String::from_utf8(body.to_bytes().to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_file_is_of_its_host_and_its_token_and_nothing_else_is_ours() {
        let challenges = Challenges::default();
        challenges.replace(vec![challenge(ChallengeKind::Http01, "abc")], false);
        let path = format!("{PATH}abc");
        let found = asked(&challenges, "A.example:80", &path).await;
        assert_eq!(found.as_deref(), Some("abc.thumb"));
        for (host, path) in [
            ("b.example", &*path),
            ("a.example", "/.well-known/acme-challenge/"),
            ("a.example", "/.well-known/acme-challenge/ab"),
            ("a.example", "/.well-known/acme-challenge/abc/../abc"),
            ("a.example", "/abc"),
        ] {
            assert_eq!(asked(&challenges, host, path).await, None, "{host}{path}");
        }
        challenges.replace(Vec::new(), false);
        assert_eq!(asked(&challenges, "a.example", &path).await, None);
    }

    #[tokio::test]
    async fn a_file_that_is_on_its_way_is_waited_for() {
        let challenges = Arc::new(Challenges::default());
        challenges.replace(Vec::new(), true);
        let path = format!("{PATH}abc");
        let early = {
            let (challenges, path) = (challenges.clone(), path.clone());
            tokio::spawn(async move { asked(&challenges, "a.example", &path).await })
        };
        while challenges.waiting.available_permits() == MAX_WAITING {
            tokio::task::yield_now().await;
        }
        challenges.replace(vec![challenge(ChallengeKind::Http01, "other")], true);
        challenges.replace(vec![challenge(ChallengeKind::Http01, "abc")], true);
        assert_eq!(early.await.expect("asked").as_deref(), Some("abc.thumb"));
        assert_eq!(challenges.waiting.available_permits(), MAX_WAITING);
    }

    #[test]
    fn a_key_is_shown_for_its_host_alone() {
        let challenges = Challenges::default();
        challenges.replace(vec![challenge(ChallengeKind::TlsAlpn01, "abc")], false);
        assert!(challenges.key("a.example").is_some());
        assert!(challenges.key("b.example").is_none());
    }
}
