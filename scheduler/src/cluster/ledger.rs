//! Which allocations there are, of whom, where, and what they take. Speaks of nodes by ordinal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::id::{AllocationId, ServiceId};

use crate::packing::Demand;
use crate::room::{Named, Needs, Room};

/// Where an allocation is and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) service: ServiceId,
    pub(crate) node: u32,
    /// Number of its needs: few kinds serve many allocations.
    needs: u32,
}

/// Live allocations and their sums.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    allocations: BTreeMap<AllocationId, Placed>,
    services: BTreeMap<ServiceId, BTreeMap<u32, u32>>,
    named: BTreeMap<Named, BTreeMap<u32, u32>>,
    kinds: Vec<(Arc<Needs>, u32)>,
    numbers: BTreeMap<Arc<Needs>, u32>,
    vacant: Vec<u32>,
    demand: Demand,
    leaving: BTreeSet<AllocationId>,
    leaving_of: BTreeMap<ServiceId, u32>,
}

impl Ledger {
    pub(super) fn add(&mut self, id: AllocationId, node: u32, service: ServiceId, needs: &Needs) {
        let kind = self.intern(needs);
        let placed = Placed {
            service,
            node,
            needs: kind,
        };
        self.allocations.insert(id, placed);
        *self
            .services
            .entry(service)
            .or_default()
            .entry(node)
            .or_default() += 1;
        for (named, count) in &needs.named {
            let used = self.named.entry(named.clone()).or_default();
            *used.entry(node).or_default() += count;
        }
        self.demand.put(needs.room.into());
    }

    /// Where it was and the room it took.
    pub(super) fn remove(&mut self, id: AllocationId) -> Option<(u32, Room)> {
        self.set_leaving(id, false);
        let placed = self.allocations.remove(&id)?;
        let needs = Arc::clone(&self.kinds[placed.needs as usize].0);
        self.release(placed.needs);
        take(&mut self.services, &placed.service, placed.node, 1);
        for (named, count) in &needs.named {
            take(&mut self.named, named, placed.node, *count);
        }
        self.demand.remove(needs.room.into());
        Some((placed.node, needs.room))
    }

    pub(super) fn set_leaving(&mut self, id: AllocationId, is_leaving: bool) {
        let Some(placed) = self.allocations.get(&id) else {
            return;
        };
        if is_leaving && self.leaving.insert(id) {
            *self.leaving_of.entry(placed.service).or_default() += 1;
        }
        if is_leaving || !self.leaving.remove(&id) {
            return;
        }
        if let Some(count) = self.leaving_of.get_mut(&placed.service) {
            *count -= 1;
            if *count == 0 {
                self.leaving_of.remove(&placed.service);
            }
        }
    }

    pub(super) fn is_leaving(&self, id: AllocationId) -> bool {
        self.leaving.contains(&id)
    }

    pub(super) fn leaving_of(&self, service: ServiceId) -> u32 {
        self.leaving_of.get(&service).copied().unwrap_or(0)
    }

    /// Few kinds of needs serve many allocations.
    pub(super) fn lowest_priority(&self) -> Option<i32> {
        self.numbers.keys().map(|needs| needs.priority).min()
    }

    pub(super) fn get(&self, id: AllocationId) -> Option<(Placed, &Needs)> {
        let placed = *self.allocations.get(&id)?;
        Some((placed, &self.kinds[placed.needs as usize].0))
    }

    pub(super) fn len(&self) -> usize {
        self.allocations.len()
    }

    pub(super) fn demand(&self) -> &Demand {
        &self.demand
    }

    pub(super) fn spread_of(&self, service: ServiceId) -> Option<&BTreeMap<u32, u32>> {
        self.services.get(&service)
    }

    pub(super) fn named_used(&self, named: &Named, node: u32) -> u32 {
        let used = self.named.get(named).and_then(|nodes| nodes.get(&node));
        used.copied().unwrap_or(0)
    }

    /// Whether both hold the same, where `is_same` says which ordinals mean the same node.
    pub(super) fn eq(&self, other: &Self, is_same: &dyn Fn(u32, u32) -> bool) -> bool {
        let counts = |ledger: &Self| -> Vec<(ServiceId, u32)> {
            let sums = ledger.services.iter();
            sums.map(|(id, nodes)| (*id, nodes.values().sum()))
                .collect()
        };
        let mut pairs = self.allocations.iter().zip(&other.allocations);
        self.len() == other.len()
            && self.demand == other.demand
            && self.leaving == other.leaving
            && counts(self) == counts(other)
            && self.named.len() == other.named.len()
            && self.numbers.keys().eq(other.numbers.keys())
            && pairs.all(|((id, mine), (other_id, theirs))| {
                let needs = (self.kinds.get(mine.needs as usize)).map(|kind| &kind.0);
                let others = (other.kinds.get(theirs.needs as usize)).map(|kind| &kind.0);
                id == other_id
                    && mine.service == theirs.service
                    && needs == others
                    && is_same(mine.node, theirs.node)
            })
    }

    fn intern(&mut self, needs: &Needs) -> u32 {
        if let Some(number) = self.numbers.get(needs).copied() {
            self.kinds[number as usize].1 += 1;
            return number;
        }
        let kind = Arc::new(needs.clone());
        let entry = (Arc::clone(&kind), 1);
        let number = match self.vacant.pop() {
            Some(number) => {
                self.kinds[number as usize] = entry;
                number
            }
            None => {
                self.kinds.push(entry);
                self.kinds.len() as u32 - 1
            }
        };
        self.numbers.insert(kind, number);
        number
    }

    fn release(&mut self, number: u32) {
        let (kind, uses) = &mut self.kinds[number as usize];
        *uses -= 1;
        if *uses == 0 {
            self.numbers.remove(kind);
            self.vacant.push(number);
        }
    }
}

fn take<K: Ord>(counts: &mut BTreeMap<K, BTreeMap<u32, u32>>, key: &K, node: u32, count: u32) {
    let Some(nodes) = counts.get_mut(key) else {
        return;
    };
    if let Some(used) = nodes.get_mut(&node) {
        *used -= count;
        if *used == 0 {
            nodes.remove(&node);
        }
    }
    if nodes.is_empty() {
        counts.remove(key);
    }
}

/// The largest node in each resource: kept as counts, so that the second largest is at hand when
/// the largest goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Largest([BTreeMap<u64, u32>; 3]);

impl Largest {
    pub(super) fn add(&mut self, room: Room) {
        for (amounts, amount) in self.0.iter_mut().zip(parts(room)) {
            *amounts.entry(amount).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, room: Room) {
        for (amounts, amount) in self.0.iter_mut().zip(parts(room)) {
            if let Some(count) = amounts.get_mut(&amount) {
                *count -= 1;
                if *count == 0 {
                    amounts.remove(&amount);
                }
            }
        }
    }

    pub(super) fn room(&self) -> Room {
        let largest = |amounts: &BTreeMap<u64, u32>| amounts.keys().next_back().copied();
        let [cpu, memory, disk] = &self.0;
        Room {
            cpu_millis: largest(cpu).unwrap_or(0),
            memory_bytes: largest(memory).unwrap_or(0),
            disk_bytes: largest(disk).unwrap_or(0),
        }
    }
}

fn parts(room: Room) -> [u64; 3] {
    [room.cpu_millis, room.memory_bytes, room.disk_bytes]
}
