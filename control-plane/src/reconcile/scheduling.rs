//! Keeps the scheduler's view of the cluster, and carries out its plans.

use std::collections::{BTreeMap, BTreeSet};

use skep_identity::random;
use skep_model::allocation::{Allocation, Desired};
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::problem::Problem;
use skep_model::rollout::Progress;
use skep_model::service::Service;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1::command::Kind;
use skep_proto::v1::{AdvanceRollout, ApplyPlan, Base, Desire, DropService};
use skep_scheduler::cluster::{Cluster, Standing};
use skep_scheduler::draft::Draft;
use skep_scheduler::plan::{self, MAX_CHANGES, Plan};
use skep_scheduler::rollout::{self, Input};
use skep_scheduler::system;
use skep_state::{Change, State};

use super::Duties;
use crate::agents::fleet::LOST_AFTER;
use crate::placement;
use crate::store::now_ms;

/// The scheduler's view and what it last said.
#[derive(Default)]
pub(super) struct Scheduling {
    cluster: Cluster,
    refusals: BTreeMap<ServiceId, Problem>,
    waiting: BTreeSet<ServiceId>,
    /// Services that were where they should be, at which generation.
    converged: BTreeMap<ServiceId, u64>,
}

impl Scheduling {
    /// Services that could not be placed, and why.
    pub(super) fn refusals(&self) -> &BTreeMap<ServiceId, Problem> {
        &self.refusals
    }

    /// Services whose plan is not yet where it should be: looked at again when nodes or ingresses
    /// speak, and when time has passed.
    pub(super) fn waiting(&self) -> BTreeSet<ServiceId> {
        self.waiting.clone()
    }

    pub(super) fn forget(&mut self, service: ServiceId) {
        self.refusals.remove(&service);
        self.waiting.remove(&service);
        self.converged.remove(&service);
    }

    /// Services that are where they should be, and the generation that this was seen at.
    pub(super) fn converged(&self) -> &BTreeMap<ServiceId, u64> {
        &self.converged
    }

    /// The nodes, what they have, and what is used of it.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The whole view again.
    pub(super) fn resync(&mut self, view: &State) {
        self.cluster = placement::cluster_of(view);
    }

    /// What changed of the view; answers the nodes that can be relied on more or less than before. A
    /// node's metadata change by the thousand, and move nothing that runs there.
    pub(super) fn follow(&mut self, view: &State, changes: &[Change]) -> BTreeSet<NodeId> {
        let mut moved = BTreeSet::new();
        for change in changes {
            let node = match change {
                Change::Node(id) => Some(*id),
                _ => None,
            };
            let before = node.map(|id| self.standing(id));
            placement::follow(&mut self.cluster, view, std::slice::from_ref(change));
            if before != node.map(|id| self.standing(id)) {
                moved.extend(node);
            }
        }
        moved
    }

    fn standing(&self, node: NodeId) -> Option<Standing> {
        self.cluster.node(node).map(|node| node.standing)
    }
}

impl Duties {
    /// Moves a service one step towards its target.
    pub(super) async fn schedule(&mut self, id: ServiceId) {
        let view = self.parts.store.view();
        let Some(service) = view.service(id).cloned() else {
            return;
        };
        let (plan, wake_at_ms) = self.plan(&view, &service);
        if let Some(at_ms) = wake_at_ms {
            self.wake_at_ms(at_ms);
        }
        self.remember(&plan);
        let has_ended = service.removing
            && !view
                .allocations_of(id)
                .any(|allocation| allocation.is_live());
        if has_ended {
            self.drop_service(id).await;
        } else if let Some(advance) = &plan.advance {
            self.advance_rollout(&service, advance).await;
        } else if !plan.is_empty() {
            self.carry_out(&plan).await;
        }
    }

    /// The next step, and when time alone changes it.
    fn plan(&self, view: &State, service: &Service) -> (Plan, Option<u64>) {
        let now_ms = now_ms();
        // An ingress that says nothing is given its lease beyond the time for draining.
        let deadline_ms = |allocation: &Allocation| {
            allocation.desired_ms + service.spec.update.drain_ms + LOST_AFTER.as_millis() as u64
        };
        let fleet = &self.parts.fleet;
        let drained = |allocation: &Allocation| {
            fleet.is_drained(view, allocation) || now_ms >= deadline_ms(allocation)
        };
        let allocations: Vec<&Allocation> = view
            .allocations_of(service.id)
            .map(|allocation| &**allocation)
            // Attempts of jobs are no replicas.
            .filter(|allocation| allocation.job.is_none())
            .collect();
        let next_deadline = allocations
            .iter()
            .filter(|allocation| allocation.desired == Desired::Drain && allocation.is_live())
            .map(|allocation| deadline_ms(allocation))
            .min();
        let release = service
            .target()
            .and_then(|target| view.release(service.id, target.release));
        let live = service.live.filter(|_| service.rollout.is_some());
        let live_release = live.and_then(|live| view.release(service.id, live.release));
        let around = placement::surroundings(view, service);
        let quotas = placement::quotas(view, service);
        let input = Input {
            service,
            release: release.map(|r| &**r),
            live_release: live_release.map(|r| &**r),
            allocations,
            now_ms,
            drained: &drained,
            around: &around,
            quotas: &quotas,
            limit: MAX_CHANGES,
        };
        let mut draft = Draft::new(&self.scheduling.cluster);
        let mut ids = || AllocationId::from_u128(random::new_id());
        let plan = if service.spec.is_system() {
            system::plan(&mut draft, &input, &mut ids)
        } else {
            rollout::plan(&mut draft, &input, &mut ids)
        };
        let wake_at_ms = plan.wake_at_ms.into_iter().chain(next_deadline).min();
        (plan, wake_at_ms)
    }

    fn remember(&mut self, plan: &Plan) {
        let old = match &plan.refusal {
            Some(problem) => self
                .scheduling
                .refusals
                .insert(plan.service, problem.clone()),
            None => self.scheduling.refusals.remove(&plan.service),
        };
        if plan.is_converged {
            self.scheduling.waiting.remove(&plan.service);
            let generation = plan.service_generation;
            self.scheduling.converged.insert(plan.service, generation);
        } else {
            self.scheduling.converged.remove(&plan.service);
            self.scheduling.waiting.insert(plan.service);
        }
        if old != plan.refusal {
            // Its deployment says why it waits.
            let view = self.parts.store.view();
            let active = view
                .active_deployments()
                .filter(|deployment| deployment.service == plan.service);
            self.dirty
                .deployments
                .extend(active.map(|deployment| deployment.id));
        }
    }

    async fn carry_out(&mut self, plan: &Plan) {
        if let Err(misfit) = plan::fits(&self.scheduling.cluster, plan) {
            tracing::debug!(service = %plan.service, %misfit, "a plan no longer fits: planning again");
            self.dirty.services.insert(plan.service);
            return;
        }
        let base = |id: u128, generation: u64| Base {
            id: id_bytes(id),
            generation,
        };
        let desire = |desire: &plan::Desire| Desire {
            allocation: id_bytes(desire.allocation.as_u128()),
            desired: enum_number(&Desired::ALL, &desire.desired),
            reason: desire.reason.clone(),
        };
        let command = ApplyPlan {
            nodes: plan
                .nodes
                .iter()
                .map(|(id, generation)| base(id.as_u128(), *generation))
                .collect(),
            services: vec![base(plan.service.as_u128(), plan.service_generation)],
            starts: plan
                .allocations()
                .map(|allocation| (&allocation).into())
                .collect(),
            desires: plan
                .desires
                .iter()
                .chain(&plan.displaced)
                .map(desire)
                .collect(),
        };
        let accepted = self.propose(Kind::ApplyPlan(command)).await;
        if !accepted || plan.is_partial {
            self.dirty.services.insert(plan.service);
        }
        self.catch_up(
            plan.nodes.keys().copied(),
            // Those that go, too: what makes way for one service counts when the next one asks.
            plan.starts
                .iter()
                .map(|start| start.allocation)
                .chain(plan.desires.iter().map(|desire| desire.allocation))
                .chain(plan.displaced.iter().map(|desire| desire.allocation)),
        );
    }

    /// The next plan of this round must see what the last one took.
    pub(super) fn catch_up(
        &mut self,
        nodes: impl Iterator<Item = NodeId>,
        changed: impl Iterator<Item = AllocationId>,
    ) {
        let view = self.parts.store.view();
        nodes.for_each(|node| placement::follow_node(&mut self.scheduling.cluster, &view, node));
        changed
            .for_each(|id| placement::follow_allocation(&mut self.scheduling.cluster, &view, id));
    }

    async fn advance_rollout(&mut self, service: &Service, advance: &plan::Advance) {
        let progress = Progress {
            phase: advance.phase,
            ..Progress::default()
        };
        let command = AdvanceRollout {
            service: id_bytes(service.id.as_u128()),
            expected_generation: service.generation,
            progress: Some((&progress).into()),
            step: advance.reason.clone(),
        };
        if !self.propose(Kind::AdvanceRollout(command)).await {
            self.dirty.services.insert(service.id);
        }
    }

    async fn drop_service(&mut self, id: ServiceId) {
        let command = DropService {
            service: id_bytes(id.as_u128()),
        };
        if !self.propose(Kind::DropService(command)).await {
            self.dirty.services.insert(id);
        }
    }
}
