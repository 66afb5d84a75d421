//! From what is measured and observed to what the decision takes in. Pure; decides nothing.

use std::time::Duration;

use skep_model::allocation::{Allocation, Desired, State as Phase};
use skep_model::autoscale::{Autoscale, Metric};
use skep_model::service::Service;
use skep_scheduler::autoscale::{Activity, Observed, Sample};
use skep_state::State;

use super::Pushed;
use crate::samples::ServiceSample;

/// How often there is a decision, and over how much of the past each takes its rates: the period of the
/// agents' readings, so that nothing is counted twice and chance is judged by what there was.
pub const PERIOD: Duration = Duration::from_secs(2);
/// An allocation that took longer to start says nothing of how long the next one will.
const START_MAX_MS: u64 = 1_800_000;

/// The replicas of a service's target, as they are.
struct Replicas<'a> {
    ready: Vec<&'a Allocation>,
    unhealthy: u32,
}

fn replicas<'a>(view: &'a State, service: &Service) -> Replicas<'a> {
    let target = service.target();
    let live = view
        .allocations_of(service.id)
        .filter(|one| one.job.is_none() && one.desired == Desired::Run && one.is_live())
        .filter(|one| Some(one.target) == target || one.is_routable());
    let (ready, others): (Vec<_>, Vec<_>) =
        live.map(|one| &**one).partition(|one| one.is_routable());
    let unhealthy = others
        .iter()
        .filter(|one| one.observed.state == Phase::Unhealthy)
        .count();
    Replicas {
        ready,
        unhealthy: u32::try_from(unhealthy).unwrap_or(u32::MAX),
    }
}

/// The service's replicas, as the decision sees them.
pub fn observed(
    view: &State,
    service: &Service,
    sample: &ServiceSample,
    pushed: &[(Metric, Pushed)],
    now_ms: u64,
) -> Observed {
    let Replicas { ready, unhealthy } = replicas(view, service);
    let wanted = service.wanted();
    let serving = u32::try_from(ready.len()).unwrap_or(u32::MAX);
    let start_ms = ready
        .iter()
        .map(|one| one.observed_ms.saturating_sub(one.created_ms))
        .filter(|ms| *ms <= START_MAX_MS)
        .min();
    Observed {
        wanted,
        starting: wanted.saturating_sub(serving).saturating_sub(unhealthy),
        unhealthy: unhealthy.min(wanted),
        deploying: service.rollout.is_some(),
        activity: activity(service, sample, pushed, now_ms),
        start_ms,
    }
}

/// Whether anything is asked of it: by its ingresses, and by what is pushed of its queues.
fn activity(
    service: &Service,
    sample: &ServiceSample,
    pushed: &[(Metric, Pushed)],
    now_ms: u64,
) -> Activity {
    let mut is_known = true;
    if service.spec.is_routed() {
        let asked = sample.in_flight.unwrap_or(0) > 0 || sample.request_rate.unwrap_or(0.0) > 0.0;
        if asked {
            return Activity::Active;
        }
        is_known &= sample.in_flight.is_some() && sample.request_rate.is_some();
    }
    let targets = service.spec.autoscale.iter().flat_map(|it| &it.targets);
    for target in targets.filter(|target| is_pushed(&target.metric)) {
        let newest = pushed.iter().find(|(metric, _)| *metric == target.metric);
        match newest {
            Some((_, pushed)) if pushed.value_milli > 0 => return Activity::Active,
            Some((_, pushed)) => is_known &= now_ms.saturating_sub(pushed.at_ms) < STALE_MS,
            None => is_known = false,
        }
    }
    match is_known {
        true => Activity::Quiet,
        false => Activity::Unknown,
    }
}

/// What was pushed longer ago does not tell that there is nothing to do.
const STALE_MS: u64 = 60_000;

/// Whether a metric comes from outside.
pub fn is_pushed(metric: &Metric) -> bool {
    matches!(metric, Metric::QueueLength | Metric::Custom(_))
}

/// What is known of a service's targets now. What is not known is left out, never 0.
pub fn samples(
    view: &State,
    service: &Service,
    autoscale: &Autoscale,
    sample: &ServiceSample,
    now_ms: u64,
) -> Vec<(Metric, Sample)> {
    let ready = replicas(view, service).ready;
    let expected = u32::try_from(ready.len()).unwrap_or(u32::MAX);
    let of_all = |total_milli: u64| Sample {
        at_ms: now_ms,
        span_ms: millis(PERIOD),
        total_milli,
        reporting: 1,
        expected: 1,
    };
    let of_each = |used: &dyn Fn(&Allocation) -> Option<u64>| {
        let known: Vec<u64> = ready.iter().filter_map(|one| used(one)).collect();
        (!known.is_empty()).then(|| Sample {
            total_milli: known.iter().sum(),
            reporting: u32::try_from(known.len()).unwrap_or(u32::MAX),
            expected,
            ..of_all(0)
        })
    };
    let share = |one: &Allocation, cpu: bool| {
        let used = sample
            .allocations
            .iter()
            .find(|it| it.allocation == one.id)?;
        let requested = view.release(one.service, one.target.release)?.resources;
        let (used, requested) = match cpu {
            true => (used.cpu_millis?, u64::from(requested.cpu_millis)),
            false => (used.memory_bytes?, requested.memory_bytes),
        };
        // Percent, in thousandths.
        let share = u128::from(used) * 100_000 / u128::from(requested.max(1));
        u64::try_from(share).ok()
    };
    let thousandths = |value: f64| (value * 1_000.0).round() as u64;
    let measure = |metric: &Metric| match metric {
        Metric::Cpu => of_each(&|one| share(one, true)),
        Metric::Memory => of_each(&|one| share(one, false)),
        Metric::RequestRate => sample.request_rate.map(|rate| of_all(thousandths(rate))),
        Metric::InFlight => sample.in_flight.map(|count| of_all(count * 1_000)),
        Metric::LatencyP95 => sample.latency_p95_ms.map(|ms| of_all(thousandths(ms))),
        Metric::QueueLength | Metric::Custom(_) => None,
    };
    let mut metrics: Vec<&Metric> = autoscale.targets.iter().map(|it| &it.metric).collect();
    if autoscale.scale_to_zero.is_some() && service.spec.is_routed() {
        // They tell whether there is work, also where they are no target.
        for metric in [&Metric::RequestRate, &Metric::InFlight] {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
    }
    let found = metrics.into_iter();
    found
        .filter_map(|metric| Some((metric.clone(), measure(metric)?)))
        .collect()
}

/// What was pushed, as a sample; `before` is what was pushed before it.
pub fn pushed_sample(pushed: Pushed, before: Option<Pushed>) -> Sample {
    let span_ms = before.map_or(millis(PERIOD), |before| {
        pushed.at_ms.saturating_sub(before.at_ms)
    });
    Sample {
        at_ms: pushed.at_ms,
        // Who pushes rarely is not believed to have meant all the time between.
        span_ms: span_ms.clamp(1, STALE_MS),
        total_milli: pushed.value_milli,
        reporting: 1,
        expected: 1,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
