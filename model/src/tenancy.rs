//! Who owns what: workspace > project > environment.

use crate::id::{EnvironmentId, ProjectId, WorkspaceId};

/// The workspace that exists from the start.
pub const DEFAULT_WORKSPACE: &str = "default";
/// The environment that is meant where none is named.
pub const DEFAULT_ENVIRONMENT: &str = "production";

/// A workspace: the outermost owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Identity.
    pub id: WorkspaceId,
    /// Unique in the cluster.
    pub name: String,
}

/// A project of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Identity.
    pub id: ProjectId,
    /// Owner.
    pub workspace: WorkspaceId,
    /// Unique in the workspace.
    pub name: String,
}

/// An environment of a project: the wall for variables, names and the private network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Identity.
    pub id: EnvironmentId,
    /// Owner.
    pub project: ProjectId,
    /// Unique in the project.
    pub name: String,
}
