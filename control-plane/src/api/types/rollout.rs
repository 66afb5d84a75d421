//! Rollouts as clients see them.

use serde::{Deserialize, Serialize};
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::rollout::{Control, Phase, Policy};
use utoipa::ToSchema;

/// How releases of a service take over, and how far one is that does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// The service.
    pub service_id: ServiceId,
    /// Name of its project.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// Its name.
    pub service: String,
    /// How its releases take over.
    pub policy: Policy,
    /// The release that is live.
    pub live: Option<ReleaseCounts>,
    /// What is being rolled out; none: nothing is.
    pub rollout: Option<RolloutProgressView>,
}

/// Allocations of one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseCounts {
    /// Its number.
    pub release: u64,
    /// The deployment that brought it.
    pub deployment: DeploymentId,
    /// Healthy allocations.
    pub healthy: u32,
    /// Whether requests go to them.
    pub serves: bool,
}

/// A rollout on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutProgressView {
    /// The release that takes over.
    pub new: ReleaseCounts,
    /// How many healthy allocations of it the phase works towards.
    pub wanted: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Since when, ms since the epoch.
    pub since_ms: u64,
    /// It starts and withdraws nothing, and no phase follows.
    pub paused: bool,
    /// What it waits for, for a person.
    pub waits_for: String,
    /// Of a canary: the requests that are compared, since the new release serves; none: nothing is compared, or
    /// nobody leads who could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<ComparedView>,
}

/// The requests to both releases of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComparedView {
    /// Those of the new release.
    pub new: ComparedCounts,
    /// Those of the live one in the same time.
    pub live: ComparedCounts,
}

/// The requests to one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComparedCounts {
    /// All, but for those that the client left.
    pub requests: u64,
    /// Those that were answered with 5xx, or not at all.
    pub failed: u64,
    /// 95 of 100 had the head of their answer within so many ms; none: there were none.
    pub latency_p95_ms: Option<u64>,
}

/// What is wanted of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// Which of the four.
    pub action: Control,
    /// With `promote`: all further steps of a canary too.
    #[serde(default)]
    pub full: bool,
    /// The deployment that is meant; left out: whichever is rolled out now.
    #[serde(default)]
    pub deployment: Option<DeploymentId>,
}
