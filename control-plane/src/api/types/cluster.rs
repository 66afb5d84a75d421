//! The cluster: nodes, status, audit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_model::id::{ClusterId, NodeId};
use skep_model::node::{Admin, Facts, Fenced, NodeStatus};
use skep_model::pool::GuestSize;
use utoipa::ToSchema;

use super::CertificateCounts;
use crate::history::AuditEntry;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Identity.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it can be relied on.
    pub status: NodeStatus,
    /// Since when, ms since the epoch.
    pub status_ms: u64,
    /// When it joined.
    pub joined_ms: u64,
    /// What its agent reports.
    pub facts: Facts,
    /// Allocations there that have not ended.
    pub allocations: u32,
    /// CPU that they requested, in thousandths of a core.
    pub cpu_millis_requested: u64,
    /// Memory that they requested, in bytes.
    pub memory_bytes_requested: u64,
    /// What operators say of it.
    pub meta: BTreeMap<String, String>,
    /// What operators want of it.
    pub admin: Admin,
    /// While it is lost: the nodes that had reached it and testified that its machine is gone. None: it
    /// was silent for too long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<String>,
    /// How often what ran there was confirmed dead.
    #[serde(default)]
    pub incarnation: u64,
    /// What ran there is confirmed dead, and its agent has not come back since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<Fenced>,
    /// While it is lost: what keeps it from being known to be dead, as far as somebody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_waits: Option<String>,
    /// The size that its guest was given apart from its pool's recipe; none: it has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_size: Option<GuestSize>,
    /// How far its guest has come to that size, in words; none: it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resizing: Option<String>,
    /// Its guest is becoming an older copy of itself; none: it is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<RestoringView>,
}

/// A guest that is becoming an older copy of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoringView {
    /// The name of the copy.
    pub archive: String,
    /// Its disks are the copy's: what is left is to start it.
    pub back: bool,
    /// What keeps it from going on, as it was seen last; none: nothing. Another copy may be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Confirms that a lost node is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FenceRequest {
    /// The caller has made sure that nothing runs there any more. Else it is only said what would be done.
    pub confirm: bool,
}

/// Nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodesView {
    /// By name.
    pub nodes: Vec<NodeView>,
}

/// What is wanted of a node from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// It takes allocations.
    Eligible,
    /// It takes no new ones; those that are there stay.
    Cordoned,
    /// It takes no new ones, and those that are there move away: each when its replacement is healthy,
    /// all of them at the latest at the deadline.
    Draining,
}

/// Cordons a node, drains it, or takes it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminRequest {
    /// What is wanted of it.
    pub state: AdminState,
    /// With `draining`: after so many ms what is left is stopped; an hour where it is left out, at most
    /// 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Keys of a node's metadata are set and removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetaRequest {
    /// Values by key.
    pub set: BTreeMap<String, String>,
    /// Keys to remove.
    pub unset: Vec<String>,
}

/// A node's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct MetaView {
    /// Values by key.
    pub meta: BTreeMap<String, String>,
}

/// Nodes, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// Members.
    pub total: u32,
    /// Those that can be relied on.
    pub ready: u32,
    /// Those connected to a server, whichever.
    pub connected: u32,
}

/// How the history does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct HistoryView {
    /// The last write went well.
    pub ok: bool,
    /// Writes that failed since the server started.
    pub failures: u64,
    /// Rows that were lost since.
    pub dropped: u64,
}

/// The cluster as this server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// Identity.
    pub cluster: ClusterId,
    /// Version of this server.
    pub version: String,
    /// This server leads.
    pub is_leader: bool,
    /// Raft id of the leader; none: there is none just now.
    pub leader: Option<u64>,
    /// Raft term.
    pub term: u64,
    /// Index of the newest applied command.
    pub index: u64,
    /// Nodes.
    pub nodes: NodeCounts,
    /// Services.
    pub services: u32,
    /// Deployments on their way.
    pub active_deployments: u32,
    /// Generated host names end in this.
    pub base_domain: String,
    /// Port of the ingress that URLs name; none: no node has one.
    pub ingress_port: Option<u16>,
    /// Fingerprint of the cluster's CA.
    pub ca_fingerprint: String,
    /// The history.
    pub history: HistoryView,
    /// Certificates of apps.
    #[serde(default)]
    pub certificates: CertificateCounts,
}

/// The audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
}
