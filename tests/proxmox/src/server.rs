//! A world as hosts of Proxmox serve it: HTTP/1.1 over TLS, a listener for each host, any of which answers for all. What their
//! server is known for is done here: reason phrases, connections that are closed when they are idle for 5 s and after each
//! refusal, requests that it does not read at all.

mod agents;
mod certificates;
mod commands;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use skep_proxmox::{Reply, Transport as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

pub use agents::{Agents, Program};
pub use certificates::Certificates;
pub use commands::obey;

use crate::Line;

/// A connection that nothing was asked on for so long is closed.
const IDLE: Duration = Duration::from_secs(5);
/// Largest body (since 8.4).
const BODY_MAX_BYTES: usize = 512 << 10;

/// A host that serves.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// SHA-256 of its certificate, as Proxmox shows it.
    pub pin: String,
    /// Connections that were made to it.
    pub connections: Arc<AtomicUsize>,
}

/// Who may ask, and what there is.
struct Site {
    line: Line,
    token: String,
}

/// Serves a world: a listener on loopback for each of its hosts.
///
/// # Errors
/// No port is to be had.
pub async fn serve(line: &Line, token: &str, certificates: &Certificates) -> Result<Vec<Host>> {
    let site = Arc::new(Site {
        line: line.clone(),
        token: format!("PVEAPIToken={token}"),
    });
    let names: Vec<String> = line.with(|world| world.hosts.keys().cloned().collect());
    let mut hosts = Vec::new();
    for name in names {
        let (config, pin) = certificates.of_host(&name)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port")?;
        let connections = Arc::new(AtomicUsize::new(0));
        hosts.push(Host {
            connections: connections.clone(),
            name: name.clone(),
            address: listener.local_addr()?,
            pin,
        });
        let (site, acceptor) = (site.clone(), TlsAcceptor::from(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (site, acceptor, name) = (site.clone(), acceptor.clone(), name.clone());
                // Nobody is there to answer: neither now nor on what is open.
                if site.is_away(&name) {
                    continue;
                }
                tokio::spawn(async move { connection(&site, &acceptor, (stream, &name)).await });
            }
        });
    }
    Ok(hosts)
}

/// When a connection was used last; none: it is being used.
type Used = Arc<Mutex<Option<Instant>>>;

async fn connection(site: &Arc<Site>, acceptor: &TlsAcceptor, (stream, host): (TcpStream, &str)) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let used: Used = Arc::new(Mutex::new(Some(Instant::now())));
    let service = service_fn(|request: Request<Incoming>| {
        let (site, used, host) = (site.clone(), used.clone(), host.to_owned());
        async move {
            *used.lock().expect("sound") = None;
            let answer = site.answer(request, &host).await;
            *used.lock().expect("sound") = Some(Instant::now());
            answer
        }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    loop {
        let until = used.lock().expect("sound").unwrap_or_else(Instant::now) + IDLE;
        tokio::select! {
            _ = serving.as_mut() => return,
            () = tokio::time::sleep_until(until) => {
                let is_idle = used.lock().expect("sound").is_some_and(|at| at.elapsed() >= IDLE);
                if is_idle {
                    // As theirs: without a word, in the middle of what may come just then.
                    return;
                }
            }
        }
    }
}

impl Site {
    fn is_away(&self, host: &str) -> bool {
        self.line.with(|world| world.hosts.get(host) != Some(&true))
    }

    /// An error: the connection breaks without an answer.
    async fn answer(
        &self,
        request: Request<Incoming>,
        host: &str,
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let broken = |why: &str| std::io::Error::other(why.to_owned());
        if self.is_away(host) {
            return Err(broken("the host is away"));
        }
        let (parts, body) = request.into_parts();
        if let Some(refused) = self.refuse(&parts) {
            if refused.status == 401 {
                let pause = Duration::from_secs(3) / self.line.with(|world| world.speed);
                tokio::time::sleep(pause).await;
            }
            return Ok(written(refused));
        }
        let Ok(body) = Limited::new(body, BODY_MAX_BYTES).collect().await else {
            return Ok(written(plain(501, "for data too large")));
        };
        let request = Request::from_parts(parts, body.to_bytes());
        let reply = self.line.send(request).await;
        let reply = reply.map_err(|failure| broken(&failure.to_string()))?;
        // It went while it answered.
        match self.is_away(host) {
            true => Err(broken("the host is away")),
            false => Ok(written(reply)),
        }
    }

    /// What their server does not read.
    fn refuse(&self, parts: &http::request::Parts) -> Option<Reply> {
        let has = |name| parts.headers.contains_key(name);
        let has_content =
            [Method::GET, Method::DELETE].contains(&parts.method) && has(CONTENT_LENGTH);
        let who = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if !parts.uri.path().starts_with("/api2/json/") {
            return Some(plain(404, "no such file"));
        }
        if has(TRANSFER_ENCODING) {
            return Some(plain(501, "chunked transfer encoding not supported"));
        }
        if has_content {
            let text = format!("Unexpected content for method '{}'", parts.method);
            return Some(plain(501, &text));
        }
        match who == Some(self.token.as_bytes()) {
            true => None,
            false => Some(plain(401, "invalid token value!")),
        }
    }
}

/// A refusal that no part of the API has made.
fn plain(status: u16, reason: &str) -> Reply {
    Reply {
        status,
        reason: reason.to_owned(),
        body: Bytes::new(),
    }
}

fn written(reply: Reply) -> Response<Full<Bytes>> {
    let is_refusal = reply.status >= 400;
    let has_body = !reply.body.is_empty();
    let mut response = Response::new(Full::new(reply.body));
    // 595 and 596 are statuses that only they have.
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Ok(reason) = ReasonPhrase::try_from(reply.reason.into_bytes()) {
        response.extensions_mut().insert(reason);
    }
    let headers = response.headers_mut();
    if has_body {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json;charset=UTF-8"),
        );
    }
    if is_refusal {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
