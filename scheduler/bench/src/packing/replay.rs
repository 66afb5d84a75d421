//! One load against one set of nodes, event by event, under one rule. Owns the books (who is where,
//! nodes in use, bound, stranded room); makes no load and prints nothing.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use skep_model::id::{AllocationId, NodeId};
use skep_scheduler::packing::{Demand, Parts, Size, Supply};
use skep_scheduler::rebalance::{self, Place, View};

use super::load::Item;
use super::rules::{Known, Node, Rule, choose};

const DAY_S: f64 = 86_400.0;
/// How often the rebalancer looks.
const REBALANCE_S: f64 = 3_600.0;
/// Arrivals between two looks at demand and supply: a plan freezes them, too.
const FROZEN_ARRIVALS: usize = 64;

/// What is replayed.
#[derive(Debug, Clone)]
pub struct Replay<'a> {
    /// The nodes, in the order in which they are opened.
    pub nodes: &'a [Size],
    /// By arrival.
    pub items: &'a [Item],
    /// Who chooses.
    pub rule: Rule,
    /// Only opened nodes can be chosen; the next is opened when nothing fits.
    pub opens: bool,
    /// Ends with the first ask that fits nowhere.
    pub stops_at_refusal: bool,
    /// Part of the measured time that is not counted: from empty to a steady state.
    pub from_s: f64,
    /// The end.
    pub until_s: f64,
    /// Share of the allocations that the rebalancer may move in a day.
    pub moved_a_day: f64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Nodes in use: the mean over time.
    pub nodes: f64,
    /// The least that any placement could use, were allocations divisible: the mean over time.
    pub bound: f64,
    /// Nodes in use at the end.
    pub last_nodes: f64,
    /// The bound at the end.
    pub last_bound: f64,
    /// Room on nodes in use that asks of the mean shape cannot use, in percent of those nodes.
    pub stranded_pct: f64,
    /// Asks that were placed.
    pub placed: usize,
    /// Asks that fitted nowhere.
    pub refused: usize,
    /// Allocations that were moved.
    pub moves: usize,
}

/// Fluid bound: so many of the largest nodes hold this much of each resource.
struct Bound {
    sums: [Vec<f64>; 2],
}

impl Bound {
    fn new(nodes: &[Size]) -> Self {
        let sums = [|size: &Size| size.cpu, |size: &Size| size.memory].map(|of| {
            let mut all: Vec<u64> = nodes.iter().map(of).collect();
            all.sort_unstable_by_key(|amount| Reverse(*amount));
            let mut sum = 0.0;
            let mut add = |amount: &u64| {
                sum += *amount as f64;
                sum
            };
            all.iter().map(&mut add).collect()
        });
        Self { sums }
    }

    fn of(&self, cpu: f64, memory: f64) -> f64 {
        let nodes = |sums: &[f64], amount: f64| {
            let whole = sums.partition_point(|sum| *sum < amount);
            let before = whole.checked_sub(1).map_or(0.0, |last| sums[last]);
            match sums.get(whole) {
                Some(sum) => whole as f64 + (amount - before) / (sum - before),
                None => whole as f64,
            }
        };
        nodes(&self.sums[0], cpu).max(nodes(&self.sums[1], memory))
    }
}

/// The state of a replay.
struct World<'a> {
    replay: &'a Replay<'a>,
    nodes: Vec<Node>,
    opened: usize,
    /// By item: its node while it lives.
    homes: Vec<Option<usize>>,
    /// When items leave: nanoseconds, item.
    leaving: BinaryHeap<Reverse<(u64, usize)>>,
    /// Items that never leave.
    staying: Vec<usize>,
    demand: Demand,
    live: usize,
    sum: Size,
    used: usize,
    moved: VecDeque<(f64, AllocationId)>,
    bound: Bound,
    now_s: f64,
    weights: [f64; 2],
    stranded: (f64, f64),
    outcome: Outcome,
    known: Known,
}

impl Replay<'_> {
    /// Runs it.
    pub fn run(&self) -> Outcome {
        let mut world = World::new(self);
        world.look();
        let mut next_rebalance_s = self.from_s.min(REBALANCE_S);
        for (at, item) in self.items.iter().enumerate() {
            if item.arrival_s > self.until_s {
                break;
            }
            while self.moved_a_day > 0.0 && next_rebalance_s < item.arrival_s {
                world.leave_until(next_rebalance_s);
                world.rebalance();
                next_rebalance_s += REBALANCE_S;
            }
            world.leave_until(item.arrival_s);
            world.count(item.size);
            if at < FROZEN_ARRIVALS || at.is_multiple_of(FROZEN_ARRIVALS) {
                world.look();
            }
            if !world.place(at, item) && self.stops_at_refusal {
                break;
            }
        }
        if self.until_s.is_finite() {
            world.leave_until(self.until_s);
        }
        world.finish()
    }
}

impl<'a> World<'a> {
    fn new(replay: &'a Replay<'a>) -> Self {
        let node = |capacity: &Size| Node {
            capacity: *capacity,
            free: *capacity,
            parts: Parts::default(),
            count: 0,
        };
        Self {
            replay,
            nodes: replay.nodes.iter().map(node).collect(),
            opened: if replay.opens { 0 } else { replay.nodes.len() },
            homes: vec![None; replay.items.len()],
            leaving: BinaryHeap::new(),
            staying: Vec::new(),
            demand: Demand::default(),
            live: 0,
            sum: Size::default(),
            used: 0,
            moved: VecDeque::new(),
            bound: Bound::new(replay.nodes),
            now_s: 0.0,
            weights: [0.0; 2],
            stranded: (0.0, 0.0),
            outcome: Outcome::default(),
            known: Known::new(&Demand::default(), &Supply::default(), Size::default()),
        }
    }

    fn count(&mut self, size: Size) {
        self.demand.put(size);
        self.sum = self.sum.plus(size);
    }

    fn uncount(&mut self, size: Size) {
        self.demand.remove(size);
        self.sum = self.sum.minus(size);
    }

    /// Demand and supply as they are, frozen until the next look.
    fn look(&mut self) {
        let mut supply = Supply::default();
        for node in &self.nodes[..self.opened] {
            supply.put(node.capacity, node.count == 0);
        }
        self.known = Known::new(&self.demand, &supply, self.sum);
        for node in &mut self.nodes[..self.opened] {
            node.parts = self.known.packing.parts(node.free);
        }
        if self.now_s >= self.replay.from_s {
            self.sample_stranded();
        }
    }

    fn place(&mut self, at: usize, item: &Item) -> bool {
        let open = &self.nodes[..self.opened];
        let mut chosen = choose(self.replay.rule, &self.known, open, item.size);
        while chosen.is_none() && self.opened < self.nodes.len() {
            self.opened += 1;
            let fits = self.nodes[self.opened - 1].free.holds(item.size);
            chosen = fits.then_some(self.opened - 1);
        }
        let Some(node) = chosen else {
            self.outcome.refused += 1;
            self.uncount(item.size);
            return false;
        };
        self.put(at, node, item.size);
        self.live += 1;
        self.outcome.placed += 1;
        if self.replay.opens && self.nodes[node].count == 1 {
            self.look();
        }
        if item.lifetime_s.is_finite() {
            let leaves_ns = ((item.arrival_s + item.lifetime_s) * 1e9) as u64;
            self.leaving.push(Reverse((leaves_ns, at)));
        } else {
            self.staying.push(at);
        }
        true
    }

    fn put(&mut self, at: usize, to: usize, size: Size) {
        let node = &mut self.nodes[to];
        node.free = node.free.minus(size);
        node.count += 1;
        self.used += usize::from(node.count == 1);
        node.parts = self.known.packing.parts(node.free);
        self.homes[at] = Some(to);
    }

    fn take(&mut self, at: usize) {
        let Some(from) = self.homes[at].take() else {
            return;
        };
        let node = &mut self.nodes[from];
        node.free = node.free.plus(self.replay.items[at].size);
        node.count -= 1;
        self.used -= usize::from(node.count == 0);
        node.parts = self.known.packing.parts(node.free);
    }

    /// Counts the time up to then, with every departure in it.
    fn leave_until(&mut self, then_s: f64) {
        while let Some(Reverse((leaves_ns, at))) = self.leaving.peek().copied() {
            let leaves_s = leaves_ns as f64 / 1e9;
            if leaves_s > then_s {
                break;
            }
            self.leaving.pop();
            self.pass(leaves_s);
            self.take(at);
            self.live -= 1;
            self.uncount(self.replay.items[at].size);
        }
        self.pass(then_s);
    }

    fn pass(&mut self, then_s: f64) {
        let counted = then_s - self.now_s.max(self.replay.from_s);
        if counted > 0.0 {
            self.weights[0] += counted * self.used as f64;
            self.weights[1] += counted * self.lower_bound();
        }
        self.now_s = self.now_s.max(then_s);
    }

    fn lower_bound(&self) -> f64 {
        self.bound.of(self.sum.cpu as f64, self.sum.memory as f64)
    }

    fn sample_stranded(&mut self) {
        let (cpu, memory) = (self.sum.cpu.max(1) as f64, self.sum.memory.max(1) as f64);
        for node in self.nodes.iter().filter(|node| node.count > 0) {
            let free = (node.free.cpu as f64, node.free.memory as f64);
            let usable = (free.0 / cpu).min(free.1 / memory);
            let part = |left: f64, of: u64| left / of.max(1) as f64;
            self.stranded.0 += part(free.0 - usable * cpu, node.capacity.cpu);
            self.stranded.0 += part(free.1 - usable * memory, node.capacity.memory);
            self.stranded.1 += 2.0;
        }
    }

    fn rebalance(&mut self) {
        while let Some((moved_s, _)) = self.moved.front() {
            if *moved_s > self.now_s - DAY_S {
                break;
            }
            self.moved.pop_front();
        }
        let view = self.view();
        let anywhere = |_: AllocationId, _: &Place| true;
        for step in rebalance::plan(&view, &anywhere).moves {
            let at = index(step.allocation.as_u128());
            let to = index(step.to.as_u128());
            self.take(at);
            let size = self.replay.items[at].size;
            assert!(
                self.nodes[to].free.holds(size),
                "each move fits in its turn"
            );
            self.put(at, to, size);
            self.moved.push_back((self.now_s, step.allocation));
            self.outcome.moves += 1;
        }
    }

    fn view(&self) -> View {
        let mut places: Vec<Place> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(at, node)| Place {
                id: NodeId::from_u128(at as u128),
                capacity: node.capacity,
                items: Vec::new(),
                is_open: true,
            })
            .collect();
        // Only what lives: most of the old arrivals have left.
        let leaving = self.leaving.iter().map(|Reverse((_, at))| at);
        for at in leaving.chain(&self.staying) {
            let Some(home) = self.homes[*at] else {
                continue;
            };
            places[home].items.push(rebalance::Item {
                id: AllocationId::from_u128(*at as u128),
                size: self.replay.items[*at].size,
                is_movable: true,
            });
        }
        let recent: BTreeSet<AllocationId> = self.moved.iter().map(|(_, id)| *id).collect();
        View {
            places,
            waiting: Vec::new(),
            recent,
            budget: (self.live as f64 * self.replay.moved_a_day) as usize,
        }
    }

    fn finish(mut self) -> Outcome {
        self.sample_stranded();
        let counted = self.now_s - self.replay.from_s;
        let mut outcome = self.outcome;
        outcome.last_nodes = self.used as f64;
        outcome.last_bound = self.lower_bound();
        if counted > 0.0 {
            outcome.nodes = self.weights[0] / counted;
            outcome.bound = self.weights[1] / counted;
        }
        outcome.stranded_pct = 100.0 * self.stranded.0 / self.stranded.1.max(1.0);
        outcome
    }
}

fn index(id: u128) -> usize {
    usize::try_from(id).expect("ids are indexes here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(cpu: u64, memory: u64) -> Size {
        Size { cpu, memory }
    }

    fn item(arrival_s: f64, lifetime_s: f64, amount: u64) -> Item {
        Item {
            arrival_s,
            lifetime_s,
            size: size(amount, amount),
        }
    }

    fn replay<'a>(nodes: &'a [Size], items: &'a [Item], rule: Rule) -> Replay<'a> {
        Replay {
            nodes,
            items,
            rule,
            opens: false,
            stops_at_refusal: false,
            from_s: 0.0,
            until_s: 100.0,
            moved_a_day: 0.0,
        }
    }

    #[test]
    fn nodes_and_bound_are_means_over_time() {
        let nodes = [size(10, 10); 3];
        // 8 for 50 s, 4 for 25 s from 25 on: one node for 25 s, two for 25 s, none for 50 s.
        let items = [item(0.0, 50.0, 8), item(25.0, 25.0, 4)];
        let outcome = replay(&nodes, &items, Rule::BestFit).run();
        assert!((outcome.nodes - 0.75).abs() < 1e-9);
        assert!((outcome.bound - (0.25 * 0.8 + 0.25 * 1.2)).abs() < 1e-9);
        assert_eq!((outcome.placed, outcome.refused), (2, 0));
    }

    #[test]
    fn the_bound_takes_the_largest_nodes_and_the_scarcer_resource() {
        let bound = Bound::new(&[size(5, 20), size(10, 10)]);
        assert!((bound.of(12.0, 1.0) - 1.4).abs() < 1e-9);
        assert!((bound.of(1.0, 25.0) - 1.5).abs() < 1e-9);
        assert_eq!(bound.of(0.0, 0.0), 0.0);
    }

    #[test]
    fn the_rebalancer_sees_what_never_leaves() {
        // Beside the 6 and the 1 there is no room for the 5; beside the 1 alone there would be.
        let nodes = [size(10, 10); 2];
        let items = [
            item(0.0, f64::INFINITY, 6),
            item(1.0, 20_000.0, 1),
            item(2.0, 20_000.0, 5),
            item(9_000.0, 10.0, 1),
        ];
        let outcome = Replay {
            until_s: 10_000.0,
            moved_a_day: 1.0,
            ..replay(&nodes, &items, Rule::Skep)
        }
        .run();
        assert_eq!((outcome.moves, outcome.last_nodes), (0, 2.0));
    }
}
