//! How good a node is for an allocation. Owns the order of what counts and the packing formulas;
//! whether a node can take it at all is not its question.

use skep_model::id::NodeId;
use skep_model::placement::{MAX_SPREADS, Strategy};

use crate::room::Room;

/// Costs are counted in billionths: what differs by less is equal.
const UNIT: f64 = 1e9;
/// What a used-up part of a node is worth beside a part that is merely of the wrong shape. Measured
/// on traces of virtual machines; below 0.01 fills evenly, above 0.1 strands more.
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
    /// What the strategy says, in billionths.
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
    /// One over the largest node.
    largest: [f64; 3],
    mean: [f64; 3],
    /// One over the mean request.
    per_mean: [f64; 3],
}

impl Frame {
    /// `largest`: by resource, of any node; `mean`: the request that is usual here.
    pub(crate) fn new(strategy: Strategy, needs: Room, largest: Room, mean: Room) -> Self {
        let over = |part: f64| if part > 0.0 { 1.0 / part } else { 0.0 };
        let mean = parts(mean);
        Self {
            strategy,
            needs,
            largest: parts(largest).map(over),
            mean,
            per_mean: mean.map(over),
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

    /// The cost of one more here, in billionths; the least is the best.
    pub(crate) fn cost(&self, free: Room, capacity: Room) -> i64 {
        let after = free.minus(self.needs);
        let cost = match self.strategy {
            Strategy::Binpack => self.stranding_cost(parts(free), parts(after)),
            Strategy::Spread => -left(after, capacity).iter().sum::<f64>(),
            Strategy::Balanced => {
                let [cpu, memory] = left(after, capacity);
                (cpu - memory).abs() + FILL * (cpu + memory)
            }
        };
        // Costs are between -4 and 4 for any node.
        (cost * UNIT) as i64
    }

    /// Stranding-aware best fit: what becomes unusable at the mean shape, and a little for what is
    /// left over at all.
    fn stranding_cost(&self, before: [f64; 3], after: [f64; 3]) -> f64 {
        let left: f64 = (0..3).map(|r| after[r] * self.largest[r]).sum();
        self.stranded(after) - self.stranded(before) + FILL * left
    }

    /// What of the free room more requests of the mean shape could not use, in parts of the largest
    /// node.
    fn stranded(&self, free: [f64; 3]) -> f64 {
        let mut fits = f64::MAX;
        for (free, per_mean) in free.iter().zip(self.per_mean) {
            if per_mean > 0.0 {
                fits = fits.min(free * per_mean);
            }
        }
        if fits == f64::MAX {
            return 0.0;
        }
        (0..3)
            .filter(|r| self.per_mean[*r] > 0.0)
            .map(|r| (free[r] - fits * self.mean[r]) * self.largest[r])
            .sum()
    }
}

fn parts(room: Room) -> [f64; 3] {
    [
        room.cpu_millis as f64,
        room.memory_bytes as f64,
        room.disk_bytes as f64,
    ]
}

/// The parts of CPU and memory that are left.
fn left(after: Room, capacity: Room) -> [f64; 2] {
    let part = |left: u64, of: u64| left as f64 / (of.max(1)) as f64;
    [
        part(after.cpu_millis, capacity.cpu_millis),
        part(after.memory_bytes, capacity.memory_bytes),
    ]
}
