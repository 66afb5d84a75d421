//! Which of the nodes that can take an allocation packs best: what a placement costs, as an
//! integer. Owns the formula and what it must know of demand and supply; never looks at rules,
//! never chooses a node itself.
//!
//! The formula, with all sizes as parts of the largest node (`c`, `m` for CPU and memory):
//!
//! ```text
//! cost        = strand * (S(after) - S(before)) + wc * after.c + wm * after.m + opening
//! S(free)     = mean over the lines i of  max(0, free.c - ri * free.m) + max(0, free.m - free.c / ri)
//! ```
//!
//! `S` is what of the free room cannot be used by asks of the proportions `ri` that are usual in
//! this cluster. Lines and weights depend on the [`Aim`] and are frozen in a [`Packing`], so that
//! the cost of a node changes only with the node. How it was chosen: docs/adr/0017-packing.md.

use std::collections::BTreeMap;

use crate::room::Room;

/// An amount of both resources that are packed. The others (disk, ports, devices) fit or do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size {
    /// Thousandths of a core, or any unit that all sizes share.
    pub cpu: u64,
    /// Bytes, or any unit that all sizes share.
    pub memory: u64,
}

impl Size {
    /// Whether the other fits into this.
    #[must_use]
    pub fn holds(self, other: Self) -> bool {
        self.cpu >= other.cpu && self.memory >= other.memory
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    /// What the other leaves of this; never below nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    /// The greater of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
        }
    }
}

impl From<Room> for Size {
    fn from(room: Room) -> Self {
        Self {
            cpu: room.cpu_millis,
            memory: room.memory_bytes,
        }
    }
}

/// The whole of the largest node's resource. Twenty bits tell 0.001 cores of a thousand apart.
const WHOLE: f64 = (1 << 20) as f64;
/// Proportions are fixed-point numbers with this many bits behind the point.
const LINE_BITS: u32 = 16;
/// Steeper proportions than this are all the same: the other resource is not asked for at all.
const STEEPEST: u128 = 1 << (2 * LINE_BITS);
/// How many proportions stand for all asks. Measured: 3 to 24 differ by less than their noise, and
/// each costs about 2.5 ns a node.
const LINES: usize = 3;
/// Weights are parts of this.
const UNIT: i64 = 1024;
/// What an empty node costs more than any other where nodes are to be kept empty.
const OPENING: i64 = 1 << 48;
/// With a smaller share of the cluster's room on empty nodes, in percent, large holes count more
/// than empty nodes. More would fill a cluster further, and use more nodes in churn.
pub const SPARE_PERCENT: u64 = 25;
/// From this share on, the largest node is opened first: fewer nodes. With less the smallest, so
/// that large asks still find a large one.
pub const PLENTY_PERCENT: u64 = 50;

/// What is asked of the cluster: sums, and how CPU and memory relate. Kept up in O(log n) of the
/// few proportions that occur.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    total: Sum,
    /// By the logarithm of CPU over memory, in eighths.
    by_proportion: BTreeMap<i32, Sum>,
}

/// Asks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    count: u64,
    cpu: u128,
    memory: u128,
}

impl Demand {
    /// Counts an ask, running or waiting.
    pub fn put(&mut self, ask: Size) {
        self.total.add(ask);
        self.by_proportion
            .entry(proportion(ask))
            .or_default()
            .add(ask);
    }

    /// No longer counts one that was put.
    pub fn remove(&mut self, ask: Size) {
        let key = proportion(ask);
        let Some(tally) = self.by_proportion.get_mut(&key) else {
            return;
        };
        tally.take(ask);
        if tally.count == 0 {
            self.by_proportion.remove(&key);
        }
        self.total.take(ask);
    }

    /// How many are counted.
    pub fn count(&self) -> u64 {
        self.total.count
    }

    /// All of it together.
    pub fn sum(&self) -> Sum {
        self.total
    }

    /// The sums at the middle of each of `LINES` equal parts, by proportion.
    fn quantiles(&self) -> [Sum; LINES] {
        let mut found = [self.total; LINES];
        let mut seen = 0;
        let mut next = 0;
        for tally in self.by_proportion.values() {
            seen += tally.count;
            while next < LINES && (2 * next as u64 + 1) * self.total.count < 2 * LINES as u64 * seen
            {
                found[next] = *tally;
                next += 1;
            }
        }
        found
    }
}

impl Sum {
    /// With so many more of a size.
    #[must_use]
    pub fn with(self, ask: Size, count: u64) -> Self {
        Self {
            count: self.count + count,
            cpu: self.cpu + u128::from(ask.cpu) * u128::from(count),
            memory: self.memory + u128::from(ask.memory) * u128::from(count),
        }
    }

    fn add(&mut self, ask: Size) {
        *self = self.with(ask, 1);
    }

    fn take(&mut self, ask: Size) {
        self.count = self.count.saturating_sub(1);
        self.cpu = self.cpu.saturating_sub(ask.cpu.into());
        self.memory = self.memory.saturating_sub(ask.memory.into());
    }
}

fn proportion(ask: Size) -> i32 {
    eighths(ask.cpu) - eighths(ask.memory)
}

/// Eight times the binary logarithm, between powers of two by a straight line.
fn eighths(value: u64) -> i32 {
    let value = u128::from(value.max(1)) << 3;
    let exponent = value.ilog2();
    let below = (value >> (exponent - 3)) & 7;
    i32::try_from(u128::from(exponent - 3) * 8 + below).expect("64 bits have 512 eighths")
}

/// What the nodes have that may take work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Supply {
    /// The greatest CPU and the greatest memory of any one node.
    pub largest: Size,
    /// All of it.
    pub total: Size,
    /// That of nodes with nothing on them.
    pub empty: Size,
}

impl Supply {
    /// Counts a node.
    pub fn put(&mut self, capacity: Size, is_empty: bool) {
        self.largest = self.largest.max(capacity);
        self.total = self.total.plus(capacity);
        if is_empty {
            self.empty = self.empty.plus(capacity);
        }
    }

    /// The share of the room that is on empty nodes, of the resource of which less is.
    fn spare_percent(&self) -> u128 {
        let percent = |empty: u64, total: u64| u128::from(empty) * 100 / u128::from(total.max(1));
        percent(self.empty.cpu, self.total.cpu).min(percent(self.empty.memory, self.total.memory))
    }

    fn aim(&self) -> Aim {
        match self.spare_percent() {
            _ if self.empty == Size::default() => Aim::FillAll,
            few if few < SPARE_PERCENT.into() => Aim::KeepHoles,
            _ => Aim::KeepNodesEmpty,
        }
    }
}

/// What packing is for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// Empty nodes to spare: use few nodes. Best fit in the scarce resource, some regard for
    /// what is stranded; an empty node only when nothing else fits: the largest where there are
    /// plenty, else the smallest.
    KeepNodesEmpty,
    /// Few empty nodes are left: strand little, leave large holes to large asks.
    KeepHoles,
    /// No node is empty: nothing but what is stranded counts.
    FillAll,
}

/// A size as parts of the largest node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    cpu: i64,
    memory: i64,
}

/// A usual proportion: how much of the one is used up with one part of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Line {
    cpu_per_memory: i64,
    memory_per_cpu: i64,
}

impl Line {
    fn new(tally: Sum, largest: Size) -> Self {
        let cpu = tally
            .cpu
            .max(1)
            .saturating_mul(largest.memory.max(1).into());
        let memory = tally
            .memory
            .max(1)
            .saturating_mul(largest.cpu.max(1).into());
        Self {
            cpu_per_memory: slope(cpu, memory),
            memory_per_cpu: slope(memory, cpu),
        }
    }

    /// What of the room cannot be used in this proportion.
    #[inline]
    fn stranded(self, free: Parts) -> i64 {
        let cpu = free.cpu - ((free.memory * self.cpu_per_memory) >> LINE_BITS);
        let memory = free.memory - ((free.cpu * self.memory_per_cpu) >> LINE_BITS);
        cpu.max(0) + memory.max(0)
    }
}

fn slope(above: u128, below: u128) -> i64 {
    // Both may be sums over a whole cluster: shorten them before the shift can overflow.
    let shorter = above.max(below).ilog2().saturating_sub(94);
    let (above, below) = (above >> shorter, (below >> shorter).max(1));
    i64::try_from(((above << LINE_BITS) / below).min(STEEPEST)).expect("at most 2^32")
}

/// The formula with its constants for one plan: freeze it while nodes are compared.
///
/// Sizes become parts in floating point, by one multiplication each, which IEEE 754 rounds the same
/// everywhere; all else is integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Packing {
    aim: Aim,
    /// What an empty node costs less for each part of its size; negative: more.
    opening: i64,
    /// Parts of a unit of each resource.
    scale: [f64; 2],
    /// The mean ask alone, or all of the usual ones.
    lines: [Line; LINES],
    used_lines: usize,
    /// Per line, in parts of [`UNIT`].
    stranded: i64,
    /// Of what is left free of each, in parts of [`UNIT`].
    left: Parts,
}

impl Packing {
    /// For this demand and this supply.
    pub fn new(demand: &Demand, supply: &Supply) -> Self {
        Self::with_aim(demand, supply, supply.aim())
    }

    /// The same where asks are drafted that the demand does not count yet: `asked` are all of them.
    pub fn with_drafted(demand: &Demand, asked: Sum, supply: &Supply) -> Self {
        Self::of(demand, asked, supply, supply.aim())
    }

    /// With an aim of the caller's: the rebalancer only ever keeps nodes empty.
    pub fn with_aim(demand: &Demand, supply: &Supply, aim: Aim) -> Self {
        Self::of(demand, demand.total, supply, aim)
    }

    fn of(demand: &Demand, asked: Sum, supply: &Supply, aim: Aim) -> Self {
        let mut lines = [Line::new(asked, supply.largest); LINES];
        if aim == Aim::FillAll {
            lines = demand
                .quantiles()
                .map(|tally| Line::new(tally, supply.largest));
        }
        let (used_lines, stranded, left) = match aim {
            Aim::KeepNodesEmpty => (1, UNIT / 4, scarcity(asked, supply)),
            Aim::KeepHoles => (1, UNIT, even(UNIT * 6 / 100)),
            Aim::FillAll => (LINES, UNIT / LINES as i64, even(1)),
        };
        let is_plenty = supply.spare_percent() >= PLENTY_PERCENT.into();
        Self {
            aim,
            opening: if is_plenty { 4 * UNIT } else { -4 * UNIT },
            scale: [supply.largest.cpu, supply.largest.memory]
                .map(|largest| WHOLE / largest.max(1) as f64),
            lines,
            used_lines,
            stranded,
            left,
        }
    }

    /// What it is for.
    pub fn aim(&self) -> Aim {
        self.aim
    }

    /// A size as [`Self::cost`] takes it: of an ask, or of what is free.
    #[inline]
    pub fn parts(&self, size: Size) -> Parts {
        // No node is larger than the largest; an ask that is fits nowhere.
        let part = |size: u64, scale: f64| (size as f64 * scale).min(WHOLE) as i64;
        Parts {
            cpu: part(size.cpu, self.scale[0]),
            memory: part(size.memory, self.scale[1]),
        }
    }

    /// What it costs to put the ask on a node with this much free, on which it fits: the least is
    /// the best, equals are the caller's to tell apart.
    #[inline]
    pub fn cost(&self, free: Parts, is_empty: bool, ask: Parts) -> i64 {
        let after = Parts {
            cpu: free.cpu - ask.cpu,
            memory: free.memory - ask.memory,
        };
        let stranded: i64 = self.lines[..self.used_lines]
            .iter()
            .map(|line| line.stranded(after) - line.stranded(free))
            .sum();
        let left = self.left.cpu * after.cpu + self.left.memory * after.memory;
        let opening = if is_empty && self.aim == Aim::KeepNodesEmpty {
            OPENING - (free.cpu + free.memory) * self.opening
        } else {
            0
        };
        self.stranded * stranded + left + opening
    }
}

fn even(weight: i64) -> Parts {
    Parts {
        cpu: weight,
        memory: weight,
    }
}

/// Weights by the fourth power of how scarce each resource is: what there is plenty of need not
/// be used up. Together twice [`UNIT`].
fn scarcity(asked: Sum, supply: &Supply) -> Parts {
    let cpu = asked
        .cpu
        .max(1)
        .saturating_mul(supply.total.memory.max(1).into());
    let memory = asked
        .memory
        .max(1)
        .saturating_mul(supply.total.cpu.max(1).into());
    let relative = |of: u128, to: u128| {
        let relative = slope(of, of.max(to)) >> (LINE_BITS - 10);
        relative.pow(4) >> 20
    };
    let (cpu, memory) = (relative(cpu, memory), relative(memory, cpu));
    Parts {
        cpu: 2 * UNIT * cpu / (cpu + memory),
        memory: 2 * UNIT * memory / (cpu + memory),
    }
}

#[cfg(test)]
mod tests;
