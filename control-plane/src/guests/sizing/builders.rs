//! Pools for builds alone: what waits for a turn orders nodes, and what runs never goes there.

use std::collections::BTreeMap;

use skep_model::deployment::{Origin, Status};
use skep_model::id::DeploymentId;
use skep_model::placement::{Builds, PoolPolicy};
use skep_model::settings::Pool;
use skep_model::spec::ServiceSpec;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use super::tests::{GIB, World, pool};
use crate::deploy::queue;

/// Pools `apps` and `builders`, of which the latter is for builds alone; `builds`: of the former.
fn world(builds: Builds) -> World {
    let mut world = World::new(&[pool("apps", (2, 4), 5), pool("builders", (2, 4), 5)]);
    for (name, builds) in [("apps", builds), ("builders", Builds::Only)] {
        let pool = Pool {
            name: name.into(),
            policy: PoolPolicy {
                builds,
                ..PoolPolicy::default()
            },
            meta: BTreeMap::new(),
        };
        world.ok(Kind::PutPool(v1::PutPool {
            pool: Some((&pool).into()),
        }));
    }
    world
}

fn build(world: &mut World, number: u128) {
    let origin = Origin::Git {
        repository: "https://example.com/app.git".into(),
        branch: "main".into(),
        commit: None,
        directory: String::new(),
    };
    world.deployment(number, ServiceSpec::default(), origin);
}

/// Every turn that there is, is taken.
fn begin(world: &mut World) -> usize {
    let due = queue::due(&world.state);
    for (deployment, node) in &due {
        let known = world.state.deployment(*deployment).expect("there");
        world.ok(Kind::AssignBuild(v1::AssignBuild {
            deployment: id_bytes(deployment.as_u128()),
            expected_generation: known.generation,
            node: id_bytes(node.as_u128()),
            step: "builds".into(),
        }));
    }
    due.len()
}

fn end(world: &mut World, number: u128) {
    let id = DeploymentId::from_u128(number + 1_000_000);
    let known = world.state.deployment(id).expect("there");
    world.ok(Kind::FinishDeployment(v1::FinishDeployment {
        deployment: id_bytes(id.as_u128()),
        expected_generation: known.generation,
        status: enum_number(&Status::ALL, &Status::Canceled),
        problem: None,
        step: "ended".into(),
    }));
}

fn sizes(world: &World) -> (usize, usize) {
    (world.nodes("apps"), world.nodes("builders"))
}

#[test]
fn builds_that_wait_order_nodes_that_build_and_their_end_ends_them() {
    let mut world = world(Builds::Never);
    for number in 1..=5 {
        build(&mut world, number);
    }
    let said = world.decide().expect("nodes are ordered");
    assert_eq!(said, "3 more nodes: without a place: builds (5)");
    world.run(120);
    assert_eq!(sizes(&world), (0, 3));
    assert_eq!(begin(&mut world), 5);
    world.run(1_200);
    assert_eq!(sizes(&world), (0, 3), "all build: {:?}", world.said);
    // Apps have nodes of their own, whatever is free here.
    world.service(9, (1_000, GIB), 1, |_| {});
    world.run(120);
    assert_eq!((sizes(&world), world.running()), ((1, 3), 1));
    for number in 1..=4 {
        end(&mut world, number);
    }
    world.run(1_200);
    assert_eq!(sizes(&world), (1, 1), "one builds: {:?}", world.said);
    end(&mut world, 5);
    world.run(1_200);
    assert_eq!(sizes(&world), (1, 0), "{:?}", world.said);
}

#[test]
fn nodes_that_build_as_well_do_so_where_no_other_is_and_wait_for_those_that_are() {
    let mut world = world(Builds::Also);
    world.service(9, (1_000, GIB), 1, |_| {});
    world.run(120);
    for number in 1..=3 {
        build(&mut world, number);
    }
    // Two begin at once, on the node of apps; one waits for a node.
    assert_eq!(begin(&mut world), 2);
    assert_eq!(
        world.decide().as_deref(),
        Some("1 more node: without a place: builds (1)")
    );
    world.run(120);
    assert_eq!(sizes(&world), (1, 1));
    assert_eq!(begin(&mut world), 1);
    // Of the two nodes with a free turn, the one for builds; then it is waited for.
    end(&mut world, 1);
    end(&mut world, 2);
    build(&mut world, 4);
    build(&mut world, 5);
    assert_eq!(begin(&mut world), 1);
    let builder = world.state.guests_of("builders").next().expect("there");
    let there = world.state.builds_on(builder.node.expect("joined"));
    assert_eq!(there.count(), 2);
}

#[test]
fn room_that_is_kept_free_for_builds_is_counted_as_such() {
    let mut kept = pool("builders", (2, 4), 5);
    let mut world = world(Builds::Also);
    let mut auto = kept.size.auto.expect("scales itself");
    auto.headroom_cpu_millis = 500;
    kept.size.auto = Some(auto);
    world.put(&kept);
    world.run(600);
    assert_eq!(sizes(&world), (0, 1), "{:?}", world.said);
}
