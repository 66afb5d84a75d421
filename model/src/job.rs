//! Jobs: one run to completion of a service's release, over as many attempts as it takes. Written by
//! the leader; each attempt is an allocation, and what became of it is its agent's word.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AllocationId, DeploymentId, JobId, NodeId, ServiceId};
use crate::problem::Problem;
use crate::service::Target;
use crate::variable::Variable;

/// Most jobs of one service that have not ended.
pub const MAX_ACTIVE: usize = 100;
/// Ended jobs kept per service; older ones are forgotten.
pub const KEEP_ENDED: usize = 20;
/// Most words of a job's own command.
pub const MAX_COMMAND_WORDS: usize = 256;
/// Largest command and variables of a job, together, in bytes.
pub const MAX_OWN_BYTES: usize = 16 << 10;

/// Where a job is. Only forward; the last four are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits: for room, for another job to end, or before its next attempt.
    Pending,
    /// An attempt is placed on a node.
    Running,
    /// An attempt exited with 0.
    Succeeded,
    /// Its last attempt failed, or its time was over.
    Failed,
    /// Somebody or something ended it.
    Canceled,
    /// It was due and never begun.
    Missed,
}

impl Status {
    /// Every status, in the order of the stored format: append only.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
        Self::Missed,
    ];

    /// Not over yet.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    /// The word, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Missed => "missed",
        }
    }
}

/// Why a job exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A batch service was deployed.
    Deployment(DeploymentId),
    /// A cron service was due.
    Schedule {
        /// The time that was due, ms since the epoch: with the service, the name of this run.
        at_ms: u64,
    },
    /// The release phase of a deployment: before its release takes over.
    Release(DeploymentId),
    /// Somebody asked for it.
    Request {
        /// Who.
        by: String,
        /// Instead of the release's; empty: the release's own, as any other job of the service.
        command: Vec<String>,
        /// Beside the release's variables, and before them.
        variables: BTreeMap<String, Variable>,
    },
}

impl Cause {
    /// A command of its own, beside what the service is for: overlap does not concern it.
    pub fn is_aside(&self) -> bool {
        match self {
            Self::Request { command, .. } => !command.is_empty(),
            Self::Release(_) => true,
            Self::Deployment(_) | Self::Schedule { .. } => false,
        }
    }
}

/// How often and how long a job is tried: of the service's specification when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Further attempts after a failed one.
    pub retries: u32,
    /// From its creation to its end, in ms; 0: no limit.
    pub deadline_ms: u64,
    /// Pause before the second attempt, in ms; doubles with each.
    pub backoff_ms: u64,
    /// Longest pause, in ms.
    pub max_backoff_ms: u64,
}

/// One run to completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Identity.
    pub id: JobId,
    /// Whose.
    pub service: ServiceId,
    /// What it runs.
    pub target: Target,
    /// Why.
    pub cause: Cause,
    /// How often and how long.
    pub limits: Limits,
    /// Where it is.
    pub status: Status,
    /// Somebody asked that it ends.
    pub cancel: bool,
    /// Attempts begun.
    pub attempts: u32,
    /// Of them, those that failed in a row on `node`.
    pub failed_here: u32,
    /// The newest attempt; none: not begun.
    pub allocation: Option<AllocationId>,
    /// Where the newest attempt is, or was.
    pub node: Option<NodeId>,
    /// The next attempt is not begun before, ms since the epoch.
    pub not_before_ms: u64,
    /// Of the last attempt that ended; none: not known, or none has.
    pub exit_code: Option<i32>,
    /// Why the last attempt failed, or why it waits or was not begun.
    pub problem: Option<Problem>,
    /// The last lines of the last attempt that ended.
    pub log_tail: String,
    /// Cluster time of creation, ms since the epoch.
    pub created_ms: u64,
    /// Cluster time at which the first attempt was placed; 0: not yet.
    pub started_ms: u64,
    /// Cluster time of its end; 0: not yet.
    pub ended_ms: u64,
}

impl Job {
    /// A job that is about to be made. Times are for apply to set.
    pub fn new(id: JobId, service: ServiceId, target: Target, cause: Cause) -> Self {
        Self {
            id,
            service,
            target,
            cause,
            limits: Limits::default(),
            status: Status::Pending,
            cancel: false,
            attempts: 0,
            failed_here: 0,
            allocation: None,
            node: None,
            not_before_ms: 0,
            exit_code: None,
            problem: None,
            log_tail: String::new(),
            created_ms: 0,
            started_ms: 0,
            ended_ms: 0,
        }
    }

    /// When its time is over, in cluster time; none: no limit.
    pub fn deadline_at_ms(&self) -> Option<u64> {
        (self.limits.deadline_ms > 0)
            .then(|| self.created_ms.saturating_add(self.limits.deadline_ms))
    }
}

/// What is remembered of a service's jobs beside the jobs themselves, which are forgotten in time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobBook {
    /// Raised by every change of the service's jobs: the base of compare-and-set.
    pub generation: u64,
    /// The newest deployment that a job was made for.
    pub deployment: Option<DeploymentId>,
    /// The schedule that is being followed, with its time zone; empty: none.
    pub following: String,
    /// Every time of that schedule up to this has been decided on, ms since the epoch.
    pub until_ms: u64,
}

/// How an attempt is to be run by its agent: to completion, never twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Of which job.
    pub job: JobId,
    /// Longest time that the container may run, in ms; 0: no limit.
    pub limit_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_command_of_its_own_stands_aside() {
        let asked = |command: &[&str]| Cause::Request {
            by: "admin".into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            variables: BTreeMap::new(),
        };
        assert!(asked(&["sh"]).is_aside());
        assert!(!asked(&[]).is_aside());
        assert!(!Cause::Schedule { at_ms: 1 }.is_aside());
    }
}
