//! Who chooses the node: Skep's score and the classic heuristics, each by an exact scan of every
//! node. The formulas are written from their publications.

use skep_scheduler::packing::{Demand, Packing, Parts, Size, Supply};

/// A node in a replay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// All of it.
    pub capacity: Size,
    /// What is left.
    pub free: Size,
    /// What is left, as Skep's score takes it.
    pub parts: Parts,
    /// Allocations on it.
    pub count: u32,
}

/// Who chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `skep_scheduler::packing`.
    Skep,
    /// Best fit that counts what it strands at the mean shape, and 0.03 of what is left: one
    /// formula for all aims, tried before Skep's.
    Stranding,
    /// The first on which it fits.
    FirstFit,
    /// The least sum of what is left, as parts of the node.
    BestFit,
    /// Nomad: `20 - (10^free_cpu + 10^free_memory)`, at most 18, the greatest.
    Nomad,
    /// Kubernetes: MostAllocated and BalancedAllocation, in integer percent.
    MostBalanced,
    /// The ask and what is free point the same way.
    Cosine,
    /// Norm-L2 with the mean ask as weights: the least.
    L2,
    /// The least product of ask and free.
    Dot,
}

impl Rule {
    /// The classic heuristics.
    pub const PEERS: [Self; 7] = [
        Self::FirstFit,
        Self::BestFit,
        Self::Nomad,
        Self::MostBalanced,
        Self::Cosine,
        Self::L2,
        Self::Dot,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skep => "skep",
            Self::Stranding => "stranding",
            Self::FirstFit => "first fit",
            Self::BestFit => "best fit",
            Self::Nomad => "nomad",
            Self::MostBalanced => "most+balanced",
            Self::Cosine => "cosine",
            Self::L2 => "l2",
            Self::Dot => "dot",
        }
    }
}

/// What a rule knows beside the node and the ask.
#[derive(Debug, Clone)]
pub struct Known {
    /// Skep's score.
    pub packing: Packing,
    mean: Size,
    largest: Size,
}

impl Known {
    /// Of what is asked and what there is.
    pub fn new(demand: &Demand, supply: &Supply, sum: Size) -> Self {
        let count = demand.count().max(1);
        Self {
            packing: Packing::new(demand, supply),
            mean: Size {
                cpu: sum.cpu / count,
                memory: sum.memory / count,
            },
            largest: supply.largest,
        }
    }
}

/// The node for the ask; none: it fits nowhere. Of equals the first.
pub fn choose(rule: Rule, known: &Known, nodes: &[Node], ask: Size) -> Option<usize> {
    let fitting = nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| node.free.holds(ask));
    if rule == Rule::Skep {
        let parts = known.packing.parts(ask);
        let cost = |node: &Node| known.packing.cost(node.parts, node.count == 0, parts);
        return fitting.min_by_key(|(_, node)| cost(node)).map(|(at, _)| at);
    }
    let mut best: Option<(f64, usize)> = None;
    for (at, node) in fitting {
        let cost = cost(rule, known, node, ask);
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, at));
        }
        if rule == Rule::FirstFit {
            break;
        }
    }
    best.map(|(_, at)| at)
}

/// The least is the best.
fn cost(rule: Rule, known: &Known, node: &Node, ask: Size) -> f64 {
    let part = |of: Size| {
        let cpu = of.cpu as f64 / node.capacity.cpu.max(1) as f64;
        (cpu, of.memory as f64 / node.capacity.memory.max(1) as f64)
    };
    let (free, want) = (part(node.free), part(ask));
    let left = (free.0 - want.0, free.1 - want.1);
    let dot = free.0 * want.0 + free.1 * want.1;
    match rule {
        Rule::Skep | Rule::FirstFit => 0.0,
        Rule::Stranding => stranding(known, node, ask),
        Rule::BestFit => left.0 + left.1,
        Rule::Nomad => {
            let fit = 20.0 - (10_f64.powf(left.0) + 10_f64.powf(left.1));
            -fit.clamp(0.0, 18.0)
        }
        Rule::MostBalanced => {
            let percent = |left: f64| ((1.0 - left) * 100.0).floor();
            let most = ((percent(left.0) + percent(left.1)) / 2.0).floor();
            let balanced = ((1.0 - (left.0 - left.1).abs() / 2.0) * 100.0).floor();
            -(most + balanced)
        }
        Rule::Cosine => {
            let lengths = free.0.hypot(free.1) * want.0.hypot(want.1);
            -dot / lengths.max(f64::MIN_POSITIVE)
        }
        Rule::L2 => {
            let mean = part(known.mean);
            mean.0 * left.0 * left.0 + mean.1 * left.1 * left.1
        }
        Rule::Dot => dot,
    }
}

/// In parts of the largest node.
fn stranding(known: &Known, node: &Node, ask: Size) -> f64 {
    let part = |of: Size| {
        let cpu = of.cpu as f64 / known.largest.cpu.max(1) as f64;
        (cpu, of.memory as f64 / known.largest.memory.max(1) as f64)
    };
    let mean = part(known.mean);
    let stranded = |free: (f64, f64)| {
        let usable = (free.0 / mean.0).min(free.1 / mean.1);
        free.0 - usable * mean.0 + free.1 - usable * mean.1
    };
    let after = part(node.free.minus(ask));
    stranded(after) - stranded(part(node.free)) + 0.03 * (after.0 + after.1)
}
