//! The scheduler's view of the cluster: nodes with their room, and which allocations use it.
//! Kept up one change at a time; never rebuilt for a decision, never decides anything itself.

use std::collections::BTreeMap;

use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::node::{Node, NodeStatus};
use skep_model::spec::Resources;

/// Share of a node's memory kept for its system, Docker and the agent, in percent.
pub const RESERVED_MEMORY_PERCENT: u64 = 5;
/// Least memory kept for them: an idle agent and data plane alone use about 20 MiB, dockerd 50.
pub const RESERVED_MEMORY_MIN_BYTES: u64 = 64 << 20;

/// An amount of what nodes have and allocations request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

impl Room {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// What is left of the first after the second; never below nothing (a node may shrink under
    /// what runs on it).
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
}

impl From<Resources> for Room {
    /// Requests count, limits do not: there is no overcommitting.
    fn from(resources: Resources) -> Self {
        Self {
            cpu_millis: resources.cpu_millis.into(),
            memory_bytes: resources.memory_bytes,
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
    /// Whether it can be relied on.
    pub status: NodeStatus,
    /// Raised by every change that placement must know of: the base of compare-and-set.
    pub generation: u64,
    /// What allocations may use when there are none: the node's own, less the reserved share.
    pub capacity: Room,
    /// What of it is left.
    pub free: Room,
}

/// What is known of a node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    status: NodeStatus,
    generation: u64,
    capacity: Room,
}

/// A node and what is on it. The two arrive independently and in any order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Entry {
    known: Option<Known>,
    used: Room,
    allocations: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    node: NodeId,
    service: ServiceId,
    room: Room,
}

/// Nodes, what they have, and what live allocations use of it. Cheap to keep up: each change costs
/// O(log n). Holds live allocations only: whoever keeps it up removes the ended ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    entries: BTreeMap<NodeId, Entry>,
    allocations: BTreeMap<AllocationId, Placed>,
    services: BTreeMap<ServiceId, BTreeMap<NodeId, u32>>,
}

impl Cluster {
    /// Learns of a node, or of its change. What is on it stays counted.
    pub fn put_node(&mut self, node: &Node) {
        self.entries.entry(node.id).or_default().known = Some(Known {
            name: node.name.clone(),
            status: node.status,
            generation: node.generation,
            capacity: capacity_of(node),
        });
    }

    /// Forgets a node. Its allocations stay counted until each is removed, and come to light again
    /// should the node return.
    pub fn remove_node(&mut self, id: NodeId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.known = None;
            self.drop_if_empty(id);
        }
    }

    /// Counts a live allocation where it is; one that is counted already is counted as given now.
    pub fn put_allocation(
        &mut self,
        id: AllocationId,
        node: NodeId,
        service: ServiceId,
        resources: Resources,
    ) {
        self.remove_allocation(id);
        let room = Room::from(resources);
        let placed = Placed {
            node,
            service,
            room,
        };
        self.allocations.insert(id, placed);
        let entry = self.entries.entry(node).or_default();
        entry.used = entry.used.plus(room);
        entry.allocations += 1;
        *self
            .services
            .entry(service)
            .or_default()
            .entry(node)
            .or_default() += 1;
    }

    /// No longer counts an allocation: it ended, or was forgotten. One that is not known is fine.
    pub fn remove_allocation(&mut self, id: AllocationId) {
        let Some(placed) = self.allocations.remove(&id) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&placed.node) {
            entry.used = entry.used.minus(placed.room);
            entry.allocations -= 1;
        }
        self.drop_if_empty(placed.node);
        if let Some(nodes) = self.services.get_mut(&placed.service) {
            if let Some(count) = nodes.get_mut(&placed.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&placed.node);
                }
            }
            if nodes.is_empty() {
                self.services.remove(&placed.service);
            }
        }
    }

    /// Every known node, by id.
    pub fn nodes(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.entries
            .iter()
            .filter_map(|(id, entry)| entry.candidate(*id))
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> Option<Candidate<'_>> {
        self.entries.get(&id).and_then(|entry| entry.candidate(id))
    }

    /// How many live allocations are counted.
    pub fn allocation_count(&self) -> usize {
        self.allocations.len()
    }

    /// How many allocations of a service are on each node that has any.
    pub(crate) fn spread_of(&self, service: ServiceId) -> Option<&BTreeMap<NodeId, u32>> {
        self.services.get(&service)
    }

    fn drop_if_empty(&mut self, id: NodeId) {
        let is_empty = |entry: &Entry| entry.known.is_none() && entry.allocations == 0;
        if self.entries.get(&id).is_some_and(is_empty) {
            self.entries.remove(&id);
        }
    }
}

impl Entry {
    fn candidate(&self, id: NodeId) -> Option<Candidate<'_>> {
        let known = self.known.as_ref()?;
        Some(Candidate {
            id,
            name: &known.name,
            status: known.status,
            generation: known.generation,
            capacity: known.capacity,
            free: known.capacity.minus(self.used),
        })
    }
}

/// What a node offers: all of its CPU (shares sort out the rest), its memory less the reserve.
fn capacity_of(node: &Node) -> Room {
    let memory = node.facts.memory_bytes;
    // Divided first: a node may say any number of bytes.
    let reserved = (memory / 100 * RESERVED_MEMORY_PERCENT).max(RESERVED_MEMORY_MIN_BYTES);
    Room {
        cpu_millis: node.facts.cpu_millis.into(),
        memory_bytes: memory.saturating_sub(reserved),
    }
}

#[cfg(test)]
mod tests {
    use skep_model::node::Facts;

    use super::*;

    fn node(id: u128, cpu_millis: u32, memory_bytes: u64) -> Node {
        Node {
            id: NodeId::from_u128(id),
            name: format!("n{id}"),
            facts: Facts {
                cpu_millis,
                memory_bytes,
                ..Facts::default()
            },
            status: NodeStatus::Ready,
            status_ms: 0,
            generation: 1,
            joined_ms: 0,
            meta: std::collections::BTreeMap::new(),
        }
    }

    fn resources(cpu_millis: u32, memory_bytes: u64) -> Resources {
        Resources {
            cpu_millis,
            memory_bytes,
            cpu_limit_millis: 0,
        }
    }

    #[test]
    fn the_reserve_is_a_share_and_has_a_floor() {
        let mut cluster = Cluster::default();
        for (id, memory, left) in [
            (1, 100 << 30, 95 << 30),
            (2, 1 << 30, (1 << 30) - (64 << 20)),
            (3, 32 << 20, 0),
        ] {
            cluster.put_node(&node(id, 1_000, memory));
            let capacity = cluster.node(NodeId::from_u128(id)).unwrap().capacity;
            assert_eq!(capacity.memory_bytes.div_ceil(1 << 20), left >> 20, "{id}");
            assert_eq!(capacity.cpu_millis, 1_000);
        }
    }

    #[test]
    fn what_is_put_and_removed_leaves_no_trace_in_any_order() {
        let (web, a) = (ServiceId::from_u128(9), NodeId::from_u128(1));
        let mut cluster = Cluster::default();
        cluster.put_allocation(AllocationId::from_u128(1), a, web, resources(500, 1 << 20));
        assert_eq!(cluster.nodes().count(), 0);
        cluster.put_node(&node(1, 1_000, 1 << 30));
        assert_eq!(cluster.node(a).unwrap().free.cpu_millis, 500);
        cluster.put_allocation(AllocationId::from_u128(1), a, web, resources(300, 1 << 20));
        assert_eq!(cluster.node(a).unwrap().free.cpu_millis, 700);
        assert_eq!(cluster.spread_of(web).unwrap()[&a], 1);

        cluster.remove_node(a);
        assert_eq!(cluster.node(a), None);
        cluster.put_node(&node(1, 1_000, 1 << 30));
        assert_eq!(cluster.node(a).unwrap().free.cpu_millis, 700);
        cluster.remove_node(a);
        cluster.remove_allocation(AllocationId::from_u128(1));
        cluster.remove_allocation(AllocationId::from_u128(1));
        assert_eq!(cluster, Cluster::default());
    }

    #[test]
    fn a_node_that_shrank_has_nothing_free() {
        let mut cluster = Cluster::default();
        cluster.put_node(&node(1, 2_000, 1 << 30));
        let a = NodeId::from_u128(1);
        let web = ServiceId::from_u128(9);
        cluster.put_allocation(
            AllocationId::from_u128(1),
            a,
            web,
            resources(1_500, 1 << 20),
        );
        cluster.put_node(&node(1, 1_000, 1 << 30));
        assert_eq!(cluster.node(a).unwrap().free.cpu_millis, 0);
    }
}
