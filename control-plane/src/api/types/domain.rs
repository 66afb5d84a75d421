//! Whose hosts are, as clients see it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Hosts that projects have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainsView {
    /// By host.
    pub domains: Vec<DomainView>,
}

/// A host that a project has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainView {
    /// Exact, or `*.` and a domain.
    pub host: String,
    /// Name of the workspace.
    pub workspace: String,
    /// Name of the project whose it is.
    pub project: String,
    /// Who answers there, by path; none: it was given up.
    pub routes: Vec<DomainRoute>,
    /// Since when it is the project's, ms since the epoch.
    pub since_ms: u64,
    /// When its last route went, ms since the epoch; none: it has one.
    pub released_ms: Option<u64>,
    /// When anybody may take it, ms since the epoch; none: not while it has a route.
    pub free_ms: Option<u64>,
}

/// A path of a host, and the service that answers there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainRoute {
    /// The path; `TLS`: connections whose handshake names the host.
    pub path: String,
    /// Name of the service's environment.
    pub environment: String,
    /// Name of the service.
    pub service: String,
}

/// What generated names end in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseDomainRequest {
    /// The domain; none: the cluster's.
    pub base_domain: Option<String>,
}

/// What the generated names of an environment's services end in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BaseDomainView {
    /// Name of the project.
    pub project: String,
    /// Name of the environment.
    pub environment: String,
    /// The domain that holds.
    pub base_domain: String,
    /// Whether it is the environment's own; else it is the cluster's.
    pub is_own: bool,
}

/// Whether projects prove that domains are theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DomainProofRequest {
    /// Before they get hosts that they do not have yet, and that are not below a domain of the cluster's.
    pub required: bool,
}

/// The same, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainProofView {
    /// Whether they do.
    pub required: bool,
    /// By project: the text of the TXT record that its domains have, at `_skep.` and the domain.
    pub records: BTreeMap<String, String>,
}
