//! A backend that does what its path says, an ingress, and small clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use skep_model::id::{AllocationId, ServiceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::reach::NoWay;
use crate::{Backend, Closed, Crew, Ingress, Options, Place, Route, Status, Table};

pub(super) const HOST: &str = "app.test";
/// Nothing in these tests takes longer unless it is broken.
pub(super) const SOON: Duration = Duration::from_secs(10);

type TestBody = BoxBody<Bytes, hyper::Error>;

/// As many threads as it takes to be on another one.
pub(super) fn crew() -> Crew {
    Crew::new(2).expect("two threads")
}

/// A backend. Killed when dropped: its listener and connections vanish at once.
pub(super) struct App {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<AtomicU64>,
    /// `/hold` and `/stream` wait for a permit each.
    pub(super) gate: Arc<Semaphore>,
    token: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl App {
    pub(super) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let token = CancellationToken::new();
        let task = tokio::spawn(accept(
            listener,
            name,
            Arc::clone(&requests),
            Arc::clone(&gate),
            token.clone(),
        ));
        Self {
            address,
            requests,
            gate,
            token,
            task: Some(task),
        }
    }

    pub(super) async fn kill(mut self) {
        self.token.cancel();
        self.task
            .take()
            .expect("not killed yet")
            .await
            .expect("ended");
    }

    pub(super) fn served(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    name: &'static str,
    requests: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
    token: CancellationToken,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = token.cancelled() => break,
            accepted = listener.accept() => accepted.expect("accepts").0,
        };
        let (requests, gate) = (Arc::clone(&requests), Arc::clone(&gate));
        let service = hyper::service::service_fn(move |request| {
            requests.fetch_add(1, Ordering::SeqCst);
            answer(name, Arc::clone(&gate), request)
        });
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
        });
    }
    connections.shutdown().await;
}

async fn answer(
    name: &'static str,
    gate: Arc<Semaphore>,
    mut request: Request<Incoming>,
) -> Result<Response<TestBody>, Infallible> {
    if request.headers().contains_key("upgrade") {
        return Ok(upgrade(&mut request));
    }
    let path = request.uri().path().to_owned();
    let asked = request.headers().clone();
    let mut response = match path.as_str() {
        "/headers" => Response::new(text(head_of(&request))),
        "/echo" => Response::new(request.into_body().boxed()),
        "/length" => {
            let length = request
                .into_body()
                .collect()
                .await
                .map_or(0, |body| body.to_bytes().len());
            Response::new(text(length.to_string()))
        }
        "/trailers" => {
            let whole = request.into_body().collect().await;
            let trailers = whole.ok().and_then(|whole| whole.trailers().cloned());
            let names: Vec<_> = trailers.iter().flat_map(HeaderMap::keys).collect();
            Response::new(text(format!("{names:?}")))
        }
        "/hold" => {
            gate.acquire().await.expect("open").forget();
            Response::new(text("held".to_owned()))
        }
        "/stream" => Response::new(stream(gate)),
        "/big" => Response::new(text("x".repeat(64 * 1024 * 1024))),
        "/bad" => {
            let mut response = Response::new(text("bad".to_owned()));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
                .headers_mut()
                .insert("x-skep-error", "forged".parse().expect("a value"));
            response
        }
        "/text" => Response::new(text("text ".repeat(1_000))),
        _ => Response::new(text(name.to_owned())),
    };
    answer_as_asked(&asked, &mut response);
    Ok(response)
}

/// `x-answer-status` of a request is the answer's status, `x-answer-NAME` its header NAME.
fn answer_as_asked(asked: &HeaderMap, response: &mut Response<TestBody>) {
    for (name, value) in asked {
        match name.as_str().strip_prefix("x-answer-") {
            None => {}
            Some("status") => {
                let status = StatusCode::from_bytes(value.as_bytes());
                *response.status_mut() = status.expect("a status");
            }
            Some(name) => {
                let name = HeaderName::try_from(name).expect("a name");
                response.headers_mut().append(name, value.clone());
            }
        }
    }
}

fn head_of(request: &Request<Incoming>) -> String {
    let mut lines: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().expect("text")))
        .collect();
    lines.sort_unstable();
    format!("{} {}\n{}", request.method(), request.uri(), lines.concat())
}

fn upgrade(request: &mut Request<Incoming>) -> Response<TestBody> {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut response = Response::new(text(String::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert("connection", "Upgrade".parse().expect("a value"));
    response
        .headers_mut()
        .insert("upgrade", "echo".parse().expect("a value"));
    response
}

fn text(text: String) -> TestBody {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed()
}

/// `first`, a wait at the gate, `last`.
fn stream(gate: Arc<Semaphore>) -> TestBody {
    let (sender, receiver) = mpsc::channel::<&'static str>(1);
    tokio::spawn(async move {
        let _ = sender.send("first").await;
        gate.acquire().await.expect("open").forget();
        let _ = sender.send("last").await;
    });
    Parts(receiver).boxed()
}

/// Parts of a body as they come.
struct Parts(mpsc::Receiver<&'static str>);

impl Body for Parts {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.get_mut()
            .0
            .poll_recv(cx)
            .map(|next| next.map(|part| Ok(Frame::data(Bytes::from(part)))))
    }
}

/// An ingress that is being served.
pub(super) struct Served {
    pub(super) ingress: Ingress,
    pub(super) address: SocketAddr,
    pub(super) shutdown: CancellationToken,
    pub(super) task: JoinHandle<Closed>,
}

pub(super) async fn serve(options: Options) -> Served {
    serve_ingress(Ingress::reaching(options, crew(), Arc::new(NoWay), None)).await
}

pub(super) async fn serve_ingress(ingress: Ingress) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let (serving, token) = (ingress.clone(), shutdown.clone());
    let task = tokio::spawn(async move { serving.serve(listener, token).await });
    Served {
        ingress,
        address,
        shutdown,
        task,
    }
}

/// An ingress with one route to `backends`, at revision 1.
pub(super) async fn serve_one(options: Options, backends: &[SocketAddr]) -> Served {
    let served = serve(options).await;
    served.ingress.publish(table(1, backends));
    served
}

pub(super) fn table(revision: u64, backends: &[SocketAddr]) -> Table {
    Table {
        revision,
        routes: vec![route(HOST, "/", 1, backends)],
        ..Table::default()
    }
}

pub(super) fn route(
    host: &str,
    path_prefix: &str,
    service: u128,
    backends: &[SocketAddr],
) -> Route {
    let backend = |address: &SocketAddr| Backend {
        allocation: AllocationId::from_u128(u128::from(address.port())),
        place: Place::Here(*address),
    };
    Route {
        sleeps: false,
        rules: None,
        parts: Vec::new(),
        host: host.to_owned(),
        path_prefix: path_prefix.to_owned(),
        service: ServiceId::from_u128(service),
        name: format!("{host}{path_prefix}"),
        backends: backends.iter().map(backend).collect(),
        tried: Vec::new(),
    }
}

/// An address where nothing listens, now and to the end of the process.
pub(super) fn dead_address() -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("bound");
    // Closed, it could become somebody else's who listens.
    std::mem::forget(socket);
    address
}

impl Served {
    pub(super) fn status(&self) -> Status {
        *self.ingress.status().borrow()
    }

    pub(super) async fn drained(&self, revision: u64) {
        let mut status = self.ingress.status();
        let wait = status.wait_for(|status| status.drained_revision >= revision);
        tokio::time::timeout(SOON, wait)
            .await
            .expect("drained in time")
            .expect("the ingress lives");
    }

    pub(super) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One GET on a connection of its own.
    pub(super) async fn get(&self, host: &str, path: &str) -> Reply {
        self.client()
            .await
            .send(Request::get(path).header("host", host), "")
            .await
    }

    /// Sends bytes, and returns all that comes until the end of the connection.
    pub(super) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        stream.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        // A reset after the answer is an end too.
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("ends");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn code(&self) -> Option<&str> {
        self.headers
            .get("x-skep-error")
            .and_then(|value| value.to_str().ok())
    }
}

/// A connection kept alive.
pub(super) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("speaks");
        tokio::spawn(connection.with_upgrades());
        Self { sender }
    }

    pub(super) async fn begin(
        &mut self,
        request: http::request::Builder,
        body: &'static str,
    ) -> hyper::Result<Response<Incoming>> {
        let request = request
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .expect("a request");
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    pub(super) async fn try_send(
        &mut self,
        request: http::request::Builder,
        body: &'static str,
    ) -> hyper::Result<Reply> {
        let (parts, body) = self.begin(request, body).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    pub(super) async fn send(
        &mut self,
        request: http::request::Builder,
        body: &'static str,
    ) -> Reply {
        let reply = tokio::time::timeout(SOON, self.try_send(request, body)).await;
        reply.expect("answered in time").expect("answered")
    }
}
