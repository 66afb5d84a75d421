//! Deployments, releases and allocations.

use serde::{Deserialize, Serialize};
use skep_model::allocation::{Desired, State};
use skep_model::deployment::{Origin, Status, Step, Trigger};
use skep_model::id::{AllocationId, DeploymentId, JobId, NodeId, ServiceId};
use skep_model::problem::Problem;
use skep_model::service::Image;
use skep_model::spec::{Resources, ServiceType};
use utoipa::ToSchema;

use super::ImagePushView;

/// What to deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum DeploymentRequest {
    /// A folder: the answer's `origin.upload` says where to send it (`PUT /v1/uploads/{upload}`).
    Upload,
    /// What the service's own `source` says: the newest commit of its branch, or its image.
    Source,
    /// A git repository. Becomes the service's source once it was built.
    Git {
        /// What to clone.
        repository: String,
        /// The branch.
        branch: String,
        /// The commit, in full; none: the branch's newest.
        #[serde(default)]
        commit: Option<String>,
        /// Folder inside the repository; empty: its root.
        #[serde(default)]
        directory: String,
    },
    /// A ready image. Becomes the service's source once it was found.
    Image {
        /// `name[:tag][@digest]`.
        reference: String,
    },
    /// The live release's image with today's configuration.
    Redeploy,
    /// The live release as it is, in new containers.
    Restart,
    /// An older release as it was.
    Rollback {
        /// Its number; none: the one that was live before the live one.
        #[serde(default)]
        release: Option<u64>,
    },
    /// A release of the service of the same name in another environment of the project: its image, with the
    /// configuration and the variables that this one has.
    Promote {
        /// Name of that environment.
        from: String,
        /// The release's number there; none: the live one.
        #[serde(default)]
        release: Option<u64>,
    },
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentView {
    /// Identity.
    pub id: DeploymentId,
    /// Its service.
    pub service_id: ServiceId,
    /// Name of the service's project.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// Name of the service.
    pub service: String,
    /// Why it exists.
    pub trigger: Trigger,
    /// What it starts from.
    pub origin: Origin,
    /// Where it is.
    pub status: Status,
    /// It goes no further: `live` or one of the ends.
    pub ended: bool,
    /// It waits at the gates of its environment: for a yes, for checks, for the end of a freeze.
    #[serde(default)]
    pub held: bool,
    /// Why it did not become live, or why it waits.
    pub problem: Option<Problem>,
    /// Name of the node that builds it.
    pub node: Option<String>,
    /// The commit that was built.
    pub commit: Option<String>,
    /// The release that it brings.
    pub release: Option<u64>,
    /// Where the service answers.
    pub urls: Vec<String>,
    /// The timeline.
    pub steps: Vec<Step>,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
    /// When it entered its status.
    pub status_ms: u64,
    /// What became of its image at the workspace's push registry; none: nothing was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<ImagePushView>,
}

/// Deployments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentsView {
    /// Newest first.
    pub deployments: Vec<DeploymentView>,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseView {
    /// 1, 2, 3, ...
    pub number: u64,
    /// Serves now.
    pub live: bool,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// What runs.
    pub image: Image,
    /// Web or worker.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// The port it listens on.
    pub port: Option<u16>,
    /// Replaces the image's command; empty: the image's own.
    pub command: Vec<String>,
    /// Names of its variables.
    pub variables: Vec<String>,
    /// What each allocation needs.
    pub resources: Resources,
    /// The commit it was built from.
    pub commit: Option<String>,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
}

/// Releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleasesView {
    /// Those that are kept, newest first.
    pub releases: Vec<ReleaseView>,
}

/// An allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocationView {
    /// Identity.
    pub id: AllocationId,
    /// Its service.
    pub service_id: ServiceId,
    /// Name of the service's project.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// Name of the service.
    pub service: String,
    /// Number of the release that it runs.
    pub release: u64,
    /// The deployment that brought it.
    pub deployment: DeploymentId,
    /// Where it is.
    pub node_id: NodeId,
    /// Name of that node.
    pub node: String,
    /// What the leader wants.
    pub desired: Desired,
    /// What the agent sees.
    pub state: State,
    /// Containers begun after the first.
    pub restarts: u32,
    /// Why, where the state needs a reason.
    pub problem: Option<Problem>,
    /// The job that it is an attempt of; none: a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What a job's attempt exited with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Ports of its node that reach it: those that it asked for, then those that the agent chose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Last lines of a container that ended or never became healthy.
    pub log_tail: String,
    /// Why the leader put it there, or takes it away.
    pub reason: String,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
    /// When its state last changed.
    pub state_ms: u64,
}

/// Allocations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocationsView {
    /// Oldest first.
    pub allocations: Vec<AllocationView>,
    /// What nodes run and the cluster does not know, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Vec<QuarantinedView>>,
}

/// A container that a node runs for this cluster and that the cluster, restored from a backup, does not
/// know. It is kept running, out of the routes, until somebody adopts or dismisses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedView {
    /// The allocation that it was.
    pub id: AllocationId,
    /// The service that it was of: `service-environment-project`.
    pub service: String,
    /// That service's id.
    pub service_id: ServiceId,
    /// Whether that service and release exist, so that it can be adopted.
    pub adoptable: bool,
    /// Number of the release that it runs.
    pub release: u64,
    /// The deployment that brought it.
    pub deployment: DeploymentId,
    /// Where it runs.
    pub node_id: NodeId,
    /// Name of that node.
    pub node: String,
    /// When it was first reported, ms since the epoch.
    pub since_ms: u64,
}
