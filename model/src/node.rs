//! Nodes: guests that run the agent and Docker, and what they say of themselves.

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, TokenId};

/// What an agent reports of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Facts {
    /// The machine's own name.
    pub hostname: String,
    /// As Rust and OCI spell it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Kernel release.
    pub kernel: String,
    /// Cores times 1,000.
    pub cpu_millis: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk under Docker's data root in bytes; 0: not known.
    pub disk_bytes: u64,
    /// Docker's version.
    pub docker_version: String,
    /// The agent's version.
    pub agent_version: String,
    /// Port of the node's ingress; none: no ingress here.
    pub ingress_port: Option<u16>,
    /// Takes builds.
    pub builder: bool,
}

/// Whether a node can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// Its agent is connected and its runtime answers.
    Ready,
    /// Its agent says that the runtime does not answer.
    RuntimeDown,
    /// Its agent has been silent for too long.
    Lost,
}

impl NodeStatus {
    /// Every status, in the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Ready, Self::RuntimeDown, Self::Lost];
}

/// A guest that runs the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Identity: what its certificate says.
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: String,
    /// Its own word.
    pub facts: Facts,
    /// The leader's judgement.
    pub status: NodeStatus,
    /// Cluster time of that judgement, ms since the epoch.
    pub status_ms: u64,
    /// Raised by every change that placement must know of: facts, status, allocations.
    pub generation: u64,
    /// Cluster time of joining.
    pub joined_ms: u64,
}

/// A permission to join, bound to the role `node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Its public half.
    pub id: TokenId,
    /// SHA-256 of the secret half.
    pub secret_hash: Vec<u8>,
    /// Cluster time at which it ends, ms since the epoch.
    pub expires_ms: u64,
    /// Joins left.
    pub uses_left: u32,
}
