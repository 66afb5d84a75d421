//! Laws of jobs, whatever happens: nothing runs twice at once that must not, no time is run twice,
//! and planning again changes nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;

use common::jobs::Jobs;
use common::{node, target};
use proptest::prelude::*;
use skep_model::allocation::{Desired, State};
use skep_model::id::{AllocationId, NodeId};
use skep_model::job::{Cause, Status};
use skep_model::node::NodeStatus;
use skep_model::run::{Mode, Overlap};
use skep_scheduler::jobs::LOST_MARGIN_MS;

/// What happens.
#[derive(Debug, Clone)]
enum Event {
    /// Time passes; negative: a leader whose clock is behind takes over.
    Pass(i64),
    /// The attempt at this place in the list says something.
    Say(usize, State, Option<i32>),
    /// A node is lost, or is back with what it ran, which is told to stop.
    Lose(u128),
    Back(u128),
    /// Somebody cancels the job at this place.
    Cancel(usize),
    Pause(bool),
    /// A plan that was made is lost on its way, and a new leader plans.
    Forget,
}

fn event() -> impl Strategy<Value = Event> {
    let said = prop_oneof![
        Just((State::Running, None)),
        Just((State::Stopped, Some(0))),
        Just((State::Failed, Some(1))),
        Just((State::Failed, None)),
    ];
    prop_oneof![
        6 => (1..200_i64).prop_map(|seconds| Event::Pass(seconds * 1_000)),
        1 => (1..4_000_i64).prop_map(|seconds| Event::Pass(-seconds * 1_000)),
        6 => (0..4_usize, said).prop_map(|(at, (state, code))| Event::Say(at, state, code)),
        1 => (1..4_u128).prop_map(Event::Lose),
        1 => (1..4_u128).prop_map(Event::Back),
        1 => (0..9_usize).prop_map(Event::Cancel),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => Just(Event::Forget),
    ]
}

/// An attempt that may be running, as far as anybody can know: not ended, and its node not lost for
/// longer than is waited.
fn may_run(world: &Jobs) -> Vec<AllocationId> {
    let is_given_up = |node: &NodeId| {
        let node = &world.nodes[node];
        node.status == NodeStatus::Lost && world.now_ms >= node.status_ms + LOST_MARGIN_MS
    };
    let live = world.attempts.values().filter(|one| one.is_live());
    live.filter(|one| !is_given_up(&one.node))
        .map(|one| one.id)
        .collect()
}

fn happen(world: &mut Jobs, event: &Event) {
    match event {
        Event::Pass(ms) => world.now_ms = world.now_ms.saturating_add_signed(*ms),
        Event::Say(at, state, code) => {
            let live = world.attempts.values().filter(|one| one.is_live());
            let ids: Vec<_> = live.map(|one| (one.id, one.node, one.desired)).collect();
            let Some((id, node, desired)) = ids.get(*at).copied() else {
                return;
            };
            if world.nodes[&node].status == NodeStatus::Lost {
                return;
            }
            match desired {
                Desired::Stop => world.observe(id, State::Stopped, None),
                _ => world.observe(id, *state, *code),
            }
        }
        Event::Lose(id) => {
            let now_ms = world.now_ms;
            let node = world.nodes.get_mut(&NodeId::from_u128(*id)).unwrap();
            if node.status != NodeStatus::Lost {
                node.status = NodeStatus::Lost;
                node.status_ms = now_ms;
            }
        }
        Event::Back(id) => {
            let id = NodeId::from_u128(*id);
            world.nodes.get_mut(&id).unwrap().status = NodeStatus::Ready;
            // What went on without it has stopped before anything else is looked at.
            let stopped: Vec<_> = world
                .attempts
                .values()
                .filter(|one| one.node == id && one.desired == Desired::Stop)
                .map(|one| one.id)
                .collect();
            stopped
                .iter()
                .for_each(|id| world.observe(*id, State::Stopped, None));
        }
        Event::Cancel(at) => {
            let active = world.jobs.values_mut().filter(|job| job.status.is_active());
            if let Some(job) = active.into_iter().nth(*at) {
                job.cancel = true;
            }
        }
        Event::Pause(paused) => world.service.spec.run.paused = *paused,
        Event::Forget => drop(world.plan()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_time_twice_and_never_two_at_once(
        events in prop::collection::vec(event(), 1..120),
        overlap in prop_oneof![Just(Overlap::Forbid), Just(Overlap::Replace)],
        retries in 0..3_u32,
        deadline_ms in prop_oneof![Just(0), Just(90_000_u64)],
    ) {
        let mut world = Jobs::new();
        world.now_ms = 1_743_290_000_000;
        for id in 1..4 {
            let made = node(id, 1_000, 1_024);
            world.nodes.insert(made.id, made);
        }
        let run = &mut world.service.spec.run;
        run.mode = Mode::Cron;
        run.schedule = Some("* * * * *".into());
        run.time_zone = "Europe/Berlin".into();
        (run.overlap, run.retries, run.deadline_ms) = (overlap, retries, deadline_ms);
        world.service.live = Some(target(1, 1));
        let mut times: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        let mut highest = 0;
        for event in &events {
            happen(&mut world, event);
            world.settle();
            prop_assert!(world.plan().is_empty(), "planned again");
            let running = may_run(&world);
            // A clock that was set back makes a node that was given up look like a fresh loss.
            if !matches!(event, Event::Pass(ms) if *ms < 0) && world.now_ms >= highest {
                prop_assert!(running.len() <= 1, "two at once: {running:?}");
            }
            highest = highest.max(world.now_ms);
            for job in world.jobs.values() {
                if let Cause::Schedule { at_ms } = job.cause {
                    let all = times.entry(at_ms).or_default();
                    if !all.contains(&job.id) {
                        all.push(job.id);
                    }
                }
                prop_assert!(job.attempts <= retries + 1);
                if job.status == Status::Succeeded {
                    prop_assert_eq!(job.exit_code, Some(0));
                }
            }
        }
        // Beyond an hour back a schedule begins anew: then a time may come again, as in life.
        let goes_far_back = events.iter().any(|event| matches!(event, Event::Pass(ms) if *ms < -3_500_000));
        if !goes_far_back {
            for (at_ms, jobs) in times {
                let told: Vec<_> = jobs.iter().map(|id| world.jobs.get(id)).collect();
                prop_assert_eq!(jobs.len(), 1, "{} was due once: {:?}", at_ms, told);
            }
        }
    }
}
