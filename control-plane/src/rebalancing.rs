//! What could be moved so that fewer nodes are in use: the scheduler's rebalancer on a view of the
//! state, and what of its advice can begin. Proposes nothing, moves nothing.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::allocation::{Allocation, Desired};
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::placement::{CutOff, Strategy};
use skep_model::rebalance::REMEMBERED_MS;
use skep_model::service::{Release, Service};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_scheduler::cluster::{Cluster, Standing};
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::Ask;
use skep_scheduler::packing::Size;
use skep_scheduler::rebalance::{self, Item, Move, Moves, Place, Rules, View as Floor};
use skep_scheduler::room::Room;
use skep_state::State;

use crate::placement::{cluster_of, surroundings};

/// The advice, and the cluster that it is about.
pub struct Advice {
    /// What should move, and which nodes are empty then.
    pub moves: Moves,
    cluster: Cluster,
}

/// What should move at this time.
pub fn advise(view: &State, now_ms: u64) -> Advice {
    let cluster = cluster_of(view);
    let known = Known::new(view, &cluster, now_ms);
    let settings = view.rebalance();
    let moves = settings.moves.values();
    let counted = moves.filter(|moving| now_ms < moving.at_ms.saturating_add(REMEMBERED_MS));
    let hour = settings.moves_per_minute as usize * 60;
    let floor = Floor {
        places: known.places(view, &cluster),
        waiting: Vec::new(),
        // What was moved lately is not movable here; what it cost comes off the budget.
        recent: BTreeSet::new(),
        budget: hour.saturating_sub(counted.count()),
    };
    let moves = rebalance::plan(&floor, &known);
    Advice { moves, cluster }
}

impl Advice {
    /// Those of the moves that have room as things are, in their order, at most `limit`: the one
    /// that leaves is still there when the other starts. The others come when these are done.
    pub fn due(&self, view: &State, limit: usize) -> Vec<Move> {
        let mut taken: BTreeMap<NodeId, Room> = BTreeMap::new();
        let mut due = Vec::new();
        for step in &self.moves.moves {
            let allocation = view.allocation(step.allocation);
            let release = allocation.and_then(|a| view.release(a.service, a.target.release));
            let (Some(release), Some(node)) = (release, self.cluster.node(step.to)) else {
                continue;
            };
            let before = taken.get(&step.to).copied().unwrap_or_default();
            let with = before.plus(release.resources.into());
            if due.len() < limit && node.free.covers(with) {
                taken.insert(step.to, with);
                due.push(*step);
            }
        }
        due
    }
}

/// What is being moved and has not left yet, and where it goes.
pub fn heading(view: &State, now_ms: u64) -> impl Iterator<Item = (AllocationId, NodeId)> + '_ {
    let under_way = view.rebalance().under_way(now_ms);
    under_way.filter_map(|(id, moving)| {
        let allocation = view.allocation(id)?;
        let is_there = allocation.is_live() && allocation.desired == Desired::Run;
        is_there.then_some((id, moving.to))
    })
}

/// The command that begins moves.
pub fn command(moves: &[Move]) -> Kind {
    let moving = |step: &Move| v1::Moving {
        allocation: id_bytes(step.allocation.as_u128()),
        to: id_bytes(step.to.as_u128()),
        ..v1::Moving::default()
    };
    Kind::MoveAllocations(v1::MoveAllocations {
        moves: moves.iter().map(moving).collect(),
    })
}

/// What is known of services whose allocations may move.
struct Known {
    services: BTreeMap<AllocationId, ServiceId>,
    /// By service that may be moved: the nodes that would take one more.
    allowed: BTreeMap<ServiceId, BTreeSet<NodeId>>,
    /// Most that a service has on any one node.
    most: BTreeMap<ServiceId, usize>,
    fixed: BTreeSet<AllocationId>,
    /// What is being moved counts where it goes.
    heading: BTreeMap<AllocationId, NodeId>,
}

impl Known {
    fn new(view: &State, cluster: &Cluster, now_ms: u64) -> Self {
        let mut known = Self {
            services: BTreeMap::new(),
            allowed: BTreeMap::new(),
            most: BTreeMap::new(),
            fixed: BTreeSet::new(),
            heading: heading(view, now_ms).collect(),
        };
        let draft = Draft::new(cluster);
        for service in view.services() {
            let mut by_node: BTreeMap<NodeId, usize> = BTreeMap::new();
            for allocation in view.allocations_of(service.id).filter(|a| a.is_live()) {
                known.services.insert(allocation.id, service.id);
                *by_node.entry(allocation.node).or_default() += 1;
                let (id, created_ms) = (allocation.id, allocation.created_ms);
                if view
                    .rebalance()
                    .is_recent(id, service.id, created_ms, now_ms)
                {
                    known.fixed.insert(id);
                }
            }
            let most = by_node.values().copied().max().unwrap_or(0);
            known.most.insert(service.id, most);
            if let Some(release) = movable(view, service) {
                let ask = Ask::of(release, &surroundings(view, service));
                known
                    .allowed
                    .insert(service.id, rebalance::allowed(&draft, &ask));
            }
        }
        known
    }

    /// The nodes that take work, and what on them is not the same everywhere.
    fn places(&self, view: &State, cluster: &Cluster) -> Vec<Place> {
        let nodes = cluster
            .nodes()
            .filter(|node| node.standing == Standing::Ready);
        nodes
            .map(|node| {
                let mut capacity = Size::from(node.capacity);
                let mut items = Vec::new();
                let arriving = self.heading.iter().filter(|(_, to)| **to == node.id);
                let arriving = arriving.filter_map(|(id, _)| view.allocation(*id));
                let there = view.allocations_on(node.id).filter(|a| a.is_live());
                let staying = there.filter(|a| !self.heading.contains_key(&a.id));
                for allocation in staying.chain(arriving) {
                    let size = size(view, allocation);
                    let service = view.service(allocation.service);
                    if service.is_some_and(|service| service.spec.is_system()) {
                        // One a node: it is there whether the node is in use or not.
                        capacity = capacity.minus(size);
                        continue;
                    }
                    items.push(Item {
                        id: allocation.id,
                        size,
                        is_movable: self.allowed.contains_key(&allocation.service)
                            && !self.fixed.contains(&allocation.id),
                    });
                }
                Place {
                    id: node.id,
                    capacity,
                    items,
                    is_open: true,
                }
            })
            .collect()
    }
}

impl Rules for Known {
    /// Never more of a service on one node than there are on some node already.
    fn may_go(&self, allocation: AllocationId, place: &Place) -> bool {
        let Some(service) = self.services.get(&allocation) else {
            return false;
        };
        let is_allowed = self
            .allowed
            .get(service)
            .is_some_and(|nodes| nodes.contains(&place.id));
        let items = place.items.iter();
        let there = items.filter(|item| self.services.get(&item.id) == Some(service));
        is_allowed && there.count() < self.most.get(service).copied().unwrap_or(0)
    }
}

fn size(view: &State, allocation: &Allocation) -> Size {
    let release = view.release(allocation.service, allocation.target.release);
    release.map_or_else(Size::default, |release| {
        Room::from(release.requests()).into()
    })
}

/// The release of a service whose allocations may be moved: it is where it should be, loses nothing,
/// and where it runs is not its own wish.
fn movable<'a>(view: &'a State, service: &Service) -> Option<&'a Release> {
    let target = service.live.filter(|_| service.rollout.is_none())?;
    let release = view.release(service.id, target.release)?;
    let placement = &release.placement;
    let is_bound = !placement.spread.is_empty()
        || !placement.affinities.is_empty()
        || !placement.ports.is_empty()
        || !placement.devices.is_empty()
        || !matches!(placement.strategy, None | Some(Strategy::Binpack))
        || placement.max_unavailable == Some(0)
        || release.cut_off() != CutOff::Keep
        || !release.storage.host_paths.is_empty()
        || release.image.only_on().is_some();
    let allocations = view.allocations_of(service.id).filter(|a| a.is_live());
    let (well, others): (Vec<_>, Vec<_>) = allocations
        .partition(|a| a.desired == Desired::Run && a.is_routable() && a.target == target);
    let is_settled = others.is_empty() && well.len() == service.wanted() as usize;
    let can_surge = service.spec.update.max_surge > 0;
    (is_settled && can_surge && !is_bound && !service.spec.is_system()).then_some(release)
}
