//! GitHub Apps: what a workspace is at GitHub under a name of its own, where it is installed, and the steps in a browser by
//! which it comes to be.

use crate::id::{ForgeAppId, WorkspaceId};
use crate::problem::Problem;
use crate::variable::Sealed;

/// Most Apps of a cluster.
pub const MAX_APPS: usize = 64;
/// Most installations of a connection.
pub const MAX_INSTALLATIONS: usize = 32;
/// Most steps in browsers that are waited for at once.
pub const MAX_SETUPS: usize = 64;
/// How long a step in a browser is waited for: a person finds a colleague who administers the organization.
pub const SETUP_MS: u64 = 3_600_000;
/// Renamed repositories that an installation remembers; older ones are forgotten.
pub const MAX_RENAMED: usize = 16;
/// Longest word of GitHub that is kept: an account, a repository, a permission.
pub const MAX_WORD: usize = 256;

/// A GitHub App.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeApp {
    /// Identity: the URL of its webhook ends in it.
    pub id: ForgeAppId,
    /// Whose.
    pub workspace: WorkspaceId,
    /// GitHub's number for it.
    pub number: u64,
    /// What GitHub names it in URLs; unique at its host.
    pub slug: String,
    /// The account that it belongs to there.
    pub owner: String,
    /// GitHub's name for it where people sign in.
    pub client_id: String,
    /// Where it is.
    pub site: AppSite,
    /// What it is proved with, and proves itself with.
    pub secrets: AppSecrets,
    /// Cluster time when it was made, ms since the epoch.
    pub made_ms: u64,
    /// Cluster time of the last change by a person.
    pub changed_ms: u64,
}

/// Where a GitHub is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSite {
    /// As URLs of repositories have it, without a port.
    pub host: String,
    /// Where its API is.
    pub api_url: String,
    /// Where people see it, without a `/` at its end.
    pub web_url: String,
    /// The CA that signs its certificate, PEM; none: one that the servers' machines trust.
    pub ca_pem: Option<String>,
}

/// The secrets of an App, each sealed by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSecrets {
    /// Signs what asks for tokens: an RSA key, PEM.
    pub private_key: Sealed,
    /// Signs deliveries.
    pub webhook: Sealed,
    /// Turns the code of a person who signed in into a token.
    pub client: Sealed,
}

/// One account that an App is installed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The App.
    pub app: ForgeAppId,
    /// GitHub's number for it.
    pub number: u64,
    /// Whose repositories it has.
    pub account: String,
    /// The account is an organization.
    pub is_organization: bool,
    /// Somebody has suspended it: GitHub gives no tokens.
    pub is_suspended: bool,
    /// What the App asks for and was not given.
    pub missing: Vec<String>,
    /// Repositories that have another name since: services may say the older one.
    pub renamed: Vec<Renamed>,
}

/// A repository that got another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// `owner/name`, as it was.
    pub from: String,
    /// As it is.
    pub to: String,
}

impl Installation {
    /// Whether a repository (`owner/name`) is of its account.
    pub fn has(&self, repository: &str) -> bool {
        let owner = repository.split('/').next().unwrap_or_default();
        owner.eq_ignore_ascii_case(&self.account)
    }

    /// What every server agrees on.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        let words = self.missing.iter().chain([&self.account]);
        let renamed = self.renamed.iter().flat_map(|it| [&it.from, &it.to]);
        let is_long = |text: &String| text.len() > MAX_WORD;
        if self.number == 0 || self.account.is_empty() {
            return Err(Problem::invalid(
                "installation",
                "it has no number or no account",
            ));
        }
        if words.chain(renamed).any(is_long) || self.renamed.len() > MAX_RENAMED {
            return Err(Problem::invalid("installation", "more than is kept of one"));
        }
        Ok(())
    }
}

/// A step in a browser that is waited for: whoever comes with its secret takes it, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// SHA-256 of the secret in its URL.
    pub digest: Vec<u8>,
    /// For which workspace.
    pub workspace: WorkspaceId,
    /// SHA-256 of the token of whoever began it: void with that token.
    pub by: Vec<u8>,
    /// Which.
    pub step: SetupStep,
    /// Cluster time after which nobody takes it any more, ms since the epoch.
    pub expires_ms: u64,
}

/// What is to be done in the browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupStep {
    /// The App is made.
    Create(Box<Draft>),
    /// It is installed.
    Install(ForgeAppId),
}

/// An App that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its identity from the first page on: its webhook's URL is among what GitHub is told.
    pub app: ForgeAppId,
    /// Where.
    pub site: AppSite,
    /// What it is called.
    pub name: String,
    /// The organization that it is to belong to; none: to whoever makes it.
    pub organization: Option<String>,
    /// Where browsers and GitHub reach the cluster, without a `/` at its end.
    pub cluster_url: String,
}
