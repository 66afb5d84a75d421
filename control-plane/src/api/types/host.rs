//! Physical hosts.

use serde::{Deserialize, Serialize};
use skep_model::id::AllocationId;
use skep_model::maintenance::Cause;
use utoipa::ToSchema;

/// The physical hosts that nodes are on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostsView {
    /// By name.
    pub hosts: Vec<PhysicalHostView>,
    /// Nodes that do not say on which host they are, by name: placement takes them to be on one.
    pub unknown: Vec<String>,
    /// Providers that did not say how their hosts are, each with why.
    pub unasked: Vec<String>,
}

/// A physical host, by what is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhysicalHostView {
    /// Its name, as its nodes say it.
    pub name: String,
    /// Nodes on it, by name.
    pub nodes: Vec<String>,
    /// Services that have every replica on it: they end with it until others have taken their place.
    pub services: Vec<String>,
    /// Its nodes are drained, and since when; none: it takes work.
    pub maintenance: Option<HostMaintenanceView>,
    /// What its provider says of it; none: it has none, or it was not asked.
    pub memory: Option<HostMemoryView>,
}

/// That a host is under maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostMaintenanceView {
    /// Who wants that.
    pub cause: Cause,
    /// Since when, ms since the epoch.
    pub since_ms: u64,
    /// What is left on its nodes by then is stopped, ms since the epoch.
    pub deadline_ms: u64,
}

/// How a host is, by what its provider says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostMemoryView {
    /// The host.
    pub host: String,
    /// Who says it.
    pub provider: String,
    /// Whether it is there.
    pub online: bool,
    /// Its provider has it under maintenance.
    pub maintenance: bool,
    /// Memory that it has, bytes.
    pub memory_bytes: u64,
    /// Memory that its guests that may run were promised, bytes: more than it has is more than it can give.
    pub promised_bytes: u64,
}

/// Empties a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HostDrainRequest {
    /// How long that may take, in ms; none: an hour. What is left then is stopped.
    pub deadline_ms: Option<u64>,
}

/// What emptying a host means, if every replacement becomes healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostPlanView {
    /// The host.
    pub host: String,
    /// Its nodes, by name.
    pub nodes: Vec<String>,
    /// Each replica on them.
    pub moves: Vec<HostMoveView>,
}

/// What becomes of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostMoveView {
    /// Which.
    pub allocation: AllocationId,
    /// What its service is called.
    pub service: String,
    /// Name of the node that it is on.
    pub from: String,
    /// Name of the node that would take it now; none: no node does.
    pub to: Option<String>,
    /// Why no node takes it: it stays until that has changed, and is stopped at the deadline.
    pub against: Option<String>,
}
