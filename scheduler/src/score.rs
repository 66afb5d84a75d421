//! How good a node is for an allocation. Owns the order of what counts and the packing formulas;
//! whether a node can take it at all is not its question.

use skep_model::id::NodeId;
use skep_model::placement::{MAX_SPREADS, Strategy};

use crate::packing::{Packing, Parts};
use crate::room::Room;

/// Costs are counted in billionths: what differs by less is equal.
const UNIT: f64 = 1e9;
/// Of a balanced placement: what a used-up part of a node is worth beside one of the wrong shape.
const FILL: f64 = 0.03;

/// How good a node is for an allocation: the least is the best. The order of the fields is their
/// priority; they are never averaged, so one more never weakens another. The node's id comes last,
/// so that no two nodes are ever equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Of a relaxed ask: constraints that are not fulfilled there.
    pub broken: u32,
    /// How far ahead the node's value of each spread attribute is, in the order of the spreads.
    pub levels: [u64; MAX_SPREADS],
    /// Of a spread over nodes: allocations of the service there.
    pub on_node: u32,
    /// Minus the sum of the weights that hold there.
    pub against: i64,
    /// How many of the service there would be on its host beyond a third of them: replicas keep apart where
    /// they can.
    pub together: u32,
    /// The same of the node itself.
    pub crowded: u32,
    /// What the strategy says: comparable within one search only.
    pub packing: i64,
    /// Allocations of the same service already there.
    pub neighbours: u32,
    /// The node.
    pub node: NodeId,
}

/// What packing is measured against: the same for all starts of one group.
///
/// Floating point, but nothing that machines round differently: sums, differences, products,
/// quotients and the least of two are exact to the last bit by IEEE 754.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    strategy: Strategy,
    needs: Room,
    packing: Packing,
    ask: Parts,
}

impl Frame {
    /// `packing`: for what is asked of the cluster and what it has.
    pub(crate) fn new(strategy: Strategy, needs: Room, packing: Packing) -> Self {
        Self {
            strategy,
            needs,
            packing,
            ask: packing.parts(needs.into()),
        }
    }

    /// What the strategy is called in a reason.
    pub(crate) fn word(&self) -> &'static str {
        match self.strategy {
            Strategy::Binpack => "best fit",
            Strategy::Spread => "most room",
            Strategy::Balanced => "best balance",
        }
    }

    /// The cost of one more here; the least is the best.
    pub(crate) fn cost(&self, free: Room, capacity: Room) -> i64 {
        let cost = match self.strategy {
            Strategy::Binpack => {
                let parts = self.packing.parts(free.into());
                return self.packing.cost(parts, free == capacity, self.ask);
            }
            Strategy::Spread => {
                let [cpu, memory] = left(free.minus(self.needs), capacity);
                -(cpu + memory)
            }
            Strategy::Balanced => {
                let [cpu, memory] = left(free.minus(self.needs), capacity);
                (cpu - memory).abs() + FILL * (cpu + memory)
            }
        };
        // Between -2 and 2 for any node.
        (cost * UNIT) as i64
    }
}

/// Given how many of the service are on a node or a host, and how many may be.
pub(crate) fn crowded(there: u32, share: u32) -> u32 {
    there.saturating_add(1).saturating_sub(share)
}

/// The parts of CPU and memory that are left.
fn left(after: Room, capacity: Room) -> [f64; 2] {
    let part = |left: u64, of: u64| left as f64 / (of.max(1)) as f64;
    [
        part(after.cpu_millis, capacity.cpu_millis),
        part(after.memory_bytes, capacity.memory_bytes),
    ]
}
