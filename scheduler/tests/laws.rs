//! Laws that every plan obeys, on random clusters and services, and an independent oracle for
//! placement: slow, written apart from the crate, obviously right.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{OTHER, World, allocation, node, oracle, resources, service, target};
use proptest::prelude::*;
use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::node::{Admin, NodeStatus};
use skep_model::problem::Code;
use skep_model::service::Target;
use skep_model::spec::{Resources, ServiceType};
use skep_scheduler::cluster::Cluster;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::{Ask, Reason};
use skep_scheduler::place::place;
use skep_scheduler::plan::{MAX_CHANGES, Misfit, Plan, fits};
use skep_scheduler::room::Needs;

const NODES: u128 = 6;

fn config() -> ProptestConfig {
    // Failures become named tests or table cases, not files of seeds.
    ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn any_target() -> impl Strategy<Value = Target> {
    (1_u64..=3).prop_map(|number| target(number, number.into()))
}

/// Nodes that exist, and one id that may not.
fn any_node_id() -> impl Strategy<Value = NodeId> {
    (1..=NODES + 1).prop_map(NodeId::from_u128)
}

fn any_allocation() -> impl Strategy<Value = Allocation> {
    let word = (any_target(), any_node_id(), 0..3_usize, 0..10_usize);
    let observed_ms = prop_oneof![0..700_000_u64, 690_000..=700_000_u64];
    (word, observed_ms, 0..700_000_u64).prop_map(
        |((target, node, desired, state), observed_ms, created_ms)| {
            let mut allocation = allocation(0, target, node);
            allocation.desired = Desired::ALL[desired];
            allocation.observed.state = State::ALL[state];
            allocation.observed_ms = observed_ms;
            allocation.created_ms = created_ms;
            allocation
        },
    )
}

fn any_resources() -> impl Strategy<Value = Resources> {
    (1..1_500_u32, 6..1_500_u64).prop_map(|(cpu, memory)| resources(cpu, memory))
}

prop_compose! {
    fn any_service()(
        replicas in 0..6_u32,
        surge in 1..4_u32,
        live in prop::option::of(any_target()),
        rollout in prop::option::of(any_target()),
        is_worker in any::<bool>(),
        stopped in prop::bool::weighted(0.1),
        removing in prop::bool::weighted(0.1),
    ) -> skep_model::service::Service {
        let mut service = service(1, replicas);
        service.spec.update.max_surge = surge;
        service.spec.kind = if is_worker { ServiceType::Worker } else { ServiceType::Web };
        service.live = live;
        // What is live is never rolled out by the same deployment again.
        service.rollout = rollout.filter(|target| Some(*target) != live);
        (service.stopped, service.removing) = (stopped, removing);
        service
    }
}

prop_compose! {
    fn any_world()(
        service in any_service(),
        nodes in prop::collection::vec((0..3_000_u32, 0..4_000_u64, 0..6_usize, 0..8_usize), 0..NODES as usize),
        allocations in prop::collection::vec(any_allocation(), 0..10),
        others in prop::collection::vec((any_node_id(), any_resources()), 0..6),
        needs in any_resources(),
        only_on in prop::option::weighted(0.2, any_node_id()),
        has_release in prop::bool::weighted(0.95),
    ) -> World {
        let mut world = World::new(service);
        for (index, (cpu, memory, status, admin)) in nodes.into_iter().enumerate() {
            let mut node = node(index as u128 + 1, cpu, memory);
            node.status = NodeStatus::ALL.get(status).copied().unwrap_or(NodeStatus::Ready);
            node.status_ms = [0, 690_000][admin % 2];
            node.admin = match admin {
                0 => Admin::Cordoned,
                1 | 2 => Admin::Draining { deadline_ms: 800_000 },
                _ => Admin::Eligible,
            };
            world.nodes.insert(node.id, node);
        }
        for (index, mut allocation) in allocations.into_iter().enumerate() {
            allocation.id = AllocationId::from_u128(index as u128 + 1);
            world.allocations.insert(allocation.id, allocation);
        }
        for (index, other) in others.into_iter().enumerate() {
            world.others.insert(AllocationId::from_u128(index as u128 + 500), other);
        }
        (world.needs, world.only_on, world.has_release) = (needs, only_on, has_release);
        world.now_ms = 700_000;
        world
    }
}

/// Drained are those with an odd id.
fn odd(allocation: &Allocation) -> bool {
    allocation.id.as_u128() % 2 == 1
}

fn plain(resources: Resources) -> Needs {
    Needs::new(resources, &Default::default())
}

fn after(world: &World, plan: &Plan) -> World {
    let mut after = world.clone();
    after.apply(plan);
    after
}

/// Meant to run, not over, and not on a node that is given up.
fn running(world: &World) -> impl Iterator<Item = &Allocation> {
    let is_given_up = |a: &Allocation| {
        let node = world.nodes.get(&a.node);
        node.is_some_and(|node| world.is_given_up(node))
    };
    let all = world.allocations.values();
    all.filter(move |a| a.desired == Desired::Run && a.is_live() && !is_given_up(a))
}

/// Of the target, and where it may stay.
fn is_settled(world: &World, a: &Allocation) -> bool {
    let node = world.nodes.get(&a.node);
    let is_drained = node.is_some_and(|node| {
        node.status == NodeStatus::Ready && matches!(node.admin, Admin::Draining { .. })
    });
    Some(a.target) == world.service.target() && !is_drained
}

fn healthy(world: &World) -> usize {
    running(world)
        .filter(|a| a.observed.state == State::Healthy)
        .count()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_node_is_ever_given_more_than_it_has(world in any_world()) {
        let plan = world.plan(&odd);
        prop_assert_eq!(fits(&world.cluster(), &plan), Ok(()));
        let mut now = world.clone();
        for started in plan.allocations() {
            prop_assert_eq!(oracle::refuses(&now, started.node), None);
            now.allocations.insert(started.id, started);
        }
        let based_on: BTreeSet<_> = plan.nodes.keys().copied().collect();
        let started_on: BTreeSet<_> = plan.starts.iter().map(|start| start.node).collect();
        prop_assert_eq!(based_on, started_on);
    }

    #[test]
    fn planning_again_changes_nothing(world in any_world()) {
        let plan = world.plan(&odd);
        let desired: BTreeSet<_> = plan.desires.iter().map(|desire| desire.allocation).collect();
        prop_assert_eq!(desired.len(), plan.desires.len(), "one desire each");
        let mut next = world.clone();
        // What the state forgets is an observation of its own: here it forgets nothing.
        let before = next.allocations.clone();
        next.apply(&plan);
        for (id, allocation) in before {
            let stopped = Allocation { desired: Desired::Stop, ..allocation };
            next.allocations.entry(id).or_insert(stopped);
        }
        // Nobody has acknowledged a table that is new.
        let again = next.plan(&|a| odd(a) && !desired.contains(&a.id));
        prop_assert!(again.is_empty(), "{plan:#?}\nthen\n{again:#?}");
        prop_assert_eq!(again.wake_at_ms, plan.wake_at_ms);
        prop_assert_eq!(again.is_healthy, plan.is_healthy);
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(world in any_world(), turn in 0..10_usize) {
        let mut allocations: Vec<&Allocation> = world.allocations.values().rev().collect();
        let middle = turn.min(allocations.len());
        allocations.rotate_left(middle);
        let mut cluster = Cluster::default();
        for (id, (node, resources)) in world.others.iter().rev() {
            cluster.put_allocation(*id, *node, OTHER, &plain(*resources));
        }
        for a in allocations.iter().filter(|a| a.is_live()) {
            cluster.put_allocation(a.id, a.node, a.service, &plain(world.needs));
        }
        for node in world.nodes.values().rev() {
            cluster.put_node(node);
        }
        prop_assert_eq!(&cluster, &world.cluster());
        prop_assert_eq!(world.plan_on(&cluster, &odd, allocations), world.plan(&odd));
    }

    #[test]
    fn counts_stay_in_bounds(world in any_world()) {
        let plan = world.plan(&odd);
        let service = &world.service;
        let wanted = service.target().map_or(0, |_| service.wanted() as usize);
        let next = after(&world, &plan);
        let new = running(&next).filter(|a| is_settled(&next, a)).count();
        prop_assert!(new <= wanted, "{new} of {wanted}");
        if !plan.starts.is_empty() {
            let surge = service.spec.update.max_surge as usize;
            prop_assert!(running(&next).count() <= wanted + surge);
        }
        prop_assert!(healthy(&next) >= wanted.min(healthy(&world)));
        if service.rollout.is_none() {
            let mut left = running(&next).filter(|a| !is_settled(&next, a));
            prop_assert!(left.all(|a| a.observed.state == State::Healthy));
        }
        let healthy_new = running(&next).filter(|a| is_settled(&next, a));
        let healthy_new = healthy_new.filter(|a| a.observed.state == State::Healthy).count();
        prop_assert_eq!(plan.is_healthy, healthy_new >= wanted);
    }

    #[test]
    fn what_is_missing_is_started_held_back_or_explained(world in any_world()) {
        let plan = world.plan(&odd);
        let service = &world.service;
        let wanted = service.target().map_or(0, |_| service.wanted() as usize);
        let next = after(&world, &plan);
        let new = running(&next).filter(|a| is_settled(&next, a)).count();
        let surge = service.spec.update.max_surge as usize;
        let is_full = running(&next).count() >= wanted + surge;
        let is_held = plan.wake_at_ms.is_some() || !plan.failed_new.is_empty();
        prop_assert!(new == wanted || is_full || is_held || plan.refusal.is_some());
        if let Some(problem) = &plan.refusal {
            prop_assert!(problem.hint.as_ref().is_some_and(|hint| !hint.is_empty()));
            prop_assert_eq!(problem.code == Code::Unplaceable, world.has_release);
        }
        prop_assert!(plan.wake_at_ms.is_none_or(|at| at > world.now_ms));
    }

    #[test]
    fn no_node_has_more_than_a_third_where_three_have_room(
        others in prop::collection::vec(0..3_000_u32, 3..8),
        steps in prop::collection::vec(1..9_u32, 1..5),
    ) {
        let mut world = World::new(service(1, 1));
        world.service.live = Some(target(1, 1));
        for (number, used) in others.iter().enumerate() {
            let node = node(number as u128 + 1, 100_000, 100_000);
            let needs = Resources { cpu_millis: *used, ..world.needs };
            world.others.insert(AllocationId::from_u128(900 + number as u128), (node.id, needs));
            world.nodes.insert(node.id, node);
        }
        let mut wanted = 0;
        for more in steps {
            wanted += more;
            world.service.spec.replicas = wanted;
            let plan = world.plan(&|_| false);
            prop_assert_eq!(plan.starts.len(), more as usize);
            world.apply(&plan);
            let mut there = BTreeMap::<NodeId, u32>::new();
            for allocation in running(&world) {
                *there.entry(allocation.node).or_default() += 1;
            }
            prop_assert!(there.values().all(|count| *count <= wanted.div_ceil(3)), "{there:?}");
        }
    }

    #[test]
    fn no_host_has_more_than_its_share_and_none_has_all(
        hosts in prop::collection::vec(prop::option::of(0..4_u8), 2..9),
        replicas in prop::collection::vec(1..13_u32, 1..6),
    ) {
        let mut world = World::new(service(1, 1));
        world.service.live = Some(target(1, 1));
        for (number, host) in hosts.iter().enumerate() {
            let mut node = node(number as u128 + 1, 100_000, 100_000);
            let host = host.map(|host| ("host".to_owned(), host.to_string()));
            node.meta.extend(host);
            world.nodes.insert(node.id, node);
        }
        let host_of = |world: &World, id| oracle::attribute(&world.nodes[&id], "host").map(str::to_owned);
        let known: BTreeSet<_> = world.nodes.keys().map(|id| host_of(&world, *id)).collect();
        for (step, wanted) in replicas.into_iter().enumerate() {
            // Up and down, as load goes.
            world.service.spec.replicas = wanted;
            for _ in 0..3 {
                let plan = world.plan(&|_| true);
                world.apply(&plan);
                for one in world.allocations.values_mut().filter(|a| a.desired == Desired::Run) {
                    one.observed.state = State::Healthy;
                }
            }
            let mut there = BTreeMap::<_, u32>::new();
            for allocation in running(&world) {
                *there.entry(host_of(&world, allocation.node)).or_default() += 1;
            }
            // What goes moves nothing: of two hosts at a third each, half may be left on each.
            let hosts = if step == 0 { known.len().min(3) } else { known.len().min(2) };
            let fair = wanted.div_ceil(hosts as u32);
            prop_assert_eq!(there.values().sum::<u32>(), wanted);
            prop_assert!(there.values().all(|count| *count <= fair), "{there:?}");
        }
    }

    #[test]
    fn when_a_wait_ends_something_starts_and_nothing_before(
        failed in prop::collection::vec(600_000..=700_000_u64, 1..5),
        running in 0..3_u32,
        missing in 1..4_u32,
    ) {
        let mut world = World::new(service(1, running + missing));
        world.service.live = Some(target(1, 1));
        world.now_ms = 700_000;
        let node = node(1, 100_000, 100_000);
        let on = node.id;
        world.nodes.insert(on, node);
        let newest = failed.iter().copied().max().unwrap();
        for (index, at) in failed.iter().enumerate() {
            let mut allocation = allocation(index as u128 + 1, target(1, 1), on);
            allocation.observed.state = State::Failed;
            allocation.observed_ms = *at;
            world.allocations.insert(allocation.id, allocation);
        }
        for index in 0..running {
            let allocation = allocation(u128::from(index) + 100, target(1, 1), on);
            world.allocations.insert(allocation.id, allocation);
        }
        let plan = world.plan(&|_| false);
        world.apply(&plan);
        let wait = 1_000 * 2_u64.pow(failed.len() as u32 - 1);
        let held = failed.iter().filter(|at| **at + wait > world.now_ms).count();
        prop_assert_eq!(plan.starts.len(), (missing as usize).saturating_sub(held));
        prop_assert_eq!(plan.wake_at_ms.is_some(), held > 0);
        if let Some(at) = plan.wake_at_ms {
            prop_assert!(at > world.now_ms && at <= newest + wait);
            world.now_ms = at - 1;
            prop_assert!(world.plan(&|_| false).starts.is_empty());
            world.now_ms = at;
            prop_assert!(!world.plan(&|_| false).starts.is_empty());
        }
    }

    #[test]
    fn a_view_kept_up_by_changes_is_the_view_made_anew(
        changes in prop::collection::vec((0..4_u8, 0..8_u128, any_node_id(), any_resources()), 0..60)
    ) {
        let mut cluster = Cluster::default();
        let (mut nodes, mut placed) = (BTreeMap::new(), BTreeMap::new());
        for (change, id, on, resources) in changes {
            let allocation = AllocationId::from_u128(id);
            let owner = ServiceId::from_u128(id % 3);
            match change {
                0 => {
                    let node = node(on.as_u128(), resources.cpu_millis, 1_000 + id as u64);
                    cluster.put_node(&node);
                    nodes.insert(on, node);
                }
                1 => {
                    cluster.remove_node(on);
                    nodes.remove(&on);
                }
                2 => {
                    cluster.put_allocation(allocation, on, owner, &plain(resources));
                    placed.insert(allocation, (on, owner, resources));
                }
                _ => {
                    cluster.remove_allocation(allocation);
                    placed.remove(&allocation);
                }
            }
        }
        let mut anew = Cluster::default();
        for (id, (on, owner, resources)) in &placed {
            anew.put_allocation(*id, *on, *owner, &plain(*resources));
        }
        nodes.values().for_each(|node| anew.put_node(node));
        prop_assert_eq!(&cluster, &anew);
        prop_assert_eq!(cluster.allocation_count(), placed.len());
    }
}

fn world_with_one_start() -> (World, Plan) {
    let mut world = World::new(service(1, 1));
    world.service.live = Some(target(1, 1));
    world
        .nodes
        .insert(NodeId::from_u128(1), node(1, 1_000, 2_048));
    world.needs = resources(600, 256);
    let plan = world.plan(&|_| false);
    assert_eq!(plan.starts.len(), 1);
    (world, plan)
}

#[test]
fn the_leaders_check_sees_what_changed_meanwhile() {
    let (mut world, plan) = world_with_one_start();
    let a = NodeId::from_u128(1);
    let started = plan.starts[0].allocation;

    // The generation stayed: the filters still say no.
    world
        .others
        .insert(AllocationId::from_u128(7), (a, resources(600, 256)));
    let refused = Misfit::Refused {
        node: a,
        allocation: started,
        reason: Reason::Cpu,
    };
    assert_eq!(fits(&world.cluster(), &plan), Err(refused));
    world.others.clear();

    world.nodes.get_mut(&a).unwrap().generation = 5;
    let changed = Misfit::NodeChanged {
        node: a,
        was: 1,
        is: 5,
    };
    assert_eq!(fits(&world.cluster(), &plan), Err(changed));

    world.nodes.clear();
    assert_eq!(fits(&world.cluster(), &plan), Err(Misfit::NodeGone(a)));
}

#[test]
fn the_leaders_check_adds_up_the_starts_of_a_plan() {
    let (world, mut plan) = world_with_one_start();
    let second = AllocationId::from_u128(99);
    let mut start = plan.starts[0].clone();
    start.allocation = second;
    let node = start.node;
    plan.starts.push(start);
    let refused = Misfit::Refused {
        node,
        allocation: second,
        reason: Reason::Cpu,
    };
    assert_eq!(fits(&world.cluster(), &plan), Err(refused));
}

#[test]
fn replicas_keep_apart_also_on_paper() {
    let mut world = World::new(service(1, 1));
    let (a, b) = (NodeId::from_u128(1), NodeId::from_u128(2));
    world.nodes.insert(a, node(1, 4_000, 8_192));
    world.nodes.insert(b, node(2, 4_000, 8_192));
    let cluster = world.cluster();
    let mut draft = Draft::new(&cluster);
    let web = world.ask();
    let other = Ask {
        service: OTHER,
        ..web.clone()
    };
    draft.start(a, &web);
    draft.start(b, &other);
    assert_eq!(place(&draft, &web).map(|choice| choice.node), Ok(b));
    assert_eq!(place(&draft, &other).map(|choice| choice.node), Ok(a));
}

#[test]
fn the_leaders_check_wants_a_base_and_a_need_for_every_start() {
    let (world, plan) = world_with_one_start();
    let baseless = Plan {
        nodes: BTreeMap::new(),
        ..plan.clone()
    };
    let a = NodeId::from_u128(1);
    assert_eq!(fits(&world.cluster(), &baseless), Err(Misfit::NoBase(a)));
    let needless = Plan { ask: None, ..plan };
    assert_eq!(fits(&world.cluster(), &needless), Err(Misfit::NoAsk));
}

#[test]
fn plans_over_one_draft_see_each_other() {
    let (world, _) = world_with_one_start();
    let cluster = world.cluster();
    let release = world.release();
    let mut draft = Draft::new(&cluster);
    let input = skep_scheduler::rollout::Input {
        service: &world.service,
        release: release.as_ref(),
        live_release: None,
        allocations: Vec::new(),
        now_ms: 0,
        drained: &|_| false,
        around: &world.around,
        quotas: &[],
        limit: MAX_CHANGES,
    };
    let mut next = 0;
    let mut ids = || {
        next += 1;
        AllocationId::from_u128(next)
    };
    let first = skep_scheduler::rollout::plan(&mut draft, &input, &mut ids);
    let second = skep_scheduler::rollout::plan(&mut draft, &input, &mut ids);
    assert_eq!((first.starts.len(), second.starts.len()), (1, 0));
    assert!(
        second
            .refusal
            .is_some_and(|problem| problem.message.contains("CPU"))
    );
}

#[test]
fn a_plan_is_bounded_and_what_is_beyond_follows() {
    let mut world = World::new(service(1, 900));
    world.service.live = Some(target(2, 2));
    world
        .nodes
        .insert(NodeId::from_u128(1), node(1, 4_000_000, 4_000_000));
    world.needs = resources(1, 6);
    for id in 1..=1_700 {
        let mut old = allocation(id, target(1, 1), NodeId::from_u128(1));
        old.observed.state = State::Running;
        world.allocations.insert(old.id, old);
    }
    let mut sizes = Vec::new();
    loop {
        let plan = world.plan(&|_| false);
        assert!(plan.desires.len() + plan.starts.len() <= MAX_CHANGES);
        sizes.push((plan.desires.len(), plan.starts.len(), plan.is_partial));
        if plan.is_empty() {
            break;
        }
        world.apply(&plan);
    }
    assert_eq!(
        sizes,
        [
            (1_000, 0, true),
            (700, 300, true),
            (0, 600, false),
            (0, 0, false)
        ]
    );
}
