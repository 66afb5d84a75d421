//! Logs, uploads and webhooks.

use serde::{Deserialize, Serialize};
use skep_model::deployment::Status;
use skep_model::id::{AllocationId, DeploymentId, HookId, UploadId};
use skep_model::problem::Problem;
use utoipa::ToSchema;

use crate::history::Event;

/// A part of a deployment's timeline and build log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// In order.
    pub events: Vec<Event>,
    /// What to ask for next: `?after=`.
    pub next: u64,
    /// Where the deployment is; none: only the history knows it any more.
    pub status: Option<Status>,
    /// What of the log is not shown, and why: it is at a server that cannot be reached, or was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// Last message of a deployment's event stream (`event: end`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndView {
    /// How it ended; none: only the history knows the deployment any more.
    pub status: Option<Status>,
    /// Why it did not become live.
    pub problem: Option<Problem>,
    /// The release that it brought.
    pub release: Option<u64>,
    /// Where the service answers.
    pub urls: Vec<String>,
}

/// One line that an app wrote, or why its lines cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppLine {
    /// Who wrote it.
    pub allocation: AllocationId,
    /// Name of the node.
    pub node: String,
    /// When, ns since the epoch, strictly rising within an allocation: what `after` takes.
    pub at_ns: u64,
    /// Written to standard error.
    pub stderr: bool,
    /// The line.
    pub text: String,
    /// Set: this is no line, it stands where others are missing; the text says so in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostLines>,
    /// Why there are no (more) lines of this allocation; the other fields mean nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Lines that Docker turned over before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LostLines {
    /// Bytes of the log's files; 0: nobody knows.
    pub bytes: u64,
    /// There may be more of it.
    pub at_least: bool,
}

/// A folder that arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadView {
    /// Which.
    pub upload: UploadId,
    /// Its size as sent.
    pub bytes: u64,
}

/// The webhook of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookView {
    /// Where a forge sends pushes, on this server.
    pub path: String,
    /// There is a secret. Without one every delivery is refused.
    pub has_secret: bool,
    /// The secret: shown once, when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The same secret as a key, for forges that sign with one (GitLab's signing token): shown with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
}

/// Asks for the webhook of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositoryWebhookRequest {
    /// A URL of the repository, any of those that it is cloned by.
    pub repository: String,
}

/// The webhook of a repository: one URL for all services that come from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryWebhookView {
    /// Identity.
    #[schema(value_type = String)]
    pub id: HookId,
    /// The repository by its one name: `host/owner/name`.
    pub repository: String,
    /// Where a forge sends events, on this server.
    pub path: String,
    /// The services that come from it now (`project/environment/service`).
    pub services: Vec<String>,
    /// The secret: shown once, when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The same secret as a key, for forges that sign with one (GitLab's signing token): shown with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
}

/// Webhooks of repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryWebhooksView {
    /// Oldest first.
    pub webhooks: Vec<RepositoryWebhookView>,
}

/// What came of a webhook delivery.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct HookReply {
    /// The deployment that it made, or that an earlier delivery of the same id made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// An earlier delivery had the same id.
    #[serde(default)]
    pub replayed: bool,
    /// Why nothing is done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<String>,
    /// Answer to a ping.
    #[serde(default)]
    pub pong: bool,
    /// What was decided about each event of the delivery: a push of several branches has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<HookEvent>,
}

/// What was decided about one event of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookEvent {
    /// What happened at the forge.
    pub event: String,
    /// The service that it is decided for (`project/environment/service`), where the webhook is a repository's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What is done about it, and why.
    pub decision: String,
    /// The deployment that it made, or that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// The deployment was there before.
    #[serde(default)]
    pub replayed: bool,
}
