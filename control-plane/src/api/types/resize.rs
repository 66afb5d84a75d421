//! Another size for the guest of a node, as clients see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How large the guest of a node is to be. What is not named stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResizeRequest {
    /// Processors.
    pub cores: Option<u32>,
    /// Memory, MiB.
    pub memory_mib: Option<u32>,
    /// The disk of its system, GiB; it never becomes smaller.
    pub disk_gib: Option<u32>,
    /// What has its data on that node alone may be stopped meanwhile, where it has to be shut down.
    pub interrupt: bool,
    /// How long what runs there may take to move away, where it has to be shut down, in ms; none: an hour. What is left then
    /// is stopped.
    pub deadline_ms: Option<u64>,
}

impl ResizeRequest {
    pub(crate) const fn size(&self) -> [Option<u32>; 3] {
        [self.cores, self.memory_mib, self.disk_gib]
    }
}

/// What becoming another size means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResizePlanView {
    /// What is done, in words and in order.
    pub steps: Vec<String>,
    /// What is against it now: it is refused.
    pub against: Vec<String>,
    /// Services that are stopped meanwhile, as no other node has their data: it has to be said that this may be.
    pub interrupts: Vec<String>,
}
