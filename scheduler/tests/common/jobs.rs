//! A service with jobs, and the effect that a plan has on the state.

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::{AllocationId, JobId, NodeId, ServiceId};
use skep_model::job::{Job, JobBook, Status};
use skep_model::node::{Admin, Node, NodeStatus};
use skep_model::placement::Placement;
use skep_model::service::{Release, Service};
use skep_scheduler::cluster::Cluster;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::Surroundings;
use skep_scheduler::jobs::{self, Input, Plan};
use skep_scheduler::quota::Allowance;
use skep_scheduler::room::Needs;

use super::{release, resources, service};

pub(crate) const SERVICE: ServiceId = ServiceId::from_u128(1);
/// As the state does.
const KEEP_ENDED: usize = 20;

pub(crate) fn job_id(number: u128) -> JobId {
    JobId::from_u128(number)
}

#[derive(Debug, Clone)]
pub(crate) struct Jobs {
    pub(crate) service: Service,
    pub(crate) book: JobBook,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) attempts: BTreeMap<AllocationId, Allocation>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) now_ms: u64,
    /// Cluster time: never goes back.
    pub(crate) time_ms: u64,
    pub(crate) is_turned: bool,
    pub(crate) quotas: Vec<Allowance>,
    next_id: u128,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        Self {
            service: service(1, 1),
            book: JobBook::default(),
            jobs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            nodes: BTreeMap::new(),
            now_ms: 0,
            time_ms: 0,
            is_turned: false,
            quotas: Vec::new(),
            next_id: 1_000_000,
        }
    }

    fn release(&self) -> Release {
        release(&self.service, 1, resources(100, 256))
    }

    pub(crate) fn plan(&self) -> Plan {
        let mut cluster = Cluster::default();
        self.nodes.values().for_each(|node| cluster.put_node(node));
        for one in self.attempts.values().filter(|one| one.is_live()) {
            let needs = Needs::new(resources(100, 256), &Placement::default());
            cluster.put_allocation(one.id, one.node, one.service, &needs);
        }
        let mut jobs: Vec<&Job> = self.jobs.values().collect();
        let mut allocations: Vec<&Allocation> = self.attempts.values().collect();
        if self.is_turned {
            jobs.reverse();
            allocations.reverse();
        }
        let release = self.release();
        let lost_ms = |id: NodeId| {
            let node = self.nodes.get(&id)?;
            (node.status == NodeStatus::Lost).then_some(node.status_ms)
        };
        let leave_by_ms = |id: NodeId| match self.nodes.get(&id)?.admin {
            Admin::Draining { deadline_ms } => Some(deadline_ms),
            Admin::Eligible | Admin::Cordoned => None,
        };
        let input = Input {
            service: &self.service,
            releases: &|_| Some(&release),
            book: &self.book,
            jobs,
            allocations,
            lost_ms: &lost_ms,
            leave_by_ms: &leave_by_ms,
            around: &Surroundings::default(),
            quotas: &self.quotas,
            now_ms: self.now_ms,
        };
        let mut next = self.next_id;
        let mut ids = || {
            next += 1;
            next
        };
        jobs::plan(&mut Draft::new(&cluster), &input, &mut ids)
    }

    /// What the state makes of an accepted plan.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        assert_eq!(
            plan.book_generation, self.book.generation,
            "compare-and-set"
        );
        self.time_ms = self.time_ms.max(self.now_ms);
        self.book.generation += 1;
        self.next_id += 1_000;
        for job in &plan.jobs {
            let old = self.jobs.get(&job.id);
            assert!(
                old.is_none_or(|old| old.status.is_active()),
                "what ended stays"
            );
            let created_ms = old.map_or(self.time_ms, |old| old.created_ms);
            self.jobs.insert(
                job.id,
                Job {
                    created_ms,
                    ..job.clone()
                },
            );
        }
        for made in plan.allocations() {
            let job = &self.jobs[&made.job.unwrap()];
            assert_eq!(
                (job.status, job.allocation),
                (Status::Running, Some(made.id))
            );
            self.nodes.get_mut(&made.node).unwrap().generation += 1;
            let made = Allocation {
                observed_ms: self.time_ms,
                created_ms: self.time_ms,
                ..made
            };
            assert!(self.attempts.insert(made.id, made).is_none());
        }
        for desire in &plan.desires {
            let one = self.attempts.get_mut(&desire.allocation).unwrap();
            assert!(one.desired < desire.desired);
            one.desired = desire.desired;
        }
        if plan.deployment.is_some() {
            self.book.deployment = plan.deployment;
        }
        if let Some(following) = &plan.following {
            self.book.following.clone_from(&following.schedule);
            self.book.until_ms = following.until_ms;
        }
        self.prune();
    }

    /// Plans and applies until nothing changes.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            let plan = self.plan();
            if plan.is_empty() {
                return;
            }
            self.apply(&plan);
        }
        panic!("it never rests");
    }

    /// What an agent says of an attempt.
    pub(crate) fn observe(&mut self, id: AllocationId, state: State, exit_code: Option<i32>) {
        let one = self.attempts.get_mut(&id).unwrap();
        if one.is_live() {
            one.observed.state = state;
            one.observed.exit_code = exit_code;
            one.observed_ms = self.time_ms;
        }
    }

    fn prune(&mut self) {
        let mut ended: Vec<_> = self
            .jobs
            .values()
            .filter(|job| !job.status.is_active())
            .collect();
        ended.sort_by_key(|job| job.id);
        let surplus = ended.len().saturating_sub(KEEP_ENDED);
        let gone: Vec<JobId> = ended.iter().take(surplus).map(|job| job.id).collect();
        gone.iter().for_each(|id| drop(self.jobs.remove(id)));
        self.attempts
            .retain(|_, one| one.is_live() || one.desired != Desired::Stop);
    }
}
