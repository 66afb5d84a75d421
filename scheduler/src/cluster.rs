//! The scheduler's view of the cluster: nodes with their room, and which allocations use it.
//! Kept up one change at a time; never rebuilt for a decision, never decides anything itself.

mod ledger;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::node::{Admin, Facts, HOST, Node, NodeStatus};
use skep_model::placement::{Builds, DYNAMIC_PORTS, PoolPolicy, Strategy};

use crate::column::{Columns, MISSING};
use crate::packing::{Demand, Size, Supply};
use crate::room::{Named, Needs, Room};
use ledger::{Largest, Ledger, Placed};

/// Whether a node takes allocations, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It is not known (any more): allocations are said to be there.
    #[default]
    Absent,
    /// It does.
    Ready,
    /// An operator wants no new ones there.
    Cordoned,
    /// An operator wants it empty.
    Draining,
    /// Its runtime does not answer.
    RuntimeDown,
    /// Its runtime answers a ping, and does nothing else.
    RuntimeWedged,
    /// Nobody knows how much memory it has.
    Unmeasured,
    /// Its agent is silent.
    Lost,
}

impl Standing {
    fn of(node: &Node) -> Self {
        match (node.status, node.admin) {
            (NodeStatus::Lost, _) => Self::Lost,
            (NodeStatus::RuntimeDown, _) => Self::RuntimeDown,
            (NodeStatus::RuntimeWedged, _) => Self::RuntimeWedged,
            (NodeStatus::Ready, Admin::Eligible) => match node.facts.machine.memory_unknown {
                true => Self::Unmeasured,
                false => Self::Ready,
            },
            (NodeStatus::Ready, Admin::Cordoned) => Self::Cordoned,
            (NodeStatus::Ready, Admin::Draining { .. }) => Self::Draining,
        }
    }
}

/// A node as placement sees it at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Which.
    pub id: NodeId,
    /// What people call it.
    pub name: &'a str,
    /// Whether it takes allocations.
    pub standing: Standing,
    /// Raised by every change that placement must know of: the base of compare-and-set.
    pub generation: u64,
    /// What allocations may use when there are none: the node's own under its pool's policy, less
    /// the reserved share.
    pub capacity: Room,
    /// What of it is left.
    pub free: Room,
}

/// What is known of a node beside its room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) status_ms: u64,
    pub(crate) admin: Admin,
    facts: Facts,
    pub(crate) allocations: BTreeSet<AllocationId>,
}

/// Nodes, what they have, and what live allocations use of it. Each change costs O(log n) (a node's:
/// times its attributes). Holds live allocations only: whoever keeps it up removes the ended ones.
///
/// What every decision reads of every node lies in arrays by the node's ordinal, which lasts as
/// long as the node or anything on it.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    ordinals: BTreeMap<NodeId, u32>,
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    ids: Vec<NodeId>,
    pub(crate) standing: Vec<Standing>,
    pub(crate) capacity: Vec<Room>,
    pub(crate) used: Vec<Room>,
    pub(crate) free: Vec<Room>,
    known: usize,
    columns: Columns,
    policies: BTreeMap<String, PoolPolicy>,
    largest: Largest,
    /// Sums over the nodes that take allocations.
    supply: Supply,
    ledger: Ledger,
}

impl Cluster {
    /// Learns of a node, or of its change. What is on it stays counted.
    pub fn put_node(&mut self, node: &Node) {
        let ordinal = self.ordinal_or_new(node.id);
        self.change(ordinal, |cluster, _| cluster.set_node(ordinal, node));
    }

    fn set_node(&mut self, ordinal: u32, node: &Node) {
        let index = ordinal as usize;
        let was_known = self.standing[index] != Standing::Absent;
        if !was_known {
            self.known += 1;
        }
        self.standing[index] = Standing::of(node);
        let slot = &mut self.slots[index];
        slot.name.clone_from(&node.name);
        slot.generation = node.generation;
        slot.status_ms = node.status_ms;
        slot.admin = node.admin;
        slot.facts.clone_from(&node.facts);
        self.columns.put(ordinal, node);
        self.measure(ordinal, was_known);
    }

    /// Lets a node take no more, as one that is to be empty. What is on it stays counted.
    pub(crate) fn close_node(&mut self, id: NodeId) {
        if let Some(ordinal) = self.ordinal(id) {
            self.change(ordinal, |cluster, index| {
                cluster.standing[index] = Standing::Draining;
            });
        }
    }

    /// Forgets a node. Its allocations stay counted until each is removed, and come to light again
    /// should the node return.
    pub fn remove_node(&mut self, id: NodeId) {
        let Some(ordinal) = self.ordinal(id) else {
            return;
        };
        let index = ordinal as usize;
        if self.standing[index] == Standing::Absent {
            return;
        }
        self.known -= 1;
        self.largest.remove(self.capacity[index]);
        self.change(ordinal, |cluster, index| {
            cluster.standing[index] = Standing::Absent;
            cluster.capacity[index] = Room::default();
            cluster.free[index] = Room::default();
        });
        let allocations = std::mem::take(&mut self.slots[index].allocations);
        self.slots[index] = Slot {
            allocations,
            ..Slot::default()
        };
        self.columns.clear(ordinal);
        self.drop_if_empty(ordinal);
    }

    /// What holds for the nodes of a pool (metadata `pool`) from now on; for the empty name: of every
    /// pool that has no policy of its own. None: the default again.
    pub fn put_policy(&mut self, pool: &str, policy: Option<PoolPolicy>) {
        match policy {
            Some(policy) => self.policies.insert(pool.to_owned(), policy),
            None => self.policies.remove(pool),
        };
        for ordinal in 0..self.slots.len() as u32 {
            let is_known = self.standing[ordinal as usize] != Standing::Absent;
            let own = self.columns.value("pool", ordinal).unwrap_or_default();
            if is_known && (own == pool || pool.is_empty()) {
                self.change(ordinal, |cluster, _| cluster.measure(ordinal, true));
            }
        }
    }

    /// Counts a live allocation where it is; one that is counted already is counted as given now.
    pub fn put_allocation(
        &mut self,
        id: AllocationId,
        node: NodeId,
        service: ServiceId,
        needs: &Needs,
    ) {
        self.remove_allocation(id);
        let ordinal = self.ordinal_or_new(node);
        self.ledger.add(id, ordinal, service, needs);
        self.change(ordinal, |cluster, index| {
            cluster.used[index] = cluster.used[index].plus(needs.room);
            cluster.free[index] = cluster.capacity[index].minus(cluster.used[index]);
            cluster.slots[index].allocations.insert(id);
        });
    }

    /// No longer counts an allocation: it ended, or was forgotten. One that is not known is fine.
    pub fn remove_allocation(&mut self, id: AllocationId) {
        let Some((ordinal, room)) = self.ledger.remove(id) else {
            return;
        };
        self.change(ordinal, |cluster, index| {
            cluster.used[index] = cluster.used[index].minus(room);
            cluster.free[index] = cluster.capacity[index].minus(cluster.used[index]);
            cluster.slots[index].allocations.remove(&id);
        });
        self.drop_if_empty(ordinal);
    }

    /// Whether a counted allocation is on its way out: it takes room until it is gone, and nobody
    /// else has to go for what it leaves.
    pub fn set_leaving(&mut self, id: AllocationId, is_leaving: bool) {
        self.ledger.set_leaving(id, is_leaving);
    }

    /// Without any node or allocation: the policies alone.
    pub(crate) fn without_nodes(&self) -> Self {
        Self {
            policies: self.policies.clone(),
            ..Self::default()
        }
    }

    /// Every known node, by id.
    pub fn nodes(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.ordinals
            .values()
            .filter_map(|ordinal| self.candidate(*ordinal))
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> Option<Candidate<'_>> {
        self.candidate(self.ordinal(id)?)
    }

    /// How many nodes are known.
    pub fn node_count(&self) -> usize {
        self.known
    }

    /// How many live allocations are counted.
    pub fn allocation_count(&self) -> usize {
        self.ledger.len()
    }

    pub(crate) fn ordinal(&self, id: NodeId) -> Option<u32> {
        self.ordinals.get(&id).copied()
    }

    pub(crate) fn slot(&self, ordinal: u32) -> &Slot {
        &self.slots[ordinal as usize]
    }

    /// The id that an ordinal in use stands for.
    pub(crate) fn id_of(&self, ordinal: u32) -> NodeId {
        self.ids[ordinal as usize]
    }

    pub(crate) fn candidate(&self, ordinal: u32) -> Option<Candidate<'_>> {
        let index = ordinal as usize;
        let slot = &self.slots[index];
        let standing = self.standing[index];
        (standing != Standing::Absent).then_some(Candidate {
            id: self.ids[index],
            name: &slot.name,
            standing,
            generation: slot.generation,
            capacity: self.capacity[index],
            free: self.free[index],
        })
    }

    /// Which physical host a node is on, as a value of that attribute; what is not known is one.
    pub fn host_of(&self, node: NodeId) -> u32 {
        let column = self.columns().get(HOST);
        let host = self.ordinal(node).zip(column);
        host.map_or(MISSING, |(ordinal, column)| column.of(ordinal))
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// How many allocations of a service are on each node that has any, by ordinal.
    pub(crate) fn spread_of(&self, service: ServiceId) -> Option<&BTreeMap<u32, u32>> {
        self.ledger.spread_of(service)
    }

    /// How much of something is used on a node.
    pub(crate) fn named_used(&self, named: &Named, ordinal: u32) -> u32 {
        self.ledger.named_used(named, ordinal)
    }

    /// How much of something a node has.
    pub(crate) fn named_capacity(&self, named: &Named, ordinal: u32) -> u32 {
        match named {
            Named::Port(_) => 1,
            Named::DynamicPorts => DYNAMIC_PORTS,
            Named::Device(name) => {
                let devices = &self.slots[ordinal as usize].facts.devices;
                devices.get(name).copied().unwrap_or(0)
            }
        }
    }

    /// Where an allocation is, whose it is, and what it takes.
    pub(crate) fn allocation(&self, id: AllocationId) -> Option<(Placed, &Needs)> {
        self.ledger.get(id)
    }

    pub(crate) fn is_leaving(&self, id: AllocationId) -> bool {
        self.ledger.is_leaving(id)
    }

    /// How many allocations of a service are on their way out.
    pub(crate) fn leaving_of(&self, service: ServiceId) -> u32 {
        self.ledger.leaving_of(service)
    }

    /// The lowest priority of any allocation; none: there are no allocations.
    pub(crate) fn lowest_priority(&self) -> Option<i32> {
        self.ledger.lowest_priority()
    }

    /// What all allocations request.
    pub(crate) fn demand(&self) -> &Demand {
        self.ledger.demand()
    }

    /// What the nodes have that take allocations.
    pub(crate) fn supply(&self) -> Supply {
        Supply {
            largest: self.largest.room().into(),
            ..self.supply
        }
    }

    /// Whether a node counts as supply, and as empty.
    fn supplied(&self, index: usize) -> (Size, Size) {
        let nothing = Size::default();
        if self.standing[index] != Standing::Ready {
            return (nothing, nothing);
        }
        let capacity = Size::from(self.capacity[index]);
        match self.used[index] == Room::default() {
            true => (capacity, capacity),
            false => (capacity, nothing),
        }
    }

    /// Changes a node, and the sums with it.
    fn change<T>(&mut self, ordinal: u32, change: impl FnOnce(&mut Self, usize) -> T) -> T {
        let index = ordinal as usize;
        let (total, empty) = self.supplied(index);
        self.supply.total = self.supply.total.minus(total);
        self.supply.empty = self.supply.empty.minus(empty);
        let changed = change(self, index);
        let (total, empty) = self.supplied(index);
        self.supply.total = self.supply.total.plus(total);
        self.supply.empty = self.supply.empty.plus(empty);
        changed
    }

    /// How nodes are ranked for a service of this pool that does not say.
    pub(crate) fn strategy(&self, pool: Option<&str>) -> Strategy {
        let own = pool.and_then(|pool| self.policies.get(pool));
        let policy = own.or_else(|| self.policies.get(""));
        let strategy = policy.and_then(|policy| policy.strategy);
        strategy.unwrap_or(Strategy::Binpack)
    }

    /// What holds for the nodes of a pool; none: of those that are in none.
    fn policy(&self, pool: Option<&str>) -> PoolPolicy {
        let own = self.policies.get(pool.unwrap_or_default());
        own.or_else(|| self.policies.get(""))
            .copied()
            .unwrap_or_default()
    }

    /// What the nodes of a pool are for.
    pub(crate) fn builds(&self, pool: Option<&str>) -> Builds {
        self.policy(pool).builds
    }

    /// Whether the nodes of any pool are for some work only.
    pub(crate) fn has_builders(&self) -> bool {
        self.policies.values().any(|it| it.builds != Builds::Also)
    }

    fn measure(&mut self, ordinal: u32, was_measured: bool) {
        let index = ordinal as usize;
        if was_measured {
            self.largest.remove(self.capacity[index]);
        }
        let policy = self.policy(self.columns.value("pool", ordinal));
        self.capacity[index] = Room::offered(&self.slots[index].facts, &policy);
        self.free[index] = self.capacity[index].minus(self.used[index]);
        self.largest.add(self.capacity[index]);
    }

    fn ordinal_or_new(&mut self, id: NodeId) -> u32 {
        if let Some(ordinal) = self.ordinal(id) {
            return ordinal;
        }
        let ordinal = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.ids.push(id);
            self.standing.push(Standing::Absent);
            self.capacity.push(Room::default());
            self.used.push(Room::default());
            self.free.push(Room::default());
            self.slots.len() as u32 - 1
        });
        self.ids[ordinal as usize] = id;
        self.ordinals.insert(id, ordinal);
        ordinal
    }

    fn drop_if_empty(&mut self, ordinal: u32) {
        let index = ordinal as usize;
        let is_absent = self.standing[index] == Standing::Absent;
        if is_absent && self.slots[index].allocations.is_empty() {
            let was_there = self.ordinals.remove(&self.ids[index]).is_some();
            self.vacant.extend(was_there.then_some(ordinal));
        }
    }
}

/// The same nodes, rules and allocations, however it came about: ordinals and the numbers of values
/// are of no account.
impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        let nodes = |cluster: &Self, ordinal: u32| {
            let slot = cluster.slot(ordinal);
            let attributes: Vec<(String, String)> = cluster
                .columns
                .of(ordinal)
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            let used = cluster.used[ordinal as usize];
            let word = (slot.facts.clone(), slot.status_ms, slot.admin);
            (attributes, used, word, slot.allocations.clone())
        };
        self.nodes().eq(other.nodes())
            && self.ordinals.keys().eq(other.ordinals.keys())
            && self
                .ordinals
                .values()
                .zip(other.ordinals.values())
                .all(|(mine, theirs)| nodes(self, *mine) == nodes(other, *theirs))
            && self.policies == other.policies
            && self.largest == other.largest
            && self.ledger.eq(&other.ledger, &|mine, theirs| {
                self.id_of(mine) == other.id_of(theirs)
            })
    }
}
