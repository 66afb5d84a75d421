//! Volumes on nodes as clients see them.

use serde::{Deserialize, Serialize};
use skep_model::id::{NodeId, ServiceId};
use utoipa::ToSchema;

/// Volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumesView {
    /// By service, name and node.
    pub volumes: Vec<VolumeView>,
}

/// A volume that is on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Names it in the API: id of its service, a dot, its own name.
    pub id: String,
    /// Its name within the service.
    pub name: String,
    /// `project/environment/service`; none: the service is gone.
    pub service: Option<String>,
    /// The service's id, also where that is gone.
    #[schema(value_type = String)]
    pub service_id: ServiceId,
    /// Name of the node that has it.
    pub node: String,
    /// That node.
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Who needs it.
    pub state: VolumeState,
    /// Where the app finds it; none: the service has no such volume now.
    pub path: Option<String>,
    /// What was asked for, in bytes; 0: nothing.
    pub size_bytes: u64,
    /// Disk that it takes, in bytes; none: not measured.
    pub bytes: Option<u64>,
    /// It takes more than `bytes`: its node did not come to the end of it.
    pub at_least: bool,
    /// Names of its snapshots.
    pub snapshots: Vec<String>,
    /// Why it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Who needs a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// An allocation has it.
    InUse,
    /// Its service has it, and nothing runs.
    Idle,
    /// Its service is gone, or has no such volume any more.
    LeftBehind,
}

impl VolumeState {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "in use",
            Self::Idle => "idle",
            Self::LeftBehind => "left behind",
        }
    }
}

/// A snapshot that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// Unique within the volume.
    pub name: String,
    /// Also while the service runs, where the copy is not of one moment then.
    #[serde(default)]
    pub running: bool,
}

/// A volume that is to hold what another holds, on the same node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneRequest {
    /// Of that snapshot; none: as it is now.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// Project of the service that gets it.
    pub project: String,
    /// Environment of that service.
    pub environment: String,
    /// That service.
    pub service: String,
    /// Name of the volume that is made.
    pub name: String,
    /// Delete what is there by that name.
    #[serde(default)]
    pub replace: bool,
    /// Also while the service that is copied from runs.
    #[serde(default)]
    pub running: bool,
}
