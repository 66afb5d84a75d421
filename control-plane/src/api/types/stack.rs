//! Stacks as clients see them.

use serde::{Deserialize, Serialize};
use skep_model::id::ServiceId;
use skep_model::problem::Problem;
use skep_model::stack::{Planned, Report, Settings};
use utoipa::ToSchema;

/// Where a stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StackState {
    /// Its file is to be read; a node that builds does that.
    Reading,
    /// Its file is being carried out.
    Deploying,
    /// All is as the newest file says.
    InForce,
    /// Not all is as the file says.
    Incomplete,
    /// The newest commit's file changes nothing, and the one before it stays in force.
    Refused,
}

impl StackState {
    /// The word, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Deploying => "deploying",
            Self::InForce => "in_force",
            Self::Incomplete => "incomplete",
            Self::Refused => "refused",
        }
    }

    /// Whether nothing goes on.
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::Reading | Self::Deploying)
    }
}

/// A stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StackView {
    /// Name of its project.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// Where its file is, and how it is obeyed.
    pub settings: Settings,
    /// Where it is.
    pub state: StackState,
    /// Why it is not all in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The commit that was looked at last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// The file that is in force, or being carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<StackReadingView>,
    /// Services that the file has no more.
    pub gone: Vec<StackGoneView>,
}

/// A file that is in force, or being carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StackReadingView {
    /// 1, 2, 3, ...
    pub number: u64,
    /// The commit.
    pub commit: String,
    /// The file's path in the repository.
    pub file: String,
    /// When it was read, cluster time in ms since the epoch.
    pub read_ms: u64,
    /// What it changed of each of its services, those that others depend on first.
    pub services: Vec<StackServiceView>,
    /// What was left out of it, and what works otherwise.
    pub reports: Vec<Report>,
    /// So many more than `reports`.
    pub more_reports: u32,
}

/// A service of a stack's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StackServiceView {
    /// What the file changed of it.
    #[serde(flatten)]
    pub planned: Planned,
    /// Where its newest deployment is; none: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
}

/// A service that waits to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StackGoneView {
    /// Its name.
    pub name: String,
    /// Which.
    #[schema(value_type = String)]
    pub service: ServiceId,
}

/// All stacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StacksView {
    /// By project and environment.
    pub stacks: Vec<StackView>,
}

/// What becomes of services that a stack's file has no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StackRemovals {
    /// The number of the reading that does not have them.
    pub reading: u64,
    /// Names of those that go.
    #[serde(default)]
    pub approve: Vec<String>,
    /// Names of those that stay, and are the stack's no more.
    #[serde(default)]
    pub keep: Vec<String>,
}
