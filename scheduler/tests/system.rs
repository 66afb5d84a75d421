//! System services: one allocation a node, updated a few nodes at a time.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{World, node, resources, service, target};
use skep_model::allocation::{Desired, State};
use skep_model::id::{AllocationId, NodeId};
use skep_model::node::{Admin, NodeStatus};
use skep_model::run::Mode;
use skep_model::settings::Quota;
use skep_model::spec::ServiceType;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::Surroundings;
use skep_scheduler::plan::{MAX_CHANGES, Plan};
use skep_scheduler::quota::Allowance;
use skep_scheduler::rollout::Input;
use skep_scheduler::system;

fn world(nodes: u128) -> World {
    let mut made = service(1, 1);
    made.spec.run.mode = Mode::System;
    made.spec.kind = ServiceType::Worker;
    made.rollout = Some(target(1, 1));
    let mut world = World::new(made);
    world.needs = resources(100, 256);
    for id in 1..=nodes {
        let made = node(id, 1_000, 1_024);
        world.nodes.insert(made.id, made);
    }
    world
}

fn plan(world: &World) -> Plan {
    let release = world.release();
    let input = Input {
        service: &world.service,
        release: release.as_ref(),
        live_release: None,
        allocations: world.allocations.values().collect(),
        now_ms: world.now_ms,
        drained: &|_| true,
        around: &Surroundings::default(),
        quotas: &[],
        limit: MAX_CHANGES,
    };
    let mut next = world.next_id;
    let cluster = world.cluster();
    system::plan(&mut Draft::new(&cluster), &input, &mut || {
        next += 1;
        AllocationId::from_u128(next)
    })
}

/// Plans, applies, and lets everything that starts become healthy and all that is to stop end, until
/// nothing changes; the most nodes that had no healthy allocation or were being changed at once.
fn roll(world: &mut World) -> usize {
    let mut most = 0;
    for _ in 0..100 {
        let made = plan(world);
        if made.is_empty() {
            assert!(made.is_healthy && made.is_converged, "{made:?}");
            return most;
        }
        most = most.max(made.starts.len());
        world.apply(&made);
        assert!(plan(world).is_empty(), "planned again");
        let ids: Vec<_> = world
            .allocations
            .values()
            .filter(|a| a.is_live())
            .map(|a| (a.id, a.desired))
            .collect();
        for (id, desired) in ids {
            let state = if desired == Desired::Stop {
                State::Stopped
            } else {
                State::Healthy
            };
            world.observe(id, state);
        }
    }
    panic!("it never rests");
}

fn on(world: &World) -> Vec<(u128, u64)> {
    let live = world.allocations.values().filter(|a| a.is_live());
    let mut all: Vec<_> = live.map(|a| (a.node.as_u128(), a.target.release)).collect();
    all.sort_unstable();
    all
}

#[test]
fn one_on_every_node_and_on_those_that_join() {
    let mut world = world(3);
    assert_eq!(roll(&mut world), 1, "a rollout goes node by node");
    assert_eq!(on(&world), [(1, 1), (2, 1), (3, 1)]);
    world.service.live = world.service.rollout.take();
    for id in [4, 5] {
        let made = node(id, 1_000, 1_024);
        world.nodes.insert(made.id, made);
    }
    assert_eq!(roll(&mut world), 2, "new nodes do not wait for each other");
    assert_eq!(on(&world).len(), 5);
    // One that is silent keeps what it has, and gets nothing.
    world.nodes.get_mut(&NodeId::from_u128(2)).unwrap().status = NodeStatus::Lost;
    assert!(plan(&world).is_empty());
}

#[test]
fn a_drained_node_loses_its_own_and_a_cordoned_one_holds_up_no_rollout() {
    let mut world = world(3);
    roll(&mut world);
    world.service.live = world.service.rollout.take();
    let node = |id| NodeId::from_u128(id);
    world.nodes.get_mut(&node(1)).unwrap().admin = Admin::Draining {
        deadline_ms: 1_000_000,
    };
    roll(&mut world);
    assert_eq!(on(&world), [(2, 1), (3, 1)]);
    world.nodes.get_mut(&node(2)).unwrap().admin = Admin::Cordoned;
    world.service.rollout = Some(target(2, 2));
    roll(&mut world);
    assert_eq!(on(&world), [(2, 1), (3, 2)], "it takes no new one");
    for id in [1, 2] {
        world.nodes.get_mut(&node(id)).unwrap().admin = Admin::Eligible;
    }
    roll(&mut world);
    assert_eq!(on(&world), [(1, 2), (2, 2), (3, 2)]);
}

#[test]
fn an_update_goes_a_few_nodes_at_a_time_and_beside_the_old_where_there_is_room() {
    let mut world = world(4);
    roll(&mut world);
    world.service.live = world.service.rollout.take();
    world.service.rollout = Some(target(2, 2));
    world.service.spec.update.max_surge = 2;
    let first = plan(&world);
    assert_eq!(
        (first.starts.len(), first.desires.len()),
        (2, 0),
        "the old ones stay"
    );
    assert_eq!(roll(&mut world), 2);
    assert_eq!(on(&world), [(1, 2), (2, 2), (3, 2), (4, 2)]);
}

#[test]
fn without_room_for_both_the_old_one_goes_first() {
    let mut world = world(2);
    world.needs = resources(600, 256);
    roll(&mut world);
    world.service.live = world.service.rollout.take();
    world.service.rollout = Some(target(2, 2));
    let first = plan(&world);
    assert_eq!(
        (first.starts.len(), first.desires.len()),
        (0, 1),
        "one node at a time"
    );
    roll(&mut world);
    assert_eq!(on(&world), [(1, 2), (2, 2)]);
}

#[test]
fn failures_are_judged_in_a_rollout_and_tried_again_after_it() {
    let mut world = world(1);
    let first = plan(&world);
    world.apply(&first);
    let id = first.starts[0].allocation;
    world.now_ms = 10_000;
    world.observe(id, State::Failed);
    let judged = plan(&world);
    assert!(judged.is_empty() && !judged.is_healthy);
    assert_eq!(judged.failed_new, [id]);
    world.service.live = world.service.rollout.take();
    let put_away = plan(&world);
    assert_eq!((put_away.desires.len(), put_away.starts.len()), (1, 0));
    assert_eq!(put_away.wake_at_ms, Some(11_000));
    world.apply(&put_away);
    world.now_ms = 11_000;
    assert_eq!(plan(&world).starts.len(), 1);
}

#[test]
fn stopped_it_is_nowhere_and_without_a_node_it_says_why() {
    let mut world = world(2);
    roll(&mut world);
    world.service.stopped = true;
    roll(&mut world);
    assert!(on(&world).is_empty());
    world.service.stopped = false;
    world.needs = resources(5_000, 256);
    let refused = plan(&world);
    assert!(refused.is_empty() && !refused.is_converged);
    let text = refused.refusal.unwrap().message;
    assert!(text.contains("CPU"), "{text}");
}

#[test]
fn a_quota_ends_where_it_is_full_and_is_named() {
    let mut world = world(3);
    let quotas = [Allowance {
        scope: "workspace `acme`".into(),
        quota: Quota {
            allocations: Some(2),
            ..Quota::default()
        },
        used: Default::default(),
        allocations: 0,
    }];
    world.service.rollout = None;
    world.service.live = Some(target(1, 1));
    let release = world.release();
    let input = Input {
        service: &world.service,
        release: release.as_ref(),
        live_release: None,
        allocations: Vec::new(),
        now_ms: 0,
        drained: &|_| true,
        around: &Surroundings::default(),
        quotas: &quotas,
        limit: MAX_CHANGES,
    };
    let cluster = world.cluster();
    let mut next = 100;
    let mut ids = || {
        next += 1;
        AllocationId::from_u128(next)
    };
    let plan = system::plan(&mut Draft::new(&cluster), &input, &mut ids);
    assert_eq!(plan.starts.len(), 2);
    let problem = plan.refusal.expect("one is beyond");
    assert!(problem.message.contains("workspace `acme`"), "{problem}");
}
