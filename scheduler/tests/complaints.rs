//! What people complain of in other schedulers, as tests of this one. Each says where it was heard.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;

use common::{World, node, oracle, resources, service, target};
use skep_model::allocation::{Desired, State};
use skep_model::id::{AllocationId, NodeId};
use skep_model::node::{Admin, NodeStatus};
use skep_scheduler::draft::Draft;
use skep_scheduler::place::Search;

fn world(nodes: u128, replicas: u32) -> World {
    let mut world = World::new(service(1, replicas));
    world.service.live = Some(target(1, 1));
    for id in 1..=nodes {
        let mut node = node(id, 4_000, 8_192);
        node.meta.insert("zone".into(), format!("z{}", id % 3));
        world.nodes.insert(node.id, node);
    }
    world
}

/// Runs plans, with everything that starts getting healthy at once, until nothing changes.
fn settle(world: &mut World) -> usize {
    let mut most = 0;
    for _ in 0..200 {
        let plan = world.plan(&|_| true);
        if plan.is_empty() {
            return most;
        }
        world.apply(&plan);
        let live: Vec<AllocationId> = world
            .allocations
            .values()
            .filter(|a| a.is_live())
            .map(|a| a.id)
            .collect();
        for id in live {
            let stops = world.allocations[&id].desired == Desired::Stop;
            world.observe(
                id,
                if stops {
                    State::Stopped
                } else {
                    State::Healthy
                },
            );
        }
        let running = world
            .allocations
            .values()
            .filter(|a| a.is_live() && a.desired == Desired::Run);
        most = most.max(running.count());
    }
    panic!("never at rest");
}

fn by_zone(world: &World) -> BTreeMap<String, usize> {
    let live = world.allocations.values().filter(|a| a.is_live());
    let nodes: Vec<NodeId> = live.map(|a| a.node).collect();
    oracle::tally(world, "zone", &nodes)
}

/// Nomad 4701: all allocations on a few nodes, though a spread was asked for.
#[test]
fn a_spread_is_kept_whatever_packing_would_like() {
    let mut world = world(9, 9);
    world.service.spec.placement.spread = vec!["node.name".parse().unwrap()];
    settle(&mut world);
    let live = world.allocations.values().filter(|a| a.is_live());
    let nodes: std::collections::BTreeSet<NodeId> = live.map(|a| a.node).collect();
    assert_eq!(nodes.len(), 9);
}

/// Nomad's mean of scorers: one replica on a node outweighs any fit, so nothing is ever packed. Here a node's
/// end may take a third of them, and within that they are packed.
#[test]
fn neighbours_do_not_keep_a_binpack_from_packing() {
    let mut world = world(9, 9);
    settle(&mut world);
    let live = world.allocations.values().filter(|a| a.is_live());
    let nodes: std::collections::BTreeSet<NodeId> = live.map(|a| a.node).collect();
    assert_eq!(nodes.len(), 3);
}

/// Kubernetes 98914: after a rolling update the pods are skewed, because the old ones were counted.
#[test]
fn a_rolling_update_ends_as_even_as_it_began() {
    for surge in [1, 2, 9] {
        let mut world = world(9, 9);
        world.service.spec.placement.spread = vec!["zone".parse().unwrap()];
        world.service.spec.update.max_surge = surge;
        settle(&mut world);
        assert!(by_zone(&world).values().all(|count| *count == 3));
        world.service.rollout = Some(target(2, 2));
        world.service.generation += 1;
        settle(&mut world);
        let counts = by_zone(&world);
        let (least, most) = (
            counts.values().min().unwrap(),
            counts.values().max().unwrap(),
        );
        assert!(most - least <= 1, "surge {surge}: {counts:?}");
    }
}

/// Kubernetes 72775: a rolling update took a service of 60 to 120.
#[test]
fn an_update_never_has_more_than_the_surge_allows() {
    let mut world = world(9, 60);
    settle(&mut world);
    world.service.rollout = Some(target(2, 2));
    world.service.generation += 1;
    world.service.spec.update.max_surge = 3;
    assert!(settle(&mut world) <= 63);
}

/// Nomad 9506, 13017: planner and applier disagree, and the plan is made again for ever. Here each
/// plan that a full cluster gets is accepted, and the next one is empty.
#[test]
fn a_full_cluster_comes_to_rest_with_an_explanation() {
    let mut world = world(2, 100);
    world.needs = resources(700, 1_000);
    settle(&mut world);
    let plan = world.plan(&|_| true);
    assert!(plan.is_empty());
    let problem = plan.refusal.unwrap();
    assert!(
        problem
            .message
            .contains("2 nodes lack CPU: needs 0.7 cores, 0.5 cores free")
    );
}

/// Nomad 11712: with a spread, the time grows with the square of the count. Counted, not timed: the
/// answers are those of a scan, for a count that a square would not finish.
#[test]
fn a_large_spread_is_one_search() {
    let mut world = world(30, 0);
    world.needs = resources(1, 6);
    world.service.spec.placement.spread = vec!["zone max-skew 1".parse().unwrap()];
    let cluster = world.cluster();
    let ask = world.ask();
    let mut draft = Draft::new(&cluster);
    let mut search = Search::new(&draft, &ask, 20_000);
    let found = std::iter::from_fn(|| search.take(&mut draft)).take(20_000);
    let nodes: Vec<NodeId> = found.map(|choice| choice.node).collect();
    let counts = oracle::tally(&world, "zone", &nodes);
    assert_eq!(nodes.len(), 20_000);
    assert!(counts.values().max().unwrap() - counts.values().min().unwrap() <= 1);
}

/// A drain that waits for ever for work that cannot move, or that drops it: here it stays until the
/// deadline, says why, and goes then.
#[test]
fn a_drain_without_room_ends_at_its_deadline() {
    let mut world = world(1, 1);
    settle(&mut world);
    let id = NodeId::from_u128(1);
    let node = world.nodes.get_mut(&id).unwrap();
    node.admin = Admin::Draining { deadline_ms: 5_000 };
    node.generation += 1;
    let plan = world.plan(&|_| false);
    assert!(plan.is_empty() && plan.refusal.is_some() && plan.wake_at_ms == Some(5_000));
    world.now_ms = 5_000;
    assert_eq!(world.plan(&|_| false).desires.len(), 1);
}

/// A node that flaps: its work is replaced while it is away, and not doubled when it is back.
#[test]
fn a_node_that_flaps_neither_loses_nor_doubles_work() {
    let mut world = world(3, 3);
    settle(&mut world);
    let id = world.allocations.values().next().unwrap().node;
    for round in 0..10 {
        world.now_ms = round * 30_000;
        let node = world.nodes.get_mut(&id).unwrap();
        let is_lost = round % 2 == 0;
        node.status = if is_lost {
            NodeStatus::Lost
        } else {
            NodeStatus::Ready
        };
        node.status_ms = world.now_ms;
        node.generation += 1;
        settle(&mut world);
        let there = world.allocations.values().filter(|a| {
            let is_away = is_lost && a.node == id;
            a.is_live() && a.desired == Desired::Run && !is_away
        });
        assert_eq!(there.count(), 3, "round {round}");
    }
}
