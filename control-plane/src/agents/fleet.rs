//! What is heard from the nodes and never written into the log: who is connected and where, when it
//! last spoke, which route table its ingress serves. Owns what this server's own sessions say and
//! what the other servers report of theirs; judges silence, and only on behalf of the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skep_identity::key_id::KeyId;
use skep_model::allocation::Allocation;
use skep_model::id::{NodeId, ServerId};
use skep_model::node::{Node, NodeStatus};
use skep_state::State;
use tokio::sync::watch;

/// A node that says nothing for so long is lost: four heartbeats. What ran there is replaced at once then,
/// and a session whose server is gone has begun anew long before.
pub const LOST_AFTER: Duration = Duration::from_secs(8);
/// Between two words on the same node's second agent.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Nodes known before the first look for those that are gone for good.
const PRUNE_FROM: usize = 64;

/// Which route table a node's ingress serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteStatus {
    /// Revision of the table in use.
    pub applied: u64,
    /// Newest revision of which all that it removed has finished.
    pub drained: u64,
}

/// How a node's runtime is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runtime {
    /// It answers.
    #[default]
    Ok,
    /// It does not answer.
    Down,
    /// It answers a ping, and does nothing else.
    Wedged,
}

impl Runtime {
    /// As messages say it.
    pub fn of(ok: bool, wedged: bool) -> Self {
        match (ok, wedged) {
            (true, _) => Self::Ok,
            (false, true) => Self::Wedged,
            (false, false) => Self::Down,
        }
    }

    const fn status(self) -> NodeStatus {
        match self {
            Self::Ok => NodeStatus::Ready,
            Self::Down => NodeStatus::RuntimeDown,
            Self::Wedged => NodeStatus::RuntimeWedged,
        }
    }
}

/// What one server says of one node that is, or was, connected to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Of whom.
    pub node: NodeId,
    /// Whether its session lives.
    pub connected: bool,
    /// Whether its runtime answers.
    pub runtime: Runtime,
    /// What its ingress serves.
    pub routes: RouteStatus,
    /// How long ago it last spoke.
    pub silent: Duration,
    /// The CA that signed its certificate, where it says so.
    pub ca: Option<KeyId>,
}

/// Where a node's session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At this server.
    Here,
    /// At that one.
    At(ServerId),
}

#[derive(Debug, Clone, Copy)]
struct Presence {
    session: u64,
    is_connected: bool,
    last_heard: Instant,
    runtime: Runtime,
    routes: RouteStatus,
    ca: Option<KeyId>,
    /// When it was last touched, in the fleet's own counting.
    version: u64,
}

impl Presence {
    fn is_live(&self) -> bool {
        self.is_connected && self.last_heard.elapsed() < LOST_AFTER
    }

    /// Two servers may speak of one node: whoever has it connected knows better than who lost it,
    /// and who heard it last knows better than a session that nobody has noticed to be dead.
    fn rank(&self) -> (bool, Instant) {
        (self.is_live(), self.last_heard)
    }
}

/// The nodes that one server speaks of.
#[derive(Debug, Default)]
struct Heard {
    nodes: BTreeMap<NodeId, Presence>,
    prune_at: usize,
}

impl Heard {
    /// Whoever has been gone for long is forgotten: pools come and go.
    fn put(&mut self, node: NodeId, presence: Presence) {
        if self.nodes.len() >= self.prune_at.max(PRUNE_FROM) {
            self.nodes
                .retain(|_, of| of.is_connected || of.last_heard.elapsed() < 2 * LOST_AFTER);
            self.prune_at = 2 * self.nodes.len();
        }
        self.nodes.insert(node, presence);
    }
}

#[derive(Debug)]
struct Books {
    here: Heard,
    there: BTreeMap<ServerId, Heard>,
    version: u64,
    /// Silence before this is not held against anybody.
    judged_from: Instant,
    /// Nodes whose second agent was refused, and when that was last told.
    doubled: BTreeMap<NodeId, Instant>,
}

impl Books {
    fn best(&self, node: NodeId) -> Option<(Place, &Presence)> {
        let here = self.here.nodes.get(&node).map(|of| (Place::Here, of));
        let there = self
            .there
            .iter()
            .filter_map(|(server, heard)| Some((Place::At(*server), heard.nodes.get(&node)?)));
        here.into_iter()
            .chain(there)
            .max_by_key(|(_, presence)| presence.rank())
    }
}

struct Inner {
    books: Mutex<Books>,
    changed: watch::Sender<u64>,
}

/// The nodes as this server hears of them. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

impl Default for Fleet {
    fn default() -> Self {
        let books = Books {
            here: Heard::default(),
            there: BTreeMap::new(),
            version: 0,
            judged_from: Instant::now(),
            doubled: BTreeMap::new(),
        };
        Self {
            inner: Arc::new(Inner {
                books: Mutex::new(books),
                changed: watch::Sender::new(0),
            }),
        }
    }
}

impl Fleet {
    /// Wakes when a node came, went, or its ingress or runtime changed; not on heartbeats.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// How many nodes are connected to this server.
    pub fn connected(&self) -> usize {
        let books = self.inner.books.lock();
        let nodes = books.here.nodes.values();
        nodes.filter(|presence| presence.is_connected).count()
    }

    /// Where a node is connected, by the newest word; none: nowhere that is known of.
    pub fn place_of(&self, node: NodeId) -> Option<Place> {
        let books = self.inner.books.lock();
        let (place, presence) = books.best(node)?;
        presence.is_live().then_some(place)
    }

    /// A session begins. False: the node has another one here that is alive, the second is refused.
    pub fn connect(&self, node: NodeId, session: u64) -> bool {
        let mut books = self.inner.books.lock();
        let is_taken = (books.here.nodes.get(&node))
            .is_some_and(|p| p.is_connected && p.last_heard.elapsed() < LOST_AFTER / 2);
        if is_taken {
            return false;
        }
        books.version += 1;
        let fresh = Presence {
            session,
            is_connected: true,
            last_heard: Instant::now(),
            runtime: Runtime::Ok,
            routes: RouteStatus::default(),
            ca: None,
            version: books.version,
        };
        books.here.put(node, fresh);
        drop(books);
        self.wake();
        true
    }

    /// A second agent of a node is refused. Whether that is worth telling: once a minute is.
    pub fn is_doubling_news(&self, node: NodeId) -> bool {
        let doubled = &mut self.inner.books.lock().doubled;
        doubled.retain(|_, told| told.elapsed() < TELL_AGAIN);
        let is_news = !doubled.contains_key(&node);
        doubled.entry(node).or_insert_with(Instant::now);
        is_news
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
    pub fn runtime(&self, node: NodeId, session: u64, runtime: Runtime) {
        self.update(node, session, |presence| {
            std::mem::replace(&mut presence.runtime, runtime) != runtime
        });
    }

    /// The node's ingress serves this.
    pub fn routes(&self, node: NodeId, session: u64, status: RouteStatus) {
        self.update(node, session, |presence| {
            std::mem::replace(&mut presence.routes, status) != status
        });
    }

    /// The node spoke, and its certificate is of this CA.
    pub fn certified(&self, node: NodeId, session: u64, ca: Option<KeyId>) {
        self.update(node, session, |presence| {
            presence.ca = ca;
            false
        });
    }

    /// The CA that signed a node's certificate, by the newest word of it; none: not known.
    pub fn ca_of(&self, node: NodeId) -> Option<KeyId> {
        let books = self.inner.books.lock();
        books.best(node)?.1.ca
    }

    fn update(&self, node: NodeId, session: u64, change: impl FnOnce(&mut Presence) -> bool) {
        let mut books = self.inner.books.lock();
        books.version += 1;
        let version = books.version;
        let presence = books.here.nodes.get_mut(&node);
        let Some(presence) = presence.filter(|presence| presence.session == session) else {
            return;
        };
        presence.last_heard = Instant::now();
        presence.version = version;
        let changed = change(presence);
        drop(books);
        if changed {
            self.wake();
        }
    }

    fn wake(&self) {
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// What this server's own sessions have said since `version` (0: all of it), and the version to
    /// ask from next time.
    pub fn words_since(&self, version: u64) -> (Vec<Word>, u64) {
        let books = self.inner.books.lock();
        let fresh = (books.here.nodes.iter()).filter(|(_, presence)| presence.version > version);
        let words = fresh.map(|(node, presence)| Word {
            node: *node,
            connected: presence.is_connected,
            runtime: presence.runtime,
            routes: presence.routes,
            silent: presence.last_heard.elapsed(),
            ca: presence.ca,
        });
        (words.collect(), books.version)
    }

    /// What another server says of its nodes; `full`: it is all of it, forget what it said before.
    pub fn learn(&self, server: ServerId, full: bool, words: Vec<Word>) {
        let now = Instant::now();
        let mut books = self.inner.books.lock();
        let heard = books.there.entry(server).or_default();
        let mut changed = full;
        if full {
            *heard = Heard::default();
        }
        for word in words {
            let fresh = Presence {
                session: 0,
                is_connected: word.connected,
                last_heard: now.checked_sub(word.silent).unwrap_or(now),
                runtime: word.runtime,
                routes: word.routes,
                ca: word.ca,
                version: 0,
            };
            changed |= heard.nodes.get(&word.node).is_none_or(|old| {
                (old.is_connected, old.runtime, old.routes)
                    != (fresh.is_connected, fresh.runtime, fresh.routes)
            });
            heard.put(word.node, fresh);
        }
        drop(books);
        if changed {
            self.wake();
        }
    }

    /// A server is no longer of the cluster: what it said counts no more.
    pub fn forget(&self, server: ServerId) {
        if self.inner.books.lock().there.remove(&server).is_some() {
            self.wake();
        }
    }

    /// This server has just been elected: every node is given the full time to be heard of again.
    pub fn begin_judging(&self) {
        self.inner.books.lock().judged_from = Instant::now();
    }

    /// What the leader should judge of a node, and when to look again if silence goes on. A leader
    /// that has just begun gives every node the full time to come back.
    pub fn judge(&self, node: &Node) -> (NodeStatus, Option<Instant>) {
        let books = self.inner.books.lock();
        match books.best(node.id) {
            Some((_, presence)) if presence.is_live() => {
                let status = presence.runtime.status();
                (status, Some(presence.last_heard + LOST_AFTER))
            }
            Some((_, presence)) => silent(node, presence.last_heard.max(books.judged_from)),
            None => silent(node, books.judged_from),
        }
    }

    /// Whether every live ingress has stopped sending requests to a withdrawn allocation, and those
    /// under way have ended.
    pub fn is_drained(&self, view: &State, allocation: &Allocation) -> bool {
        // Where withdrawing it changed no table (a worker has no routes), the newest table is without it.
        let without = allocation.desired_index.min(view.routes_revision());
        self.ingresses(view, |status| status.applied.min(status.drained) >= without)
    }

    /// Whether every live ingress serves a table at least as new as `revision`.
    pub fn is_published(&self, view: &State, revision: u64) -> bool {
        self.ingresses(view, |status| status.applied >= revision)
    }

    fn ingresses(&self, view: &State, check: impl Fn(RouteStatus) -> bool) -> bool {
        let books = self.inner.books.lock();
        view.nodes()
            .filter(|node| node.facts.ingress_port.is_some() && node.status != NodeStatus::Lost)
            .all(|node| {
                let best = books.best(node.id);
                best.is_some_and(|(_, presence)| check(presence.routes))
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

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::node::Facts;

    const NODE: NodeId = NodeId::from_u128(1);
    const OTHER: ServerId = ServerId::from_u128(2);

    fn node(status: NodeStatus) -> Node {
        Node {
            id: NODE,
            name: "one".into(),
            facts: Facts::default(),
            status,
            status_ms: 0,
            generation: 0,
            joined_ms: 0,
            meta: BTreeMap::new(),
            admin: Default::default(),
            seat: 0,
        }
    }

    fn word(connected: bool, silent: Duration) -> Word {
        Word {
            node: NODE,
            connected,
            runtime: Runtime::Ok,
            routes: RouteStatus::default(),
            silent,
            ca: None,
        }
    }

    #[test]
    fn another_servers_word_counts_until_it_is_too_old() {
        let fleet = Fleet::default();
        fleet.learn(OTHER, true, vec![word(true, Duration::ZERO)]);
        assert_eq!(fleet.place_of(NODE), Some(Place::At(OTHER)));
        assert_eq!(
            fleet.judge(&node(NodeStatus::Lost)).0,
            NodeStatus::Ready,
            "heard of through the other server"
        );
        fleet.learn(OTHER, false, vec![word(true, LOST_AFTER)]);
        assert_eq!(fleet.place_of(NODE), None);
        assert_eq!(
            fleet.judge(&node(NodeStatus::Lost)).0,
            NodeStatus::Lost,
            "a dead server's word has run out"
        );
    }

    #[test]
    fn a_node_that_moved_is_where_it_was_heard_last() {
        let fleet = Fleet::default();
        assert!(fleet.connect(NODE, 1));
        fleet.learn(OTHER, true, vec![word(false, Duration::ZERO)]);
        assert_eq!(fleet.place_of(NODE), Some(Place::Here), "connected wins");
        fleet.disconnect(NODE, 1);
        assert_eq!(fleet.place_of(NODE), None);
        fleet.learn(OTHER, false, vec![word(true, Duration::from_secs(3))]);
        assert_eq!(fleet.place_of(NODE), Some(Place::At(OTHER)));
        fleet.learn(OTHER, true, vec![]);
        assert_eq!(fleet.place_of(NODE), None, "a full report replaces");
    }

    #[test]
    fn the_ca_of_a_nodes_certificate_is_what_the_node_said_last() {
        let fleet = Fleet::default();
        let (old, new) = (KeyId::from_bytes(&[1; 20]), KeyId::from_bytes(&[2; 20]));
        let told = |ca| Word {
            ca,
            ..word(true, Duration::ZERO)
        };
        assert_eq!(fleet.ca_of(NODE), None);
        fleet.learn(OTHER, true, vec![told(old)]);
        assert_eq!(fleet.ca_of(NODE), old);
        fleet.connect(NODE, 1);
        assert_eq!(fleet.ca_of(NODE), None, "a new session has not said yet");
        fleet.certified(NODE, 1, new);
        assert_eq!(fleet.ca_of(NODE), new);
        assert_eq!(fleet.words_since(0).0[0].ca, new);
    }

    #[test]
    fn a_new_leader_gives_everybody_time() {
        let fleet = Fleet::default();
        let long_ago = Instant::now().checked_sub(2 * LOST_AFTER);
        fleet.inner.books.lock().judged_from = long_ago.expect("a machine that is up for a while");
        assert_eq!(fleet.judge(&node(NodeStatus::Ready)).0, NodeStatus::Lost);
        fleet.begin_judging();
        let (status, look_again) = fleet.judge(&node(NodeStatus::Ready));
        assert_eq!(status, NodeStatus::Ready);
        assert!(look_again.is_some());
    }

    #[test]
    fn words_are_told_once_and_again_when_there_is_news() {
        let fleet = Fleet::default();
        fleet.connect(NODE, 1);
        let (all, upto) = fleet.words_since(0);
        assert_eq!(all.len(), 1);
        assert_eq!(fleet.words_since(upto).0, vec![]);
        fleet.heard(NODE, 1);
        assert_eq!(fleet.words_since(upto).0.len(), 1);
        fleet.heard(NODE, 2);
        let (_, upto) = fleet.words_since(upto);
        assert_eq!(
            fleet.words_since(upto).0,
            vec![],
            "an older session is mute"
        );
    }
}
