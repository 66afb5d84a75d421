//! Forge connections as clients see them.

use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::forge::Kind;
use utoipa::ToSchema;

use super::forge_app::InstallationView;

/// A forge connection, as a whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgeRequest {
    /// What the forge is; none: what everybody knows to be at the host.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Where its API is; none: where its kind has it.
    #[serde(default)]
    pub api_url: Option<String>,
    /// As whom it is told. Sealed, and never shown.
    pub token: String,
    /// The CA of its certificate, PEM; none: one that the servers' machines trust.
    #[serde(default)]
    pub ca_pem: Option<String>,
}

impl fmt::Debug for ForgeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForgeRequest({:?} {:?})", self.kind, self.api_url)
    }
}

/// A forge connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgeView {
    /// As URLs of repositories have it.
    pub host: String,
    /// What the forge is.
    pub kind: Kind,
    /// Where its API is.
    pub api_url: String,
    /// It has a CA of its own.
    pub own_ca: bool,
    /// Deployments and previews that it is still to be told of.
    pub waiting: u64,
    /// The forge does not know the token: nothing is told until the connection is made again.
    pub refused: bool,
    /// Nothing is told before, ms since the epoch; none: nothing is in the way.
    pub resume_ms: Option<u64>,
    /// What went wrong with the newest request; none: nothing.
    pub problem: Option<String>,
    /// When the newest request was made, ms since the epoch; none: there was none.
    pub asked_ms: Option<u64>,
    /// When the connection was made or changed, ms since the epoch.
    pub changed_ms: u64,
    /// It is by GitHub Apps, and has no token of a person.
    pub app: bool,
    /// Where they are installed.
    pub installations: Vec<InstallationView>,
}

/// Forge connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgesView {
    /// By host.
    pub forges: Vec<ForgeView>,
}

/// Who the token of a connection is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgeTestView {
    /// As URLs of repositories have it.
    pub host: String,
    /// As the forge names them.
    pub user: String,
}
