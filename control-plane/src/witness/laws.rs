//! Laws of the whole path, in a small world: machines that live or are dead, links between them that are
//! whole or cut, connections that break, agents that end, and time. Nothing of it is known to the code
//! under test but by heartbeats, ends of streams and knocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use skep_model::id::NodeId;
use skep_model::probe::{Reach, Target};

use super::book::{Book, Doors};
use super::decide::{Verdict, verdict};
use super::round;

/// Nodes of the largest world.
const NODES: usize = 7;

/// How the world is in the moment of a round.
#[derive(Debug, Clone)]
struct World {
    /// Machines that run.
    lives: Vec<bool>,
    /// Whose agent runs; on a machine that does not, none does.
    agent: Vec<bool>,
    /// Links that are cut, each way: from, to.
    cut: BTreeSet<(usize, usize)>,
    /// Whose way to the server is cut.
    off: BTreeSet<usize>,
    /// Pairs that had reached each other when all was well.
    strangers: BTreeSet<(usize, usize)>,
}

fn id(at: usize) -> NodeId {
    NodeId::from_u128(at as u128 + 1)
}

fn at(node: NodeId) -> usize {
    usize::try_from(node.as_u128()).expect("small") - 1
}

fn doors(node: NodeId) -> Doors {
    Doors {
        address: format!("10.0.0.{}:1", at(node)),
        also_port: None,
    }
}

impl World {
    fn hears(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to)) && !self.cut.contains(&(to, from)) && self.lives[to]
    }

    fn knock(&self, from: usize, target: &Target) -> Reach {
        let heard = match target.node {
            Some(node) => self.hears(from, at(node)),
            None => !self.off.contains(&from),
        };
        if heard {
            Reach::Answered
        } else {
            Reach::Silent
        }
    }

    /// What the leader knows of the time before anything went wrong.
    fn book(&self, now: Instant) -> Book {
        let mut book = Book::default();
        let nodes: BTreeMap<_, _> = (0..self.lives.len())
            .map(|n| (id(n), doors(id(n))))
            .collect();
        for visit in book.plan(&nodes, now) {
            for target in &visit.targets {
                let pair = (at(visit.witness), at(target.node.expect("a node")));
                if !self.strangers.contains(&pair) {
                    book.reached(visit.witness, target, now);
                }
            }
        }
        book
    }

    /// Who is in session and above suspicion.
    fn sound(&self) -> BTreeSet<NodeId> {
        let in_session = |n: &usize| self.lives[*n] && self.agent[*n] && !self.off.contains(n);
        (0..self.lives.len()).filter(in_session).map(id).collect()
    }

    fn judge(&self, suspect: usize) -> Verdict {
        let now = Instant::now();
        let mut sound = self.sound();
        sound.remove(&id(suspect));
        let known = self.book(now);
        let planned = round::plan(
            &known,
            (id(suspect), &doors(id(suspect))),
            &sound,
            |node| Some(doors(node)),
            now + Duration::from_secs(1),
        );
        let Some(round) = planned else {
            return Verdict::Unknown;
        };
        let said = round.asks.iter().filter_map(|ask| {
            let from = at(ask.witness);
            let found = [
                self.knock(from, &ask.suspect),
                self.knock(from, &ask.control),
            ];
            ask.testimony(Some(&found))
        });
        verdict(round.needed, &said.collect::<Vec<_>>())
    }
}

fn pairs() -> impl Strategy<Value = BTreeSet<(usize, usize)>> {
    proptest::collection::btree_set((0..NODES, 0..NODES), 0..8)
}

fn world() -> impl Strategy<Value = World> {
    let flags = |likely| proptest::collection::vec(proptest::bool::weighted(likely), 2..=NODES);
    let off = proptest::collection::btree_set(0..NODES, 0..3);
    (flags(0.7), flags(0.7), pairs(), off, pairs()).prop_map(
        |(lives, agents, cut, off, strangers)| {
            let agents = agents.into_iter().chain(std::iter::repeat(true));
            World {
                agent: agents.take(lives.len()).collect(),
                lives,
                cut,
                off,
                strangers,
            }
        },
    )
}

proptest! {
    /// Whatever broke on the way to the server, a machine that runs is not taken for gone unless those
    /// who could reach it cannot any more, while they reach others.
    #[test]
    fn a_machine_that_runs_is_gone_only_where_its_witnesses_are_cut_off_from_it(world in world()) {
        for suspect in 0..world.lives.len() {
            let Verdict::Gone(witnesses) = world.judge(suspect) else { continue };
            let sound = world.sound();
            for witness in &witnesses {
                prop_assert!(sound.contains(witness), "{witness} is not in session");
                prop_assert!(!world.hears(at(*witness), suspect));
                prop_assert!(!world.strangers.contains(&(at(*witness), suspect)), "a stranger testified");
            }
            let others = sound.iter().filter(|node| at(**node) != suspect).count();
            prop_assert!(witnesses.len() >= 2 || others == 1);
        }
    }

    /// Broken connections and dead agents alone make no death: with every link between nodes whole,
    /// no machine that runs is ever taken for gone.
    #[test]
    fn only_broken_connections_make_no_death(mut world in world()) {
        world.cut.clear();
        for suspect in (0..world.lives.len()).filter(|n| world.lives[*n]) {
            prop_assert!(!matches!(world.judge(suspect), Verdict::Gone(_)));
        }
    }

    /// Who is cut off from every other node testifies to nothing.
    #[test]
    fn whoever_is_cut_off_is_no_witness(mut world in world(), alone in 0..NODES) {
        let count = world.lives.len();
        let alone = alone % count;
        world.cut.extend((0..count).map(|other| (alone, other)));
        for suspect in (0..count).filter(|n| *n != alone) {
            let others = world.sound().iter().filter(|node| at(**node) != suspect).count();
            if let Verdict::Gone(witnesses) = world.judge(suspect) && others > 1 {
                prop_assert!(!witnesses.contains(&id(alone)));
            }
        }
    }

    /// A machine that is gone, in a world that is whole otherwise, is found to be.
    #[test]
    fn a_machine_that_is_gone_is_found_out(count in 2..=NODES, gone in 0..NODES) {
        let gone = gone % count;
        let mut world = World {
            lives: vec![true; count],
            agent: vec![true; count],
            cut: BTreeSet::new(),
            off: BTreeSet::new(),
            strangers: BTreeSet::new(),
        };
        world.lives[gone] = false;
        prop_assert!(matches!(world.judge(gone), Verdict::Gone(_)));
    }
}
