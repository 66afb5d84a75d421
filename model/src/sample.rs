//! What is measured while apps run: CPU, memory, requests. Readings are cumulative counters with the
//! time of the reader's own steady clock, so that what is lost on the way costs resolution alone.
//! Judges nothing.

use crate::id::{AllocationId, DeploymentId, ServiceId};

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
    /// The rest that is counted of it; none: it was not read with this.
    pub extras: Option<Extras>,
}

/// What else is counted of a container, in the order of the contracts: append only. All but the last grow from 0
/// with each container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Periods in which its CPU limit was looked at.
    Periods,
    /// Those in which it was held back.
    ThrottledPeriods,
    /// How long it was held back, microseconds.
    ThrottledUs,
    /// How long something of it waited for a CPU, microseconds (PSI, some).
    CpuWaitUs,
    /// For memory.
    MemoryWaitUs,
    /// For disks.
    IoWaitUs,
    /// Bytes read from disks.
    DiskRead,
    /// Bytes written to disks.
    DiskWritten,
    /// Bytes received, but for the loopback.
    NetworkReceived,
    /// Bytes sent, but for the loopback.
    NetworkSent,
    /// The largest working set that was seen, bytes.
    MemoryPeak,
}

/// How many they are.
pub const COUNTERS: usize = 11;

impl Counter {
    /// All, in the order of the contracts.
    pub const ALL: [Self; COUNTERS] = [
        Self::Periods,
        Self::ThrottledPeriods,
        Self::ThrottledUs,
        Self::CpuWaitUs,
        Self::MemoryWaitUs,
        Self::IoWaitUs,
        Self::DiskRead,
        Self::DiskWritten,
        Self::NetworkReceived,
        Self::NetworkSent,
        Self::MemoryPeak,
    ];
}

/// The counters of one container that are known, or that have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extras {
    /// How long before the reading that brings them they were read, in ms.
    pub age_ms: u64,
    values: [u64; COUNTERS],
}

/// Not known: more than any counter can reach.
const UNKNOWN: u64 = u64::MAX;

impl Default for Extras {
    fn default() -> Self {
        Self {
            age_ms: 0,
            values: [UNKNOWN; COUNTERS],
        }
    }
}

impl Extras {
    /// The same, read so long before the reading that brings them.
    pub fn aged(self, age_ms: u64) -> Self {
        Self { age_ms, ..self }
    }

    /// One of them; none: it is not known, or has not changed.
    pub fn get(&self, counter: Counter) -> Option<u64> {
        Some(self.values[counter as usize]).filter(|value| *value != UNKNOWN)
    }

    /// Says one.
    pub fn set(&mut self, counter: Counter, value: Option<u64>) {
        self.values[counter as usize] = value.unwrap_or(UNKNOWN);
    }

    /// Those that are known, in order.
    pub fn known(&self) -> impl Iterator<Item = (Counter, u64)> {
        let all = Counter::ALL.into_iter();
        all.filter_map(|counter| Some((counter, self.get(counter)?)))
    }

    /// What of it is not the same in `before`.
    pub fn changed_since(&self, before: &Self) -> Self {
        let mut changed = *self;
        for (value, was) in changed.values.iter_mut().zip(&before.values) {
            if value == was {
                *value = UNKNOWN;
            }
        }
        changed
    }

    /// What was known, with what `newer` says.
    pub fn overlaid(&self, newer: &Self) -> Self {
        let mut all = *newer;
        for (value, was) in all.values.iter_mut().zip(&self.values) {
            if *value == UNKNOWN {
                *value = *was;
            }
        }
        all
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceCounters {
    /// Requests so far, by class.
    pub requests: [u64; CLASSES],
    /// Requests now.
    pub in_flight: u64,
    /// Requests so far by time to the head of the answer; bounds in [`LATENCY_BOUNDS_US`].
    pub latency: [u64; LATENCY_BUCKETS],
    /// What is among these of the release that is tried; none: none is.
    pub tried: Option<Box<TriedCounters>>,
}

/// What an ingress has counted of a release that is tried beside the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TriedCounters {
    /// Which deployment brings it: counters begin at 0 with each.
    pub deployment: DeploymentId,
    /// Requests that it answered, or that ended with it.
    pub requests: [u64; CLASSES],
    /// Those by time to the head of the answer.
    pub latency: [u64; LATENCY_BUCKETS],
    /// Times that a request got no answer from it and was sent elsewhere. Not among `requests`.
    pub moved_on: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_laid_over_what_was_is_what_is() {
        for (place, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place, "the contracts' order");
        }
        let mut before = Extras::default();
        before.set(Counter::DiskRead, Some(5));
        before.set(Counter::NetworkSent, Some(0));
        let mut now = before;
        now.set(Counter::NetworkSent, Some(7));
        now.set(Counter::Periods, Some(1));
        let changed = now.changed_since(&before);
        let known: Vec<_> = changed.known().collect();
        assert_eq!(known, [(Counter::Periods, 1), (Counter::NetworkSent, 7)]);
        assert_eq!(before.overlaid(&changed), now);
        assert_eq!(now.changed_since(&now), Extras::default());
    }
}
