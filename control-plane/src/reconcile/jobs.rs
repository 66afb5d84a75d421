//! Keeps the time of jobs, and carries out what is planned of them.

use std::collections::{BTreeMap, BTreeSet};

use skep_identity::random;
use skep_model::allocation::{Allocation, Desired};
use skep_model::id::{NodeId, ServiceId};
use skep_model::job::Job;
use skep_model::node::{Admin, NodeStatus};
use skep_model::service::Service;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1::command::Kind;
use skep_proto::{LEVEL_JOBS, v1};
use skep_scheduler::draft::Draft;
use skep_scheduler::jobs::{self, Input, Plan};
use skep_state::State;

use super::Duties;
use crate::placement;
use crate::store::now_ms;

/// When which service's jobs are looked at again.
#[derive(Default)]
pub(super) struct Jobs {
    /// Cluster time, ms since the epoch.
    wake_ms: BTreeMap<ServiceId, u64>,
    waiting: BTreeSet<ServiceId>,
}

impl Jobs {
    /// Services with jobs that wait or run: looked at again when nodes change.
    pub(super) fn waiting(&self) -> BTreeSet<ServiceId> {
        self.waiting.clone()
    }

    /// Services for which time alone has changed something by `now_ms`.
    pub(super) fn due(&self, now_ms: u64) -> Vec<ServiceId> {
        let due = self.wake_ms.iter().filter(|(_, at)| **at <= now_ms);
        due.map(|(service, _)| *service).collect()
    }

    /// When it will for the next one.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.wake_ms.values().min().copied()
    }

    pub(super) fn forget(&mut self, service: ServiceId) {
        self.wake_ms.remove(&service);
        self.waiting.remove(&service);
    }

    fn remember(&mut self, plan: &Plan) {
        match plan.wake_at_ms {
            Some(at) => self.wake_ms.insert(plan.service, at),
            None => self.wake_ms.remove(&plan.service),
        };
        if plan.is_idle {
            self.waiting.remove(&plan.service);
        } else {
            self.waiting.insert(plan.service);
        }
    }
}

impl Duties {
    /// Moves the jobs of a service one step on.
    pub(super) async fn run_jobs(&mut self, id: ServiceId) {
        let view = self.parts.store.view();
        let service = view
            .service(id)
            .filter(|_| view.feature_level() >= LEVEL_JOBS);
        let Some(service) = service.cloned() else {
            return self.jobs.forget(id);
        };
        let plan = self.plan_jobs(&view, &service);
        self.jobs.remember(&plan);
        if plan.is_empty() {
            return;
        }
        for job in plan.jobs.iter().filter(|job| !job.status.is_active()) {
            let (status, problem) = (job.status.as_str(), job.problem.as_ref());
            tracing::info!(job = %job.id, service = service.name, status, ?problem, "a job ended");
        }
        let accepted = self.propose(Kind::PlanJobs(command(&plan))).await;
        if !accepted || plan.is_partial {
            self.dirty.jobs.insert(id);
        }
        self.catch_up(
            plan.nodes.keys().copied(),
            plan.starts.iter().map(|start| start.allocation),
        );
    }

    fn plan_jobs(&self, view: &State, service: &Service) -> Plan {
        let jobs: Vec<&Job> = view.jobs_of(service.id).map(|job| &**job).collect();
        let allocations: Vec<&Allocation> =
            view.allocations_of(service.id).map(|one| &**one).collect();
        let lost_ms = |node: NodeId| {
            view.node(node)
                .filter(|node| node.status == NodeStatus::Lost)
                .map(|node| node.status_ms)
        };
        let leave_by_ms = |node: NodeId| match view.node(node)?.admin {
            Admin::Draining { deadline_ms } => Some(deadline_ms),
            Admin::Eligible | Admin::Cordoned => None,
        };
        let around = placement::surroundings(view, service);
        let quotas = placement::quotas(view, service);
        let book = view.job_book(service.id);
        let input = Input {
            service,
            releases: &|number| view.release(service.id, number).map(|release| &**release),
            book: &book,
            jobs,
            allocations,
            lost_ms: &lost_ms,
            leave_by_ms: &leave_by_ms,
            around: &around,
            quotas: &quotas,
            now_ms: now_ms(),
        };
        let mut draft = Draft::new(self.scheduling.cluster());
        jobs::plan(&mut draft, &input, &mut random::new_id)
    }
}

fn command(plan: &Plan) -> v1::PlanJobs {
    let base = |id: u128, generation: u64| v1::Base {
        id: id_bytes(id),
        generation,
    };
    let desire = |desire: &skep_scheduler::plan::Desire| v1::Desire {
        allocation: id_bytes(desire.allocation.as_u128()),
        desired: enum_number(&Desired::ALL, &desire.desired),
        reason: desire.reason.clone(),
    };
    let nodes = plan.nodes.iter();
    let attempts = v1::ApplyPlan {
        nodes: nodes
            .map(|(id, generation)| base(id.as_u128(), *generation))
            .collect(),
        services: vec![base(plan.service.as_u128(), plan.service_generation)],
        starts: plan.allocations().map(|one| (&one).into()).collect(),
        desires: plan.desires.iter().map(desire).collect(),
    };
    v1::PlanJobs {
        service: id_bytes(plan.service.as_u128()),
        expected_generation: plan.book_generation,
        plan: Some(attempts),
        jobs: plan.jobs.iter().map(Into::into).collect(),
        deployment: plan
            .deployment
            .map(|id| id_bytes(id.as_u128()))
            .unwrap_or_default(),
        following: plan.following.as_ref().map(|following| v1::Following {
            schedule: following.schedule.clone(),
            until_ms: following.until_ms,
        }),
    }
}
