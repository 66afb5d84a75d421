//! Logins at registries as clients see them.

use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::id::DeploymentId;
use skep_model::image_push::{Push, PushRegistryShown};
use skep_model::problem::Problem;
use skep_model::registry::{Bucket, RegistryShown};
use utoipa::ToSchema;

/// A login at a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryRequest {
    /// As whom.
    pub user: String,
    /// Password or token.
    pub password: String,
}

impl fmt::Debug for RegistryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryRequest({})", self.user)
    }
}

/// Registries at which nodes log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistriesView {
    /// By host.
    pub registries: Vec<RegistryShown>,
}

/// Where the workspace's images are pushed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushRegistryRequest {
    /// Host, with its port where it has one.
    pub host: String,
    /// Folders before the images' own names; empty: none.
    #[serde(default)]
    pub prefix: String,
    /// As whom images are pushed.
    pub user: String,
    /// Password or token. Sealed, and never shown.
    pub password: String,
    /// As whom they are pulled; none: as whoever pushes.
    #[serde(default)]
    pub pull: Option<RegistryRequest>,
    /// The host has this bucket of an object store that speaks S3, `user` is the id of an access key and `password` its
    /// secret; none: it is a registry.
    #[serde(default)]
    pub bucket: Option<Bucket>,
    /// Nothing that is built goes live before it is there.
    #[serde(default)]
    pub required: bool,
}

impl fmt::Debug for PushRegistryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushRegistryRequest({}@{})", self.user, self.host)
    }
}

/// Where the workspace's images are pushed, and what is not there yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushRegistryView {
    /// Absent: nowhere.
    pub registry: Option<PushRegistryShown>,
    /// Images that are still to be pushed.
    pub waiting: Vec<WaitingPushView>,
}

/// An image that is still to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingPushView {
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// `project/environment/service`.
    pub service: String,
    /// As it will be named at the registry.
    pub reference: String,
    /// Why it is not there; none: it was not tried yet.
    pub problem: Option<Problem>,
    /// How often it was tried.
    pub attempts: u32,
}

/// What became of a deployment's image at the workspace's push registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImagePushView {
    /// As it is named there.
    pub reference: String,
    /// The digest by which it is there; none: it is not.
    pub digest: Option<String>,
    /// What went wrong with the newest attempt.
    pub problem: Option<Problem>,
    /// How often it was tried.
    pub attempts: u32,
}

impl From<&Push> for ImagePushView {
    fn from(push: &Push) -> Self {
        Self {
            reference: push.reference.clone(),
            digest: push.digest.clone(),
            problem: push.problem.clone(),
            attempts: push.attempts,
        }
    }
}
