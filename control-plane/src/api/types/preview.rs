//! Previews and their rules as clients see them.

use serde::{Deserialize, Serialize};
use skep_model::preview::{DEFAULT_IDLE_MS, DEFAULT_MAX, DEFAULT_TTL_MS, Seed, Why};
use skep_model::variable::VariableInput;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::service::VariableView;

/// A preview that is to be made by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    /// Name of the environment that is copied; none: `production`.
    #[serde(default)]
    pub from: Option<String>,
    /// The branch that services from git deploy; none: what the environment has.
    #[serde(default)]
    pub branch: Option<String>,
    /// Images in place of what services of these names have.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    /// How long it lives, in ms; none: as the rules say.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
}

/// How long a preview is to live from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendRequest {
    /// In ms; none: as long as after a push.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
}

/// The pull request that a preview is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PullRequestView {
    /// Where it would be merged.
    pub repository: String,
    /// Its number there.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// Where people look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// It comes from another repository: it has no variables of the environment that it is a copy of.
    pub fork: bool,
}

/// A service of a preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewServiceView {
    /// Its name.
    pub service: String,
    /// Where its newest deployment is; none: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// Where it answers.
    pub urls: Vec<String>,
}

/// How it is with the comment at a preview's pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommentState {
    /// It does not say yet how the preview stands.
    Waiting,
    /// It says how the preview stands.
    Told,
    /// Its forge did not take it: nothing more is tried until there is something else to tell, or the forge connection is
    /// made again.
    GivenUp,
}

/// The comment at a preview's pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommentView {
    /// How it is with it.
    pub state: CommentState,
    /// What went wrong with it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When the forge was told last, ms since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_ms: Option<u64>,
}

/// A preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewView {
    /// Whose.
    pub project: String,
    /// Its name, which is its environment's.
    pub name: String,
    /// Name of the environment that it is a copy of.
    pub from: String,
    /// What it is for; none: somebody made it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<PullRequestView>,
    /// The branch that it deploys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The newest commit that it was asked to deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
    /// When it ends, ms since the epoch.
    pub expires_ms: u64,
    /// Why it has ended; its services are going.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Why>,
    /// The comment at its pull request; none: there is to be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<CommentView>,
    /// Its services.
    pub services: Vec<PreviewServiceView>,
}

/// Previews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewsView {
    /// By project and name.
    pub previews: Vec<PreviewView>,
}

/// What an environment says of its previews, as a whole but for the values of variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreviewRulesRequest {
    /// Names of the services that are copied; empty: all.
    pub services: Vec<String>,
    /// What their generated names end in; none: the cluster's base domain.
    pub base_domain: Option<String>,
    /// How long one lives after the last push, in ms.
    pub ttl_ms: u64,
    /// Most at once.
    pub max: u32,
    /// Whether pull requests from other repositories get one, without variables of the environment.
    pub forks: bool,
    /// How long nothing is asked of a service until it sleeps, in ms; 0: it never does.
    pub idle_ms: u64,
    /// What fills them with data.
    pub seed: Option<Seed>,
    /// Shared variables that previews have beside, or in place of, those of the environment; others stay.
    pub set: Vec<VariableInput>,
    /// Names of such variables that go.
    pub unset: Vec<String>,
}

impl Default for PreviewRulesRequest {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            base_domain: None,
            ttl_ms: DEFAULT_TTL_MS,
            max: DEFAULT_MAX,
            forks: false,
            idle_ms: DEFAULT_IDLE_MS,
            seed: None,
            set: Vec::new(),
            unset: Vec::new(),
        }
    }
}

/// What an environment says of its previews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewRulesView {
    /// Whose.
    pub project: String,
    /// Name of the environment.
    pub environment: String,
    /// Names of the services that are copied; empty: all.
    pub services: Vec<String>,
    /// What their generated names end in; none: the cluster's base domain.
    pub base_domain: Option<String>,
    /// How long one lives after the last push, in ms.
    pub ttl_ms: u64,
    /// Most at once.
    pub max: u32,
    /// How many there are.
    pub used: u32,
    /// Whether pull requests from other repositories get one.
    pub forks: bool,
    /// How long nothing is asked of a service until it sleeps, in ms; 0: it never does.
    pub idle_ms: u64,
    /// What fills them with data.
    pub seed: Option<Seed>,
    /// Shared variables of their own; the values of secrets are left out.
    pub variables: Vec<VariableView>,
}

/// Rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllPreviewRulesView {
    /// By project and environment.
    pub rules: Vec<PreviewRulesView>,
}
