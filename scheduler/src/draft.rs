//! Decisions that are not made yet, laid over the cluster: starts of one plan, or of several plans
//! of one batch, see each other. Dropping a draft forgets them; the cluster is never touched.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::{AllocationId, NodeId, ServiceId};

use crate::cluster::{Candidate, Cluster};
use crate::filter::Ask;
use crate::packing::{Packing, Size, Sum};
use crate::room::{Named, Needs, Room};

/// A cluster and what has been started and displaced on paper.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    base: &'a Cluster,
    /// Of the nodes that are touched: all that is used then.
    used: BTreeMap<u32, Room>,
    services: BTreeMap<ServiceId, BTreeMap<u32, i64>>,
    named: BTreeMap<Named, BTreeMap<u32, i64>>,
    displaced: BTreeSet<AllocationId>,
    displaced_of: BTreeMap<ServiceId, u32>,
    /// All that is requested, with what is drafted.
    asked: Sum,
    /// What the nodes have that were empty before.
    opened: Size,
}

impl<'a> Draft<'a> {
    /// An empty draft over a cluster.
    pub fn new(base: &'a Cluster) -> Self {
        Self {
            base,
            used: BTreeMap::new(),
            services: BTreeMap::new(),
            named: BTreeMap::new(),
            displaced: BTreeSet::new(),
            displaced_of: BTreeMap::new(),
            asked: base.demand().sum(),
            opened: Size::default(),
        }
    }

    /// What lies under it.
    pub fn cluster(&self) -> &'a Cluster {
        self.base
    }

    /// Every known node with what the draft leaves free, by id.
    pub fn nodes(&self) -> impl Iterator<Item = Candidate<'a>> {
        self.base.nodes().map(|node| self.as_drafted(node))
    }

    /// One node, the same way.
    pub fn node(&self, id: NodeId) -> Option<Candidate<'a>> {
        self.base.node(id).map(|node| self.as_drafted(node))
    }

    /// Counts one more allocation on a node. Whether it fits was the caller's question.
    pub fn start(&mut self, node: NodeId, ask: &Ask) {
        if let Some(ordinal) = self.base.ordinal(node) {
            self.start_at(ordinal, ask.service, &ask.needs());
        }
    }

    pub(crate) fn start_at(&mut self, ordinal: u32, service: ServiceId, needs: &Needs) {
        let used = self.used_at(ordinal);
        let was_empty = *used == Room::default() && needs.room != Room::default();
        *used = used.plus(needs.room);
        if was_empty {
            let capacity = self.base.capacity[ordinal as usize];
            self.opened = self.opened.plus(capacity.into());
        }
        self.count(ordinal, service, needs, 1);
        self.asked = self.asked.with(needs.room.into(), 1);
    }

    /// Counts an allocation no longer: it makes way. Once each.
    pub(crate) fn displace(&mut self, id: AllocationId) {
        let Some((placed, needs)) = self.base.allocation(id) else {
            return;
        };
        if self.displaced.insert(id) {
            let used = self.used_at(placed.node);
            *used = used.minus(needs.room);
            self.count(placed.node, placed.service, needs, -1);
            *self.displaced_of.entry(placed.service).or_default() += 1;
        }
    }

    pub(crate) fn is_displaced(&self, id: AllocationId) -> bool {
        self.displaced.contains(&id)
    }

    /// How many allocations of a service make way so far.
    pub(crate) fn displaced_of(&self, service: ServiceId) -> u32 {
        self.displaced_of.get(&service).copied().unwrap_or(0)
    }

    /// Whether the draft has started or displaced anything there.
    pub(crate) fn is_touched(&self, ordinal: u32) -> bool {
        self.used.contains_key(&ordinal)
    }

    /// What is left of a node.
    pub(crate) fn free(&self, ordinal: u32) -> Room {
        match self.used.get(&ordinal) {
            Some(used) => self.base.capacity[ordinal as usize].minus(*used),
            None => self.base.free[ordinal as usize],
        }
    }

    /// What would be left of a node with so much of it given back.
    pub(crate) fn free_with(&self, ordinal: u32, freed: Room) -> Room {
        let index = ordinal as usize;
        let used = self.used.get(&ordinal).unwrap_or(&self.base.used[index]);
        self.base.capacity[index].minus(used.minus(freed))
    }

    /// Every ordinal with what is left there. Those that the draft did not touch are read from the
    /// cluster's array as it lies.
    pub(crate) fn each_free(&self, mut look: impl FnMut(u32, Room)) {
        let free = &self.base.free;
        let mut untouched = free.iter().enumerate();
        for (ordinal, used) in &self.used {
            let before = *ordinal as usize;
            // Takes the touched one too, and leaves it out.
            for (index, room) in untouched.by_ref().take_while(|(index, _)| *index < before) {
                look(index as u32, *room);
            }
            look(*ordinal, self.base.capacity[before].minus(*used));
        }
        for (index, room) in untouched {
            look(index as u32, *room);
        }
    }

    /// How much of something is used on a node.
    pub(crate) fn named_used(&self, named: &Named, ordinal: u32) -> u32 {
        let change = self.named.get(named).and_then(|nodes| nodes.get(&ordinal));
        let used = i64::from(self.base.named_used(named, ordinal)) + change.unwrap_or(&0);
        u32::try_from(used).unwrap_or(0)
    }

    /// How many allocations of a service are on each node that has any, by ordinal, ascending.
    pub(crate) fn neighbours_of(&self, service: ServiceId) -> Vec<(u32, u32)> {
        let there = self.base.spread_of(service).into_iter().flatten();
        let there = there.map(|(ordinal, count)| (*ordinal, *count));
        let Some(changes) = self.services.get(&service) else {
            return there.collect();
        };
        let mut counts: BTreeMap<u32, i64> = changes.clone();
        for (ordinal, count) in there {
            *counts.entry(ordinal).or_default() += i64::from(count);
        }
        let counts = counts.into_iter();
        counts
            .filter_map(|(ordinal, count)| Some((ordinal, u32::try_from(count).ok()?)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// The formula for what there is, what is drafted, and `count` more such.
    pub(crate) fn packing(&self, more: Room, count: u64) -> Packing {
        let mut supply = self.base.supply();
        supply.empty = supply.empty.minus(self.opened);
        let asked = self.asked.with(more.into(), count);
        Packing::with_drafted(self.base.demand(), asked, &supply)
    }

    fn used_at(&mut self, ordinal: u32) -> &mut Room {
        let there = self.base.used[ordinal as usize];
        self.used.entry(ordinal).or_insert(there)
    }

    fn count(&mut self, ordinal: u32, service: ServiceId, needs: &Needs, by: i64) {
        let nodes = self.services.entry(service).or_default();
        *nodes.entry(ordinal).or_default() += by;
        for (named, count) in &needs.named {
            let nodes = self.named.entry(named.clone()).or_default();
            *nodes.entry(ordinal).or_default() += by * i64::from(*count);
        }
    }

    fn as_drafted(&self, node: Candidate<'a>) -> Candidate<'a> {
        let ordinal = self.base.ordinal(node.id);
        let free = ordinal.map_or(node.free, |ordinal| self.free(ordinal));
        Candidate { free, ..node }
    }
}
