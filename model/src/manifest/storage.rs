//! `[[volumes]]`, `[[host_paths]]` and `[[secrets]]` in the units that people write.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::storage::{Owner, Volume};

/// One of `[[volumes]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeTable {
    /// Unique within the service.
    pub name: String,
    /// Where the app finds it.
    pub path: String,
    /// Whom it belongs to when it is made: `"1000:1000"`.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Counted as requested disk: `"10GiB"`.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// The app only reads it.
    #[serde(default)]
    pub read_only: bool,
}

impl VolumeTable {
    /// As the specification has it.
    pub(super) fn read(&self) -> Volume {
        Volume {
            name: self.name.clone(),
            path: self.path.clone(),
            owner: self.owner,
            size_bytes: self.size.map_or(0, |size| size.as_u64()),
            read_only: self.read_only,
        }
    }
}
