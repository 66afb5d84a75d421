//! A proxy that stands before a registry and does what bad registries do: refuses for being busy, hangs, or
//! gives something else than was asked for. Speaks plain HTTP/1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::http::response::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What is done to requests for blobs and manifests, so many of them; the others go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Too many requests.
    Busy(u32),
    /// Another content of the same length, for blobs alone.
    Lie(u32),
}

/// A running proxy.
pub struct Faulty {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Faulty {
    /// Stands before the registry at `behind`, on this address (port 0: any).
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn start(listen: SocketAddr, behind: SocketAddr, fault: Fault) -> Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(AtomicU32::new(0));
        let counted = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counted = counted.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let counted = counted.clone();
                    async move { Ok::<_, Infallible>(answer(request, behind, fault, &counted).await) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(served);
            }
        });
        Ok(Self {
            address,
            asked,
            task,
        })
    }

    /// How many requests were treated badly.
    pub fn faults(&self) -> u32 {
        self.asked.load(Relaxed)
    }
}

async fn answer(
    request: Request<Incoming>,
    behind: SocketAddr,
    fault: Fault,
    counted: &AtomicU32,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let is_blob = path.contains("/blobs/sha256:");
    let is_content = is_blob || path.contains("/manifests/");
    let (count, concerns) = match fault {
        Fault::Busy(count) => (count, is_content),
        Fault::Lie(count) => (count, is_blob),
    };
    let is_bad = concerns
        && counted
            .fetch_update(Relaxed, Relaxed, |done| (done < count).then_some(done + 1))
            .is_ok();
    if is_bad && matches!(fault, Fault::Busy(_)) {
        let mut busy = Response::new(Full::new(Bytes::from(
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"too many requests"}]}"#,
        )));
        *busy.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        return busy;
    }
    match forward(request, behind).await {
        Ok((parts, bytes)) => {
            let bytes = if is_bad {
                vec![7; bytes.len()].into()
            } else {
                bytes
            };
            Response::from_parts(parts, Full::new(bytes))
        }
        Err(error) => {
            let mut broken = Response::new(Full::new(Bytes::from(format!("{error:#}"))));
            *broken.status_mut() = StatusCode::BAD_GATEWAY;
            broken
        }
    }
}

async fn forward(request: Request<Incoming>, behind: SocketAddr) -> Result<(Parts, Bytes)> {
    let stream = TcpStream::connect(behind).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let (parts, body) = answer.into_parts();
    Ok((parts, body.collect().await?.to_bytes()))
}
