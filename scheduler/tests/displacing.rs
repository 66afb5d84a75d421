//! Who makes way for whom, what a quota lets in, and what each node answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{World, node, resources, service, target};
use proptest::prelude::*;
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::placement::Placement;
use skep_model::settings::Quota;
use skep_scheduler::cluster::Cluster;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::{Reason, Surroundings};
use skep_scheduler::place::place;
use skep_scheduler::plan::{MAX_CHANGES, Plan, fits};
use skep_scheduler::preempt::make_way;
use skep_scheduler::quota::Allowance;
use skep_scheduler::rollout::{self, Input};
use skep_scheduler::room::{Needs, Room};
use skep_scheduler::why::why;

/// Others: number, node, service, CPU, priority, how many of its service may be missing.
type Other = (u128, u128, u128, u32, i32, u32);

fn needs_of((.., cpu, priority, max_unavailable): Other) -> Needs {
    let placement = Placement {
        priority,
        max_unavailable: Some(max_unavailable),
        ..Placement::default()
    };
    Needs::new(resources(cpu, 100), &placement)
}

fn crowded(nodes: u128, others: &[Other]) -> (World, Cluster) {
    let mut world = World::new(service(1, 1));
    world.service.live = Some(target(1, 1));
    world.service.spec.placement.priority = 50;
    world.needs = resources(500, 100);
    for id in 1..=nodes {
        world
            .nodes
            .insert(NodeId::from_u128(id), node(id, 1_000, 8_192));
    }
    let mut cluster = world.cluster();
    for other in others {
        let (id, on, of, ..) = *other;
        let (on, of) = (NodeId::from_u128(on), ServiceId::from_u128(of));
        cluster.put_allocation(AllocationId::from_u128(id), on, of, &needs_of(*other));
    }
    (world, cluster)
}

fn plan(world: &World, cluster: &Cluster) -> Plan {
    world.plan_on(cluster, &|_| false, Vec::new())
}

fn displaced(plan: &Plan) -> Vec<u128> {
    plan.displaced
        .iter()
        .map(|desire| desire.allocation.as_u128())
        .collect()
}

#[test]
fn the_cheapest_make_way_and_the_more_important_stay() {
    // Nodes 1 to 3 are full; node 2 has the one of lowest priority, but it is too small alone.
    let table: &[(&[Other], &[u128])] = &[
        (
            &[
                (11, 1, 7, 1_000, 20, 1),
                (12, 2, 7, 600, 10, 1),
                (13, 2, 8, 400, 30, 1),
            ],
            &[12],
        ),
        (
            &[
                (11, 1, 7, 1_000, 20, 1),
                (12, 2, 7, 100, 10, 1),
                (13, 2, 8, 900, 30, 1),
            ],
            &[11],
        ),
        // Of the same priority the fewest.
        (
            &[
                (11, 1, 7, 300, 5, 9),
                (12, 1, 7, 700, 60, 9),
                (13, 2, 7, 300, 5, 9),
                (14, 2, 7, 700, 5, 9),
            ],
            &[14],
        ),
        // Never of equal or higher priority.
        (&[(11, 1, 7, 1_000, 50, 1), (12, 2, 7, 1_000, 60, 1)], &[]),
        // Never beyond what a service may miss.
        (&[(11, 1, 7, 1_000, 0, 0), (12, 2, 7, 1_000, 0, 0)], &[]),
        (
            &[
                (11, 1, 7, 400, 0, 1),
                (12, 1, 7, 600, 90, 1),
                (13, 2, 7, 1_000, 90, 1),
            ],
            &[],
        ),
    ];
    for (index, (others, expected)) in table.iter().enumerate() {
        let (world, cluster) = crowded(2, others);
        let found = plan(&world, &cluster);
        assert_eq!(displaced(&found), *expected, "row {index}");
        assert!(found.starts.is_empty(), "only once they are gone");
        assert!(found.refusal.is_some(), "and until then it says why");
        assert_eq!(fits(&cluster, &found), Ok(()));
    }
}

#[test]
fn while_they_go_nobody_else_has_to_and_then_it_starts() {
    let others = [(11, 1, 7, 1_000, 10, 1), (12, 2, 8, 1_000, 10, 1)];
    let (world, mut cluster) = crowded(2, &others);
    let first = displaced(&plan(&world, &cluster));
    assert_eq!(first, [11]);
    cluster.set_leaving(AllocationId::from_u128(11), true);
    let again = plan(&world, &cluster);
    assert!(again.is_empty() && again.refusal.is_some(), "{again:?}");
    cluster.remove_allocation(AllocationId::from_u128(11));
    let then = plan(&world, &cluster);
    assert_eq!((then.starts.len(), then.displaced.len()), (1, 0));
    assert_eq!(then.starts[0].node, NodeId::from_u128(1));
}

#[test]
fn without_a_priority_nobody_makes_way_and_where_there_is_room_neither() {
    let others = [(11, 1, 7, 1_000, 0, 1)];
    let (mut world, cluster) = crowded(1, &others);
    world.service.spec.placement.priority = 0;
    assert_eq!(displaced(&plan(&world, &cluster)), [0_u128; 0]);
    let (world, cluster) = crowded(2, &others);
    let found = plan(&world, &cluster);
    assert_eq!((found.starts.len(), found.displaced.len()), (1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever is told to go is of lower priority, within its service's budget, and none too many:
    /// with all of them gone it fits, with any one of them back it does not.
    #[test]
    fn ways_are_lawful_and_minimal(
        others in prop::collection::vec((1..4_u128, 7..10_u128, 50..600_u32, 0..80_i32, 0..3_u32), 0..14),
    ) {
        let mut kept: Vec<Other> = Vec::new();
        for (index, (on, of, cpu, priority, most)) in others.into_iter().enumerate() {
            // One priority and one budget per service, as its releases have.
            let same = kept.iter().find(|other| other.2 == of);
            let (priority, most) = same.map_or((priority, most), |other| (other.4, other.5));
            kept.push((index as u128 + 100, on, of, cpu, priority, most));
        }
        let (world, cluster) = crowded(3, &kept);
        let draft = Draft::new(&cluster);
        let ask = world.ask();
        let by_id = |id: &AllocationId| *kept.iter().find(|other| other.0 == id.as_u128()).unwrap();
        if place(&draft, &ask).is_err() {
            if let Some(way) = make_way(&draft, &ask) {
                prop_assert!(!way.victims.is_empty());
                for id in &way.victims {
                    let victim = by_id(id);
                    prop_assert!(victim.4 < 50 && victim.1 == way.node.as_u128());
                    let same = way.victims.iter().filter(|id| by_id(id).2 == victim.2).count();
                    prop_assert!(same as u32 <= victim.5);
                }
                let mut without = cluster.clone();
                way.victims.iter().for_each(|id| without.remove_allocation(*id));
                prop_assert!(place(&Draft::new(&without), &ask).is_ok());
                for id in &way.victims {
                    let mut one_back = without.clone();
                    let victim = by_id(id);
                    let of = ServiceId::from_u128(victim.2);
                    one_back.put_allocation(*id, way.node, of, &needs_of(victim));
                    prop_assert!(place(&Draft::new(&one_back), &ask).is_err());
                }
            } else {
                // Plain search: no set of lawful victims on any one node would do.
                for on in 1..=3_u128 {
                    let mut gone = 0;
                    let there = kept.iter().filter(|other| other.1 == on);
                    let used: u32 = there.clone().map(|other| other.3).sum();
                    for of in 7..10_u128 {
                        let mut cpu: Vec<u32> = there.clone().filter(|o| o.2 == of && o.4 < 50).map(|o| o.3).collect();
                        cpu.sort_unstable_by(|a, b| b.cmp(a));
                        let most = kept.iter().find(|o| o.2 == of).map_or(0, |o| o.5);
                        gone += cpu.iter().take(most as usize).sum::<u32>();
                    }
                    prop_assert!(used - gone + 500 > 1_000, "node {on} could have made way");
                }
            }
        }
    }
}

#[test]
fn a_quota_lets_in_what_it_allows_and_names_what_is_short() {
    let (mut world, _) = crowded(3, &[]);
    world.service.spec.replicas = 5;
    let cluster = world.cluster();
    let quotas = [Allowance {
        scope: "workspace `acme`".into(),
        quota: Quota {
            cpu_millis: Some(1_200),
            ..Quota::default()
        },
        used: Room::default(),
        allocations: 0,
    }];
    let release = world.release();
    let input = Input {
        service: &world.service,
        release: release.as_ref(),
        live_release: None,
        allocations: Vec::new(),
        now_ms: 0,
        drained: &|_| false,
        around: &Surroundings::default(),
        quotas: &quotas,
        limit: MAX_CHANGES,
    };
    let mut next = 0;
    let mut ids = || {
        next += 1;
        AllocationId::from_u128(next)
    };
    let plan = rollout::plan(&mut Draft::new(&cluster), &input, &mut ids);
    assert_eq!(plan.starts.len(), 2);
    let problem = plan.refusal.unwrap();
    assert_eq!(
        problem.message,
        "3 allocations of `web` are beyond the quota of workspace `acme`: CPU needs 0.5 cores, 0.2 cores left of 1.2 cores"
    );
}

#[test]
fn every_node_answers_for_itself_and_the_first_answer_is_where_it_goes() {
    let (mut world, _) = crowded(4, &[]);
    let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
    world
        .nodes
        .get_mut(&nodes[1])
        .unwrap()
        .meta
        .insert("zone".into(), "b".into());
    world.nodes.get_mut(&nodes[2]).unwrap().facts.cpu_millis = 100;
    world
        .nodes
        .get_mut(&nodes[3])
        .unwrap()
        .meta
        .insert("zone".into(), "c".into());
    world.service.spec.placement.constraints = vec!["zone in b,c".parse().unwrap()];
    let cluster = world.cluster();
    let draft = Draft::new(&cluster);
    let answers = why(&draft, &world.ask());
    assert_eq!(answers.len(), 4);
    assert_eq!(answers[0].node, place(&draft, &world.ask()).unwrap().node);
    assert!(answers[0].score < answers[1].score && answers[1].reasons.is_empty());
    let both = &answers[3].reasons;
    assert_eq!(both[0].1, "1 node does not fulfil `zone in b,c` (`c`)");
    assert_eq!(both[1].0, Reason::Cpu);
}

#[test]
fn an_image_that_nodes_share_goes_to_nodes_that_keep_images() {
    let mut world = World::new(service(1, 1));
    for id in 1..=2 {
        let node = node(id, 4_000, 8_192);
        world.nodes.insert(node.id, node);
    }
    let ask = |shares_image| skep_scheduler::filter::Ask {
        shares_image,
        ..world.ask()
    };
    let (shared, pulled) = (ask(true), ask(false));
    let cluster = world.cluster();
    let refusal = place(&Draft::new(&cluster), &shared).unwrap_err();
    assert_eq!(refusal.reasons[0].reason, Reason::Image);
    assert!(place(&Draft::new(&cluster), &pulled).is_ok());
    let keeps = world.nodes.get_mut(&NodeId::from_u128(2)).unwrap();
    keeps.facts.image_address = Some("10.0.0.2:7074".into());
    let cluster = world.cluster();
    let choice = place(&Draft::new(&cluster), &shared).unwrap();
    assert_eq!(choice.node, NodeId::from_u128(2));
}
