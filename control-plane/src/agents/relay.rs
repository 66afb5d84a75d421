//! App logs on their way from a node to whoever asked: requests go down the node's session, lines
//! come back on a stream of their own and meet the asker here. What a node connected to another
//! server writes is asked for there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use skep_model::id::{AllocationId, NodeId, ServerId};
use skep_model::network_check::Found;
use skep_model::polling;
use skep_model::probe::Reach;
use skep_model::problem::{Code, Problem};
use skep_model::registry;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use tokio::sync::mpsc;

use super::answers;
use super::elsewhere::Elsewhere;
use super::fleet::{Fleet, Place};
use super::shells::Waiting;

/// Chunks under way to one asker: back-pressure reaches Docker through gRPC's flow control.
const CHUNKS: usize = 16;
/// Messages that may wait for one node.
const NODE_QUEUE: usize = 64;

/// What somebody wants to read.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whose log.
    pub allocation: AllocationId,
    /// Where it runs.
    pub node: NodeId,
    /// Go on as lines come.
    pub follow: bool,
    /// Newest lines to begin with; 0: all.
    pub tail: u32,
    /// Only lines after this cursor, ns since the epoch; 0: all.
    pub after_ns: u64,
    /// Only lines before this, ns since the epoch; 0: all.
    pub until_ns: u64,
    /// Only lines that this regular expression is found in; empty: all.
    pub grep: Arc<str>,
}

#[derive(Default)]
struct Inner {
    /// Who knows where nodes are, and the way there.
    elsewhere: Option<(Fleet, Arc<dyn Elsewhere>)>,
    next: AtomicU64,
    nodes: Mutex<BTreeMap<NodeId, (u64, NodeQueue)>>,
    askers: Mutex<BTreeMap<u64, (NodeId, mpsc::Sender<v1::LogChunk>)>>,
    /// Those who asked for a shell and wait for the node to dial.
    shells: Waiting,
    /// Those who wait for what a node finds when it knocks at others.
    probes: answers::Waiting<Vec<Reach>>,
    /// Those who wait for what a node says of its network.
    checks: answers::Waiting<Found>,
    /// Those who wait for what a node finds in a repository.
    sources: answers::Waiting<polling::Found>,
    /// Those who wait for what a node does at a registry.
    registries: answers::Waiting<registry::Found>,
}

/// Where log streams meet. Cheap to clone.
#[derive(Clone, Default)]
pub struct Relay {
    inner: Arc<Inner>,
}

/// The lines of one allocation; dropping it ends the stream at the node.
pub struct Lines {
    chunks: mpsc::Receiver<v1::LogChunk>,
    /// None: they come through another server, which sees the receiver go.
    _asked: Option<Asked>,
}

/// A request to a node that is connected here; takes itself back.
struct Asked {
    request: u64,
    node: NodeId,
    relay: Relay,
}

/// Boxed: a queue keeps room for many messages, and each of thousands of nodes has one.
type NodeQueue = mpsc::Sender<Box<v1::to_agent::Kind>>;

/// What is to be said to one node.
pub struct ToNode(mpsc::Receiver<Box<v1::to_agent::Kind>>);

impl ToNode {
    /// The next message; none when another session of the node has begun.
    pub async fn recv(&mut self) -> Option<v1::to_agent::Kind> {
        self.0.recv().await.map(|kind| *kind)
    }
}

/// The node is not connected.
pub(super) fn away(what: &str) -> Problem {
    let text = format!("the node is not connected, {what}");
    Problem::new(Code::Unavailable, text).hint("`skep node ls` tells since when")
}

impl Lines {
    /// The next chunk; none when the log has ended.
    pub async fn next(&mut self) -> Option<v1::LogChunk> {
        self.chunks.recv().await
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.relay.inner.askers.lock().remove(&self.request);
        if let Some((_, sender)) = self.relay.inner.nodes.lock().get(&self.node) {
            // A full queue only means that the node goes on until its stream finds nobody here.
            let cancel = v1::LogCancel {
                request: self.request,
            };
            let _ = sender.try_send(Box::new(v1::to_agent::Kind::LogCancel(cancel)));
        }
    }
}

impl Relay {
    /// One that finds nodes at other servers, too.
    pub fn reaching(fleet: Fleet, elsewhere: Arc<dyn Elsewhere>) -> Self {
        let inner = Inner {
            elsewhere: Some((fleet, elsewhere)),
            ..Inner::default()
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A node's session begins: what is to be said to it comes out of the receiver.
    pub fn connect(&self, node: NodeId) -> (u64, ToNode) {
        let (sender, receiver) = mpsc::channel(NODE_QUEUE);
        let session = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner.nodes.lock().insert(node, (session, sender));
        (session, ToNode(receiver))
    }

    /// A node's session ended; those who wait for its lines see an end.
    pub fn disconnect(&self, node: NodeId, session: u64) {
        let mut nodes = self.inner.nodes.lock();
        if nodes
            .get(&node)
            .is_some_and(|(current, _)| *current == session)
        {
            nodes.remove(&node);
            self.inner.askers.lock().retain(|_, (of, _)| *of != node);
            self.inner.shells.leave(node);
            self.inner.probes.leave(node);
            self.inner.checks.leave(node);
            self.inner.sources.leave(node);
            self.inner.registries.leave(node);
        }
    }

    /// Those who wait for a shell.
    pub(super) fn shells(&self) -> &Waiting {
        &self.inner.shells
    }

    /// Those who wait for what nodes find.
    pub(super) fn probes(&self) -> &answers::Waiting<Vec<Reach>> {
        &self.inner.probes
    }

    /// Those who wait for what nodes say of their networks.
    pub(super) fn checks(&self) -> &answers::Waiting<Found> {
        &self.inner.checks
    }

    /// Those who wait for what nodes find in repositories.
    pub(super) fn sources(&self) -> &answers::Waiting<polling::Found> {
        &self.inner.sources
    }

    /// Those who wait for what nodes do at registries.
    pub(super) fn registries(&self) -> &answers::Waiting<registry::Found> {
        &self.inner.registries
    }

    /// A number that no other request of this server has.
    pub(super) fn number(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The server that a node is connected to and the way there; none: it is here, or nowhere.
    pub(super) fn elsewhere(&self, node: NodeId) -> Option<(ServerId, Arc<dyn Elsewhere>)> {
        let (fleet, elsewhere) = self.inner.elsewhere.as_ref()?;
        match fleet.place_of(node)? {
            Place::At(server) => Some((server, elsewhere.clone())),
            Place::Here => None,
        }
    }

    /// Asks a node for an allocation's log, wherever it is connected.
    ///
    /// # Errors
    /// The node is not connected, or busy.
    pub fn open(&self, ask: Ask) -> Result<Lines, Problem> {
        if let Some((server, elsewhere)) = self.elsewhere(ask.node) {
            return Ok(Lines {
                chunks: elsewhere.logs(server, ask),
                _asked: None,
            });
        }
        self.open_here(ask)
    }

    /// Asks a node that is connected to this server.
    ///
    /// # Errors
    /// The node is not connected here, or busy.
    pub fn open_here(&self, ask: Ask) -> Result<Lines, Problem> {
        let request = self.number();
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let message = v1::LogRequest {
            request,
            allocation: id_bytes(ask.allocation.as_u128()),
            follow: ask.follow,
            tail: ask.tail,
            after_ns: ask.after_ns,
            until_ns: ask.until_ns,
            grep: ask.grep.to_string(),
        };
        self.inner.askers.lock().insert(request, (ask.node, sender));
        let asked = Asked {
            request,
            node: ask.node,
            relay: self.clone(),
        };
        let lines = Lines {
            chunks,
            _asked: Some(asked),
        };
        let message = v1::to_agent::Kind::LogRequest(message);
        let told = self.tell(ask.node, message);
        told.map(|()| lines).map_err(|busy| match busy {
            true => Problem::new(Code::Busy, "the node is busy"),
            false => away("its logs cannot be read just now"),
        })
    }

    /// Says something to a node that is connected here.
    ///
    /// # Errors
    /// It is not (false), or has not taken in what it was told before (true).
    pub(super) fn tell(&self, node: NodeId, kind: v1::to_agent::Kind) -> Result<(), bool> {
        let nodes = self.inner.nodes.lock();
        let (_, sender) = nodes.get(&node).ok_or(false)?;
        let told = sender.try_send(Box::new(kind));
        told.map_err(|error| matches!(error, mpsc::error::TrySendError::Full(_)))
    }

    /// Lines that came from `node`. False: nobody wants them any more.
    pub async fn deliver(&self, node: NodeId, chunk: v1::LogChunk) -> bool {
        let sender = {
            let askers = self.inner.askers.lock();
            askers
                .get(&chunk.request)
                .filter(|(of, _)| *of == node)
                .map(|(_, sender)| sender.clone())
        };
        match sender {
            Some(sender) => sender.send(chunk).await.is_ok(),
            None => false,
        }
    }

    /// The stream for `request` has ended.
    pub fn finish(&self, node: NodeId, request: u64) {
        let mut askers = self.inner.askers.lock();
        if askers.get(&request).is_some_and(|(of, _)| *of == node) {
            askers.remove(&request);
        }
    }
}
