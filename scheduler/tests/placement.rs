//! Placement against the oracle, on random clusters with every kind of rule; and the laws of
//! refusals and of the leader's check.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "the number of cases may be asked for"
)]

mod common;

use common::{MIB, OTHER, World, allocation, node, oracle, resources, service, target};
use proptest::prelude::*;
use skep_model::id::{AllocationId, NodeId};
use skep_model::node::{Admin, Node, NodeStatus};
use skep_model::placement::{Placement, Strategy as Ranking};
use skep_model::spec::Resources;
use skep_scheduler::draft::Draft;
use skep_scheduler::place::{Search, place};
use skep_scheduler::plan::fits;

const NODES: u128 = 8;

fn config() -> ProptestConfig {
    let is_full = std::env::var("SKEP_CHAOS").is_ok_and(|word| word == "full");
    ProptestConfig {
        // Both searches of a case are one plan each.
        cases: if is_full { 1_000_000 } else { 3_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop::sample::select(words))
}

prop_compose! {
    fn any_node()(
        cpu in prop_oneof![Just(4_000_u32), 200..8_000_u32],
        memory in prop_oneof![Just(8_192_u64), 100..9_000_u64],
        disk in 0..3_u64,
        zone in one_of(&["a", "b", "c"]),
        host in one_of(&["h1", "h2", "h3", "h4"]),
        tier in one_of(&["pro", "free"]),
        pool in one_of(&["web", "batch"]),
        cores in prop::option::of(1..9_u32),
        state in 0..12_u32,
        gpus in 0..4_u32,
    ) -> Node {
        let mut node = node(1, cpu, memory);
        node.facts.disk_bytes = disk * 1_000 * MIB;
        if gpus > 0 {
            node.facts.devices.insert("gpu".into(), gpus);
        }
        let cores = cores.map(|cores| cores.to_string());
        let meta = [("zone", zone), ("host", host), ("tier", tier), ("pool", pool), ("cores", cores.as_deref())];
        for (key, value) in meta {
            node.meta.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        }
        match state {
            0 => node.status = NodeStatus::Lost,
            1 => node.admin = Admin::Cordoned,
            2 => node.admin = Admin::Draining { deadline_ms: 1 },
            _ => {}
        }
        node
    }
}

fn some_of(
    words: &'static [&'static str],
    most: usize,
) -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(words, 0..=most).prop_shuffle()
}

prop_compose! {
    fn any_placement()(
        pool in prop::option::weighted(0.1, Just("web".to_owned())),
        constraints in some_of(
            &["tier = pro", "zone in a,b", "zone != c", "cores > 3", "tier exists", "cores version >=2", "host not in h1"],
            2,
        ),
        relaxed in prop::bool::weighted(0.3),
        spread in some_of(
            &["zone", "host", "node.name", "zone max-skew 1", "host max-skew 2", "zone a=60%,b=20%", "zone a=50% max-skew 1"],
            3,
        ),
        max_per in some_of(&["1 per node", "2 per node", "1 per host", "2 per zone", "3 per rack"], 2),
        affinities in some_of(
            &["tier = pro weight 50", "zone = a weight -20", "with db weight 30", "with db on host weight -40"],
            3,
        ),
        strategy in prop::option::of(prop::sample::select(&Ranking::ALL[..])),
        gpus in prop::option::weighted(0.15, 1..3_u32),
        port in prop::option::weighted(0.1, Just(8_080_u16)),
    ) -> Placement {
        Placement {
            pool,
            constraints: constraints.iter().map(|text| text.parse().unwrap()).collect(),
            relaxed,
            spread: spread.iter().map(|text| text.parse().unwrap()).collect(),
            max_per: max_per.iter().map(|text| text.parse().unwrap()).collect(),
            affinities: affinities.iter().map(|text| text.parse().unwrap()).collect(),
            strategy,
            devices: gpus.map(|count| ("gpu".to_owned(), count)).into_iter().collect(),
            ports: port.into_iter().collect(),
            ..Placement::default()
        }
    }
}

fn any_needs() -> impl Strategy<Value = Resources> {
    let disk = prop_oneof![3 => Just(0), 1 => 1..1_500_u64];
    (1..1_500_u32, 6..1_500_u64, disk).prop_map(|(cpu, memory, disk)| Resources {
        disk_bytes: disk * MIB,
        ..resources(cpu, memory)
    })
}

prop_compose! {
    fn any_world()(
        nodes in prop::collection::vec(any_node(), 0..NODES as usize),
        placement in any_placement(),
        needs in any_needs(),
        own in prop::collection::vec(1..=NODES, 0..6),
        others in prop::collection::vec((1..=NODES, any_needs()), 0..6),
        only_on in prop::option::weighted(0.1, 1..=NODES),
        keeps_apart in any::<bool>(),
    ) -> World {
        let mut world = World::new(service(1, 3));
        world.service.live = Some(target(1, 1));
        world.service.spec.placement = placement;
        (world.needs, world.keeps_apart) = (needs, keeps_apart);
        world.only_on = only_on.map(NodeId::from_u128);
        world.around.services.insert("db".into(), OTHER);
        for (index, mut one) in nodes.into_iter().enumerate() {
            let id = index as u128 + 1;
            (one.id, one.name) = (NodeId::from_u128(id), node(id, 1, 1).name);
            world.nodes.insert(one.id, one);
        }
        for (index, on) in own.into_iter().enumerate() {
            let one = allocation(index as u128 + 1, target(1, 1), NodeId::from_u128(on));
            world.allocations.insert(one.id, one);
        }
        for (index, (on, needs)) in others.into_iter().enumerate() {
            let id = AllocationId::from_u128(index as u128 + 500);
            world.others.insert(id, (NodeId::from_u128(on), needs));
        }
        world
    }
}

proptest! {
    #![proptest_config(config())]

    /// A group goes where the oracle puts one after the other, and each choice is refused by
    /// nothing; the rest is refused with every node counted and a hint.
    #[test]
    fn a_group_goes_where_the_oracle_says(world in any_world(), wanted in 1..12_usize) {
        let cluster = world.cluster();
        let mut ask = world.ask();
        prop_assert_eq!(ask.placement.check("placement"), Ok(()));
        let mut draft = Draft::new(&cluster);
        let mut search = Search::new(&draft, &ask, wanted);
        let found = std::iter::from_fn(|| search.take(&mut draft)).take(wanted);
        let found: Vec<NodeId> = found.map(|choice| choice.node).collect();
        let expected = oracle::place(&world, wanted);
        prop_assert_eq!(&found, &expected);
        if found.len() < wanted {
            ask.staying.iter_mut().for_each(|staying| staying.extend(&found));
            let refusal = place(&draft, &ask).unwrap_err();
            prop_assert_eq!(refusal.nodes, world.nodes.len());
            let counted: usize = refusal.reasons.iter().map(|count| count.nodes).sum();
            prop_assert!(counted >= refusal.nodes, "every node has a reason");
            for count in &refusal.reasons {
                prop_assert!(count.nodes > 0 && count.nodes <= refusal.nodes);
                prop_assert!(!count.reason.is_room() || count.free < count.needs);
            }
            prop_assert!(!refusal.to_string().is_empty() && !refusal.hint.is_empty());
        }
    }

    /// What the planner starts the leader's check accepts, and the oracle too, one by one.
    #[test]
    fn planner_leader_and_oracle_agree(mut world in any_world(), replicas in 0..8_u32) {
        world.service.spec.replicas = replicas;
        world.spreads_staying = true;
        let plan = world.plan(&|_| false);
        prop_assert_eq!(fits(&world.cluster(), &plan), Ok(()));
        let mut now = world.clone();
        for started in plan.allocations() {
            prop_assert_eq!(oracle::refuses(&now, started.node), None);
            now.allocations.insert(started.id, started);
        }
        if let Some(first) = plan.starts.first() {
            let mut crowded = plan.clone();
            let others = world.nodes.keys().filter(|id| oracle::refuses(&world, **id).is_some());
            for id in others {
                crowded.starts = vec![first.clone()];
                crowded.starts[0].node = *id;
                crowded.nodes.insert(*id, 1);
                prop_assert!(fits(&world.cluster(), &crowded).is_err(), "{:?} is refused", id);
            }
        }
    }
}
