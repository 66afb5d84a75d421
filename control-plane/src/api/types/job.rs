//! Jobs and schedules.

use serde::{Deserialize, Serialize};
use skep_model::id::{AllocationId, DeploymentId, JobId, ServiceId};
use skep_model::job::{Limits, Status};
use skep_model::problem::Problem;
use skep_model::run::Overlap;
use skep_model::variable::VariableInput;
use utoipa::ToSchema;

/// Runs a job of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunRequest {
    /// Instead of the release's command; empty: the release's own, which needs a batch or cron service.
    pub command: Vec<String>,
    /// Beside the release's variables, and before them.
    pub variables: Vec<VariableInput>,
    /// Further attempts after a failed one; none: with a command of its own 0, else the service's.
    pub retries: Option<u32>,
    /// From creation to end, in ms, 0: no limit; none: with a command of its own no limit, else the
    /// service's.
    pub deadline_ms: Option<u64>,
}

/// Why a job exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum CauseView {
    /// Its service was deployed.
    Deployment {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// Its service was due.
    Schedule {
        /// The time that was due, ms since the epoch.
        at_ms: u64,
    },
    /// The release phase of a deployment.
    Release {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// Somebody asked for it.
    Request {
        /// Who.
        by: String,
        /// Instead of the release's command; empty: the release's own.
        command: Vec<String>,
        /// Names of its own variables.
        variables: Vec<String>,
    },
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Identity.
    pub id: JobId,
    /// Its service.
    pub service_id: ServiceId,
    /// Name of the service's project.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// Name of the service.
    pub service: String,
    /// The release that it runs.
    pub release: u64,
    /// Why it exists.
    pub cause: CauseView,
    /// Where it is.
    pub status: Status,
    /// Over.
    pub ended: bool,
    /// Somebody asked that it ends.
    pub canceling: bool,
    /// How often and how long it is tried.
    pub limits: Limits,
    /// Attempts begun.
    pub attempts: u32,
    /// The newest attempt.
    pub allocation: Option<AllocationId>,
    /// Its container has been begun: it may have written something.
    pub is_attempt_begun: bool,
    /// Name of the node that it is on, or was.
    pub node: Option<String>,
    /// What the last attempt that ended exited with.
    pub exit_code: Option<i32>,
    /// Why the last attempt failed, or why it waits or was not begun.
    pub problem: Option<Problem>,
    /// The last lines of the last attempt that ended.
    pub log_tail: String,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
    /// When its first attempt was placed.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// When its next attempt begins at the earliest, where it waits for that.
    pub next_attempt_ms: Option<u64>,
}

/// A service that runs by the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// The service.
    pub service_id: ServiceId,
    /// Name of its project.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// Its name.
    pub service: String,
    /// When it is due.
    pub schedule: String,
    /// In which time zone.
    pub time_zone: String,
    /// What happens while another job has not ended.
    pub overlap: Overlap,
    /// No jobs are made.
    pub paused: bool,
    /// When it is due next, ms since the epoch; none: it is paused, stopped, or not live.
    pub next_ms: Option<u64>,
    /// Its newest job.
    pub last: Option<JobId>,
    /// Where that is.
    pub last_status: Option<Status>,
    /// Why the schedule is not followed.
    pub problem: Option<Problem>,
}

/// Jobs and schedules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobsView {
    /// Newest first within a service.
    pub jobs: Vec<JobView>,
    /// Of the cron services among them.
    pub schedules: Vec<ScheduleView>,
}

/// Pauses a schedule, or follows it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// No jobs are made.
    pub paused: bool,
}
