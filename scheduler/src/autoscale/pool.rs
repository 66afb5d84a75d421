//! How many nodes each pool should have: so many that all work and some headroom is placed, tried
//! out by the same scheduler on nodes that do not exist yet; and which node is not needed any more.
//! Decides for whoever makes and removes nodes; makes none.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::id::NodeId;

/// Most nodes that one decision adds: a wrong template should not fill a host.
pub const MAX_ADDED: u32 = 100;
/// Most nodes that one decision tries to do without: each trial plans a drain.
pub const MAX_TRIALS: usize = 10;

/// The scheduler on nodes that do not exist.
pub trait Trial {
    /// How much work has no place, headroom included, if so many nodes of each pool were there
    /// beside what is.
    fn unplaced_with(&self, extra: &BTreeMap<String, u32>) -> u32;
    /// Whether all work and the headroom have a place without this node, with every rule kept.
    fn fits_without(&self, node: NodeId) -> bool;
}

/// A node of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub id: NodeId,
    /// When it came, ms.
    pub added_ms: u64,
    /// How much of its larger resource is asked for, in percent.
    pub used_percent: u32,
}

/// Nodes that are alike and can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Fewest nodes.
    pub min: u32,
    /// Most nodes.
    pub max: u32,
    /// What one costs, in any unit that all pools share.
    pub cost: u64,
    /// Those that are there.
    pub members: Vec<Member>,
    /// Those that were ordered and are not ready yet: they count as there.
    pub coming: u32,
    /// Those that were ordered and do not come: nothing is expected of them, and each has one of the most.
    pub stuck: u32,
    /// None is ordered at present: those before did not come.
    pub is_held: bool,
    /// For how long a node is not needed before it goes, and for how long none goes after one came, ms.
    pub idle_ms: u64,
    /// When one was last ordered, ms; none: never.
    pub ordered_ms: Option<u64>,
}

impl Pool {
    fn size(&self) -> u32 {
        u32::try_from(self.members.len())
            .unwrap_or(u32::MAX)
            .saturating_add(self.coming)
            .saturating_add(self.stuck)
    }

    /// How many more may be ordered in one decision.
    pub fn room(&self) -> u32 {
        match self.is_held {
            true => 0,
            false => self.max.saturating_sub(self.size()).min(MAX_ADDED),
        }
    }
}

/// Since when each node is not needed: the memory between decisions, bounded by the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unneeded {
    since_ms: BTreeMap<NodeId, u64>,
}

/// What is to be done with nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// So many more of a pool.
    Add {
        /// Of which pool.
        pool: String,
        /// How many.
        nodes: u32,
        /// Work without a place, before and after.
        unplaced: (u32, u32),
    },
    /// One is drained, then removed.
    Remove {
        /// Which.
        node: NodeId,
        /// Of which pool.
        pool: String,
        /// For how long it was not needed, in ms.
        unneeded_ms: u64,
    },
    /// Nothing.
    Keep {
        /// Work without a place that no pool could take.
        unplaced: u32,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add {
                pool,
                nodes,
                unplaced: (before, after),
            } => write!(
                f,
                "{nodes} more of pool {pool}: without a place {before}, then {after}"
            ),
            Self::Remove {
                node,
                pool,
                unneeded_ms,
            } => write!(
                f,
                "{node} of pool {pool} goes: not needed for {} s",
                unneeded_ms / 1_000
            ),
            Self::Keep { unplaced: 0 } => f.write_str("as it is"),
            Self::Keep { unplaced } => {
                write!(f, "as it is: no pool has a place for {unplaced}")
            }
        }
    }
}

/// What should change, one thing at a time. `unneeded` is brought up to date.
pub fn plan_nodes(
    pools: &[Pool],
    trial: &dyn Trial,
    unneeded: &mut Unneeded,
    now_ms: u64,
) -> Change {
    let coming: BTreeMap<String, u32> = pools
        .iter()
        .filter(|pool| pool.coming > 0)
        .map(|pool| (pool.name.clone(), pool.coming))
        .collect();
    let short = pools
        .iter()
        .find(|pool| pool.size() < pool.min && pool.room() > 0);
    let before = trial.unplaced_with(&coming);
    if let Some(pool) = short {
        unneeded.since_ms.clear();
        return Change::Add {
            pool: pool.name.clone(),
            nodes: (pool.min - pool.size()).min(pool.room()),
            unplaced: (before, before),
        };
    }
    if before > 0 {
        // Nothing is to spare while anything waits.
        unneeded.since_ms.clear();
        return plan_growth(pools, trial, &coming, before);
    }
    plan_removal(pools, trial, unneeded, now_ms)
}

/// The pool whose nodes leave least without a place, then cost least, then are fewest.
fn plan_growth(
    pools: &[Pool],
    trial: &dyn Trial,
    coming: &BTreeMap<String, u32>,
    before: u32,
) -> Change {
    let offers = pools.iter().filter_map(|pool| {
        let (nodes, after) = fewest(trial, coming, &pool.name, pool.room())?;
        let cost = pool.cost.saturating_mul(u64::from(nodes));
        (after < before).then_some((after, cost, nodes, &pool.name))
    });
    match offers.min() {
        Some((after, _, nodes, pool)) => Change::Add {
            pool: pool.clone(),
            nodes,
            unplaced: (before, after),
        },
        None => Change::Keep { unplaced: before },
    }
}

/// The fewest nodes of a pool, up to `most`, that leave as little as `most` would, by bisection:
/// more nodes never leave more.
fn fewest(
    trial: &dyn Trial,
    coming: &BTreeMap<String, u32>,
    pool: &str,
    most: u32,
) -> Option<(u32, u32)> {
    if most == 0 {
        return None;
    }
    let left = |nodes: u32| {
        let mut extra = coming.clone();
        *extra.entry(pool.to_owned()).or_default() += nodes;
        trial.unplaced_with(&extra)
    };
    let least = left(most);
    let (mut low, mut high) = (1, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if left(middle) <= least {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some((high, least))
}

/// The node that was not needed longest, once that is long enough and its pool is at rest.
fn plan_removal(pools: &[Pool], trial: &dyn Trial, unneeded: &mut Unneeded, now_ms: u64) -> Change {
    let is_at_rest = pools.iter().all(|pool| pool.coming == 0);
    let settled = |pool: &Pool, at_ms: u64| now_ms.saturating_sub(at_ms) >= pool.idle_ms;
    let spare = pools.iter().filter(|pool| {
        let is_settled = pool.ordered_ms.is_none_or(|at| settled(pool, at));
        is_at_rest && pool.size() > pool.min && is_settled
    });
    let mut candidates: Vec<(u32, NodeId, &Pool)> = spare
        .flat_map(|pool| pool.members.iter().map(move |member| (pool, member)))
        .filter(|(pool, member)| settled(pool, member.added_ms))
        .map(|(pool, member)| (member.used_percent, member.id, pool))
        .collect();
    candidates.sort_by_key(|(used, id, _)| (*used, *id));
    candidates.truncate(MAX_TRIALS);
    candidates.retain(|(_, id, _)| trial.fits_without(*id));
    let still = |id: &NodeId| candidates.iter().any(|(_, other, _)| other == id);
    unneeded.since_ms.retain(|id, _| still(id));
    for (_, id, _) in &candidates {
        unneeded.since_ms.entry(*id).or_insert(now_ms);
    }
    let since = |id: &NodeId| unneeded.since_ms.get(id).copied().unwrap_or(now_ms);
    let longest = candidates
        .iter()
        .map(|(_, id, pool)| (since(id), *id, *pool))
        .filter(|(since_ms, _, pool)| settled(pool, *since_ms))
        .min_by_key(|(since_ms, id, _)| (*since_ms, *id));
    let Some((since_ms, node, pool)) = longest else {
        return Change::Keep { unplaced: 0 };
    };
    // The others fitted beside it: whether they still do without it is a new question.
    unneeded.since_ms.clear();
    Change::Remove {
        node,
        pool: pool.name.clone(),
        unneeded_ms: now_ms - since_ms,
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
