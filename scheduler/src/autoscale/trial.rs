//! What would find a place on nodes that do not exist yet, and whether all would still have one without a node
//! that does: asked of the very search that places allocations. Owns the nodes on trial; knows no state, makes none.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::node::{HOST, Node};
use skep_model::placement::{Builds, Placement};
use skep_model::spec::Resources;
use skep_model::storage::Storage;

use super::pool::Trial;
use crate::cluster::{Cluster, Standing};
use crate::draft::Draft;
use crate::filter::{Ask, Surroundings};
use crate::lens::Lens;
use crate::place::{self, Search};
use crate::refusal::Refusal;
use crate::room::Room;

/// Ids from here on are of nodes, allocations and services on trial: no clock makes such.
const FIRST_ID: u128 = u128::MAX - (1 << 32);
/// Pieces that the headroom of a pool is cut into at most.
const MAX_PIECES: u64 = 1_000;

/// Work of one service that has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// What each needs.
    pub ask: Ask,
    /// How many.
    pub count: u32,
}

/// What the next nodes of a pool would be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blueprint {
    /// The name of the pool.
    pub pool: String,
    /// A node of it; its id and its name are nobody's.
    pub node: Node,
    /// The physical hosts of the next ones, in order: first of those that come already. Others' are not known.
    pub hosts: Vec<String>,
    /// Room that is to be free.
    pub headroom: Room,
    /// Nodes on which nothing runs that are to be there.
    pub spare: u32,
    /// More of it may come.
    pub may_come: bool,
}

/// How much of what waits a node of one pool could take, and why not the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// So many could be on one of its nodes, each by itself.
    pub fitting: u32,
    /// Why the largest of the others could not; none: all could.
    pub refusal: Option<Refusal>,
}

/// What has to go from a node for it to be empty; none: it has to stay.
pub type Tenants<'a> = dyn Fn(NodeId) -> Option<Vec<Unplaced>> + 'a;

/// A cluster with all that waits, for which nodes are put on trial.
pub struct Ground<'a> {
    cluster: Cluster,
    blueprints: Vec<Blueprint>,
    /// What some node that may come would take.
    waiting: Vec<Unplaced>,
    /// What none would.
    hopeless: u32,
    /// Services of which each node gets one.
    system: Vec<Ask>,
    tenants: &'a Tenants<'a>,
}

impl<'a> Ground<'a> {
    /// What waits is sorted into what a node that may come could take and what none could: the latter orders none.
    pub fn new(
        cluster: Cluster,
        blueprints: Vec<Blueprint>,
        (waiting, system): (Vec<Unplaced>, Vec<Ask>),
        tenants: &'a Tenants<'a>,
    ) -> Self {
        let mut ground = Self {
            cluster,
            blueprints,
            waiting: Vec::new(),
            hopeless: 0,
            system,
            tenants,
        };
        let one_each = ground.blueprints.iter().filter(|it| it.may_come);
        let one_each = one_each.map(|it| (it.pool.clone(), 1)).collect();
        let with_one_each = ground.with(&one_each);
        let draft = Draft::new(&with_one_each);
        let (waiting, hopeless): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|one| place::place(&draft, &one.ask).is_ok());
        ground.hopeless = hopeless.iter().map(|one| one.count).sum();
        ground.waiting = waiting;
        ground
    }

    /// How many wait that no node of any pool would help, as far as more may come.
    pub const fn hopeless(&self) -> u32 {
        self.hopeless
    }

    /// How many of these an empty node of a pool could take.
    pub fn fit(&self, pool: &str, waiting: &[Unplaced]) -> Fit {
        let mut fit = Fit {
            fitting: 0,
            refusal: None,
        };
        let mut largest = None;
        // Alone: what is said is of this node, not of all that there are.
        let mut alone = self.cluster.without_nodes();
        self.add_phantoms(&mut alone, &[(pool.to_owned(), 1)].into());
        let draft = Draft::new(&alone);
        for one in waiting {
            match place::place(&draft, &one.ask) {
                Ok(_) => fit.fitting = fit.fitting.saturating_add(one.count),
                Err(refusal) => {
                    let size = Some((one.ask.resources.memory_bytes, one.ask.resources.cpu_millis));
                    if fit.refusal.is_none() || size > largest {
                        (largest, fit.refusal) = (size, Some(refusal));
                    }
                }
            }
        }
        fit
    }

    /// The cluster with so many more nodes of each pool, each with its share of the system's services.
    fn with(&self, extra: &BTreeMap<String, u32>) -> Cluster {
        let mut cluster = self.cluster.clone();
        self.add_phantoms(&mut cluster, extra);
        cluster
    }

    fn add_phantoms(&self, cluster: &mut Cluster, extra: &BTreeMap<String, u32>) {
        let mut next = FIRST_ID;
        let mut fresh = || {
            next += 1;
            next
        };
        for blueprint in &self.blueprints {
            let count = extra.get(&blueprint.pool).copied().unwrap_or(0);
            for number in 0..count {
                let mut node = blueprint.node.clone();
                node.id = NodeId::from_u128(fresh());
                node.name = format!("new-{number}-of-{}", blueprint.pool);
                match blueprint.hosts.get(number as usize) {
                    Some(host) => node.meta.insert(HOST.to_owned(), host.clone()),
                    None => node.meta.remove(HOST),
                };
                cluster.put_node(&node);
                for ask in &self.system {
                    let Some(ordinal) = cluster.ordinal(node.id) else {
                        continue;
                    };
                    let takes = {
                        let draft = Draft::new(cluster);
                        Lens::new(&draft, ask).refuses(&draft, ordinal).is_none()
                    };
                    if takes {
                        let id = AllocationId::from_u128(fresh());
                        cluster.put_allocation(id, node.id, ask.service, &ask.needs());
                    }
                }
            }
        }
    }

    /// Nodes of a pool that take work and have none, beside the system's.
    fn empty(&self, draft: &Draft<'_>, pool: &str) -> u32 {
        let system: BTreeSet<ServiceId> = self.system.iter().map(|ask| ask.service).collect();
        let cluster = draft.cluster();
        let is_empty = |ordinal: &u32| {
            let mut there = cluster.slot(*ordinal).allocations.iter();
            !draft.is_touched(*ordinal)
                && there.all(|id| {
                    let known = cluster.allocation(*id);
                    known.is_none_or(|(placed, _)| system.contains(&placed.service))
                })
        };
        let ready = cluster.nodes().filter(|it| it.standing == Standing::Ready);
        let ours = ready
            .filter_map(|it| cluster.ordinal(it.id))
            .filter(|ordinal| cluster.columns().value("pool", *ordinal) == Some(pool));
        u32::try_from(ours.filter(is_empty).count()).unwrap_or(u32::MAX)
    }

    /// How much of what is to be kept free is not, once all that runs and waits is where the draft has it.
    fn lacking(&self, draft: &mut Draft<'_>) -> u32 {
        let mut lacking: u32 = 0;
        for (number, blueprint) in (1..).zip(&self.blueprints) {
            let missing = blueprint
                .spare
                .saturating_sub(self.empty(draft, &blueprint.pool));
            // An empty node is also room that is free: it is counted before anything is laid on it.
            let service = ServiceId::from_u128(FIRST_ID - number);
            let unplaced = self
                .headroom(blueprint, service)
                .map_or(0, |one| one.count - take(draft, &one.ask, one.count));
            lacking = lacking.saturating_add(missing).saturating_add(unplaced);
        }
        lacking
    }

    /// The headroom of a pool as work: in one piece where an empty node can hold it, else in as few equal ones as fit.
    fn headroom(&self, blueprint: &Blueprint, service: ServiceId) -> Option<Unplaced> {
        if blueprint.headroom == Room::default() {
            return None;
        }
        let mut alone = self.cluster.without_nodes();
        self.add_phantoms(&mut alone, &[(blueprint.pool.clone(), 1)].into());
        let most = alone.nodes().next()?.free;
        let wanted = blueprint.headroom;
        let pieces = [
            (wanted.cpu_millis, most.cpu_millis),
            (wanted.memory_bytes, most.memory_bytes),
        ];
        let pieces = pieces.map(|(wanted, most)| match most {
            0 => u64::from(wanted > 0) * MAX_PIECES,
            most => wanted.div_ceil(most),
        });
        let pieces = pieces.into_iter().max()?.clamp(1, MAX_PIECES);
        let workspaces = blueprint.node.meta("workspaces");
        let own = workspaces.and_then(|list| list.split(',').next());
        let ask = Ask {
            service,
            resources: Resources {
                cpu_millis: u32::try_from(wanted.cpu_millis.div_ceil(pieces)).unwrap_or(u32::MAX),
                memory_bytes: wanted.memory_bytes.div_ceil(pieces),
                cpu_limit_millis: 0,
                memory_limit_bytes: 0,
                disk_bytes: 0,
            },
            placement: Placement {
                pool: Some(blueprint.pool.clone()),
                ..Placement::default()
            },
            only_on: None,
            storage: Storage::default(),
            shares_image: false,
            around: Surroundings {
                workspace: own.map(|name| name.trim().to_owned()),
                is_build: self.cluster.builds(Some(&blueprint.pool)) == Builds::Only,
                ..Surroundings::default()
            },
            staying: None,
        };
        Some(Unplaced {
            ask,
            count: u32::try_from(pieces).unwrap_or(u32::MAX),
        })
    }
}

/// Places as many as can be; how many that were.
fn take<'c>(draft: &mut Draft<'c>, ask: &Ask, count: u32) -> u32 {
    let mut search = Search::new(draft, ask, count as usize);
    let mut taken = 0;
    while taken < count && search.take(draft).is_some() {
        taken += 1;
    }
    taken
}

impl Trial for Ground<'_> {
    fn unplaced_with(&self, extra: &BTreeMap<String, u32>) -> u32 {
        let cluster = self.with(extra);
        let mut draft = Draft::new(&cluster);
        let mut unplaced: u32 = 0;
        for one in &self.waiting {
            let left = one.count - take(&mut draft, &one.ask, one.count);
            unplaced = unplaced.saturating_add(left);
        }
        unplaced.saturating_add(self.lacking(&mut draft))
    }

    fn fits_without(&self, node: NodeId) -> bool {
        let is_ready = |id| {
            let known = self.cluster.node(id);
            known.is_some_and(|it| it.standing == Standing::Ready)
        };
        // What an operator has closed, or what does not answer, is not for us to empty.
        let Some(tenants) = Some(node).filter(|id| is_ready(*id)).and_then(self.tenants) else {
            return false;
        };
        let mut cluster = self.cluster.clone();
        cluster.close_node(node);
        let mut draft = Draft::new(&cluster);
        let all_go = tenants
            .iter()
            .all(|one| take(&mut draft, &one.ask, one.count) == one.count);
        all_go && self.lacking(&mut draft) == 0
    }
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
