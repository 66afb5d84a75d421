//! The one state machine of a service's jobs, in successive plans: when they are due, begun, tried
//! again, ended. Level-triggered like the rollout's: it compares, remembers nothing, and planning
//! again before anything was observed changes nothing.
//!
//! Two jobs that exclude each other never run at once: a job counts as running until its agent has
//! said that its attempt is over, or until its node has been lost for so long that the agent there has stopped it by itself.
//! That no two leaders plan at cross purposes is the book's compare-and-set.

mod placing;
mod planner;
mod timetable;

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, Observed};
use skep_model::id::{AllocationId, DeploymentId, JobId, NodeId, ServiceId};
use skep_model::job::{Job, JobBook};
use skep_model::problem::Problem;
use skep_model::service::{Release, Service, Target};

use crate::draft::Draft;
use crate::filter::Surroundings;
use crate::plan::Desire;
use crate::quota::Allowance;

/// Most jobs that one plan changes: each may carry its own command and the tail of its log, and the
/// command that carries them all stays below 256 KiB. What is beyond comes with the next plan.
pub const MAX_CHANGED: usize = 6;
/// Added to the time after which the agent of a lost node stops an attempt by itself: clocks differ.
/// Then the attempt is taken for ended.
pub const LOST_MARGIN_MS: u64 = 30_000;
/// Ended jobs whose last attempt is left on its node, so that its log can be read.
pub const KEEP_LOGS: usize = 5;

/// Everything that one decision is made from, beside the cluster.
pub struct Input<'a> {
    /// The service.
    pub service: &'a Service,
    /// Its releases.
    pub releases: &'a dyn Fn(u64) -> Option<&'a Release>,
    /// What is remembered of its jobs.
    pub book: &'a JobBook,
    /// Its jobs, ended ones included, in any order.
    pub jobs: Vec<&'a Job>,
    /// Its allocations, in any order; replicas are passed over.
    pub allocations: Vec<&'a Allocation>,
    /// Since when a node has been lost, in cluster time; none: it is not.
    pub lost_ms: &'a dyn Fn(NodeId) -> Option<u64>,
    /// Until when an operator lets attempts go on on a node that is being drained, in cluster time;
    /// none: it is not.
    pub leave_by_ms: &'a dyn Fn(NodeId) -> Option<u64>,
    /// What its releases do not say.
    pub around: &'a Surroundings,
    /// What its workspace and its environment may have, and have.
    pub quotas: &'a [Allowance],
    /// Cluster time, ms since the epoch.
    pub now_ms: u64,
}

/// An attempt to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Of which job.
    pub job: JobId,
    /// Its id.
    pub allocation: AllocationId,
    /// Where.
    pub node: NodeId,
    /// What it runs.
    pub target: Target,
    /// Why there, for a person.
    pub reason: String,
}

/// How far a schedule has been decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// The schedule with its time zone; empty: none is followed.
    pub schedule: String,
    /// Every time up to this, ms since the epoch.
    pub until_ms: u64,
}

/// The next step of a service's jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose.
    pub service: ServiceId,
    /// Generation of the service that this was based on.
    pub service_generation: u64,
    /// Generation of the book that this was based on.
    pub book_generation: u64,
    /// Generations of the nodes that get an attempt.
    pub nodes: BTreeMap<NodeId, u64>,
    /// Attempts to make.
    pub starts: Vec<Start>,
    /// Attempts to stop, and ended ones to put away.
    pub desires: Vec<Desire>,
    /// New and changed jobs, each as a whole.
    pub jobs: Vec<Job>,
    /// The deployment that a job was made for.
    pub deployment: Option<DeploymentId>,
    /// The schedule is followed, up to when.
    pub following: Option<Following>,
    /// More was due than [`MAX_CHANGED`]: plan again once this one is applied.
    pub is_partial: bool,
    /// Why a job that is due is not begun, or a schedule is not followed.
    pub refusal: Option<Problem>,
    /// When time alone changes the answer, in cluster time.
    pub wake_at_ms: Option<u64>,
    /// No job waits or runs.
    pub is_idle: bool,
}

impl Plan {
    /// Changes nothing.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
            && self.desires.is_empty()
            && self.jobs.is_empty()
            && self.deployment.is_none()
            && self.following.is_none()
    }

    /// The attempts to make, as they enter the state; times and indexes are for apply to set.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation> {
        self.starts.iter().map(|start| Allocation {
            id: start.allocation,
            service: self.service,
            target: start.target,
            node: start.node,
            desired: Desired::Run,
            reason: start.reason.clone(),
            desired_ms: 0,
            desired_index: 0,
            observed: Observed::pending(),
            observed_ms: 0,
            created_ms: 0,
            job: Some(start.job),
        })
    }
}

/// Plans the next step. Starts are counted in the draft; `ids` is asked once for each new job and
/// each start.
pub fn plan(draft: &mut Draft<'_>, input: &Input<'_>, ids: &mut dyn FnMut() -> u128) -> Plan {
    let mut planner = planner::Planner::new(input);
    planner.settle();
    if planner.create(ids) {
        // What a new one replaces.
        planner.settle();
    }
    planner.start(draft, ids);
    planner.put_away();
    planner.finish()
}
