//! What people complain about in autoscalers that are in use, each as a test with the source of the
//! complaint: none of it may happen here.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "autoscale/mod.rs"]
mod world;

use skep_model::autoscale::{Autoscale, Policy, ScaleToZero};
use skep_scheduler::autoscale::{Activity, History};
use world::World;

/// fiaas #205: an HPA that goes 20, 14, 20, 11, 20 under a load that goes up and down a little.
#[test]
fn a_load_that_swings_does_not_make_replicas_swing() {
    let mut world = World::new(&["cpu=50%"], 20);
    for minute in 0..60 {
        // Between 55 and 100% of what 20 replicas should do, a minute each.
        let load = [1_000.0, 550.0, 700.0, 1_000.0, 600.0][minute % 5];
        world.set("cpu", load);
        world.run(60);
    }
    let low = world.changes.iter().map(|change| change.to).min();
    assert!(world.changes.len() <= 2, "{:?}", world.changes);
    assert!(low.is_none_or(|low| low >= 14), "{low:?}");
}

/// kubernetes #72775, #90461, #98914, #87199: a rolling update brings extra pods, their start costs
/// CPU, the average rises, and production stands at 120 pods. Here the load is a sum, extra
/// replicas are not in the base, and those that start are capacity.
#[test]
fn a_rolling_update_adds_nothing() {
    let mut world = World::new(&["cpu=50%", "request_rate=100"], 10);
    world.set("cpu", 480.0);
    world.set("request_rate", 950.0);
    world.run(300);
    world.observed.deploying = true;
    for round in 0..10 {
        // One more at a time, old and new share the same load.
        world.observed.starting = 1;
        world.set("cpu", 480.0 + f64::from(round % 2) * 10.0);
        world.run(30);
    }
    world.observed.deploying = false;
    world.run(600);
    assert_eq!(world.changes, []);
}

/// autoscaler #13284, knative #4344: replicas that start slowly are ordered again and again,
/// because the load is still as high as before.
#[test]
fn a_slow_start_is_not_ordered_twice() {
    for start_s in [0, 30, 90, 600] {
        let mut world = World::new(&["cpu=50%"], 4);
        world.start_ms = start_s * 1_000;
        world.set("cpu", 190.0);
        world.run(300);
        // Saturated at 100% until more are ready: 4 do what 8 should.
        world.set("cpu", 400.0);
        world.run(start_s.max(120));
        assert_eq!(world.wanted(), 8, "{start_s} s");
        assert_eq!(world.changes.len(), 1, "{start_s} s: {:?}", world.changes);
    }
}

/// kubernetes #99394: one metric cannot be read, and the other one shrinks the service.
#[test]
fn nothing_shrinks_while_a_metric_is_missing() {
    let mut world = World::new(&["cpu=50%", "custom:jobs=10"], 12);
    world.set("cpu", 200.0);
    world.set("custom:jobs", 115.0);
    world.run(300);
    world.load.remove(&"custom:jobs".parse().unwrap());
    world.run(3_600);
    assert_eq!(world.wanted(), 12, "{}", world.said());
    assert!(
        world.said().contains("no sample of jobs"),
        "{}",
        world.said()
    );
}

/// createmod #1097: a repository says `replicas: 3`, the autoscaler says 9, and they take turns.
#[test]
fn the_number_of_replicas_has_one_owner() {
    let spec = Autoscale::default();
    assert_eq!(spec.wanted(3, None), 3);
    assert_eq!(spec.wanted(50, None), 10, "within its bounds");
    for applied in 0..20 {
        assert_eq!(spec.wanted(applied, Some(9)), 9);
    }
}

/// KEDA #6844, #737 and Nomad #272, #858: one cooldown for both directions, so that a rise right
/// after a step is answered five minutes late.
#[test]
fn a_rise_right_after_a_step_is_answered_at_once() {
    let mut world = World::new(&["request_rate=10"], 20);
    world.set("request_rate", 200.0);
    world.run(300);
    world.set("request_rate", 100.0);
    while world.changes.is_empty() {
        world.step();
    }
    world.set("request_rate", 400.0);
    world.run(1);
    assert_eq!(world.wanted(), 40, "{}", world.said());
}

/// KEDA's cooldown again: it counts from the last activity, whatever the window for shrinking is.
#[test]
fn idle_time_does_not_add_up_with_the_window() {
    let spec = Autoscale {
        targets: vec!["request_rate=10".parse().unwrap()],
        scale_to_zero: Some(ScaleToZero { idle_ms: 20_000 }),
        down_window_ms: 600_000,
        ..Autoscale::default()
    };
    let mut world = World::of(spec, 1);
    world.set("request_rate", 5.0);
    world.run(100);
    world.set("request_rate", 0.0);
    world.run(19);
    assert_eq!(world.wanted(), 1);
    world.run(1);
    assert_eq!(world.wanted(), 0, "{}", world.said());
}

/// Nomad #1194: clamped to where it is, the scaler submits the same count and redeploys for ever.
#[test]
fn clamped_to_where_it_is_nothing_is_emitted() {
    let mut world = World::new(&["cpu=50%"], 100);
    world.set("cpu", 50_000.0);
    world.run(900);
    let decision = world.last.clone().unwrap();
    assert!(!decision.is_change());
    assert!(world.changes.is_empty());
    assert!(decision.to_string().contains("at most 100"), "{decision}");
}

/// Nomad #610: one reason, two actions, because the second evaluation sees the samples of before.
#[test]
fn one_rise_is_one_step() {
    let mut world = World::new(&["latency_p95=100ms"], 10);
    world.start_ms = 40_000;
    world.set("latency_p95", 150.0);
    world.run(60);
    assert_eq!(world.wanted(), 15, "{:?}", world.changes);
    world.run(29);
    assert_eq!(world.changes.len(), 1, "{:?}", world.changes);
}

/// Knative #4795 (pull request): a restarted autoscaler knows no load, and takes all replicas away.
#[test]
fn a_new_leader_shrinks_nothing_until_it_knows_a_whole_window() {
    let mut world = World::new(&["request_rate=10"], 20);
    world.set("request_rate", 195.0);
    world.run(900);
    world.history = History::default();
    world.set("request_rate", 10.0);
    let window_s = world.spec.down_window_ms / 1_000;
    world.run(window_s);
    assert_eq!(world.wanted(), 20, "{}", world.said());
    world.run(2);
    assert!(world.wanted() < 20, "{}", world.said());
}

/// The same with the history handed over: it goes on as if nothing had happened.
#[test]
fn a_leader_with_the_history_goes_on() {
    let mut world = World::new(&["request_rate=10"], 20);
    world.set("request_rate", 195.0);
    world.run(300);
    world.set("request_rate", 100.0);
    world.run(100);
    let mut other = world.clone();
    other.history = serde_json::from_str(&serde_json::to_string(&world.history).unwrap()).unwrap();
    world.run(300);
    other.run(300);
    assert_eq!(world.changes, other.changes);
    assert_eq!(world.wanted(), 10);
}

/// But one that was away for long has a hole in what it knows.
#[test]
fn a_history_with_a_hole_begins_anew() {
    let mut world = World::new(&["request_rate=10"], 20);
    world.set("request_rate", 195.0);
    world.run(900);
    world.now_ms += 1_800_000;
    world.set("request_rate", 10.0);
    world.run(world.spec.down_window_ms / 1_000);
    assert_eq!(world.wanted(), 20, "{}", world.said());
}

/// KEDA #5008: `lastActive` is not known, so the service is taken to zero at once.
#[test]
fn unknown_last_activity_is_not_idleness() {
    for activity in [Activity::Quiet, Activity::Unknown] {
        let spec = Autoscale {
            scale_to_zero: Some(ScaleToZero::default()),
            ..Autoscale::default()
        };
        let mut world = World::of(spec, 1);
        world.observed.activity = activity;
        world.run(299);
        assert_eq!(world.wanted(), 1, "{activity:?}: {}", world.said());
        world.run(30);
        let sleeps = activity == Activity::Quiet;
        assert_eq!(
            world.wanted() == 0,
            sleeps,
            "{activity:?}: {}",
            world.said()
        );
    }
}

/// KEDA #7770, #7204: from many to none in one step, past the rate policy.
#[test]
fn the_way_to_zero_obeys_the_policy() {
    let spec = Autoscale {
        targets: vec!["request_rate=10".parse().unwrap()],
        scale_to_zero: Some(ScaleToZero { idle_ms: 10_000 }),
        max: 100,
        down: Policy {
            percent: 0,
            count: 3,
            period_ms: 10_000,
        },
        ..Autoscale::default()
    };
    let mut world = World::of(spec, 20);
    world.set("request_rate", 190.0);
    world.run(200);
    world.set("request_rate", 0.0);
    world.run(100);
    assert_eq!(world.wanted(), 0);
    assert!(
        world
            .changes
            .iter()
            .all(|change| change.from - change.to <= 3)
    );
}

/// Knative #2386: it takes longer to start than it stays away, and does nothing but start.
#[test]
fn who_starts_slowly_stays_longer() {
    let spec = Autoscale {
        targets: vec!["request_rate=10".parse().unwrap()],
        scale_to_zero: Some(ScaleToZero { idle_ms: 10_000 }),
        ..Autoscale::default()
    };
    let mut world = World::of(spec, 1);
    world.start_ms = 60_000;
    world.set("request_rate", 1.0);
    world.run(10);
    world.set("request_rate", 0.0);
    world.run(119);
    assert_eq!(world.wanted(), 1);
    world.run(1);
    assert_eq!(world.wanted(), 0, "{}", world.said());
}

/// Knative #3153: after a burst the panic ends, and the number drops under the load.
#[test]
fn after_a_burst_the_number_stays_with_the_load() {
    let mut world = World::new(&["request_rate=10"], 5);
    world.set("request_rate", 48.0);
    world.run(300);
    world.set("request_rate", 480.0);
    for _ in 0..900 {
        world.step();
        assert!(
            world.wanted() >= 46 || world.changes.is_empty(),
            "{}",
            world.said()
        );
    }
}

/// A queue that is kept empty by its workers is not a reason to send them home at once.
#[test]
fn an_empty_queue_does_not_dismiss_the_workers() {
    let mut world = World::new(&["queue_length=10"], 20);
    world.set("queue_length", 190.0);
    world.run(200);
    world.set("queue_length", 0.0);
    world.run(300);
    assert!(world.wanted() >= 11, "{:?}", world.changes);
}

/// From nothing, the very first sample or request decides.
#[test]
fn the_first_request_wakes() {
    let sleeping = || {
        let spec = Autoscale {
            targets: vec!["in_flight=10".parse().unwrap()],
            scale_to_zero: Some(ScaleToZero::default()),
            ..Autoscale::default()
        };
        World::of(spec, 0)
    };
    let mut by_sample = sleeping();
    by_sample.set("in_flight", 1.0);
    assert_eq!(by_sample.step().to, 1);
    let mut by_call = sleeping();
    assert_eq!(by_call.step().to, 0);
    by_call.observed.activity = Activity::Active;
    assert_eq!(by_call.step().to, 1);
}
