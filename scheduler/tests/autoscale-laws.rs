//! Laws of the autoscaler, for any specification, load and course of events.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "autoscale/mod.rs"]
mod world;

use proptest::prelude::*;
use skep_model::autoscale::{Autoscale, Policy, ScaleToZero, Target};
use skep_scheduler::autoscale::{Activity, History, decide};
use world::World;

const METRICS: [(&str, &str); 5] = [
    ("request_rate", "request_rate=10"),
    ("cpu", "cpu=50%"),
    ("in_flight", "in_flight=4"),
    ("latency_p95", "latency_p95=100ms"),
    ("queue_length", "queue_length=5"),
];

/// What happens in a stretch of time.
#[derive(Debug, Clone)]
struct Stretch {
    seconds: u64,
    load: Vec<Option<f64>>,
    deploying: bool,
    unhealthy: u32,
    partial: bool,
    new_leader: bool,
    activity: Activity,
}

fn stretch() -> impl Strategy<Value = Stretch> {
    let load = prop::collection::vec(prop::option::weighted(0.9, 0.0..800.0_f64), METRICS.len());
    let activity = prop_oneof![
        Just(Activity::Active),
        Just(Activity::Quiet),
        Just(Activity::Unknown)
    ];
    (
        1_u64..200,
        load,
        prop::bool::weighted(0.15),
        prop_oneof![4 => Just(0_u32), 1 => 1_u32..3],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        activity,
    )
        .prop_map(
            |(seconds, load, deploying, unhealthy, partial, new_leader, activity)| Stretch {
                seconds,
                load,
                deploying,
                unhealthy,
                partial,
                new_leader,
                activity,
            },
        )
}

fn policy() -> impl Strategy<Value = Policy> {
    (0_u32..300, 0_u32..10, 1_u64..120).prop_map(|(percent, count, seconds)| Policy {
        percent,
        count,
        period_ms: seconds * 1_000,
    })
}

fn spec() -> impl Strategy<Value = Autoscale> {
    (
        (1_u32..5, 0_u32..40),
        prop::collection::vec(any::<bool>(), METRICS.len()),
        prop::option::of(10_u64..100),
        (policy(), policy()),
        (0_u32..20, 0_u32..20),
        10_u64..200,
    )
        .prop_map(
            |((min, more), chosen, idle, (up, down), tolerance, window)| {
                let targets = METRICS.iter().zip(chosen).filter(|(_, chosen)| *chosen);
                Autoscale {
                    min,
                    max: min + more,
                    targets: targets
                        .map(|((_, text), _)| text.parse().unwrap())
                        .collect(),
                    scale_to_zero: idle.map(|seconds| ScaleToZero {
                        idle_ms: seconds * 1_000,
                    }),
                    up,
                    down,
                    tolerance_up_percent: tolerance.0,
                    tolerance_down_percent: tolerance.1,
                    down_window_ms: window * 1_000,
                    ..Autoscale::default()
                }
            },
        )
}

fn apply(world: &mut World, stretch: &Stretch) {
    world.load.clear();
    for ((metric, _), value) in METRICS.iter().zip(&stretch.load) {
        if let Some(value) = value {
            world.set(metric, *value);
        }
    }
    world.observed.deploying = stretch.deploying;
    world.observed.unhealthy = stretch.unhealthy;
    world.observed.activity = stretch.activity;
    world.partial = stretch.partial;
    if stretch.new_leader {
        world.history = History::default();
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Always within the bounds; nothing is taken away in a deployment, with unhealthy replicas,
    /// with a metric missing, or by a new leader; never faster than the policies allow; and every
    /// decision has a reason.
    #[test]
    fn the_rules_hold_whatever_happens(
        spec in spec(),
        begin in 1_u32..40,
        start_s in 0_u64..60,
        course in prop::collection::vec(stretch(), 1..6),
    ) {
        let begin = begin.clamp(spec.min, spec.max);
        let mut world = World::of(spec.clone(), begin);
        world.start_ms = start_s * 1_000;
        let mut leader_s = 0;
        for stretch in &course {
            apply(&mut world, stretch);
            if stretch.new_leader {
                leader_s = 0;
            }
            for second in 0..stretch.seconds {
                let decision = world.step();
                leader_s += 1;
                let (from, to) = (decision.from, decision.to);
                prop_assert!(!decision.reasons.is_empty(), "{decision:?}");
                let may_sleep = spec.scale_to_zero.is_some();
                prop_assert!(to <= spec.max && (to >= spec.min || may_sleep), "{decision}");
                if to < from {
                    prop_assert!(!stretch.deploying && stretch.unhealthy == 0, "{decision}");
                    let asleep = to < spec.min;
                    let window_s = spec.down_window_ms.max(spec.stable_window_ms) / 1_000;
                    let idle_s = spec.scale_to_zero.map_or(u64::MAX, |zero| zero.idle_ms / 1_000);
                    prop_assert!(leader_s > window_s.min(idle_s), "{decision} after {leader_s} s");
                    prop_assert!(!asleep || stretch.activity == Activity::Quiet, "{decision}");
                    let told = |target: &Target| world.load.contains_key(&target.metric);
                    let missing = !spec.targets.iter().all(told);
                    // Told by a part of the replicas only. (Told by none, the last that all of
                    // them told holds for as long as the patience does.)
                    let partial = stretch.partial && spec.targets.iter().any(told);
                    // Fifteen seconds of patience.
                    let by_load = !decision.to_string().contains("idle");
                    prop_assert!(!(by_load && missing && second > 16), "{decision}");
                    prop_assert!(!(by_load && partial), "{decision}");
                    prop_assert!(!spec.down.is_never(), "{decision}");
                }
                if to > from && from >= spec.min {
                    let most = u64::from(from) * (100 + u64::from(spec.up.percent)) / 100;
                    let most = most.max(u64::from(from + spec.up.count));
                    prop_assert!(u64::from(to) <= most, "{decision}");
                }
            }
        }
    }

    /// When the load is steady, the number is too, after the windows.
    #[test]
    fn nothing_changes_when_nothing_changes(
        rate in 0.0..900.0_f64,
        cpu in 0.0..900.0_f64,
        begin in 1_u32..90,
        start_s in 0_u64..60,
    ) {
        let mut world = World::new(&["request_rate=10", "cpu=50%"], begin);
        world.start_ms = start_s * 1_000;
        world.set("request_rate", rate);
        world.set("cpu", cpu);
        world.run(1_500);
        let settled = world.wanted();
        world.run(600);
        prop_assert_eq!(world.wanted(), settled);
        // And where it is, is right: it meets the targets, and not by far too many.
        let needed = (rate / 10.0).max(cpu / 50.0).ceil().max(1.0);
        prop_assert!(f64::from(settled) * 1.05 >= needed, "{settled} {needed}");
        let room = needed * 1.25 + 2.0;
        prop_assert!(f64::from(settled) <= room, "{settled} {needed}: {}", world.said());
    }

    /// More load never gets fewer replicas, from the same past.
    #[test]
    fn more_load_never_gets_fewer(
        past in 0.0..500.0_f64,
        past_s in 0_u64..300,
        now in 0.0..500.0_f64,
        now_s in 1_u64..5,
        factor in 1.0..4.0_f64,
        metric in 0_usize..METRICS.len(),
        begin in 1_u32..50,
    ) {
        let (name, target) = METRICS[metric];
        let mut less = World::new(&[target], begin);
        less.set(name, past);
        less.run(past_s);
        let mut more = less.clone();
        less.set(name, now);
        more.set(name, now * factor);
        for _ in 0..now_s {
            let (low, high) = (less.look(), more.look());
            prop_assert!(high.to >= low.to, "{low} / {high}");
            prop_assert!(high.recommended >= low.recommended, "{low} / {high}");
        }
    }

    /// A metric that falls silent never takes anything away, whatever the others say.
    #[test]
    fn what_is_missing_never_shrinks(
        rate in 0.0..900.0_f64,
        cpu in 0.0..900.0_f64,
        after in 0.0..900.0_f64,
        begin in 1_u32..90,
    ) {
        let mut world = World::new(&["request_rate=10", "cpu=50%"], begin);
        world.set("request_rate", rate);
        world.set("cpu", cpu);
        world.run(200);
        world.load.remove(&"cpu".parse().unwrap());
        world.set("request_rate", after);
        world.run(16);
        let before = world.wanted();
        world.run(400);
        prop_assert!(world.wanted() >= before);
    }

    /// The history is bounded, and what is read back from storage decides the same.
    #[test]
    fn a_history_is_small_and_reads_back(course in prop::collection::vec(stretch(), 1..5)) {
        let targets: Vec<&str> = METRICS.iter().map(|(_, text)| *text).collect();
        let mut world = World::new(&targets, 10);
        for stretch in &course {
            apply(&mut world, stretch);
            world.run(stretch.seconds);
        }
        let json = serde_json::to_string(&world.history).unwrap();
        prop_assert!(json.len() < 40_000, "{}", json.len());
        let history: History = serde_json::from_str(&json).unwrap();
        let now_ms = world.now_ms + 1_000;
        prop_assert_eq!(
            decide(&world.spec, &world.observed, &history, now_ms),
            decide(&world.spec, &world.observed, &world.history, now_ms)
        );
    }
}
