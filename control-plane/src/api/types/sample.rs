//! What services, allocations and nodes use now. What is not known is left out, never 0.

use serde::{Deserialize, Serialize};
use skep_model::allocation::State;
use skep_model::id::{AllocationId, NodeId, ServiceId};
use utoipa::ToSchema;

use crate::samples::Detail;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// Memory that it requested, bytes.
    pub memory_bytes_requested: u64,
    /// How often its container was begun again.
    #[serde(default)]
    pub restarts: u32,
    /// The rest.
    #[serde(default)]
    pub detail: DetailView,
}

/// What else is known of an allocation's container, over the last ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DetailView {
    /// Of 100 periods of its CPU limit those in which it was held back; left out without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_percent: Option<f64>,
    /// How long it was held back, ms a second, all its threads together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_ms_per_s: Option<f64>,
    /// Of 100 moments those in which something of it waited for a CPU; control groups of version 2 alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_wait_percent: Option<f64>,
    /// For memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_wait_percent: Option<f64>,
    /// For disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_wait_percent: Option<f64>,
    /// Bytes a second read from disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_read_per_s: Option<f64>,
    /// Bytes a second written to disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_written_per_s: Option<f64>,
    /// Bytes a second received, but for the loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_received_per_s: Option<f64>,
    /// Bytes a second sent, but for the loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_sent_per_s: Option<f64>,
    /// The largest working set that its agent saw, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
}

impl From<Detail> for DetailView {
    fn from(detail: Detail) -> Self {
        Self {
            throttled_percent: detail.throttled_percent,
            throttled_ms_per_s: detail.throttled_ms_per_s,
            cpu_wait_percent: detail.cpu_wait_percent,
            memory_wait_percent: detail.memory_wait_percent,
            io_wait_percent: detail.io_wait_percent,
            disk_read_per_s: detail.disk_read_per_s,
            disk_written_per_s: detail.disk_written_per_s,
            network_received_per_s: detail.network_received_per_s,
            network_sent_per_s: detail.network_sent_per_s,
            memory_peak_bytes: detail.memory_peak_bytes,
        }
    }
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
