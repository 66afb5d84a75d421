//! What goes into a sum, who is missed, what counts twice.

use std::time::Duration;

use skep_model::allocation::Observed as Reported;
use skep_model::id::{AllocationId, DeploymentId, NodeId, ServiceId};
use skep_model::service::Target;

use super::*;
use crate::samples::{AllocationSample, Detail};

const NOW: Moment = Moment {
    now_ms: 100_000,
    span_ms: 2_000,
    counted_ms: 0,
};

fn allocation(id: u128, state: Seen, desired: Desired) -> Allocation {
    Allocation {
        id: AllocationId::from_u128(id),
        service: ServiceId::from_u128(1),
        target: Target {
            release: 1,
            deployment: DeploymentId::from_u128(1),
        },
        node: NodeId::from_u128(1),
        desired,
        reason: String::new(),
        desired_ms: 0,
        desired_index: 0,
        observed: Reported {
            state,
            ..Reported::pending()
        },
        observed_ms: 5_000,
        created_ms: 2_000,
        job: None,
    }
}

fn crew(wanted: u32, replicas: &[Allocation]) -> Crew<'_> {
    let resources = Resources {
        cpu_millis: 200,
        memory_bytes: 100 << 20,
        ..Resources::default()
    };
    Crew {
        wanted,
        is_deploying: false,
        replicas: replicas.iter().map(|it| (it, Some(resources))).collect(),
        ingresses: 2,
    }
}

fn used(id: u128, cpu_millis: u64) -> AllocationSample {
    AllocationSample {
        allocation: AllocationId::from_u128(id),
        cpu_millis: Some(cpu_millis),
        memory_bytes: Some(50 << 20),
        detail: Detail::default(),
    }
}

fn requests(rate: f64, in_flight: u64, age_ms: u64) -> ServiceSample {
    ServiceSample {
        request_rate: Some(rate),
        in_flight: Some(in_flight),
        counted: Some(Duration::from_millis(age_ms)),
        ingresses: 2,
        ..ServiceSample::default()
    }
}

fn of(measured: &Measured, metric: Metric) -> Option<Sample> {
    let mut found = measured.samples.iter().filter(|(name, _)| *name == metric);
    found.next().map(|(_, sample)| *sample)
}

#[test]
fn cpu_is_a_sum_of_shares_of_each_request_and_says_who_is_missed() {
    let replicas = [
        allocation(1, Seen::Healthy, Desired::Run),
        allocation(2, Seen::Unhealthy, Desired::Run),
        allocation(3, Seen::Healthy, Desired::Run),
        allocation(4, Seen::Healthy, Desired::Drain),
        // What it does to start is no work of the service.
        allocation(5, Seen::Starting, Desired::Run),
    ];
    let sample = ServiceSample {
        allocations: vec![used(1, 100), used(2, 200), used(4, 50), used(5, 999)],
        ..ServiceSample::default()
    };
    let measured = measure(&crew(5, &replicas), (&sample, &[]), NOW);
    let cpu = of(&measured, Metric::Cpu).expect("known");
    assert_eq!(cpu.total_milli, 175_000, "50% + 100% + 25%");
    assert_eq!((cpu.reporting, cpu.expected), (2, 3));
    let memory = of(&measured, Metric::Memory).expect("known");
    assert_eq!(memory.total_milli, 150_000);
    let observed = measured.observed;
    assert_eq!(
        (observed.starting, observed.unhealthy, observed.start_ms),
        (2, 1, Some(3_000))
    );
    assert_eq!(observed.activity, Activity::Unknown);
}

#[test]
fn what_nobody_measures_is_no_sample() {
    let replicas = [allocation(1, Seen::Healthy, Desired::Run)];
    let measured = measure(&crew(1, &replicas), (&ServiceSample::default(), &[]), NOW);
    assert_eq!(measured.samples, []);
    assert_eq!(measured.observed.activity, Activity::Unknown);
}

#[test]
fn requests_of_an_ingress_that_is_not_heard_are_missed() {
    let sample = ServiceSample {
        ingresses: 1,
        latency_p95_ms: Some(12.5),
        ..requests(10.5, 3, 500)
    };
    let measured = measure(&crew(1, &[]), (&sample, &[]), NOW);
    let rate = of(&measured, Metric::RequestRate).expect("counted");
    assert_eq!((rate.at_ms, rate.total_milli), (99_500, 10_500));
    assert_eq!((rate.reporting, rate.expected), (1, 2));
    let latency = of(&measured, Metric::LatencyP95).expect("measured");
    assert_eq!(latency.total_milli, 12_500);
    assert_eq!(measured.observed.activity, Activity::Active);
    let silent = ServiceSample {
        ingresses: 1,
        ..requests(0.0, 0, 500)
    };
    let measured = measure(&crew(1, &[]), (&silent, &[]), NOW);
    assert_eq!(measured.observed.activity, Activity::Unknown);
}

#[test]
fn the_same_requests_count_once() {
    let first = measure(&crew(1, &[]), (&requests(10.0, 0, 0), &[]), NOW);
    assert_eq!(first.counted_ms, 100_000);
    let again = Moment {
        now_ms: 102_000,
        counted_ms: first.counted_ms,
        ..NOW
    };
    // The two clocks differ by a millisecond.
    let same = measure(&crew(1, &[]), (&requests(10.0, 0, 1_999), &[]), again);
    assert_eq!(of(&same, Metric::RequestRate), None);
    assert_eq!(same.counted_ms, first.counted_ms);
    let next = measure(&crew(1, &[]), (&requests(10.0, 0, 0), &[]), again);
    assert!(of(&next, Metric::RequestRate).is_some());
}

#[test]
fn nobody_waits_where_nobody_asks() {
    let idle = measure(&crew(1, &[]), (&requests(0.0, 0, 0), &[]), NOW);
    let latency = of(&idle, Metric::LatencyP95).expect("known");
    assert_eq!(latency.total_milli, 0);
    assert_eq!(idle.observed.activity, Activity::Quiet);
    // One that takes minutes has no latency yet, and is no idleness.
    let slow = measure(&crew(1, &[]), (&requests(0.0, 1, 0), &[]), NOW);
    assert_eq!(of(&slow, Metric::LatencyP95), None);
    assert_eq!(slow.observed.activity, Activity::Active);
}

#[test]
fn what_an_app_pushes_has_its_own_time() {
    let pushed = |value_milli| {
        let pushed = Pushed {
            at_ms: 90_000,
            span_ms: 10_000,
            value_milli,
        };
        [(Metric::QueueLength, pushed)]
    };
    let sample = ServiceSample::default();
    let measured = measure(&crew(1, &[]), (&sample, &pushed(7_000)), NOW);
    let queue = of(&measured, Metric::QueueLength).expect("pushed");
    assert_eq!(
        (queue.at_ms, queue.span_ms, queue.total_milli),
        (90_000, 10_000, 7_000)
    );
    assert_eq!(measured.observed.activity, Activity::Active);
    let empty = measure(&crew(1, &[]), (&sample, &pushed(0)), NOW);
    assert_eq!(empty.observed.activity, Activity::Quiet);
}
