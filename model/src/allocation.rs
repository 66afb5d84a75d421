//! Allocations: one replica of a release on one node. `desired` is written by the leader alone,
//! `observed` by the node's agent alone.

use serde::{Deserialize, Serialize};

use crate::id::{AllocationId, JobId, NodeId, ServiceId};
use crate::problem::Problem;
use crate::service::Target;

/// Longest tail of a container's log kept with an observation, in bytes.
pub const MAX_LOG_TAIL: usize = 4 << 10;

/// What the leader wants of an allocation. Only forward: a stopped one is never revived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Run and, while healthy, take traffic.
    Run,
    /// Run on, but out of the routes: what is in flight may finish.
    Drain,
    /// Stop.
    Stop,
}

impl Desired {
    /// Every value, in the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Run, Self::Drain, Self::Stop];
}

/// What the agent sees. The last three are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not begun.
    Pending,
    /// The image is being fetched.
    Pulling,
    /// The container is being made, or waits for its next attempt.
    Starting,
    /// It runs; not yet known to be fit for traffic.
    Running,
    /// Fit for traffic.
    Healthy,
    /// It was healthy and is not now.
    Unhealthy,
    /// On its way out.
    Stopping,
    /// Ended as asked.
    Stopped,
    /// Ended by itself, beyond its restarts.
    Failed,
    /// Its node is gone.
    Lost,
}

impl State {
    /// Every state, in the order of the stored format: append only.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Pulling,
        Self::Starting,
        Self::Running,
        Self::Healthy,
        Self::Unhealthy,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Lost,
    ];

    /// Over for good.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed | Self::Lost)
    }

    /// The word, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

/// An agent's word on one of its allocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Where it is.
    pub state: State,
    /// Containers begun after the first.
    pub restarts: u32,
    /// Why, where the state needs a reason.
    pub problem: Option<Problem>,
    /// The last lines that the container wrote, where it ended or never became healthy.
    pub log_tail: String,
    /// What a job's attempt exited with, where it ended by itself.
    pub exit_code: Option<i32>,
    /// Ports of its node that reach it: those it asked for, then those that the agent chose.
    pub ports: Vec<u16>,
}

impl Observed {
    /// The observation of an allocation that no agent has spoken of.
    pub fn pending() -> Self {
        Self {
            state: State::Pending,
            restarts: 0,
            problem: None,
            log_tail: String::new(),
            exit_code: None,
            ports: Vec::new(),
        }
    }
}

/// One replica of a release, placed on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Identity.
    pub id: AllocationId,
    /// Whose.
    pub service: ServiceId,
    /// What it runs.
    pub target: Target,
    /// Where.
    pub node: NodeId,
    /// What the leader wants.
    pub desired: Desired,
    /// Why the leader put it there or takes it away.
    pub reason: String,
    /// Cluster time at which `desired` last changed, ms since the epoch.
    pub desired_ms: u64,
    /// Index of the command that last changed `desired`: a route table at or after it knows.
    pub desired_index: u64,
    /// What the agent sees.
    pub observed: Observed,
    /// Cluster time at which the observed state last changed.
    pub observed_ms: u64,
    /// Cluster time of creation.
    pub created_ms: u64,
    /// The job that this is an attempt of; none: a replica.
    pub job: Option<JobId>,
}

impl Allocation {
    /// Takes up room on its node.
    pub fn is_live(&self) -> bool {
        !self.observed.state.is_terminal()
    }

    /// Belongs into the routes. An attempt of a job never does.
    pub fn is_routable(&self) -> bool {
        self.desired == Desired::Run && self.observed.state == State::Healthy && self.job.is_none()
    }

    /// Whether its node still has to do with it: it lives, or it is a job's attempt whose log is kept
    /// until it is told to stop.
    pub fn is_assigned(&self) -> bool {
        self.is_live() || (self.job.is_some() && self.desired == Desired::Run)
    }
}
