//! Who has reached whom. A node that has seen another's certificate at its address knows a way there
//! that works: only from it is silence worth something. Behind a NAT or a firewall nobody gets an answer,
//! dead or alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use skep_model::id::NodeId;
use skep_model::node::{Facts, MAX_WITNESSES};
use skep_model::probe::Target;

/// A way that worked is tried again after that.
const EVERY: Duration = Duration::from_secs(30);
/// One that did not, or not yet.
const AGAIN: Duration = Duration::from_secs(10);
/// For how long having reached a node counts: two attempts may be missed.
const VALID: Duration = Duration::from_secs(90);
/// Nodes that are asked in one look at the book; the others wait for the next.
const ASKS_MAX: usize = 512;

/// Where a node's host takes connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doors {
    /// Of its agent, which shows its certificate there: `host:port`.
    pub address: String,
    /// Of its ingress, on the same host.
    pub also_port: Option<u16>,
}

impl Doors {
    /// As its facts say; none: it has none.
    pub fn of(facts: &Facts) -> Option<Self> {
        Some(Self {
            address: facts.image_address.clone()?,
            also_port: facts.ingress_port,
        })
    }

    /// What is asked of those who knock there.
    pub fn target(&self, node: NodeId, identify: bool) -> Target {
        Target {
            node: Some(node),
            address: self.address.clone(),
            also_port: self.also_port,
            identify,
        }
    }
}

/// What is known of the way from one node to another.
#[derive(Debug, Clone)]
struct Way {
    address: String,
    asked: Option<Instant>,
    reached: Option<Instant>,
}

impl Way {
    fn is_due(&self, now: Instant) -> bool {
        let pause = if self.reached.is_some() { EVERY } else { AGAIN };
        self.asked
            .is_none_or(|asked| now.saturating_duration_since(asked) >= pause)
    }

    fn is_good(&self, now: Instant) -> bool {
        let since = |reached| now.saturating_duration_since(reached);
        self.reached.is_some_and(|reached| since(reached) < VALID)
    }
}

/// One node, and those that it is to show it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Who is to knock.
    pub witness: NodeId,
    /// At whom.
    pub targets: Vec<Target>,
}

/// The ways between nodes, by where they lead and from whom.
#[derive(Debug, Default)]
pub struct Book {
    ways: BTreeMap<(NodeId, NodeId), Way>,
    /// The same pairs, by the witness.
    met: BTreeSet<(NodeId, NodeId)>,
}

/// Neighbours stand beside each other by the random half of their ids: in the order of joining they might
/// share a rack.
fn ring(nodes: &BTreeMap<NodeId, Doors>) -> Vec<NodeId> {
    let mut ring: Vec<NodeId> = nodes.keys().copied().collect();
    ring.sort_unstable_by_key(|node| (node.as_u128() as u64, *node));
    ring
}

impl Book {
    /// Which visits are due among these nodes, all of which are in session. Each is visited by the
    /// [`MAX_WITNESSES`] before it in the ring.
    pub fn plan(&mut self, nodes: &BTreeMap<NodeId, Doors>, now: Instant) -> Vec<Visit> {
        let ring = ring(nodes);
        let next = |at: usize| ring[at % ring.len()];
        let mut visits = Vec::new();
        let mut kept = BTreeSet::new();
        for (at, witness) in ring.iter().enumerate() {
            let others = (1..=MAX_WITNESSES.min(ring.len() - 1)).map(|step| next(at + step));
            let others: Vec<NodeId> = others.collect();
            kept.extend(others.iter().map(|of| (*of, *witness)));
            let mut is_due = false;
            for of in &others {
                is_due |= self.way(*of, *witness, &nodes[of].address).is_due(now);
            }
            if !is_due || visits.len() == ASKS_MAX {
                continue;
            }
            for of in &others {
                self.way(*of, *witness, &nodes[of].address).asked = Some(now);
            }
            visits.push(Visit {
                witness: *witness,
                targets: others
                    .iter()
                    .map(|of| nodes[of].target(*of, true))
                    .collect(),
            });
        }
        // A way to who is gone just now is what it will be asked by.
        let met = &mut self.met;
        self.ways.retain(|pair, way| {
            let stays = kept.contains(pair) || way.is_good(now);
            if !stays {
                met.remove(&(pair.1, pair.0));
            }
            stays
        });
        visits
    }

    fn way(&mut self, of: NodeId, witness: NodeId, address: &str) -> &mut Way {
        let fresh = || Way {
            address: address.to_owned(),
            asked: None,
            reached: None,
        };
        self.met.insert((witness, of));
        let way = self.ways.entry((of, witness)).or_insert_with(fresh);
        if way.address != address {
            *way = fresh();
        }
        way
    }

    /// The witness has reached the target itself.
    pub fn reached(&mut self, witness: NodeId, target: &Target, now: Instant) {
        let way = target.node.and_then(|of| self.ways.get_mut(&(of, witness)));
        if let Some(way) = way.filter(|way| way.address == target.address) {
            way.reached = Some(now);
        }
    }

    /// Who has reached a node at its address lately.
    pub fn witnesses(&self, of: NodeId, doors: &Doors, now: Instant) -> Vec<NodeId> {
        let all = self.ways.range((of, NodeId::from_u128(0))..);
        let its = all.take_while(|((node, _), _)| *node == of);
        its.filter(|(_, way)| way.address == doors.address && way.is_good(now))
            .map(|((_, witness), _)| *witness)
            .collect()
    }

    /// Whom a witness has reached lately, and at which address.
    pub fn reached_by(
        &self,
        witness: NodeId,
        now: Instant,
    ) -> impl Iterator<Item = (NodeId, &str)> {
        let all = self.met.range((witness, NodeId::from_u128(0))..);
        let its = all.take_while(move |(by, _)| *by == witness);
        its.filter_map(move |(_, of)| {
            let way = self.ways.get(&(*of, witness))?;
            way.is_good(now).then_some((*of, way.address.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(port: u128) -> Doors {
        Doors {
            address: format!("10.0.0.1:{port}"),
            also_port: Some(80),
        }
    }

    fn nodes(count: u128) -> BTreeMap<NodeId, Doors> {
        let all = 1..=count;
        all.map(|n| (NodeId::from_u128(n), doors(n))).collect()
    }

    fn visit_all(book: &mut Book, nodes: &BTreeMap<NodeId, Doors>, now: Instant) -> usize {
        let visits = book.plan(nodes, now);
        for visit in &visits {
            for target in &visit.targets {
                assert!(target.identify && target.node != Some(visit.witness));
                book.reached(visit.witness, target, now);
            }
        }
        visits.len()
    }

    #[test]
    fn everybody_is_visited_by_three_others_now_and_then() {
        let (mut book, start) = (Book::default(), Instant::now());
        for (count, witnesses) in [(1, 0), (2, 1), (3, 2), (4, 3), (9, 3)] {
            let (mut book, nodes) = (Book::default(), nodes(count));
            visit_all(&mut book, &nodes, start);
            for (node, doors) in &nodes {
                assert_eq!(book.witnesses(*node, doors, start).len(), witnesses);
            }
        }
        let nodes = nodes(9);
        assert_eq!(visit_all(&mut book, &nodes, start), 9);
        assert_eq!(
            visit_all(&mut book, &nodes, start + EVERY / 2),
            0,
            "not yet"
        );
        assert_eq!(visit_all(&mut book, &nodes, start + EVERY), 9);
    }

    #[test]
    fn a_way_counts_while_it_is_fresh_and_leads_to_the_same_address() {
        let (mut book, start) = (Book::default(), Instant::now());
        let all = nodes(4);
        visit_all(&mut book, &all, start);
        let (one, two) = (NodeId::from_u128(1), NodeId::from_u128(2));
        assert_eq!(book.witnesses(two, &doors(2), start).len(), 3);
        assert_eq!(book.witnesses(two, &doors(7), start), [], "it has moved");
        assert_eq!(book.reached_by(one, start).count(), 3);
        assert_eq!(book.reached_by(one, start + VALID).count(), 0);
        // Who is gone is still known by those who reached it.
        let mut left = all.clone();
        left.remove(&two);
        book.plan(&left, start + EVERY);
        assert_eq!(book.witnesses(two, &doors(2), start + EVERY).len(), 3);
        book.plan(&left, start + VALID);
        assert!(
            book.ways.keys().all(|(of, _)| *of != two),
            "and is forgotten"
        );
    }

    #[test]
    fn who_is_never_reached_is_no_one_to_testify_about_and_is_tried_again() {
        let (mut book, start) = (Book::default(), Instant::now());
        let nodes = nodes(3);
        assert_eq!(book.plan(&nodes, start).len(), 3);
        let one = NodeId::from_u128(1);
        assert_eq!(book.witnesses(one, &nodes[&one], start), []);
        assert_eq!(book.plan(&nodes, start + AGAIN / 2).len(), 0);
        assert_eq!(book.plan(&nodes, start + AGAIN).len(), 3);
    }
}
