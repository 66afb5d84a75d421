//! Settings of workspaces, environments and pools as clients see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_model::placement::PoolPolicy;
use skep_model::settings::{Pool, Quota};
use utoipa::ToSchema;

/// What a workspace or an environment may have, and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaView {
    /// Name of the workspace.
    pub workspace: String,
    /// Name of the project; none: it is the workspace's.
    pub project: Option<String>,
    /// Name of the environment; none: it is the workspace's.
    pub environment: Option<String>,
    /// Most of each.
    pub quota: Quota,
    /// What live allocations request.
    pub used: UsedView,
    /// Whether constraints are preferences; none: as in what it belongs to.
    pub relaxed: Option<bool>,
}

/// What live allocations request together, those that are on their way out included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsedView {
    /// CPU, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Disk, in bytes.
    pub disk_bytes: u64,
    /// How many there are.
    pub allocations: u64,
}

/// Workspaces, and environments of which something is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotasView {
    /// By workspace, project and environment.
    pub quotas: Vec<QuotaView>,
}

/// Whether constraints on node metadata are preferences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RelaxedRequest {
    /// They are, they are not; none: as in what it belongs to.
    pub relaxed: Option<bool>,
}

/// The policy of a pool, as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolRequest {
    /// How much of a node may be requested, and how nodes are ranked.
    pub policy: PoolPolicy,
    /// Metadata of its nodes, where a node does not say another value.
    pub meta: BTreeMap<String, String>,
}

/// Pools with a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolsView {
    /// By name.
    pub pools: Vec<Pool>,
}
