//! A service stays with its volumes, and goes only where what it mounts is to be had.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{MIB, World, node, service};
use skep_model::id::NodeId;
use skep_model::node::NodeStatus;
use skep_model::storage::{HostPath, Volume};
use skep_scheduler::draft::Draft;
use skep_scheduler::place::place;

fn id(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

/// Three equal nodes whose agents know volumes, and a service with one.
fn world() -> World {
    let mut world = World::new(service(1, 1));
    for number in 1..=3 {
        let mut node = node(number, 1_000, 1_024);
        node.facts.storage = true;
        node.facts.disk_bytes = 1_000 * MIB;
        world.nodes.insert(node.id, node);
    }
    world.service.spec.storage.volumes = vec![Volume {
        name: "data".into(),
        path: "/data".into(),
        owner: None,
        size_bytes: 0,
        read_only: false,
        storage: None,
    }];
    world
}

fn placed(world: &World) -> Result<NodeId, (String, String)> {
    let cluster = world.cluster();
    let placed = place(&Draft::new(&cluster), &world.ask());
    placed
        .map(|choice| choice.node)
        .map_err(|refusal| (refusal.to_string(), refusal.hint))
}

#[test]
fn it_goes_where_its_volumes_are_or_nowhere() {
    let mut world = world();
    world.around.data_on = Some(id(3));
    assert_eq!(placed(&world), Ok(id(3)));
    world.nodes.get_mut(&id(3)).expect("there").status = NodeStatus::Lost;
    let (why, hint) = placed(&world).expect_err("its node is down");
    assert!(why.contains("2 nodes do not have its volumes"), "{why}");
    assert!(
        hint.contains("its volumes are on `c`, which is down"),
        "{hint}"
    );
    world.nodes.remove(&id(3));
    let (_, hint) = placed(&world).expect_err("its node is gone");
    assert!(hint.contains("which was removed"), "{hint}");
}

#[test]
fn an_agent_that_knows_no_volumes_gets_none() {
    let mut world = world();
    for number in [1, 2] {
        world
            .nodes
            .get_mut(&id(number))
            .expect("there")
            .facts
            .storage = false;
    }
    assert_eq!(placed(&world), Ok(id(3)));
    world.nodes.get_mut(&id(3)).expect("there").facts.storage = false;
    let (why, hint) = placed(&world).expect_err("no node");
    assert!(
        why.contains("3 nodes have an agent without volumes"),
        "{why}"
    );
    assert!(hint.contains("upgrade the agent"), "{hint}");
}

#[test]
fn host_paths_are_had_where_they_are_offered_whatever_is_relaxed() {
    let mut world = world();
    world.around.relaxed = true;
    world.service.spec.storage.volumes.clear();
    world.service.spec.storage.host_paths = vec![HostPath {
        host: "/srv/media/films".into(),
        path: "/films".into(),
        read_only: true,
    }];
    let (why, hint) = placed(&world).expect_err("nobody offers it");
    assert!(
        why.contains("not offer the host path `/srv/media/films`"),
        "{why}"
    );
    assert!(
        hint.contains("--allow-host-path /srv/media/films"),
        "{hint}"
    );
    let offers = |number, path: &str, world: &mut World| {
        let node = world.nodes.get_mut(&id(number)).expect("there");
        node.facts.host_paths = vec!["/opt".to_owned(), path.to_owned()];
    };
    // Beginning alike is not being within.
    offers(1, "/srv/med", &mut world);
    assert!(placed(&world).is_err());
    offers(2, "/srv/media", &mut world);
    assert_eq!(placed(&world), Ok(id(2)));
}
