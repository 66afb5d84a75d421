//! Whom a project tells of its deployments: takes notifications, and answers them as a test wants.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::hmac;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One notification, as it came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// `webhook-id`.
    pub id: String,
    /// The body.
    pub body: Value,
    headers: HeaderMap,
    raw: Bytes,
}

impl Heard {
    /// A header as it came.
    ///
    /// # Errors
    /// There is none, or it is no text.
    pub fn header(&self, name: &str) -> Result<&str> {
        let value = self.headers.get(name);
        let value = value.with_context(|| format!("no {name}: {:?}", self.headers))?;
        Ok(value.to_str()?)
    }

    /// Checks what a receiver checks before it believes, by the standard's own words.
    ///
    /// # Errors
    /// It was not sent by whoever has the secret, or its headers say something else than its body.
    pub fn believed(&self, secret: &str) -> Result<()> {
        let key = secret.strip_prefix("whsec_").context("whsec_")?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key)?);
        let at = self.header("webhook-timestamp")?;
        let mut signed = format!("{}.{at}.", self.id).into_bytes();
        signed.extend_from_slice(&self.raw);
        let tag = self.header("webhook-signature")?;
        let tag = tag.strip_prefix("v1,").context("v1")?;
        hmac::verify(&key, &signed, &STANDARD.decode(tag)?)
            .ok()
            .context("the signature is wrong")?;
        let event = self.header("x-skep-event")?;
        ensure!(self.body["type"] == event, "{event}: {}", self.body);
        ensure!(self.header("idempotency-key")? == self.id, "{self:?}");
        Ok(())
    }
}

/// What it does with what comes.
#[derive(Default)]
struct Shared {
    heard: Mutex<Vec<Heard>>,
    /// Answers to the next ones; none: 204. 0: none is given.
    answers: Mutex<VecDeque<u16>>,
}

/// The receiver; ends when dropped, and what it has not answered with it.
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Listener {
    /// Starts one on a free port that answers these to the first ones, then 204; 0: it hears and is silent.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(answers: &[u16]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.iter().copied().collect()),
            ..Shared::default()
        });
        let answering = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&answering);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    // A client that goes away is the client's business.
                    let _ = connection.await;
                });
            }
        });
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook?key=1", self.address)
    }

    /// What came, in its order.
    pub fn heard(&self) -> Vec<Heard> {
        let heard = self.shared.heard.lock();
        heard.expect("nobody panics while adding").clone()
    }

    /// Ids of what came of this event.
    pub fn ids_of(&self, event: &str) -> Vec<String> {
        let heard = self.heard().into_iter();
        let these = heard.filter(|it| it.body["type"] == event);
        these.map(|it| it.id).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let raw = body.collect().await.map(|body| body.to_bytes());
    let raw = raw.unwrap_or_default();
    let id = parts.headers.get("webhook-id");
    let heard = Heard {
        id: id
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        body: serde_json::from_slice(&raw).unwrap_or_default(),
        headers: parts.headers,
        raw,
    };
    let next = {
        let mut answers = shared.answers.lock().expect("nobody panics while taking");
        answers.pop_front().unwrap_or(204)
    };
    shared
        .heard
        .lock()
        .expect("nobody panics while adding")
        .push(heard);
    if next == 0 {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(next).unwrap_or(StatusCode::NO_CONTENT);
    Ok(response)
}
