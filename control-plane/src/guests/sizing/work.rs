//! What waits for a place, and what has to move for a node to be empty: asked as the scheduler would ask it. Decides
//! nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::allocation::{Allocation, Desired};
use skep_model::build::PER_NODE;
use skep_model::deployment::{Deployment, Origin};
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::job::Status as JobStatus;
use skep_model::node::{Admin, NodeStatus};
use skep_model::placement::{Builds, Constraint, MaxPer, Operator, Placement};
use skep_model::problem::Code;
use skep_model::service::{Release, Service};
use skep_model::spec::Resources;
use skep_scheduler::autoscale::trial::Unplaced;
use skep_scheduler::cluster::Cluster;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::{Ask, Surroundings};
use skep_scheduler::place::Search;
use skep_scheduler::plan::MAX_CHANGES;
use skep_scheduler::rollout::{self, Input};
use skep_scheduler::room::Room;
use skep_state::State;

use crate::deploy::queue;
use crate::guests::keeps_volumes;
use crate::placement::{quotas, surroundings};

/// Ids of what is started on paper: no clock makes such.
const FIRST_ID: u128 = u128::MAX - (1 << 40);
/// What all builds count as one service of.
const BUILDS_ID: u128 = FIRST_ID;

/// Starts on paper what has a place, service by service, and answers what has none.
pub(super) struct Paper<'a> {
    view: &'a State,
    pub(super) cluster: Cluster,
    now_ms: u64,
    ids: u128,
    pub(super) waiting: Vec<Unplaced>,
}

impl<'a> Paper<'a> {
    /// All that waits, on a cluster where all that has a place is there.
    pub(super) fn of(view: &'a State, cluster: Cluster, now_ms: u64) -> Self {
        let mut paper = Self {
            view,
            cluster,
            now_ms,
            ids: FIRST_ID,
            waiting: Vec::new(),
        };
        for service in view.services().filter(|it| !it.spec.is_system()) {
            if !is_settled(view, service) {
                paper.replicas(service);
            }
        }
        paper.jobs();
        paper.builds();
        paper
    }

    /// By the planner itself: what is due now, within surge, quotas and pauses.
    fn replicas(&mut self, service: &Service) {
        let view = self.view;
        let release = |number| view.release(service.id, number);
        let target = service.target().and_then(|it| release(it.release));
        let live = service.live.filter(|_| service.rollout.is_some());
        let live = live.and_then(|it| release(it.release));
        let allocations = view.allocations_of(service.id).map(|it| &**it);
        let (around, quotas) = (surroundings(view, service), quotas(view, service));
        let input = Input {
            service,
            release: target.map(|it| &**it),
            live_release: live.map(|it| &**it),
            allocations: allocations.filter(|it| it.job.is_none()).collect(),
            now_ms: self.now_ms,
            drained: &|_| false,
            around: &around,
            quotas: &quotas,
            limit: MAX_CHANGES,
        };
        let mut ids = self.ids;
        let plan = rollout::plan(&mut Draft::new(&self.cluster), &input, &mut || {
            ids += 1;
            AllocationId::from_u128(ids)
        });
        self.ids = ids;
        let Some(ask) = plan.ask else { return };
        for start in &plan.starts {
            let (id, node) = (start.allocation, start.node);
            self.cluster
                .put_allocation(id, node, service.id, &ask.needs());
        }
        if plan.unplaced > 0 {
            let count = plan.unplaced;
            self.waiting.push(Unplaced { ask, count });
        }
    }

    /// Jobs that were told that no node can take them, and that their quotas let in.
    fn jobs(&mut self) {
        let view = self.view;
        let mut waiting: BTreeMap<(ServiceId, u64), u32> = BTreeMap::new();
        for job in view.jobs() {
            let problem = job.problem.as_ref();
            let is_refused = problem.is_some_and(|it| it.code == Code::Unplaceable);
            if job.status == JobStatus::Pending && is_refused && job.not_before_ms <= self.now_ms {
                let key = (job.service, job.target.release);
                *waiting.entry(key).or_default() += 1;
            }
        }
        for ((service, number), count) in waiting {
            let (Some(service), Some(release)) =
                (view.service(service), view.release(service, number))
            else {
                continue;
            };
            let ask = Ask::of(release, &surroundings(view, service));
            let let_in = let_in(view, service, release).min(count);
            self.place(ask, let_in);
        }
    }

    /// Builds, as one service: those whose turn it is not where pools are for builds alone; else one, where no node is
    /// there to do any.
    fn builds(&mut self) {
        let (view, sites) = (self.view, queue::sites(self.view));
        let pools = pools_of_builds(view);
        if pools.is_empty() && !sites.is_empty() {
            return;
        }
        let due = match pools.is_empty() {
            true => Vec::new(),
            false => queue::due(view),
        };
        let waits = |it: &&Arc<Deployment>| {
            // A ready image is looked up on a node as well, and waits for no turn.
            let is_one = queue::takes_turn(it)
                || sites.is_empty() && matches!(it.origin, Origin::Image { .. });
            let is_due = due.iter().any(|(id, _)| *id == it.id);
            is_one
                && it.build.is_none()
                && it.may_begin()
                && !is_due
                && is_for_any(view, &sites, it)
        };
        let waiting = view.active_deployments().filter(waits).count();
        if waiting == 0 {
            return;
        }
        let count = match pools.is_empty() {
            true => 1,
            false => u32::try_from(waiting).unwrap_or(u32::MAX),
        };
        let ask = build_ask(pools);
        let busy = sites.iter().flat_map(|site| vec![site.node; site.busy]);
        for node in busy.chain(due.iter().map(|(_, node)| *node)) {
            self.ids += 1;
            let id = AllocationId::from_u128(self.ids);
            self.cluster
                .put_allocation(id, node, ask.service, &ask.needs());
        }
        self.place(ask, count);
    }

    fn place(&mut self, ask: Ask, count: u32) {
        let mut placed = Vec::new();
        {
            let mut draft = Draft::new(&self.cluster);
            let mut search = Search::new(&draft, &ask, count as usize);
            while placed.len() < count as usize {
                let Some(choice) = search.take(&mut draft) else {
                    break;
                };
                placed.push(choice.node);
            }
        }
        let left = count.saturating_sub(u32::try_from(placed.len()).unwrap_or(u32::MAX));
        for node in placed {
            self.ids += 1;
            let id = AllocationId::from_u128(self.ids);
            self.cluster
                .put_allocation(id, node, ask.service, &ask.needs());
        }
        if left > 0 {
            self.waiting.push(Unplaced { ask, count: left });
        }
    }
}

/// The pools that are for builds alone, as far as their nodes build.
fn pools_of_builds(view: &State) -> Vec<String> {
    let builds = |name: &str| {
        let mut own = view.nodes().filter(|node| node.meta("pool") == Some(name));
        own.all(|node| node.facts.builder)
    };
    let pools = view.pools();
    pools
        .filter(|pool| pool.policy.builds == Builds::Only && builds(&pool.name))
        .map(|pool| pool.name.clone())
        .collect()
}

/// Whether one more node could do it: what it is made of is not on some nodes alone, and those that build have what it needs.
fn is_for_any(view: &State, sites: &[queue::Site], build: &Deployment) -> bool {
    let needs = queue::needs(view, build);
    let mut known = sites.iter().filter(|site| site.is_dedicated).peekable();
    let is_unknown = known.peek().is_none();
    queue::holders(view, build).is_none()
        && needs.is_none_or(|needs| is_unknown || known.any(|site| site.builders.contains(&needs)))
}

/// A build, as far as a place for it is concerned: it takes what is left of its node, and so many are done at a time.
fn build_ask(pools: Vec<String>) -> Ask {
    let here = Constraint {
        key: "node.pool".to_owned(),
        operator: Operator::In(pools.clone()),
    };
    Ask {
        service: ServiceId::from_u128(BUILDS_ID),
        resources: Resources {
            cpu_millis: 0,
            memory_bytes: 0,
            cpu_limit_millis: 0,
            memory_limit_bytes: 0,
            disk_bytes: 0,
        },
        placement: Placement {
            constraints: if pools.is_empty() {
                Vec::new()
            } else {
                vec![here]
            },
            max_per: vec![MaxPer {
                key: "node.name".to_owned(),
                count: PER_NODE as u32,
            }],
            ..Placement::default()
        },
        only_on: None,
        storage: Default::default(),
        shares_image: false,
        around: Surroundings {
            is_build: true,
            ..Surroundings::default()
        },
        staying: None,
    }
}

/// Nothing of it is to be started: as many of its target as are wanted run where they may stay.
fn is_settled(view: &State, service: &Service) -> bool {
    let stays = |node: NodeId| {
        view.node(node).is_some_and(|it| {
            it.status == NodeStatus::Ready && !matches!(it.admin, Admin::Draining { .. })
        })
    };
    let target = service.target();
    let running = view.allocations_of(service.id).filter(|it| {
        it.job.is_none()
            && it.is_live()
            && it.desired == Desired::Run
            && Some(it.target) == target
            && stays(it.node)
    });
    target.is_none() || running.count() >= service.wanted() as usize && service.rollout.is_none()
}

/// How many more of a release its quotas let in.
fn let_in(view: &State, service: &Service, release: &Release) -> u32 {
    let each = Room::from(release.requests());
    let quotas = quotas(view, service);
    let least = quotas.iter().map(|it| it.lets_in(each)).min();
    u32::try_from(least.unwrap_or(u64::MAX)).unwrap_or(u32::MAX)
}

/// Services of which each node gets one, as they are now.
pub(super) fn of_system(view: &State) -> Vec<Ask> {
    let wanted = view
        .services()
        .filter(|it| it.spec.is_system() && !it.stopped && !it.removing);
    wanted
        .filter_map(|service| {
            let release = view.release(service.id, service.target()?.release)?;
            Some(Ask::of(release, &surroundings(view, service)))
        })
        .collect()
}

/// What has to go from a node for it to be empty; none: something there stays. Volumes, jobs and builds do, and what
/// would be missing meanwhile or is not to be moved for others' sake.
pub(super) fn tenants(view: &State, node: NodeId) -> Option<Vec<Unplaced>> {
    keeps_volumes(view, view.node(node)?).ok()?;
    if view.builds_on(node).next().is_some() {
        return None;
    }
    let mut going: BTreeMap<(ServiceId, u64), u32> = BTreeMap::new();
    for one in view.allocations_on(node).filter(|it| it.is_live()) {
        let service = view.service(one.service)?;
        if service.spec.is_system() || one.desired != Desired::Run {
            continue;
        }
        let release = view.release(service.id, one.target.release)?;
        let has_to_stay = one.job.is_some()
            || service.spec.surge() == 0
            || release.placement.max_unavailable == Some(0)
            || let_in(view, service, release) == 0;
        if has_to_stay {
            return None;
        }
        *going.entry((service.id, one.target.release)).or_default() += 1;
    }
    let ask = |((service, number), count): ((ServiceId, u64), u32)| {
        let service = view.service(service)?;
        let release = view.release(service.id, number)?;
        let stays = |it: &&std::sync::Arc<Allocation>| {
            it.is_live()
                && it.job.is_none()
                && it.desired == Desired::Run
                && it.target.release == number
                && it.node != node
        };
        let staying = view.allocations_of(service.id).filter(stays);
        Some(Unplaced {
            ask: Ask {
                staying: Some(staying.map(|it| it.node).collect()),
                ..Ask::of(release, &surroundings(view, service))
            },
            count,
        })
    };
    going.into_iter().map(ask).collect()
}
