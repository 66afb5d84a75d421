//! What this server hears from its nodes and never writes into the log: who is connected, when it
//! last spoke, which route table its ingress serves. A new leader hears it all again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skep_model::allocation::Allocation;
use skep_model::id::NodeId;
use skep_model::node::{Node, NodeStatus};
use skep_state::State;
use tokio::sync::watch;

/// A node that says nothing for so long is lost: five heartbeats.
pub const LOST_AFTER: Duration = Duration::from_secs(10);

/// Which route table a node's ingress serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteStatus {
    /// Revision of the table in use.
    pub applied: u64,
    /// Newest revision of which all that it removed has finished.
    pub drained: u64,
}

#[derive(Debug, Clone, Copy)]
struct Presence {
    session: u64,
    is_connected: bool,
    last_heard: Instant,
    runtime_ok: bool,
    routes: RouteStatus,
}

struct Inner {
    started: Instant,
    nodes: Mutex<BTreeMap<NodeId, Presence>>,
    changed: watch::Sender<u64>,
}

/// The nodes as this server hears them. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

impl Default for Fleet {
    fn default() -> Self {
        let (changed, _) = watch::channel(0);
        Self {
            inner: Arc::new(Inner {
                started: Instant::now(),
                nodes: Mutex::default(),
                changed,
            }),
        }
    }
}

impl Fleet {
    /// Wakes when a node came, went, or its ingress or runtime changed; not on heartbeats.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// How many nodes are connected here.
    pub fn connected(&self) -> usize {
        self.inner
            .nodes
            .lock()
            .values()
            .filter(|presence| presence.is_connected)
            .count()
    }

    /// A session begins. False: the node has another that is alive, the second is refused.
    pub fn connect(&self, node: NodeId, session: u64) -> bool {
        let mut nodes = self.inner.nodes.lock();
        let is_taken = nodes
            .get(&node)
            .is_some_and(|p| p.is_connected && p.last_heard.elapsed() < LOST_AFTER / 2);
        if is_taken {
            return false;
        }
        let fresh = Presence {
            session,
            is_connected: true,
            last_heard: Instant::now(),
            runtime_ok: true,
            routes: RouteStatus::default(),
        };
        nodes.insert(node, fresh);
        drop(nodes);
        self.wake();
        true
    }

    /// A session ended.
    pub fn disconnect(&self, node: NodeId, session: u64) {
        self.update(node, session, |presence| {
            presence.is_connected = false;
            true
        });
    }

    /// The node spoke.
    pub fn heard(&self, node: NodeId, session: u64) {
        self.update(node, session, |_| false);
    }

    /// The node's runtime answers, or does not.
    pub fn runtime(&self, node: NodeId, session: u64, ok: bool) {
        self.update(node, session, |presence| {
            std::mem::replace(&mut presence.runtime_ok, ok) != ok
        });
    }

    /// The node's ingress serves this.
    pub fn routes(&self, node: NodeId, session: u64, status: RouteStatus) {
        self.update(node, session, |presence| {
            std::mem::replace(&mut presence.routes, status) != status
        });
    }

    fn update(&self, node: NodeId, session: u64, change: impl FnOnce(&mut Presence) -> bool) {
        let mut nodes = self.inner.nodes.lock();
        let Some(presence) = nodes
            .get_mut(&node)
            .filter(|presence| presence.session == session)
        else {
            return;
        };
        presence.last_heard = Instant::now();
        let changed = change(presence);
        drop(nodes);
        if changed {
            self.wake();
        }
    }

    fn wake(&self) {
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// What the leader should judge of a node, and when to look again if silence goes on. A server
    /// that has just started gives every node the full time to come back.
    pub fn judge(&self, node: &Node) -> (NodeStatus, Option<Instant>) {
        let nodes = self.inner.nodes.lock();
        match nodes.get(&node.id) {
            Some(presence)
                if presence.is_connected && presence.last_heard.elapsed() < LOST_AFTER =>
            {
                let status = if presence.runtime_ok {
                    NodeStatus::Ready
                } else {
                    NodeStatus::RuntimeDown
                };
                (status, Some(presence.last_heard + LOST_AFTER))
            }
            Some(presence) => silent(node, presence.last_heard),
            None => silent(node, self.inner.started),
        }
    }

    /// Whether every live ingress has stopped sending requests to a withdrawn allocation, and those
    /// under way have ended.
    pub fn is_drained(&self, view: &State, allocation: &Allocation) -> bool {
        self.ingresses(view, |status| {
            status.applied.min(status.drained) >= allocation.desired_index
        })
    }

    /// Whether every live ingress serves a table at least as new as `revision`.
    pub fn is_published(&self, view: &State, revision: u64) -> bool {
        self.ingresses(view, |status| status.applied >= revision)
    }

    fn ingresses(&self, view: &State, check: impl Fn(RouteStatus) -> bool) -> bool {
        let nodes = self.inner.nodes.lock();
        view.nodes()
            .filter(|node| node.facts.ingress_port.is_some() && node.status != NodeStatus::Lost)
            .all(|node| {
                nodes
                    .get(&node.id)
                    .is_some_and(|presence| check(presence.routes))
            })
    }
}

fn silent(node: &Node, since: Instant) -> (NodeStatus, Option<Instant>) {
    let lost_at = since + LOST_AFTER;
    if node.status == NodeStatus::Lost || lost_at <= Instant::now() {
        return (NodeStatus::Lost, None);
    }
    (node.status, Some(lost_at))
}
