//! `[[volumes]]`, `[[host_paths]]` and `[[secrets]]` in the units that people write.

use serde::{Deserialize, Serialize};

use super::Size;
use crate::storage::{Owner, Volume};

/// One of `[[volumes]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeTable {
    /// Unique within the service.
    pub name: String,
    /// Where the app finds it.
    pub path: String,
    /// Whom it belongs to when it is made: `"1000:1000"`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub owner: Option<Owner>,
    /// Counted as requested disk: `"10GiB"`.
    #[serde(default)]
    pub size: Option<Size>,
    /// The app only reads it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// The shared storage that it lies on, by the name that agents have for it: `"ceph"`; left out: on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
}

impl VolumeTable {
    /// As people write what the specification has.
    pub(super) fn of(volume: &Volume) -> Self {
        Self {
            name: volume.name.clone(),
            path: volume.path.clone(),
            owner: volume.owner,
            size: (volume.size_bytes > 0).then(|| volume.size_bytes.into()),
            read_only: volume.read_only,
            storage: volume.storage.clone(),
        }
    }

    /// As the specification has it.
    pub(super) fn read(&self) -> Volume {
        Volume {
            name: self.name.clone(),
            path: self.path.clone(),
            owner: self.owner,
            size_bytes: self.size.map_or(0, |size| size.as_u64()),
            read_only: self.read_only,
            storage: self.storage.clone(),
        }
    }
}
