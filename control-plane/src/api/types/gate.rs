//! What holds deployments up.

use serde::{Deserialize, Serialize};
use skep_model::gate::{Freeze, Gates};
use utoipa::ToSchema;

use super::DeploymentView;

/// A change of what holds deployments up; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatesRequest {
    /// Whether somebody has to approve each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<bool>,
    /// A freeze, in place of the one of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put_freeze: Option<Freeze>,
    /// The name of one that is taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_freeze: Option<String>,
}

/// What holds deployments of an environment, or of a workspace, up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatesView {
    /// Name of the workspace.
    pub workspace: String,
    /// Name of the project; none: it is about a workspace.
    pub project: Option<String>,
    /// Name of the environment; none: it is about a workspace.
    pub environment: Option<String>,
    /// What is said of it.
    pub own: Gates,
    /// What its workspace says for all environments.
    pub workspace_gates: Gates,
    /// The freeze that holds now.
    pub frozen: Option<FrozenView>,
    /// The deployments that wait, oldest first.
    pub held: Vec<DeploymentView>,
}

/// A freeze that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrozenView {
    /// Its name.
    pub name: String,
    /// The first moment after it and those that follow it without a gap, ms since the epoch.
    pub until_ms: u64,
}

/// Says yes to a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApproveRequest {
    /// Freezes do not hold it.
    pub despite_freeze: bool,
}

/// Keeps a service as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PinRequest {
    /// Why, in one line.
    pub reason: String,
}
