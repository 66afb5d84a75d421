//! Webhooks of repositories: one URL for all services that come from the same one.

use crate::id::{HookId, WorkspaceId};
use crate::variable::Sealed;

/// Most webhooks of repositories in a cluster.
pub const MAX_HOOKS: usize = 1_000;
/// Longest name of a repository, in bytes.
pub const MAX_REPOSITORY: usize = 2_048;

/// The webhook of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Identity: its URL ends in it.
    pub id: HookId,
    /// Whose services it is for.
    pub workspace: WorkspaceId,
    /// The repository by its one name: `host/owner/name`.
    pub repository: String,
    /// What deliveries are proved with.
    pub secret: Sealed,
    /// Cluster time when the secret was made, ms since the epoch.
    pub changed_ms: u64,
}
