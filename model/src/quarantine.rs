//! Containers that a node runs for the cluster and that the state does not know: after a backup was
//! restored they are kept running until somebody decides.

use crate::id::{AllocationId, NodeId, ServiceId};
use crate::service::Target;

/// Most that are listed of one node: more run there unlisted, and are listed when others are settled.
pub const MAX_PER_NODE: usize = 500;

/// One such container, by what its labels say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it runs.
    pub node: NodeId,
    /// The allocation that it was.
    pub allocation: AllocationId,
    /// The service that it was of.
    pub service: ServiceId,
    /// That service's label, `service-environment-project`, for people.
    pub service_label: String,
    /// What it runs.
    pub target: Target,
    /// Cluster time at which it was first reported, ms since the epoch.
    pub since_ms: u64,
}
