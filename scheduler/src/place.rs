//! One allocation to one node: the best of all that can take it, never of a sample. Knows nothing
//! of services' states; the same answer for the same cluster, always.

use skep_model::id::NodeId;

use crate::cluster::{Candidate, Room};
use crate::draft::Draft;
use crate::filter::{self, Ask};
use crate::refusal::Refusal;

/// The whole of a node's resource, where parts are compared: integers, so that every machine
/// computes the same.
const WHOLE: u128 = 1_000_000;

/// How good a node is for an allocation: the least is the best. The order of the fields is their
/// priority, and the node's id comes last, so that no two nodes are ever equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Best fit: what would be left free afterwards, in millionths of the node's CPU plus
    /// millionths of its memory.
    pub left_free: u64,
    /// Spread: allocations of the same service already there.
    pub neighbours: u32,
    /// The node.
    pub node: NodeId,
}

/// Where an allocation goes, and how that came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Where.
    pub node: NodeId,
    /// The generation of the node that this was based on.
    pub generation: u64,
    /// Why there.
    pub score: Score,
    /// Nodes that could have taken it.
    pub fitting: usize,
    /// Nodes that there are.
    pub nodes: usize,
}

/// The best node for an allocation. O(nodes), without heap allocation unless it refuses; the draft
/// is left as it is ([`Draft::start`] counts the answer).
///
/// # Errors
/// No node can take it; the reasons are counted.
pub fn place(draft: &Draft<'_>, ask: &Ask) -> Result<Placement, Refusal> {
    let neighbours = draft.neighbours_of(ask.service);
    let mut best: Option<(Score, u64)> = None;
    let (mut fitting, mut nodes) = (0, 0);
    for node in draft.nodes() {
        nodes += 1;
        if filter::check(ask, &node).is_some() {
            continue;
        }
        fitting += 1;
        let score = Score {
            left_free: left_free(ask, &node),
            neighbours: neighbours.on(node.id),
            node: node.id,
        };
        if best.is_none_or(|(least, _)| score < least) {
            best = Some((score, node.generation));
        }
    }
    match best {
        Some((score, generation)) => Ok(Placement {
            node: score.node,
            generation,
            score,
            fitting,
            nodes,
        }),
        None => Err(Refusal::explain(draft, ask)),
    }
}

fn left_free(ask: &Ask, node: &Candidate<'_>) -> u64 {
    let free = node.free.minus(Room::from(ask.resources));
    let part = |free: u64, of: u64| {
        let part = u128::from(free) * WHOLE / u128::from(of.max(1));
        u64::try_from(part).expect("what is free is a part of the capacity")
    };
    part(free.cpu_millis, node.capacity.cpu_millis)
        + part(free.memory_bytes, node.capacity.memory_bytes)
}
