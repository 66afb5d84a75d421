//! What services, allocations and nodes use now. What is not known is left out, never 0.

use serde::{Deserialize, Serialize};
use skep_model::allocation::State;
use skep_model::id::{AllocationId, NodeId, ServiceId};
use utoipa::ToSchema;

/// What is measured, as the leader knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SamplesView {
    /// Over how much of the past rates are taken, ms; CPU over a little more.
    pub window_ms: u64,
    /// By project, environment and name.
    pub services: Vec<ServiceSampleView>,
    /// By name; where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeSampleView>>,
}

/// What one service uses and is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSampleView {
    /// Identity.
    pub id: ServiceId,
    /// Name of its project.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// Its name.
    pub name: String,
    /// Allocations wanted.
    pub wanted: u32,
    /// Allocations that are healthy.
    pub healthy: u32,
    /// CPU in use, thousandths of a core, of the allocations of which it is known.
    pub cpu_millis: Option<u64>,
    /// CPU that all its live allocations requested.
    pub cpu_millis_requested: u64,
    /// Memory in use in bytes, without file pages that nobody has touched for a while, of the allocations
    /// of which it is known.
    pub memory_bytes: Option<u64>,
    /// Memory that all its live allocations requested.
    pub memory_bytes_requested: u64,
    /// Requests a second through the embedded ingresses.
    pub request_rate: Option<f64>,
    /// Requests under way there.
    pub in_flight: Option<u64>,
    /// 95 of 100 requests had the head of their answer within so many ms.
    pub latency_p95_ms: Option<f64>,
    /// How long ago the newest of this was heard, ms.
    pub age_ms: Option<u64>,
    /// Live allocations of which there is no sample.
    pub missing: u32,
    /// Each live allocation; where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocations: Option<Vec<AllocationSampleView>>,
}

/// What one allocation uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocationSampleView {
    /// Identity.
    pub id: AllocationId,
    /// The node that it is on.
    pub node: String,
    /// Number of its release.
    pub release: u64,
    /// How its agent sees it.
    pub state: State,
    /// CPU in use, thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// CPU that it requested.
    pub cpu_millis_requested: u64,
    /// Memory in use, bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that it requested.
    pub memory_bytes_requested: u64,
}

/// What one node uses, containers and all else together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeSampleView {
    /// Identity.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// CPU in use, thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// CPU that it has.
    pub cpu_millis_total: u64,
    /// Memory that is not available any more, bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that it has.
    pub memory_bytes_total: u64,
    /// How long ago this was heard, ms.
    pub age_ms: Option<u64>,
}
