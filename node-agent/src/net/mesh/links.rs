//! To other nodes: a connection is made when it is first needed, shared by all who need it, and noticed dead by
//! pings.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use hyper::{Request, StatusCode};
use parking_lot::RwLock;
use skep_identity::grpc;
use skep_identity::name::Subject;
use skep_identity::random;
use skep_identity::tls::{self, Expected, Reloadable};
use skep_ingress::{Far, Reached, Reaching};
use skep_model::id::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::stream::MeshStream;
use super::{
    ALPN, CONNECTION_WINDOW_BYTES, Counters, LEAVING_PATH, Open, SEND_BUFFER_BYTES,
    STREAM_WINDOW_BYTES,
};

/// Name resolution, TCP and TLS together.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// A node that dies is noticed within the sum of the two: what it was sent fails then, and not when TCP
/// gives up.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_LIMIT: Duration = Duration::from_millis(1_500);
/// Whoever does not answer a question within that has no answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// Other nodes that are asked at a time.
const MAX_ASKED: usize = 8;
/// A connection that new streams go on.
#[derive(Debug, Clone)]
struct Sender {
    requests: SendRequest<Bytes>,
    /// It is no more, or the other side wants to end it.
    over: CancellationToken,
}

/// A stream, and what tells that its connection is to end.
type Opened = (MeshStream, CancellationToken);

/// A container of another node is not reached.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("this node's agent has not said yet who it is")]
    Nobody,
    #[error("connecting panicked")]
    Panicked,
    #[error("the table does not say where node {0} is")]
    Unknown(NodeId),
    #[error("{address} cannot be dialed")]
    Dial { address: String, source: io::Error },
    #[error("{address} does not answer in time")]
    Silent { address: String },
    #[error("the connection to {address} ended")]
    Broken { address: String, source: h2::Error },
    #[error("{address} answers {status}: {}", why(*status))]
    Refused { address: String, status: StatusCode },
}

fn why(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "the allocation is not fit for traffic there",
        StatusCode::BAD_GATEWAY => "the container took no connection",
        StatusCode::FORBIDDEN => "this node is not one of its cluster",
        _ => "it may be of another version",
    }
}

/// To all nodes.
#[derive(Debug)]
pub(super) struct Links {
    own: watch::Receiver<Option<Arc<Reloadable>>>,
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
    counters: Arc<Counters>,
}

impl Links {
    pub(super) fn new(
        own: watch::Receiver<Option<Arc<Reloadable>>>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            own,
            links: RwLock::default(),
            counters,
        }
    }

    /// Where nodes are from now on. A connection that nothing leads to any more ends with its last stream.
    pub(super) fn publish(&self, peers: HashMap<NodeId, String>) {
        let mut links = self.links.write();
        links.retain(|node, link| peers.get(node) == Some(&link.address));
        for (node, address) in peers {
            links.entry(node).or_insert_with(|| {
                Arc::new(Link {
                    node,
                    address,
                    held: Mutex::default(),
                })
            });
        }
    }

    /// Whether some node answers a question with 200: a few are asked, others each time.
    pub(super) async fn any_answers(&self, path: &'static str) -> bool {
        let Some(own) = self.own.borrow().clone() else {
            return false;
        };
        // In no order that anybody chose.
        let links: Vec<_> = self.links.read().values().cloned().collect();
        let from = usize::from(u16::from_be_bytes(random::bytes()));
        let some = links.iter().cycle().skip(from % links.len().max(1));
        let asked = some.take(links.len().min(MAX_ASKED)).map(|link| {
            let asked = timeout(ASK_LIMIT, Arc::clone(link).ask(Arc::clone(&own), path));
            Box::pin(async move { matches!(asked.await, Ok(Ok(StatusCode::OK))) })
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        while let Some(is_ok) = asked.next().await {
            if is_ok {
                return true;
            }
        }
        false
    }

    pub(super) fn reach(&self, far: Far) -> Reaching {
        let link = self.links.read().get(&far.node).cloned();
        let own = self.own.borrow().clone();
        let counters = self.counters.clone();
        Box::pin(async move {
            let opened = match (link, own) {
                (Some(link), Some(own)) => link.open(own, far).await,
                (None, _) => Err(Error::Unknown(far.node)),
                (_, None) => Err(Error::Nobody),
            };
            match opened {
                Ok((io, leaving)) => Ok(Reached {
                    stream: Box::new(Counted {
                        io,
                        _open: Open::new(&counters, |it| &it.out),
                    }),
                    leaving,
                }),
                Err(error) => {
                    counters.failed.fetch_add(1, Ordering::Relaxed);
                    Err(io::Error::other(error))
                }
            }
        })
    }
}

/// To one node.
#[derive(Debug)]
struct Link {
    node: NodeId,
    address: String,
    /// The connection that new streams go on, and its number; held while one is made.
    held: Mutex<(u64, Option<Sender>)>,
}

impl Link {
    async fn open(self: Arc<Self>, own: Arc<Reloadable>, far: Far) -> Result<Opened, Error> {
        let mut is_last = false;
        loop {
            // A task of its own: whoever is out of patience does not keep the next one from a connection.
            let (link, own) = (self.clone(), own.clone());
            let sender = tokio::spawn(async move { link.sender(&own).await }).await;
            let (number, sender) = sender.unwrap_or(Err(Error::Panicked))?;
            let request = Request::connect(format!("{}:{}", far.allocation, far.port))
                .body(())
                .expect("an id and a number are an authority");
            let broken = |source| Error::Broken {
                address: self.address.clone(),
                source,
            };
            let asked = async {
                let mut requests = sender.requests.clone().ready().await?;
                let (answer, send) = requests.send_request(request, false)?;
                Ok((answer.await?, send))
            };
            match asked.await {
                Ok((answer, send)) if answer.status() == StatusCode::OK => {
                    let stream = MeshStream::new(send, answer.into_body());
                    return Ok((stream, sender.over));
                }
                Ok((answer, _)) => {
                    return Err(Error::Refused {
                        address: self.address.clone(),
                        status: answer.status(),
                    });
                }
                // It was closing: another process may serve there by now.
                Err(error) => {
                    self.leave(number).await;
                    if is_last {
                        return Err(broken(error));
                    }
                    is_last = true;
                }
            }
        }
    }

    /// What the other side answers to a question.
    async fn ask(
        self: Arc<Self>,
        own: Arc<Reloadable>,
        path: &'static str,
    ) -> Result<StatusCode, Error> {
        let (link, with) = (self.clone(), own.clone());
        let sender = tokio::spawn(async move { link.sender(&with).await }).await;
        let (number, sender) = sender.unwrap_or(Err(Error::Panicked))?;
        match get(sender.requests, path).await {
            Ok(status) => Ok(status),
            Err(source) => {
                self.leave(number).await;
                Err(Error::Broken {
                    address: self.address.clone(),
                    source,
                })
            }
        }
    }

    /// A connection that is open as far as is known, and its number.
    async fn sender(&self, own: &Arc<Reloadable>) -> Result<(u64, Sender), Error> {
        let mut held = self.held.lock().await;
        if let (number, Some(sender)) = &*held
            && !sender.over.is_cancelled()
        {
            return Ok((*number, sender.clone()));
        }
        let dialed = timeout(DIAL_LIMIT, self.dial(own)).await;
        let sender = dialed.unwrap_or_else(|_| {
            Err(Error::Silent {
                address: self.address.clone(),
            })
        })?;
        let number = held.0 + 1;
        *held = (number, Some(sender.clone()));
        Ok((number, sender))
    }

    /// Uses this connection no more, unless another one is in its place already.
    async fn leave(&self, number: u64) {
        let mut held = self.held.lock().await;
        if held.0 == number {
            held.1 = None;
        }
    }

    async fn dial(&self, own: &Arc<Reloadable>) -> Result<Sender, Error> {
        let expected = Expected::Exactly(Subject::Node(self.node));
        let config = tls::client_config(own, expected, ALPN);
        let stream = grpc::dial(&self.address, config).await;
        let stream = stream.map_err(|source| Error::Dial {
            address: self.address.clone(),
            source,
        })?;
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|source| Error::Broken {
                address: self.address.clone(),
                source,
            })?;
        let (node, address) = (self.node, self.address.clone());
        tracing::info!(%node, %address, "connected with another node");
        let over = CancellationToken::new();
        tokio::spawn(until_leaving(requests.clone(), over.clone()));
        let ends = over.clone().drop_guard();
        let pings = connection.ping_pong();
        tokio::spawn(async move {
            let _ends = ends;
            // Dropping the connection ends all of its streams.
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = until_silent(pings) => {
                    tracing::warn!(%node, %address, "another node does not answer");
                    return;
                }
            };
            match ended {
                Ok(()) => tracing::info!(%node, %address, "a connection with another node ended"),
                Err(error) => {
                    tracing::warn!(%node, %address, %error, "a connection with another node broke");
                }
            }
        });
        Ok(Sender { requests, over })
    }
}

/// Cancels `over` when the other side says that it is to end: GOAWAY alone tells nobody who holds a stream.
async fn until_leaving(requests: SendRequest<Bytes>, over: CancellationToken) {
    let answered = over.run_until_cancelled(get(requests, LEAVING_PATH)).await;
    // Else it is of another version, or the connection broke: its own task tells that.
    if let Some(Ok(StatusCode::OK)) = answered {
        over.cancel();
    }
}

async fn get(requests: SendRequest<Bytes>, path: &'static str) -> Result<StatusCode, h2::Error> {
    let request = Request::get(format!("https://node{path}")).body(());
    let mut requests = requests.ready().await?;
    let request = request.expect("a fixed path");
    Ok(requests.send_request(request, true)?.0.await?.status())
}

/// Ends when the other side leaves a ping unanswered.
async fn until_silent(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    while let Ok(Ok(_)) = timeout(PING_LIMIT, pings.ping(Ping::opaque())).await {
        sleep(PING_EVERY).await;
    }
}

struct Counted {
    io: MeshStream,
    _open: Open,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
