//! The cluster: nodes, tokens, status, audit.

use serde::{Deserialize, Serialize};
use skep_model::id::{ClusterId, NodeId, TokenId};
use skep_model::node::{Facts, NodeStatus};
use utoipa::ToSchema;

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
}

/// Nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodesView {
    /// By name.
    pub nodes: Vec<NodeView>,
}

/// A permission to join is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRequest {
    /// How long it is good, in seconds: 60 to 604,800 (a week).
    pub ttl_s: u64,
    /// For how many nodes: 1 to 1,000.
    pub uses: u32,
}

impl Default for TokenRequest {
    fn default() -> Self {
        Self {
            ttl_s: 3_600,
            uses: 1,
        }
    }
}

/// A permission to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its public half.
    pub id: TokenId,
    /// The whole token, for `skep agent --join`: shown once.
    pub token: String,
    /// When it ends, ms since the epoch.
    pub expires_ms: u64,
    /// For how many nodes.
    pub uses: u32,
}

/// Nodes, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// Members.
    pub total: u32,
    /// Those that can be relied on.
    pub ready: u32,
    /// Those connected to this server.
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
}

/// The audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
}
