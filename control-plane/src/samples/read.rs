//! The samples as they are read: by the autoscaling loop, and by people. What is not known is none, never
//! 0.

use std::time::Duration;

use skep_model::id::{AllocationId, DeploymentId, NodeId, ServiceId};
use skep_model::sample::Counter;
use skep_scheduler::rollout::analysis::Trial;
use skep_state::State;

use super::book::{Book, Heard, Usage};
use super::pace::Pace;
use super::{MAX_WINDOW, Samples, latency};

/// What is told of latency.
const SHARE: f64 = 0.95;

/// What one allocation uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AllocationSample {
    /// Which.
    pub allocation: AllocationId,
    /// Thousandths of a core; none: not known (yet).
    pub cpu_millis: Option<u64>,
    /// Working set in bytes; none: not known.
    pub memory_bytes: Option<u64>,
    /// The rest.
    pub detail: Detail,
}

/// What else is known of one allocation's container, over the last ten seconds. None: not (yet), or its kernel does
/// not count it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Detail {
    /// Of 100 periods of its CPU limit those in which it was held back; none, too, where it has no limit.
    pub throttled_percent: Option<f64>,
    /// How long it was held back, ms a second; more than one thread may be.
    pub throttled_ms_per_s: Option<f64>,
    /// Of 100 moments those in which something of it waited for a CPU (PSI, some).
    pub cpu_wait_percent: Option<f64>,
    /// For memory.
    pub memory_wait_percent: Option<f64>,
    /// For disks.
    pub io_wait_percent: Option<f64>,
    /// Bytes a second read from disks.
    pub disk_read_per_s: Option<f64>,
    /// Bytes a second written to disks.
    pub disk_written_per_s: Option<f64>,
    /// Bytes a second received.
    pub network_received_per_s: Option<f64>,
    /// Bytes a second sent.
    pub network_sent_per_s: Option<f64>,
    /// The largest working set that its agent saw, in bytes.
    pub memory_peak_bytes: Option<u64>,
}

impl Detail {
    fn of(pace: &Pace) -> Self {
        const US_PER_MS: f64 = 1_000.0;
        // Of a second's microseconds.
        const US_PER_PERCENT: f64 = 10_000.0;
        let rate = |counter| pace.per_second(counter);
        let percent = |counter| rate(counter).map(|us| us / US_PER_PERCENT);
        Self {
            throttled_percent: pace.percent(Counter::ThrottledPeriods, Counter::Periods),
            throttled_ms_per_s: rate(Counter::ThrottledUs).map(|us| us / US_PER_MS),
            cpu_wait_percent: percent(Counter::CpuWaitUs),
            memory_wait_percent: percent(Counter::MemoryWaitUs),
            io_wait_percent: percent(Counter::IoWaitUs),
            disk_read_per_s: rate(Counter::DiskRead),
            disk_written_per_s: rate(Counter::DiskWritten),
            network_received_per_s: rate(Counter::NetworkReceived),
            network_sent_per_s: rate(Counter::NetworkSent),
            memory_peak_bytes: pace.value(Counter::MemoryPeak),
        }
    }
}

/// What one service does, at the moment of asking.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceSample {
    /// Requests a second, over the window; none: nobody counts them, as with a service without routes,
    /// or not for long enough.
    pub request_rate: Option<f64>,
    /// Requests under way; none: nobody counts them.
    pub in_flight: Option<u64>,
    /// 95 of 100 requests of the window had the head of their answer within so many ms; none: there
    /// were none, or nobody counts them.
    pub latency_p95_ms: Option<f64>,
    /// The live allocations of which there is a sample, in the state's order.
    pub allocations: Vec<AllocationSample>,
    /// The live allocations of which there is none.
    pub missing: Vec<AllocationId>,
    /// How long ago the newest of all that went in here was heard; none: nothing did.
    pub age: Option<Duration>,
    /// How long ago the window of requests ended: up to there every ingress that is heard has told
    /// what it counted; none: nobody counts them.
    pub counted: Option<Duration>,
    /// How many ingresses went in.
    pub ingresses: u32,
}

impl ServiceSample {
    /// CPU of the allocations of which it is known, together; none: of none.
    pub fn cpu_millis(&self) -> Option<u64> {
        self.allocations
            .iter()
            .filter_map(|it| it.cpu_millis)
            .reduce(|a, b| a + b)
    }

    /// Memory of the allocations of which it is known, together; none: of none.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.allocations
            .iter()
            .filter_map(|it| it.memory_bytes)
            .reduce(|a, b| a + b)
    }
}

/// What one node uses as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSample {
    /// Thousandths of a core; none: not known (yet).
    pub cpu_millis: Option<u64>,
    /// Memory that is not available any more, in bytes; none: not known.
    pub memory_bytes: Option<u64>,
    /// How long ago it was heard.
    pub age: Duration,
}

impl Samples {
    /// A service now, over the last `window` (at most [`MAX_WINDOW`]). None: this server does not lead,
    /// so it does not know.
    pub fn of_service(
        &self,
        view: &State,
        service: ServiceId,
        window: Duration,
    ) -> Option<ServiceSample> {
        self.of_services(view, [service], window)?.pop()
    }

    /// Several services at the same moment, in the order of `services`. None: this server does not lead.
    pub fn of_services(
        &self,
        view: &State,
        services: impl IntoIterator<Item = ServiceId>,
        window: Duration,
    ) -> Option<Vec<ServiceSample>> {
        let now_ms = self.now_ms();
        let book = self.inner.book.lock();
        if !self.is_leading() {
            return None;
        }
        let times = (millis(window.min(MAX_WINDOW)), now_ms);
        let heard = book.ingresses(now_ms);
        let each = services.into_iter();
        Some(
            each.map(|id| service_sample(&book, (view, id), times, heard))
                .collect(),
        )
    }

    /// The requests of a release that is tried and of the live one beside it, as far as this leader heard of them.
    /// None: this server does not lead.
    pub fn trial(&self, service: ServiceId, deployment: DeploymentId) -> Option<Trial> {
        let book = self.inner.book.lock();
        self.is_leading().then(|| book.trial(service, deployment))
    }

    /// A node now. None: this server does not lead, or nothing was heard of the node lately.
    pub fn of_node(&self, node: NodeId, window: Duration) -> Option<NodeSample> {
        let now_ms = self.now_ms();
        let book = self.inner.book.lock();
        let usage = book.node(node, now_ms)?;
        Some(NodeSample {
            cpu_millis: usage.cpu.millis(millis(window.min(MAX_WINDOW))),
            memory_bytes: usage.memory_bytes,
            age: Duration::from_millis(now_ms.saturating_sub(usage.heard_ms)),
        })
    }
}

fn service_sample(
    book: &Book,
    (view, id): (&State, ServiceId),
    (window_ms, now_ms): (u64, u64),
    heard: Option<Heard>,
) -> ServiceSample {
    let mut sample = ServiceSample::default();
    let mut newest_ms: Option<u64> = None;
    let is_routed = view.service(id).is_some_and(|of| of.spec.is_routed());
    if let Some(heard) = heard.filter(|_| is_routed) {
        let traffic = book.traffic(id, (window_ms, now_ms), heard);
        sample.request_rate = traffic.rate;
        sample.in_flight = Some(traffic.in_flight);
        sample.latency_p95_ms = latency::percentile_ms(&traffic.requests.latency, SHARE);
        sample.counted = Some(Duration::from_millis(now_ms.saturating_sub(heard.until_ms)));
        sample.ingresses = heard.count;
        newest_ms = Some(heard.newest_ms);
    }
    for allocation in view.allocations_of(id).filter(|it| it.is_live()) {
        match book.allocation((allocation.node, allocation.id), now_ms) {
            Some(usage) => {
                newest_ms = newest_ms.max(Some(usage.heard_ms));
                let of = allocation_sample(allocation.id, usage, window_ms);
                sample.allocations.push(of);
            }
            None => sample.missing.push(allocation.id),
        }
    }
    let age_ms = newest_ms.map(|newest_ms| now_ms.saturating_sub(newest_ms));
    sample.age = age_ms.map(Duration::from_millis);
    sample
}

fn allocation_sample(id: AllocationId, usage: &Usage, window_ms: u64) -> AllocationSample {
    let pace = usage.pace.as_deref();
    let mut detail = pace.map_or_else(Detail::default, Detail::of);
    // Memory is heard of more often than the rest.
    let peak = &mut detail.memory_peak_bytes;
    *peak = peak.map(|peak| peak.max(usage.memory_bytes.unwrap_or(0)));
    AllocationSample {
        allocation: id,
        cpu_millis: usage.cpu.millis(window_ms),
        memory_bytes: usage.memory_bytes,
        detail,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
