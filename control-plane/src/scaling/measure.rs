//! From what nodes and apps say to what the autoscaler takes: sums over a service, who reported of
//! those who should have, and how its replicas are. Pure. What is not known is no sample, never 0.

use skep_model::allocation::{Allocation, Desired, State as Seen};
use skep_model::autoscale::Metric;
use skep_model::node::NodeStatus;
use skep_model::service::Service;
use skep_model::spec::Resources;
use skep_scheduler::autoscale::{Activity, Observed, Sample};
use skep_state::State;

use super::Pushed;
use crate::samples::ServiceSample;

/// When, and of how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Cluster time, ms since the epoch.
    pub(crate) now_ms: u64,
    /// How long the measurement took, in ms.
    pub(crate) span_ms: u64,
    /// End of the requests that were taken in already, ms since the epoch; 0: none were.
    pub(crate) counted_ms: u64,
}

/// What was measured of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    /// For the history.
    pub(crate) samples: Vec<(Metric, Sample)>,
    /// For the decision.
    pub(crate) observed: Observed,
    /// The next moment's `counted_ms`.
    pub(crate) counted_ms: u64,
}

/// A service's replicas, and what of the cluster counts requests for it.
#[derive(Debug)]
pub(crate) struct Crew<'a> {
    /// As many as there should be.
    wanted: u32,
    is_deploying: bool,
    /// Those that live, with what each requested; none: its release is not known any more.
    replicas: Vec<(&'a Allocation, Option<Resources>)>,
    /// Ingresses that should report: those of nodes that are there.
    ingresses: u32,
}

impl<'a> Crew<'a> {
    /// As the state has it.
    pub(crate) fn of(view: &'a State, service: &Service) -> Self {
        let live = view.allocations_of(service.id).map(|it| &**it);
        let live = live.filter(|it| it.is_live() && it.job.is_none());
        let requested = |of: &Allocation| {
            let release = view.release(service.id, of.target.release);
            release.map(|release| release.resources)
        };
        let counting = view
            .nodes()
            .filter(|node| node.status == NodeStatus::Ready && node.facts.ingress_port.is_some());
        Self {
            wanted: service.wanted(),
            is_deploying: service.rollout.is_some(),
            replicas: live.map(|it| (it, requested(it))).collect(),
            ingresses: number(counting.count()),
        }
    }

    /// Those that are to stay.
    fn meant(&self) -> impl Iterator<Item = &'a Allocation> {
        let all = self.replicas.iter().map(|(allocation, _)| *allocation);
        all.filter(|allocation| allocation.desired == Desired::Run)
    }
}

/// One service at one moment.
pub(crate) fn measure(
    crew: &Crew<'_>,
    (sample, pushed): (&ServiceSample, &[(Metric, Pushed)]),
    moment: Moment,
) -> Measured {
    let mut samples = of_allocations(crew, sample, moment);
    let counted = sample.counted.map(|age| {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        moment.now_ms.saturating_sub(age_ms)
    });
    // Two clocks meet here, so the same end may differ by a little: it is not counted twice.
    let is_new = |end_ms: &u64| *end_ms >= moment.counted_ms.saturating_add(moment.span_ms / 2);
    let mut counted_ms = moment.counted_ms;
    if let Some(end_ms) = counted.filter(is_new) {
        counted_ms = end_ms;
        samples.extend(of_requests(crew, sample, (end_ms, moment.span_ms)));
    }
    samples.extend(pushed.iter().map(|(metric, pushed)| {
        let sample = Sample {
            at_ms: pushed.at_ms,
            span_ms: pushed.span_ms,
            total_milli: pushed.value_milli,
            reporting: 1,
            expected: 1,
        };
        (metric.clone(), sample)
    }));
    Measured {
        samples,
        observed: Observed {
            activity: activity(crew, sample, pushed),
            ..observed(crew)
        },
        counted_ms,
    }
}

/// CPU and memory, in percent of each replica's own request. Those that start are left out: what they
/// do is no work of the service. Those on their way out do work that others will have to.
fn of_allocations(
    crew: &Crew<'_>,
    sample: &ServiceSample,
    moment: Moment,
) -> Vec<(Metric, Sample)> {
    let mut expected = 0;
    let (mut cpu, mut memory) = ((0, 0), (0, 0));
    for (allocation, requested) in &crew.replicas {
        let has_served = matches!(allocation.observed.state, Seen::Healthy | Seen::Unhealthy);
        let Some(requested) = requested.filter(|_| has_served) else {
            continue;
        };
        let is_expected = allocation.desired == Desired::Run;
        expected += u32::from(is_expected);
        let mut used = sample.allocations.iter();
        let Some(used) = used.find(|it| it.allocation == allocation.id) else {
            continue;
        };
        let share = |used: u64, of: u64| used.saturating_mul(100_000) / of.max(1);
        if let Some(millis) = used.cpu_millis {
            cpu.0 += share(millis, requested.cpu_millis.into());
            cpu.1 += u32::from(is_expected);
        }
        if let Some(bytes) = used.memory_bytes {
            memory.0 += share(bytes, requested.memory_bytes);
            memory.1 += u32::from(is_expected);
        }
    }
    let each = [(Metric::Cpu, cpu), (Metric::Memory, memory)];
    let known = each
        .into_iter()
        .filter(|(_, (_, reporting))| *reporting > 0);
    let sample = |(metric, (total_milli, reporting))| {
        let sample = Sample {
            at_ms: moment.now_ms,
            span_ms: moment.span_ms,
            total_milli,
            reporting,
            expected,
        };
        (metric, sample)
    };
    known.map(sample).collect()
}

fn of_requests(
    crew: &Crew<'_>,
    sample: &ServiceSample,
    (at_ms, span_ms): (u64, u64),
) -> Vec<(Metric, Sample)> {
    // Not known exactly, and never negative: the cast is the rounding that is meant.
    let milli = |value: f64| (value * 1_000.0).round() as u64;
    let rate = sample.request_rate.map(milli);
    let in_flight = sample.in_flight.map(|count| count.saturating_mul(1_000));
    // Where nobody asks, nobody waits.
    let idle = (rate == Some(0) && in_flight == Some(0)).then_some(0);
    let latency = sample.latency_p95_ms.map(milli).or(idle);
    let each = [
        (Metric::RequestRate, rate),
        (Metric::InFlight, in_flight),
        (Metric::LatencyP95, latency),
    ];
    let known = each.into_iter().filter_map(|(metric, value)| {
        let sample = Sample {
            at_ms,
            span_ms,
            total_milli: value?,
            reporting: sample.ingresses,
            expected: crew.ingresses,
        };
        Some((metric, sample))
    });
    known.collect()
}

fn activity(crew: &Crew<'_>, sample: &ServiceSample, pushed: &[(Metric, Pushed)]) -> Activity {
    let waits = pushed.iter().any(|(_, pushed)| pushed.value_milli > 0);
    let is_asked = sample.request_rate.is_some_and(|rate| rate > 0.0);
    if waits || is_asked || sample.in_flight.is_some_and(|count| count > 0) {
        return Activity::Active;
    }
    // An ingress that is not heard may have a request that waits.
    let is_counted = sample.request_rate.is_some() && sample.ingresses >= crew.ingresses;
    if is_counted || (sample.counted.is_none() && !pushed.is_empty()) {
        Activity::Quiet
    } else {
        Activity::Unknown
    }
}

fn observed(crew: &Crew<'_>) -> Observed {
    let is = |state: Seen| number(crew.meant().filter(|it| it.observed.state == state).count());
    let (healthy, unhealthy) = (is(Seen::Healthy), is(Seen::Unhealthy));
    let mut starts: Vec<u64> = crew
        .meant()
        .filter(|it| it.observed.state == Seen::Healthy && it.observed.restarts == 0)
        .map(|it| it.observed_ms.saturating_sub(it.created_ms))
        .collect();
    starts.sort_unstable();
    let wanted = crew.wanted;
    Observed {
        wanted,
        starting: wanted.saturating_sub(healthy).saturating_sub(unhealthy),
        unhealthy,
        deploying: crew.is_deploying,
        activity: Activity::Unknown,
        // The median: one that came back after it was unhealthy looks as if it had started long.
        start_ms: starts.get(starts.len() / 2).copied(),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
