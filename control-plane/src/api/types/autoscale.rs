//! Who says how many allocations a service has, and why so many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_model::autoscale::Autoscale;
use skep_model::service::ScalingChange;
use utoipa::ToSchema;

/// A service's autoscaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AutoscaleView {
    /// What it is to do; none: the service has none, and has as many allocations as it says itself.
    pub autoscale: Option<Autoscale>,
    /// Allocations wanted now.
    pub wanted: u32,
    /// Allocations of it that are healthy.
    pub healthy: u32,
    /// What the autoscaler last said of that, also where it changes nothing; none: it has not said anything
    /// yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// What its targets are measured at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<MeasuredTarget>,
    /// Requests that would fit what the service uses better than those that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<AdviceView>,
    /// Its last changes, newest first.
    pub changes: Vec<ScalingChange>,
}

/// A target, and where the service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MeasuredTarget {
    /// As it was written: `cpu=70%`.
    pub target: String,
    /// All replicas together (latency: of all requests); none: not known.
    pub measured: Option<String>,
}

/// Recommended requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdviceView {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// What it comes from, in words.
    pub reason: String,
    /// The next release gets them.
    pub applied: bool,
}

/// Numbers that a service's targets on `queue_length` and `custom:NAME` are about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// By metric: of the service as a whole, not of each allocation.
    pub metrics: BTreeMap<String, f64>,
}

/// What was taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PushView {
    /// How many numbers.
    pub taken: usize,
}
