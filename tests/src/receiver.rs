//! A receiver of logs that speaks Loki's push API, and can be told to take nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<(Value, u64, String)>>,
    is_away: AtomicBool,
    refused: AtomicU64,
}

/// The receiver; ends when dropped.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Receiver {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let answering = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&answering);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
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

    /// Whether it answers 503 to everything.
    pub fn set_away(&self, is_away: bool) {
        self.shared.is_away.store(is_away, Relaxed);
    }

    /// Requests that it did not take.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Relaxed)
    }

    /// What it took: labels, time in ns, text; in the order of its coming.
    pub fn lines(&self) -> Vec<(Value, u64, String)> {
        let lines = self.shared.lines.lock();
        lines.expect("nobody panics while adding").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_push = request.uri().path() == "/loki/api/v1/push";
    let body = request.into_body().collect().await;
    let status = if shared.is_away.load(Relaxed) {
        shared.refused.fetch_add(1, Relaxed);
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        match read(&body).filter(|_| is_push) {
            Some(lines) => {
                let mut all = shared.lines.lock().expect("nobody panics while adding");
                all.extend(lines);
                StatusCode::NO_CONTENT
            }
            None => StatusCode::BAD_REQUEST,
        }
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Ok(response)
}

fn read(body: &[u8]) -> Option<Vec<(Value, u64, String)>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let mut lines = Vec::new();
    for stream in body["streams"].as_array()? {
        for value in stream["values"].as_array()? {
            let at_ns = value[0].as_str()?.parse().ok()?;
            lines.push((
                stream["stream"].clone(),
                at_ns,
                value[1].as_str()?.to_owned(),
            ));
        }
    }
    Some(lines)
}
