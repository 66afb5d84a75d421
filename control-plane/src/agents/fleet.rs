//! What is heard from the nodes and never written into the log: who is connected and where, when it
//! last spoke, which routes and challenges its ingress has. Owns what this server's own sessions say and
//! what the other servers report of theirs; judges silence, and what witnesses say, and only on behalf
//! of the leader.

mod ingresses;
mod presence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use skep_identity::key_id::KeyId;
use skep_model::id::{NodeId, ServerId};
use skep_model::node::{Node, NodeStatus};
use tokio::sync::watch;

use presence::{ASKED_AFTER, Conclusion, Presence, conclude};

/// A node that says nothing for so long is lost: four heartbeats. What ran there is replaced at once then,
/// and a session whose server is gone has begun anew long before.
pub const LOST_AFTER: Duration = Duration::from_secs(8);
/// Between two words on the same node's second agent.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// The same word told again by another server seems as much younger as the way between servers took.
const TELLING: Duration = Duration::from_millis(250);
/// How long testimony against a node counts among the recent ones.
const RECENT: Duration = Duration::from_secs(60);
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
    /// Revision of the challenges that its ingress answers.
    pub challenges: u64,
    /// How long ago it last spoke.
    pub silent: Duration,
    /// The CA that signed its certificate, where it says so.
    pub ca: Option<KeyId>,
    /// Its session broke: neither side had ended it.
    pub broke: bool,
}

/// A node whose machine may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// Which.
    pub node: NodeId,
    /// When it was last heard.
    pub last_heard: Instant,
    /// Its session broke; else it is silent.
    pub broke: bool,
}

/// What is suspected, and by how many others it can be measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Suspicion {
    /// Whom to ask for, in the order of their ids.
    pub suspects: Vec<Suspect>,
    /// Nodes in session and above suspicion.
    pub sound: BTreeSet<NodeId>,
    /// Nodes that peers testified against in the last minute, and that were not heard since.
    pub recent: usize,
    /// When there may be more, if nothing is heard.
    pub look_again: Option<Instant>,
}

/// What the leader should judge of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Its status.
    pub status: NodeStatus,
    /// Who testified, where that is why it is lost.
    pub witnesses: Vec<NodeId>,
    /// When to look again if silence goes on.
    pub look_again: Option<Instant>,
}

/// What peers testified, and when.
#[derive(Debug, Clone)]
struct Condemned {
    at: Instant,
    witnesses: Vec<NodeId>,
}

/// Where a node's session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At this server.
    Here,
    /// At that one.
    At(ServerId),
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
    /// Nodes that peers have testified against.
    condemned: BTreeMap<NodeId, Condemned>,
}

impl Books {
    fn best(&self, node: NodeId) -> Option<(Place, &Presence)> {
        let here = self.here.nodes.get(&node).map(|of| (Place::Here, of));
        let there = self
            .there
            .iter()
            .filter_map(|(server, heard)| Some((Place::At(*server), heard.nodes.get(&node)?)));
        let now = Instant::now();
        here.into_iter()
            .chain(there)
            .max_by_key(|(_, presence)| presence.rank(now))
    }

    /// Every node that anybody speaks of.
    fn known(&self) -> BTreeSet<NodeId> {
        let there = self.there.values().flat_map(|heard| heard.nodes.keys());
        self.here.nodes.keys().chain(there).copied().collect()
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
            condemned: BTreeMap::new(),
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
        presence.is_live(Instant::now()).then_some(place)
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
            broke: false,
            last_heard: Instant::now(),
            runtime: Runtime::Ok,
            routes: RouteStatus::default(),
            challenges: 0,
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

    /// A session ended; `broke`: neither side had ended it.
    pub fn disconnect(&self, node: NodeId, session: u64, broke: bool) {
        self.update(node, session, |presence| {
            presence.is_connected = false;
            presence.broke = broke;
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

    /// The node's ingress answers the challenges of this revision.
    pub fn challenges(&self, node: NodeId, session: u64, revision: u64) {
        self.update(node, session, |presence| {
            std::mem::replace(&mut presence.challenges, revision) != revision
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
        let now = Instant::now();
        // Whoever was silent may have been taken for lost.
        let is_back = presence.silence(now) >= ASKED_AFTER;
        presence.last_heard = now;
        presence.version = version;
        let changed = change(presence) || is_back;
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
            challenges: presence.challenges,
            silent: presence.last_heard.elapsed(),
            ca: presence.ca,
            broke: presence.broke,
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
                broke: word.broke && !word.connected,
                last_heard: now.checked_sub(word.silent).unwrap_or(now),
                runtime: word.runtime,
                routes: word.routes,
                challenges: word.challenges,
                ca: word.ca,
                version: 0,
            };
            changed |= heard.nodes.get(&word.node).is_none_or(|old| {
                let is_back = old.silence(now) >= ASKED_AFTER && fresh.silence(now) < ASKED_AFTER;
                is_back || !old.says_the_same(&fresh)
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

    /// What the leader should judge of a node. A leader that has just begun gives every node the full
    /// time to come back.
    pub fn judge(&self, node: &Node) -> Judgement {
        let books = self.inner.books.lock();
        let best = books.best(node.id).map(|(_, presence)| presence);
        let condemned = books.condemned.get(&node.id);
        let concluded = conclude(
            best,
            condemned.map(|condemned| condemned.at),
            node.status == NodeStatus::Lost,
            (books.judged_from, Instant::now()),
        );
        let (status, look_again) = match concluded {
            Conclusion::There(status, until) => (status, Some(until)),
            Conclusion::Unchanged(until) => (node.status, Some(until)),
            Conclusion::Silent | Conclusion::Witnessed => (NodeStatus::Lost, None),
        };
        let testimony = condemned.filter(|_| concluded == Conclusion::Witnessed);
        Judgement {
            status,
            witnesses: testimony.map_or_else(Vec::new, |of| of.witnesses.clone()),
            look_again,
        }
    }

    /// Whose machines may be gone: whose sessions broke and did not come back, and who is silent for
    /// longer than a heartbeat may be late.
    pub fn suspicion(&self) -> Suspicion {
        let now = Instant::now();
        let books = self.inner.books.lock();
        let mut found = Suspicion::default();
        for node in books.known() {
            let Some((_, presence)) = books.best(node) else {
                continue;
            };
            let condemned = books.condemned.get(&node);
            if condemned.is_some_and(|of| presence.last_heard <= of.at) {
                // They have spoken.
                let is_recent = |of: &Condemned| now.saturating_duration_since(of.at) < RECENT;
                found.recent += usize::from(condemned.is_some_and(is_recent));
                continue;
            }
            if presence.is_suspect(books.judged_from, now) {
                found.suspects.push(Suspect {
                    node,
                    last_heard: presence.last_heard,
                    broke: !presence.is_connected,
                });
            } else if presence.is_live(now) {
                found.sound.insert(node);
            }
            let from = presence.suspect_from(books.judged_from);
            let next = from.filter(|from| *from > now);
            found.look_again = next.into_iter().chain(found.look_again).min();
        }
        found
    }

    /// Its peers have testified that the suspect's machine is gone. False: it was heard of since, and
    /// what they said does not count.
    pub fn condemn(&self, suspect: &Suspect, witnesses: Vec<NodeId>) -> bool {
        let now = Instant::now();
        let mut books = self.inner.books.lock();
        let best = books.best(suspect.node).map(|(_, presence)| *presence);
        let is_same = best.is_some_and(|presence| {
            presence.is_suspect(books.judged_from, now)
                && presence.last_heard <= suspect.last_heard + TELLING
        });
        if !is_same {
            return false;
        }
        let condemned = &mut books.condemned;
        condemned.retain(|_, of| now.saturating_duration_since(of.at) < RECENT);
        condemned.insert(suspect.node, Condemned { at: now, witnesses });
        drop(books);
        self.wake();
        true
    }
}
