//! The generated loads that are measured: fill, open-nodes and churn, and what is compared of each.

use skep_scheduler::packing::Size;

use super::load::{Item, Mix, Source};
use super::replay::{Outcome, Replay};
use super::rules::Rule;

const DAY_S: f64 = 86_400.0;
/// Seeds of the bench. Constants were chosen on seeds from 1,000 on.
pub const SEEDS: std::ops::Range<u64> = 0..20;
/// The lower bound of nodes, roughly, that a load is made for.
const NODES: usize = 150;
/// Most allocations that live at a time in churn: small ones are fewer nodes instead.
const MOST_LIVE: f64 = 3_000.0;
/// Mean lifetime in churn.
const LIFETIME_S: f64 = DAY_S;
/// Churn begins empty, and counts from here...
const STEADY_S: f64 = 3.0 * DAY_S;
/// ...to here.
const END_S: f64 = 8.0 * DAY_S;
/// What the rebalancer may move a day.
pub const MOVED_A_DAY: f64 = 0.05;

/// A way to load nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// A fixed set of nodes, from empty until the first ask that fits nowhere: its nodes against
    /// the bound of what was placed.
    Fill,
    /// Asks that stay; a node is opened only when nothing fits: nodes opened.
    OpenNodes,
    /// Arrivals and departures in a steady state on nodes to spare: mean of the nodes in use.
    Churn,
}

impl Preset {
    /// All.
    pub const ALL: [Self; 3] = [Self::Fill, Self::OpenNodes, Self::Churn];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::OpenNodes => "open-nodes",
            Self::Churn => "churn",
        }
    }
}

/// A load of a preset, the same for every rule.
#[derive(Debug, Clone)]
pub struct Load {
    preset: Preset,
    nodes: Vec<Size>,
    items: Vec<Item>,
}

/// Nodes and bound of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Nodes.
    pub nodes: f64,
    /// Fluid bound.
    pub bound: f64,
    /// What else is known of it.
    pub outcome: Outcome,
}

impl Measured {
    /// Nodes over the bound, in percent.
    pub fn over_pct(&self) -> f64 {
        100.0 * (self.nodes / self.bound - 1.0)
    }
}

impl Load {
    /// Made from a seed.
    pub fn new(preset: Preset, mix: Mix, seed: u64) -> Self {
        let mut source = Source::new(mix, seed);
        let nodes = source.nodes(match preset {
            Preset::Fill => NODES,
            Preset::OpenNodes | Preset::Churn => 2 * NODES + 100,
        });
        let items = match preset {
            Preset::Fill => staying(&mut source, &nodes[..], 1.1),
            Preset::OpenNodes => staying(&mut source, &nodes[..NODES], 1.0),
            Preset::Churn => churning(&mut source, &nodes),
        };
        Self {
            preset,
            nodes,
            items,
        }
    }

    /// Measures a rule; with a share of the allocations that the rebalancer may move a day.
    pub fn measure(&self, rule: Rule, moved_a_day: f64) -> Measured {
        let is_churn = self.preset == Preset::Churn;
        let outcome = Replay {
            nodes: &self.nodes,
            items: &self.items,
            rule,
            opens: self.preset == Preset::OpenNodes,
            stops_at_refusal: self.preset == Preset::Fill,
            from_s: if is_churn { STEADY_S } else { 0.0 },
            until_s: if is_churn { END_S } else { f64::INFINITY },
            moved_a_day,
        }
        .run();
        let (nodes, bound) = match self.preset {
            Preset::Fill => (self.nodes.len() as f64, outcome.last_bound),
            Preset::OpenNodes => (outcome.last_nodes, outcome.last_bound),
            Preset::Churn => (outcome.nodes, outcome.bound),
        };
        Measured {
            nodes,
            bound,
            outcome,
        }
    }
}

/// Asks that stay, until they sum up to this part of the nodes in one resource.
fn staying(source: &mut Source, nodes: &[Size], part: f64) -> Vec<Item> {
    let sum = |of: fn(&Size) -> u64| nodes.iter().map(|node| of(node) as f64).sum::<f64>();
    let (cpu, memory) = (part * sum(|size| size.cpu), part * sum(|size| size.memory));
    let mut items = Vec::new();
    let mut asked = (0.0, 0.0);
    loop {
        let size = source.ask();
        asked = (asked.0 + size.cpu as f64, asked.1 + size.memory as f64);
        if asked.0 > cpu || asked.1 > memory {
            return items;
        }
        items.push(Item {
            arrival_s: 0.0,
            lifetime_s: f64::INFINITY,
            size,
        });
    }
}

/// Poisson arrivals of a rate that keeps `NODES` nodes' worth, or `MOST_LIVE`, alive.
fn churning(source: &mut Source, nodes: &[Size]) -> Vec<Item> {
    let worth = staying(&mut source.clone(), &nodes[..NODES], 1.0).len();
    let live = (worth as f64).min(MOST_LIVE);
    let mut arrival_s = 0.0;
    let mut items = Vec::new();
    while arrival_s < END_S {
        arrival_s += source.gap(LIFETIME_S / live);
        items.push(Item {
            arrival_s,
            lifetime_s: source.lifetime(LIFETIME_S),
            size: source.ask(),
        });
    }
    items
}
