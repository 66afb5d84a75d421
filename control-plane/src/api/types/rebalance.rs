//! Rebalancing: settings and advice.

use serde::{Deserialize, Serialize};
use skep_model::id::AllocationId;
use skep_model::rebalance::Mode;
use utoipa::ToSchema;

/// Sets what is done about allocations that could be packed more tightly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RebalanceRequest {
    /// What is done.
    pub mode: Mode,
    /// Moves that begin in a minute at most, 1 to 60; none: as it is.
    #[serde(default)]
    pub moves_per_minute: Option<u32>,
}

/// An allocation that should go to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MoveView {
    /// Which.
    pub allocation: AllocationId,
    /// Its service, as `project/environment/name`.
    pub service: String,
    /// Name of the node that it is on.
    pub from: String,
    /// Name of the node that would take it.
    pub to: String,
}

/// How the cluster is rebalanced, and what is advised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebalanceView {
    /// What is done.
    pub mode: Mode,
    /// Moves that begin in a minute at most.
    pub moves_per_minute: u32,
    /// Moves that are on their way.
    pub under_way: Vec<MoveView>,
    /// Moves that are advised, in their order; none with the mode `off`.
    pub moves: Vec<MoveView>,
    /// Names of the nodes that have nothing on them afterwards, system services apart.
    pub emptied: Vec<String>,
}

/// Moves that were begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BegunView {
    /// Which. Each starts on its new node first, and leaves the old one when it is healthy there.
    pub begun: Vec<MoveView>,
    /// How many more are advised, that have no room before these are done.
    pub left: usize,
}
