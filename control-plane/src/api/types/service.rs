//! Services and their variables.

use serde::{Deserialize, Serialize};
use skep_model::gate::Pin;
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::problem::Problem;
use skep_model::service::Target;
use skep_model::spec::ServiceSpec;
use skep_model::variable::VariableInput;
use utoipa::ToSchema;

use super::DeploymentView;

/// Creates or changes a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PutService {
    /// The whole specification; fields left out have their defaults. None: it stays as it is, a new
    /// service has the default one.
    pub spec: Option<ServiceSpec>,
    /// Variables to set; others stay. They take effect with the next deployment.
    pub variables: Vec<VariableInput>,
    /// Change only if the service still has this generation; 0: only if there is none yet.
    pub if_generation: Option<u64>,
}

/// How a service does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Never deployed.
    New,
    /// A deployment is on its way.
    Deploying,
    /// All its allocations are healthy.
    Healthy,
    /// Some are.
    Degraded,
    /// None is.
    Down,
    /// Somebody stopped it.
    Stopped,
    /// On its way out.
    Removing,
}

/// Allocations of a service that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct AllocationCounts {
    /// How many there should be.
    pub wanted: u32,
    /// How many there are.
    pub live: u32,
    /// How many of them may get traffic.
    pub healthy: u32,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Identity.
    pub id: ServiceId,
    /// Name of its project.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// Its name.
    pub name: String,
    /// In one word.
    pub state: ServiceState,
    /// Where it answers, the generated host name first; empty for a worker, or without an ingress.
    pub urls: Vec<String>,
    /// What was asked for.
    pub spec: ServiceSpec,
    /// What serves.
    pub live: Option<Target>,
    /// What is being rolled out.
    pub rollout: Option<Target>,
    /// Number of the newest release; 0: none yet.
    pub last_release: u64,
    /// The deployment on its way.
    pub deployment: Option<DeploymentId>,
    /// The deployment that waits at the gates of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<DeploymentId>,
    /// Why nothing new comes here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pin>,
    /// Counted.
    pub allocations: AllocationCounts,
    /// Wanted without allocations.
    pub stopped: bool,
    /// On its way out.
    pub removing: bool,
    /// The Compose file that says what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<StackedView>,
    /// Why what ran on a lost node does not go on elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Problem>,
    /// Why its repository or registry cannot be asked for what is new, as it was said first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_problem: Option<Problem>,
    /// When its repository, or the registry of its image, was asked for what is new, ms since the epoch; none: it is
    /// not known, or not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_asked_ms: Option<u64>,
    /// Raised by every change.
    pub generation: u64,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
}

/// What a Compose file in a repository says of a service: that is in force again at its next push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StackedView {
    /// The file's path in the repository; none: no file was understood yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The repository.
    pub repository: String,
    /// What it says, as paths of the specification, and `variables.NAME`.
    pub says: Vec<String>,
}

/// Services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServicesView {
    /// By project, environment and name.
    pub services: Vec<ServiceView>,
}

/// How many allocations there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// 0 to 1,000.
    pub replicas: u32,
}

/// Changes variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PatchVariables {
    /// To set.
    pub set: Vec<VariableInput>,
    /// Names to forget.
    pub unset: Vec<String>,
    /// Values that go on under another name, as they are before all else.
    pub keep: Vec<KeepVariable>,
    /// Deploy the live release again with them at once, where there is one.
    pub redeploy: bool,
    /// The same for every other service of which a variable refers to them.
    pub redeploy_dependents: bool,
}

/// A value that goes on under another name: the old one of a secret, while some still use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepVariable {
    /// Whose value.
    pub name: String,
    /// Under which name; what is there is replaced.
    pub under: String,
}

impl Default for PatchVariables {
    fn default() -> Self {
        Self {
            set: Vec::new(),
            unset: Vec::new(),
            keep: Vec::new(),
            redeploy: true,
            redeploy_dependents: false,
        }
    }
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VariableView {
    /// Its name.
    pub name: String,
    /// Its value; none: a secret, which is never shown again.
    pub value: Option<String>,
    /// A secret.
    pub secret: bool,
}

/// The variables of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VariablesView {
    /// By name.
    pub variables: Vec<VariableView>,
    /// Generation of the service.
    pub generation: u64,
    /// The deployment that brings a change, where one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentView>,
    /// What a change means for others, and what it still lacks.
    #[serde(flatten)]
    pub effects: EffectsView,
}

/// What a change of variables means beyond them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EffectsView {
    /// Other services that run and refer to what was changed: they have the old values until they are
    /// deployed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<String>,
    /// Deployments that bring the change to them, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependent_deployments: Vec<DeploymentView>,
    /// What the new values refer to and does not exist yet: until it does, deployments fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// Changes variables of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PatchSharedVariables {
    /// To set.
    pub set: Vec<VariableInput>,
    /// Names to forget.
    pub unset: Vec<String>,
    /// Values that go on under another name, as they are before all else.
    pub keep: Vec<KeepVariable>,
    /// Deploy the services again that refer to them.
    pub redeploy: bool,
}

/// The variables of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedVariablesView {
    /// By name.
    pub variables: Vec<VariableView>,
    /// Raised by every change; 0: nothing was ever set.
    pub generation: u64,
    /// What a change means for services, and what it still lacks.
    #[serde(flatten)]
    pub effects: EffectsView,
}
