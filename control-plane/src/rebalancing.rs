//! What could be moved so that no service has all of its replicas on one physical host, and that fewer nodes
//! are in use: the scheduler's rebalancer on a view of the
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
    let mut known = Known::new(view, &cluster, now_ms);
    let settings = view.rebalance();
    let moves = settings.moves.values();
    let counted = moves.filter(|moving| now_ms < moving.at_ms.saturating_add(REMEMBERED_MS));
    let hour = settings.moves_per_minute as usize * 60;
    let budget = hour.saturating_sub(counted.count());
    // First: what is together on one host is lost together.
    let apart = known.apart(view, &cluster, budget);
    let floor = Floor {
        places: known.places(view, &cluster),
        waiting: Vec::new(),
        // What was moved lately is not movable here; what it cost comes off the budget.
        recent: BTreeSet::new(),
        budget: budget - apart.len(),
    };
    let mut moves = rebalance::plan(&floor, &known);
    moves.moves.splice(..0, apart);
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
    /// Where each is, or goes.
    at: BTreeMap<AllocationId, NodeId>,
    /// The physical host of each node, as the scheduler tells them apart.
    hosts: BTreeMap<NodeId, u32>,
    /// How many of a service are on each host: what is being moved is where it goes.
    on_host: BTreeMap<ServiceId, BTreeMap<u32, usize>>,
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
            at: BTreeMap::new(),
            hosts: cluster
                .nodes()
                .map(|node| (node.id, cluster.host_of(node.id)))
                .collect(),
            on_host: BTreeMap::new(),
            fixed: BTreeSet::new(),
            heading: heading(view, now_ms).collect(),
        };
        let draft = Draft::new(cluster);
        for service in view.services() {
            let mut by_node: BTreeMap<NodeId, usize> = BTreeMap::new();
            for allocation in view.allocations_of(service.id).filter(|a| a.is_live()) {
                known.services.insert(allocation.id, service.id);
                *by_node.entry(allocation.node).or_default() += 1;
                let at = known.heading.get(&allocation.id).copied();
                let at = at.unwrap_or(allocation.node);
                known.at.insert(allocation.id, at);
                let host = cluster.host_of(at);
                let on_host = known.on_host.entry(service.id).or_default();
                *on_host.entry(host).or_default() += 1;
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
            if let Some(release) = settled(view, service).filter(|release| !is_bound(release)) {
                let ask = Ask::of(release, &surroundings(view, service));
                known
                    .allowed
                    .insert(service.id, rebalance::allowed(&draft, &ask));
            }
        }
        known
    }

    /// Of every service that has all of its replicas on one host one goes to another, where one has room; at
    /// most so many. What goes is not moved by anything else, and counts where it goes.
    fn apart(&mut self, view: &State, cluster: &Cluster, budget: usize) -> Vec<Move> {
        let mut draft = Draft::new(cluster);
        let mut moves = Vec::new();
        for service in view.services() {
            let hosts = self.on_host.get(&service.id).map_or(0, BTreeMap::len);
            if moves.len() == budget || hosts != 1 {
                continue;
            }
            let Some(release) = settled(view, service) else {
                continue;
            };
            let mut there: Vec<_> = view
                .allocations_of(service.id)
                .filter(|a| a.is_live())
                .map(|a| (self.fixed.contains(&a.id), a.created_ms, a.id, a.node))
                .collect();
            // What was moved lately stays; else the newest goes.
            there.sort_unstable_by_key(|(is_fixed, made, id, _)| (!is_fixed, *made, *id));
            if there.last().is_none_or(|(is_fixed, ..)| *is_fixed) {
                continue;
            }
            let there: Vec<_> = there.iter().map(|(_, _, id, node)| (*id, *node)).collect();
            let ask = Ask::of(release, &surroundings(view, service));
            if let Some(step) = rebalance::apart(&draft, &ask, &there) {
                draft.start(step.to, &ask);
                self.goes(service.id, &step);
                moves.push(step);
            }
        }
        moves
    }

    fn goes(&mut self, service: ServiceId, step: &Move) {
        self.fixed.insert(step.allocation);
        self.heading.insert(step.allocation, step.to);
        self.at.insert(step.allocation, step.to);
        let on_host = self.on_host.entry(service).or_default();
        for (node, by) in [(step.from, -1), (step.to, 1)] {
            let host = self.hosts.get(&node).copied().unwrap_or_default();
            let there = on_host.entry(host).or_default();
            *there = there.saturating_add_signed(by);
        }
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

    /// Never more of a service on one host than there are on some host already.
    fn keeps_apart(
        &self,
        allocation: AllocationId,
        to: NodeId,
        moved: &mut dyn Iterator<Item = Move>,
    ) -> bool {
        let service = self.services.get(&allocation);
        let Some(on_host) = service.and_then(|service| self.on_host.get(service)) else {
            return true;
        };
        let host_of = |node: NodeId| self.hosts.get(&node).copied().unwrap_or_default();
        let host = host_of(to);
        if self
            .at
            .get(&allocation)
            .is_some_and(|from| host_of(*from) == host)
        {
            return true;
        }
        let mut there = on_host.get(&host).copied().unwrap_or(0);
        for step in moved.filter(|step| self.services.get(&step.allocation) == service) {
            there += usize::from(host_of(step.to) == host);
            there = there.saturating_sub(usize::from(host_of(step.from) == host));
        }
        there < on_host.values().copied().max().unwrap_or(0)
    }
}

fn size(view: &State, allocation: &Allocation) -> Size {
    let release = view.release(allocation.service, allocation.target.release);
    release.map_or_else(Size::default, |release| {
        Room::from(release.requests()).into()
    })
}

/// Whether where it runs is a service's own wish, which packing does not know: it is left where it is.
fn is_bound(release: &Release) -> bool {
    let placement = &release.placement;
    !placement.spread.is_empty()
        || !placement.affinities.is_empty()
        || !placement.ports.is_empty()
        || !placement.devices.is_empty()
        || !matches!(placement.strategy, None | Some(Strategy::Binpack))
}

/// The release of a service whose allocations may be moved: it is where it should be, and loses nothing.
fn settled<'a>(view: &'a State, service: &Service) -> Option<&'a Release> {
    let target = service.live.filter(|_| service.rollout.is_none())?;
    let release = view.release(service.id, target.release)?;
    let is_held = release.placement.max_unavailable == Some(0)
        || release.cut_off() != CutOff::Keep
        || !release.storage.host_paths.is_empty()
        || release.image.only_on().is_some();
    let allocations = view.allocations_of(service.id).filter(|a| a.is_live());
    let (well, others): (Vec<_>, Vec<_>) = allocations
        .partition(|a| a.desired == Desired::Run && a.is_routable() && a.target == target);
    let is_settled = others.is_empty() && well.len() == service.wanted() as usize;
    let can_surge = service.spec.update.max_surge > 0;
    (is_settled && can_surge && !is_held && !service.spec.is_system()).then_some(release)
}
