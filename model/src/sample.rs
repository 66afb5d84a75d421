//! What is measured while apps run: CPU, memory, requests. Readings are cumulative counters with the
//! time of the reader's own steady clock, so that what is lost on the way costs resolution alone.
//! Judges nothing.

use crate::id::{AllocationId, ServiceId};

/// Classes that requests are counted by: 1xx to 5xx, and those that the client left.
pub const CLASSES: usize = 6;

/// Upper bounds of the latency buckets, in microseconds; one more bucket has no bound. They are part of
/// the contracts: other bounds need other fields there.
pub const LATENCY_BOUNDS_US: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Buckets of latency.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// Everything that one node says at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Samples {
    /// Names the life of the agent that read it.
    pub life: u64,
    /// When it was read, ms since that agent began.
    pub at_ms: u64,
    /// The node as a whole.
    pub node: NodeReading,
    /// Its containers.
    pub allocations: Vec<AllocationReading>,
    /// Its ingress; none: it is away.
    pub ingress: Option<IngressReading>,
}

/// A node as a whole. None: it could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeReading {
    /// CPU time so far, all cores together, in microseconds.
    pub cpu_us: Option<u64>,
    /// Memory that is not available any more, in bytes.
    pub memory_bytes: Option<u64>,
}

/// The container of an allocation. None: it could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocationReading {
    /// Whose.
    pub allocation: AllocationId,
    /// Tells containers of one allocation apart: CPU time begins at 0 with each.
    pub container: u64,
    /// CPU time so far, in microseconds.
    pub cpu_us: Option<u64>,
    /// Working set, in bytes.
    pub memory_bytes: Option<u64>,
    /// How long before [`Samples::at_ms`] it was read, in ms.
    pub age_ms: u64,
}

/// What an ingress has counted. A service that is not named has counted nothing since the reading
/// before, or nothing at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IngressReading {
    /// Names the life of the ingress: its counters begin at 0 with each.
    pub life: u64,
    /// When it was read, ms since it began.
    pub at_ms: u64,
    /// By service.
    pub services: Vec<(ServiceId, ServiceCounters)>,
}

/// What an ingress has counted of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceCounters {
    /// Requests so far, by class.
    pub requests: [u64; CLASSES],
    /// Requests now.
    pub in_flight: u64,
    /// Requests so far by time to the head of the answer; bounds in [`LATENCY_BOUNDS_US`].
    pub latency: [u64; LATENCY_BUCKETS],
}
