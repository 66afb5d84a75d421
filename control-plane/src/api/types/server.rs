//! Servers of the control plane, join tokens, operators' certificates.

use serde::{Deserialize, Serialize};
use skep_model::id::{ServerId, TokenId};
use skep_model::server::Role;
use utoipa::ToSchema;

/// What a server does in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerRole {
    /// Orders the writes.
    Leader,
    /// Counts for the majority.
    Voter,
    /// Follows, and counts once it is promoted.
    Learner,
    /// Known to the cluster, and not (yet) of the group.
    Outside,
}

impl ServerRole {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Outside => "outside",
        }
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerReport {
    /// Identity.
    pub id: ServerId,
    /// Its member id in the Raft group.
    pub member: u64,
    /// Its version.
    pub version: String,
    /// Raft term.
    pub term: u64,
    /// Member id of the leader; none: it knows none.
    pub leader: Option<u64>,
    /// Index of the newest entry in its log.
    pub last_index: u64,
    /// Index of the newest entry that it knows to be committed.
    pub commit_index: u64,
    /// Index of the newest entry that it has applied.
    pub applied_index: u64,
    /// Bytes free on the disk of its data; none: not known.
    pub disk_free_bytes: Option<u64>,
    /// Size of that disk in bytes.
    pub disk_total_bytes: Option<u64>,
    /// Its clock, ms since the epoch.
    pub clock_ms: u64,
    /// How long it has been running, in seconds.
    pub uptime_s: u64,
    /// What is wrong, in sentences; none: it is well.
    pub problems: Vec<String>,
}

/// A server, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    /// Identity.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// Its member id in the Raft group.
    pub member: u64,
    /// What it does there.
    pub role: ServerRole,
    /// host:port where servers and agents are spoken to.
    pub cluster_address: String,
    /// host:port of its API.
    pub api_address: String,
    /// The version that it last announced.
    pub version: String,
    /// The newest feature level that it understands.
    pub feature_level: u32,
    /// When it joined, ms since the epoch.
    pub joined_ms: u64,
    /// It answers, and nothing is wrong with it.
    pub healthy: bool,
    /// Entries that it is behind the leader; none: not known.
    pub lag: Option<u64>,
    /// Its own word; none: it does not answer.
    pub report: Option<ServerReport>,
    /// Why it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
}

/// The servers, as the asked one sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServersView {
    /// Who leads; none: there is no leader just now.
    pub leader: Option<ServerId>,
    /// Raft term.
    pub term: u64,
    /// The feature level in force.
    pub feature_level: u32,
    /// By name.
    pub servers: Vec<ServerView>,
}

/// A permission to join is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRequest {
    /// How long it is good, in seconds: 60 to 604,800 (a week).
    pub ttl_s: u64,
    /// For how many joins: 1 to 1,000.
    pub uses: u32,
    /// What joins with it.
    pub role: Role,
    /// What it is for, in your words: up to 200 characters.
    pub note: String,
}

impl Default for TokenRequest {
    fn default() -> Self {
        Self {
            ttl_s: 3_600,
            uses: 1,
            role: Role::Node,
            note: String::new(),
        }
    }
}

/// A permission to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its public half.
    pub id: TokenId,
    /// The whole token, for `skep agent --join` or `skep server join --token`: shown once.
    pub token: String,
    /// What joins with it.
    pub role: Role,
    /// When it ends, ms since the epoch.
    pub expires_ms: u64,
    /// For how many joins.
    pub uses: u32,
}

/// A permission to join that was given, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GivenToken {
    /// Its public half.
    pub id: TokenId,
    /// What joins with it.
    pub role: Role,
    /// What it is for.
    pub note: String,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
    /// When it ends.
    pub expires_ms: u64,
    /// Joins left.
    pub uses_left: u32,
}

/// Permissions to join that are still good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokensView {
    /// Oldest first.
    pub tokens: Vec<GivenToken>,
}

/// A certificate for operators and automation is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorRequest {
    /// A certificate request (PEM, ECDSA P-256): the key stays where it was made.
    pub csr_pem: String,
    /// How long the certificate is good, in seconds: 600 to 2,592,000 (30 days).
    #[serde(default = "OperatorRequest::default_ttl_s")]
    pub ttl_s: u64,
}

impl OperatorRequest {
    /// One day.
    pub const fn default_ttl_s() -> u64 {
        24 * 3_600
    }
}

/// A certificate for the gRPC service `Control`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatorView {
    /// Who it names.
    pub id: String,
    /// The certificate (PEM).
    pub certificate_pem: String,
    /// The CAs to trust (PEM).
    pub ca_pem: String,
    /// host:port of every server.
    pub servers: Vec<String>,
    /// When it ends, ms since the epoch.
    pub expires_ms: u64,
}
