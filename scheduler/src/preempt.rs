//! Who makes way for an allocation of higher priority. Owns the choice of victims; they are told
//! to go like anybody else, and the room is used once they are gone. So a node is never overfull,
//! and planning again while they go asks for nobody else.
//!
//! Never of the same priority, never beyond what a service may miss at one time, never where a rule
//! keeps the allocation off anyway.

use skep_model::id::{AllocationId, NodeId, ServiceId};

use crate::draft::Draft;
use crate::filter::Ask;
use crate::lens::Lens;
use crate::room::{Needs, Room};

/// The allocations that make way on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where there will be room.
    pub node: NodeId,
    /// Who goes, lowest priority first; empty: enough are on their way out already.
    pub victims: Vec<AllocationId>,
}

/// What displacing costs: the least is the best. The priority of the most important victim counts
/// before their number, and that before their size.
type Cost = (i32, usize, u64, NodeId);

struct Victim<'a> {
    id: AllocationId,
    service: ServiceId,
    needs: &'a Needs,
    is_leaving: bool,
}

/// The cheapest way to make room for one more, given that no node has any. None: there is none.
pub fn make_way(draft: &Draft<'_>, ask: &Ask) -> Option<Way> {
    let cluster = draft.cluster();
    if cluster
        .lowest_priority()
        .is_none_or(|lowest| lowest >= ask.placement.priority)
    {
        return None;
    }
    let lens = Lens::new(draft, ask);
    let allowed = lens.allowed();
    let mut best: Option<(Cost, Way)> = None;
    for node in draft.nodes() {
        let Some(ordinal) = cluster.ordinal(node.id) else {
            continue;
        };
        if !allowed[ordinal as usize] || !lens.limits_against(ordinal).is_empty() {
            continue;
        }
        let Some(victims) = victims_on(draft, &lens, ordinal, ask) else {
            continue;
        };
        let going = victims.iter().filter(|victim| !victim.is_leaving);
        let priority = going.clone().map(|victim| victim.needs.priority).max();
        let size = going
            .clone()
            .map(|victim| size_of(victim.needs.room, node.capacity))
            .sum();
        let cost = (
            priority.unwrap_or(i32::MIN),
            going.clone().count(),
            size,
            node.id,
        );
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            let way = Way {
                node: node.id,
                victims: going.map(|victim| victim.id).collect(),
            };
            best = Some((cost, way));
        }
    }
    best.map(|(_, way)| way)
}

/// Who must go from one node: those who leave anyhow, then the lowest priority and of it the
/// largest, as long as room is missing; then whoever is not needed after all stays.
fn victims_on<'a>(
    draft: &Draft<'a>,
    lens: &Lens<'_, '_>,
    ordinal: u32,
    ask: &Ask,
) -> Option<Vec<Victim<'a>>> {
    let cluster = draft.cluster();
    let there = cluster.slot(ordinal).allocations.iter();
    let mut candidates: Vec<Victim<'a>> = there
        .filter_map(|id| {
            let (placed, needs) = cluster.allocation(*id)?;
            let is_leaving = cluster.is_leaving(*id) || draft.is_displaced(*id);
            let is_lower = needs.priority < ask.placement.priority && placed.service != ask.service;
            (is_leaving || is_lower).then_some(Victim {
                id: *id,
                service: placed.service,
                needs,
                is_leaving,
            })
        })
        .collect();
    let capacity = cluster.capacity[ordinal as usize];
    candidates.sort_by_key(|victim| {
        let size = std::cmp::Reverse(size_of(victim.needs.room, capacity));
        (!victim.is_leaving, victim.needs.priority, size, victim.id)
    });
    let mut chosen: Vec<Victim<'a>> = Vec::new();
    for candidate in candidates {
        if fits_without(draft, lens, ordinal, &chosen) {
            break;
        }
        if candidate.is_leaving || may_miss(draft, &chosen, &candidate) {
            chosen.push(candidate);
        }
    }
    if !fits_without(draft, lens, ordinal, &chosen) {
        return None;
    }
    // The most important ones are spared first.
    for index in (0..chosen.len()).rev() {
        let spared = chosen.remove(index);
        if spared.is_leaving || !fits_without(draft, lens, ordinal, &chosen) {
            chosen.insert(index, spared);
        }
    }
    Some(chosen)
}

/// Whether the victim's service may miss one more.
fn may_miss(draft: &Draft<'_>, chosen: &[Victim<'_>], victim: &Victim<'_>) -> bool {
    let here = chosen
        .iter()
        .filter(|other| !other.is_leaving && other.service == victim.service);
    let leaving = draft.cluster().leaving_of(victim.service);
    let missing = leaving + draft.displaced_of(victim.service) + here.count() as u32;
    missing < victim.needs.max_unavailable
}

/// Whether one more fits once these are gone.
fn fits_without(draft: &Draft<'_>, lens: &Lens<'_, '_>, ordinal: u32, gone: &[Victim<'_>]) -> bool {
    // What the draft displaced is not counted there any more.
    let gone = || gone.iter().filter(|victim| !draft.is_displaced(victim.id));
    let freed = gone().fold(Room::default(), |sum, victim| sum.plus(victim.needs.room));
    if !draft.free_with(ordinal, freed).covers(lens.needs.room) {
        return false;
    }
    lens.needs.named.iter().all(|(named, count)| {
        let freed = gone().flat_map(|victim| &victim.needs.named);
        let freed: u32 = freed
            .filter(|(other, _)| other == named)
            .map(|(_, count)| count)
            .sum();
        lens.named_free(draft, named, ordinal) + freed >= *count
    })
}

/// How much of a node something takes, in millionths of each resource.
fn size_of(room: Room, capacity: Room) -> u64 {
    let part = |amount: u64, of: u64| {
        let part = u128::from(amount) * 1_000_000 / u128::from(of.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    part(room.cpu_millis, capacity.cpu_millis)
        .saturating_add(part(room.memory_bytes, capacity.memory_bytes))
}
