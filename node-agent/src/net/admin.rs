//! The endpoint beside the traffic: Traefik's configuration from the last good table, metrics,
//! health. Reads, and changes nothing.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use skep_identity::digest;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::supervised::Figures;
use super::table::{NO_TABLE, Routing, Tables};

/// Connections at the same time: one Traefik, one scraper and some people.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take for its request's head, also between requests: above the polling
/// interval of Traefik, which keeps its connection.
const HEAD_LIMIT: Duration = Duration::from_secs(90);
/// The smallest that hyper allows; requests here are a line and some headers.
const BUFFER_BYTES: usize = 8 << 10;
/// Nothing tells when the kernel can give a connection again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client that has Traefik's configuration already waits for another one: well below the 5 s after
/// which Traefik gives a poll up unless it is told otherwise.
const HOLD: Duration = Duration::from_secs(2);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers requests.
#[derive(Debug)]
pub(super) struct Admin {
    tables: Arc<Tables>,
    /// SHA-256 of the token: of one length, whatever the token's.
    token: Option<[u8; 32]>,
    /// Of the Traefik that this process runs.
    traefik: Option<Arc<Figures>>,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    pub(super) fn new(tables: Arc<Tables>, token: Option<&str>) -> Self {
        let token = token.map(|token| digest::sha256(token.as_bytes()));
        Self {
            tables,
            token,
            traefik: None,
        }
    }

    /// The same with what is counted of the Traefik that this process runs.
    pub(super) fn with_traefik(self, traefik: Option<Arc<Figures>>) -> Self {
        Self { traefik, ..self }
    }

    /// `given` is what the same connection got last: a Traefik that polls on hears of a change at once instead of
    /// asking for it, and whoever connects anew never waits.
    async fn answer<B>(
        &self,
        request: &Request<B>,
        given: &Mutex<Option<Arc<Routing>>>,
        closing: &CancellationToken,
    ) -> Answer {
        let is_poll = request.uri().path() == "/v1/traefik" && request.method() == Method::GET;
        if !is_poll || self.tables.is_by_file() || !self.is_allowed(request) {
            return self.answer_now(request);
        }
        let mut changes = self.tables.changes();
        let has = given.lock().clone();
        let now = self.tables.current();
        let is_same = (has.as_ref().zip(now.as_ref()))
            .is_some_and(|(before, now)| Arc::ptr_eq(before, &now.routing));
        if is_same {
            tokio::select! {
                _ = changes.changed() => {}
                () = closing.cancelled() => {}
                () = sleep(HOLD) => {}
            }
        }
        // Before it is rendered: a change in between is told by the next poll.
        *given.lock() = self.tables.current().map(|it| it.routing);
        self.answer_now(request)
    }

    fn answer_now<B>(&self, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/readyz" | "/v1/traefik" | "/metrics") {
            let all = "not found: /v1/traefik, /metrics, /healthz and /readyz are served\n";
            return answer(StatusCode::NOT_FOUND, TEXT, all);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/healthz" => answer(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => self.ready(),
            _ if !self.is_allowed(request) => {
                let mut refused =
                    answer(StatusCode::UNAUTHORIZED, TEXT, "a bearer token is needed\n");
                refused
                    .headers_mut()
                    .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                refused
            }
            "/v1/traefik" if self.tables.is_by_file() => {
                let why = "Traefik reads a file here (--traefik-file): nothing is polled\n";
                answer(StatusCode::CONFLICT, TEXT, why)
            }
            "/v1/traefik" => self.traefik(),
            _ => answer(StatusCode::OK, METRICS, self.metrics()),
        }
    }

    fn is_allowed<B>(&self, request: &Request<B>) -> bool {
        let Some(expected) = &self.token else {
            return true;
        };
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| digest::constant_time_eq(expected, &digest::sha256(given)))
    }

    fn ready(&self) -> Answer {
        match self.tables.unready() {
            None => answer(StatusCode::OK, TEXT, "ok\n"),
            Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        }
    }

    /// Always whole, or an error: with that Traefik keeps what it has.
    fn traefik(&self) -> Answer {
        match self.tables.fetch() {
            Some(body) => answer(StatusCode::OK, JSON, body),
            None => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("{NO_TABLE}\n"),
            ),
        }
    }

    fn metrics(&self) -> String {
        let mut text = self.tables.ingress().metrics().render();
        let sequence = self.tables.current().map_or(0, |current| current.sequence);
        let failures = self.tables.failures();
        let rendered_in = self.tables.rendered_in().as_secs_f64();
        let _ = write!(
            text,
            "# HELP skep_net_table_sequence Sequence of the route table in use.\n\
             # TYPE skep_net_table_sequence gauge\n\
             skep_net_table_sequence {sequence}\n\
             # HELP skep_net_table_write_failures_total Route tables that could not be written to disk.\n\
             # TYPE skep_net_table_write_failures_total counter\n\
             skep_net_table_write_failures_total {failures}\n\
             # HELP skep_net_traefik_render_seconds How long Traefik's newest configuration took to render.\n\
             # TYPE skep_net_traefik_render_seconds gauge\n\
             skep_net_traefik_render_seconds {rendered_in}\n"
        );
        let ready = u8::from(self.tables.unready().is_none());
        let held = u8::from(self.tables.mesh().lease().is_held());
        let _ = write!(
            text,
            "# HELP skep_net_ready Whether load balancers are to send requests here.\n\
             # TYPE skep_net_ready gauge\n\
             skep_net_ready {ready}\n\
             # HELP skep_net_lease_held Whether the servers count on this node.\n\
             # TYPE skep_net_lease_held gauge\n\
             skep_net_lease_held {held}\n"
        );
        let mesh = self.tables.mesh().counters();
        let [out, within, failed] =
            [&mesh.out, &mesh.within, &mesh.failed].map(|it| it.load(Ordering::Relaxed));
        let _ = write!(
            text,
            "# HELP skep_mesh_streams Connections to containers of other nodes, and from other nodes to ours.\n\
             # TYPE skep_mesh_streams gauge\n\
             skep_mesh_streams{{direction=\"out\"}} {out}\n\
             skep_mesh_streams{{direction=\"in\"}} {within}\n\
             # HELP skep_mesh_failures_total Connections to containers of other nodes that did not come about.\n\
             # TYPE skep_mesh_failures_total counter\n\
             skep_mesh_failures_total {failed}\n"
        );
        text.push_str(&self.tables.private().metrics());
        if let Some(traefik) = &self.traefik {
            text.push_str(&traefik.render());
        }
        text
    }
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Serves until `closing`; connections then end with the answer that they are at.
pub(super) async fn serve(listener: TcpListener, admin: Arc<Admin>, closing: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < MAX_CONNECTIONS;
        tokio::select! {
            biased;
            () = closing.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&admin), closing.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections to the admin endpoint");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, admin: Arc<Admin>, closing: CancellationToken) {
    let given = Arc::new(Mutex::new(None));
    let ends = closing.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (admin, given, ends) = (Arc::clone(&admin), Arc::clone(&given), ends.clone());
        async move { Ok::<_, Infallible>(admin.answer(&request, &given, &ends).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A client that breaks off has nothing to be told.
        _ = connection.as_mut() => return,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
