//! GitHub Apps as clients see them.

use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::id::ForgeAppId;
use utoipa::ToSchema;

/// A GitHub App that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgeAppRequest {
    /// Where browsers and GitHub reach this cluster: `https://skep.example.com`.
    pub cluster_url: String,
    /// Where GitHub is, as URLs of repositories have it; none: `github.com`.
    #[serde(default)]
    pub host: Option<String>,
    /// The organization that it is to belong to; none: to whoever makes it.
    #[serde(default)]
    pub organization: Option<String>,
    /// What it is called, which nobody else's may be; none: `skep-` and some digits.
    #[serde(default)]
    pub name: Option<String>,
    /// Where the API is; none: where GitHub has it.
    #[serde(default)]
    pub api_url: Option<String>,
    /// Where people see GitHub; none: `https://HOST`.
    #[serde(default)]
    pub web_url: Option<String>,
    /// The CA of its certificate, PEM; none: one that the servers' machines trust.
    #[serde(default)]
    pub ca_pem: Option<String>,
}

/// What is to be done in a browser.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BrowserStepView {
    /// Where; once, and by whoever has this URL.
    pub url: String,
    /// After that nobody waits for it, ms since the epoch.
    pub expires_ms: u64,
}

impl fmt::Debug for BrowserStepView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrowserStepView(until {})", self.expires_ms)
    }
}

/// A GitHub App.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgeAppView {
    /// Its id here.
    #[schema(value_type = String)]
    pub id: ForgeAppId,
    /// Where GitHub is.
    pub host: String,
    /// What GitHub names it in URLs.
    pub slug: String,
    /// The account that it belongs to.
    pub owner: String,
    /// GitHub's number for it.
    pub number: u64,
    /// Where people see it.
    pub url: String,
    /// Where GitHub sends deliveries, on this server.
    pub hook: String,
    /// Where it is installed, and bound to the workspace.
    pub installations: Vec<InstallationView>,
    /// When it was made, ms since the epoch.
    pub made_ms: u64,
    /// When it was made or changed by a person, ms since the epoch.
    pub changed_ms: u64,
}

/// One account that a GitHub App is installed at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstallationView {
    /// Of which App.
    pub app: String,
    /// GitHub's number for it.
    pub number: u64,
    /// Whose repositories it has.
    pub account: String,
    /// The account is an organization.
    pub organization: bool,
    /// Somebody there has suspended it: GitHub gives no tokens.
    pub suspended: bool,
    /// What the App asks for and was not given.
    pub missing: Vec<String>,
    /// Repositories that services know by an older name: `acme/shop is acme/store`.
    pub renamed: Vec<String>,
}

/// GitHub Apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgeAppsView {
    /// In the order in which they were made.
    pub apps: Vec<ForgeAppView>,
}

/// What is to be replaced of a GitHub App.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateAppRequest {
    /// A key that GitHub made, PEM; none: the secret of its webhook is replaced, here and at GitHub. Sealed, and never
    /// shown.
    #[serde(default)]
    pub private_key: Option<String>,
}

impl fmt::Debug for RotateAppRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RotateAppRequest(key: {})", self.private_key.is_some())
    }
}
