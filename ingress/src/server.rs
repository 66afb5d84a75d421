//! Listeners and clients' connections: accepting, limits, deadlines, graceful end. What a
//! request means is [`crate::edge`]'s and [`crate::proxy`]'s.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use skep_model::tcp::TlsMode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::arrival::{PROBE_AFTER, PROBE_EVERY, arrived, introduce, pause_after, tune};
use crate::connection::{Activity, Verdict, Watched};
use crate::crew;
use crate::edge::{self, Client};
use crate::endpoint::{self, Endpoint};
use crate::ingress::{Ingress, Shared};
use crate::options::Options;
use crate::origin::{Peer, Scheme};
use crate::tcp::{self, Call};
use crate::tls::{self, Tls, TlsError};
use crate::tunnel::Tunnels;

/// How often idle connections to backends are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// After a handover a connection without a request may have one on its way for so long: whoever uses
/// it later than that has to expect its end, as ever.
const LAST_CALL: Duration = Duration::from_secs(10);
/// How long the node's own proxy may keep a connection without a request: longer than it does (Traefik:
/// 90 s), so that it never sends one that crosses our closing.
const ENDPOINT_IDLE: Duration = Duration::from_secs(300);
/// The smallest buffer that hyper allows for a head, in bytes.
const MIN_BUFFER_BYTES: usize = 8192;

/// How a listener ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Connections (upgraded ones included) that were still open at the drain deadline and
    /// were cut.
    pub cut: usize,
}

impl Ingress {
    /// Serves HTTP/1.1 and HTTP/2 without TLS (by prior knowledge) on `listener` until
    /// `shutdown`; then takes no more connections and waits up to
    /// [`Options::drain_timeout`] for requests and upgraded connections to end. Several
    /// listeners may be served at the same time.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Closed {
        let never = CancellationToken::new();
        self.serve_or_hand_over(listener, shutdown, (never, Duration::ZERO))
            .await
    }

    /// The same; where another process takes the listener over (`handed`) as much as `limit` is waited.
    /// Until then nobody is turned away: a connection without a request stays for
    /// 10 s in case one is on its way, and each answer of HTTP/1 says that it is the last.
    pub async fn serve_or_hand_over(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
        handover: (CancellationToken, Duration),
    ) -> Closed {
        self.serve_on(listener, Door::Plain, shutdown, handover)
            .await
    }

    /// The same under TLS, with the certificates of [`Ingress::set_certificates`]; HTTP/2 is agreed upon
    /// in the handshake.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub async fn serve_tls_or_hand_over(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
        handover: (CancellationToken, Duration),
    ) -> Result<Closed, TlsError> {
        let certificates = Arc::clone(&self.shared.certificates);
        let challenges = Arc::clone(&self.shared.challenges);
        let tls = Arc::new(Tls::new(certificates, challenges, &self.shared.options)?);
        Ok(self
            .serve_on(listener, Door::Tls(tls), shutdown, handover)
            .await)
    }

    /// Serves the addresses of [`Ingress::addresses`], of which `listener` has to take all: each is a backend
    /// that a proxy on this machine has chosen. The proxy is believed who its clients are.
    pub async fn serve_endpoints(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
        handover: (CancellationToken, Duration),
    ) -> Closed {
        self.serve_on(listener, Door::Endpoints, shutdown, handover)
            .await
    }

    async fn serve_on(
        &self,
        listener: TcpListener,
        door: Door,
        shutdown: CancellationToken,
        (handed, limit): (CancellationToken, Duration),
    ) -> Closed {
        let shared = &self.shared;
        let builder = Arc::new(http_builder(&shared.options));
        let tunnels = Tunnels::default();
        let mut connections = JoinSet::new();
        let mut sweeps = interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = connections.len() < shared.options.max_connections;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = handed.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if has_room => match accepted {
                    Ok((stream, peer)) => {
                        tune(&stream);
                        // Of no runtime until its own has it.
                        let Ok(stream) = stream.into_std() else { continue };
                        let endpoint = match door.endpoint_of(shared, &stream) {
                            Ok(endpoint) => endpoint,
                            Err(Nobody) => continue,
                        };
                        let (runtime, place) = shared.crew.place();
                        let connection = Connection {
                            shared: Arc::clone(shared),
                            peer,
                            tunnels: tunnels.clone(),
                            shutdown: shutdown.clone(),
                            handed: handed.clone(),
                            endpoint,
                            _place: place,
                        };
                        let builder = Arc::clone(&builder);
                        // Two kinds of tasks: the one without TLS is small.
                        match &door {
                            Door::Plain | Door::Endpoints => connections.spawn_on(connection.plain(stream, builder), &runtime),
                            Door::Tls(tls) => connections.spawn_on(connection.encrypted(stream, builder, Arc::clone(tls)), &runtime),
                        };
                    }
                    Err(error) => pause_after(&error).await,
                },
                _ = sweeps.tick() => shared.sweep(),
            }
        }
        drop(listener);
        let limits = (limit, shared.options.drain_timeout);
        drain_from((connections, tunnels), &shutdown, limits).await
    }
}

/// Waits for the end of what is open: so long after a handover, and no longer than this after `shutdown`.
pub(crate) async fn drain_from(
    (connections, tunnels): (JoinSet<()>, Tunnels),
    shutdown: &CancellationToken,
    (limit, drain_timeout): (Duration, Duration),
) -> Closed {
    let ended = async {
        shutdown.cancelled().await;
        sleep(drain_timeout).await;
    };
    if shutdown.is_cancelled() {
        return drain_until(connections, tunnels, ended).await;
    }
    let deadline = async {
        tokio::select! {
            () = sleep(limit) => {}
            () = ended => {}
        }
    };
    drain_until(connections, tunnels, deadline).await
}

async fn drain_until(
    mut connections: JoinSet<()>,
    tunnels: Tunnels,
    deadline: impl Future<Output = ()>,
) -> Closed {
    tunnels.tracker.close();
    let all = async {
        while connections.join_next().await.is_some() {}
        tunnels.tracker.wait().await;
    };
    tokio::select! {
        biased;
        () = all => return Closed { cut: 0 },
        () = deadline => {}
    }
    let cut = connections.len() + tunnels.tracker.len();
    connections.shutdown().await;
    tunnels.cut.cancel();
    tunnels.tracker.wait().await;
    Closed { cut }
}

fn http_builder(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Ours: hyper's counts the idle time between requests too and allocates a timer for each.
        .header_read_timeout(None)
        .max_buf_size(options.max_header_bytes.max(MIN_BUFFER_BYTES));
    const HYPERS_OWN: usize = 100;
    if options.max_headers != HYPERS_OWN {
        builder.http1().max_headers(options.max_headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_header_list_size(u32::try_from(options.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PROBE_AFTER)
        .keep_alive_timeout(PROBE_EVERY);
    builder
}

/// What a listener is for.
enum Door {
    Plain,
    Tls(Arc<Tls>),
    Endpoints,
}

/// There is nothing behind an address.
struct Nobody;

impl Door {
    /// What `stream` was dialed for, where that decides.
    fn endpoint_of(
        &self,
        shared: &Shared,
        stream: &StdStream,
    ) -> Result<Option<Arc<Endpoint>>, Nobody> {
        if !matches!(self, Self::Endpoints) {
            return Ok(None);
        }
        let dialed = stream.local_addr().map_err(|_| Nobody)?.ip();
        let found = endpoint::is_endpoint(dialed).then(|| shared.endpoints.at(dialed));
        found.flatten().map(Some).ok_or(Nobody)
    }
}

struct Connection {
    shared: Arc<Shared>,
    peer: SocketAddr,
    tunnels: Tunnels,
    shutdown: CancellationToken,
    /// Another process accepts in this one's place.
    handed: CancellationToken,
    /// Behind the address that was dialed.
    endpoint: Option<Arc<Endpoint>>,
    /// On the thread that serves it.
    _place: Option<crew::Place>,
}

impl Connection {
    async fn plain(mut self, stream: StdStream, builder: Arc<auto::Builder<TokioExecutor>>) {
        let Some(mut stream) = arrived(stream) else {
            return;
        };
        if self.introduce(&mut stream).await {
            self.run(stream, builder, Scheme::Http).await;
        }
    }

    async fn encrypted(
        mut self,
        stream: StdStream,
        builder: Arc<auto::Builder<TokioExecutor>>,
        tls: Arc<Tls>,
    ) {
        let Some(mut stream) = arrived(stream) else {
            return;
        };
        if !self.introduce(&mut stream).await {
            return;
        }
        let Some(stream) = self.pass_named(stream, &tls).await else {
            return;
        };
        match tls.accept(stream).await {
            Ok(stream) if tls::is_proof(&stream) => {}
            Ok(stream) => self.run(stream, builder, Scheme::Https).await,
            Err(error) => {
                self.shared.registry.failed_arrival();
                tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed");
            }
        }
    }

    /// Serves a connection that its handshake's name leads to a service as it is, to its end. Any other comes
    /// back as it came; none: it is over.
    async fn pass_named(&self, stream: TcpStream, tls: &Tls) -> Option<TcpStream> {
        if !self.shared.has_names() {
            return Some(stream);
        }
        let hello = match tls.peek(&stream).await {
            Ok(hello) => hello,
            Err(error) => {
                self.shared.registry.failed_arrival();
                tracing::debug!(peer = %self.peer, %error, "a TLS handshake did not begin");
                return None;
            }
        };
        let found = hello.and_then(|hello| Some((self.shared.named(&hello.name)?, hello)));
        let Some(((at, mode), hello)) = found else {
            return Some(stream);
        };
        let call = Call {
            at,
            client: self.peer,
            dialed: stream.local_addr().ok()?,
        };
        match mode {
            TlsMode::Passthrough => tcp::carry(&self.shared, &call, stream).await,
            // The authority is answered in the handshake.
            TlsMode::Terminate if hello.is_proof => return Some(stream),
            TlsMode::Terminate => match tls.accept_any(stream).await {
                Ok(stream) => tcp::carry(&self.shared, &call, stream).await,
                Err(error) => {
                    self.shared.registry.failed_arrival();
                    tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed");
                }
            },
        }
        None
    }

    /// Learns whose connection this is. False: nobody said.
    async fn introduce(&mut self, stream: &mut TcpStream) -> bool {
        if self.endpoint.is_some() {
            return true;
        }
        let told = introduce(&self.shared, self.peer, stream).await;
        self.peer = told.unwrap_or(self.peer);
        told.is_some()
    }

    async fn run<I>(self, stream: I, builder: Arc<auto::Builder<TokioExecutor>>, scheme: Scheme)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _present = self.shared.registry.connections.enter();
        let activity = Activity::new();
        let trusted = &self.shared.options.trusted_proxies;
        let idle = match self.endpoint {
            Some(_) => ENDPOINT_IDLE,
            None => self.shared.options.idle_timeout,
        };
        let client = Arc::new(Client {
            shared: Arc::clone(&self.shared),
            activity: Arc::clone(&activity),
            peer: match self.endpoint {
                Some(_) => Peer::own_proxy(self.peer),
                None => Peer::new(self.peer, scheme, trusted),
            },
            tunnels: self.tunnels,
            endpoint: self.endpoint,
        });
        let handed = self.handed.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (client, handed) = (Arc::clone(&client), handed.clone());
            async move {
                let is_http1 = request.version() <= Version::HTTP_11;
                let mut answer = edge::handle(client, request).await;
                let is_upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
                if handed.is_cancelled() && is_http1 && !is_upgrade {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(io, service));
        let mut checks = interval(Activity::check_every(&self.shared.options));
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut draining, mut closing) = (false, false);
        let last_call = async {
            self.handed.cancelled().await;
            sleep(LAST_CALL).await;
        };
        let mut last_call = std::pin::pin!(last_call);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %self.peer, error, "a client's connection broke");
                    }
                    return;
                }
                () = self.shutdown.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = last_call.as_mut(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = checks.tick() => match activity.verdict(&self.shared.options, idle) {
                    Verdict::Keep => {}
                    Verdict::Idle if !closing => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Verdict::Idle | Verdict::Stalled => return,
                },
            }
        }
    }
}
