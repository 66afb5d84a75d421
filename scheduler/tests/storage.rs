//! A service stays with its volumes, and goes only where what it mounts is to be had.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{MIB, World, allocation, node, service, target};
use skep_model::allocation::State;
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

/// The same on a storage that nodes 1 and 2 have, with its one allocation on node 1.
fn shared() -> World {
    let mut world = world();
    world.service.spec.storage.volumes[0].storage = Some("ceph".into());
    world.service.live = Some(target(1, 1));
    for number in [1, 2] {
        let node = world.nodes.get_mut(&id(number)).expect("there");
        node.facts.shared_storage = vec!["ceph".into(), "nfs".into()];
    }
    let mut running = allocation(7, target(1, 1), id(1));
    running.observed.state = State::Healthy;
    world.allocations.insert(running.id, running);
    world
}

#[test]
fn it_goes_where_its_storage_is() {
    let mut world = shared();
    world.allocations.clear();
    assert!([id(1), id(2)].contains(&placed(&world).expect("a place")));
    world.service.spec.storage.volumes[0].storage = Some("cep".into());
    let (why, hint) = placed(&world).expect_err("nobody has that");
    assert!(
        why.contains("3 nodes do not have the storage `cep`"),
        "{why}"
    );
    assert!(hint.contains("--shared-storage cep=DIR"), "{hint}");
}

#[test]
fn no_time_moves_what_shares_its_data_and_a_confirmed_death_does() {
    let mut world = shared();
    world.now_ms = 1_000_000_000;
    let node = world.nodes.get_mut(&id(1)).expect("there");
    (node.status, node.status_ms) = (NodeStatus::Lost, 1);
    world.around.data_on = Some(id(1));
    world.around.fencing_waits = Some("pve1 is away".into());
    let plan = world.plan(&|_| true);
    assert!(plan.is_empty() && !plan.is_converged, "{plan:?}");
    let refusal = plan.refusal.expect("it says why");
    assert!(
        refusal
            .message
            .contains("node `a` is lost and not confirmed dead: pve1 is away"),
        "{refusal}"
    );
    let hint = refusal.hint.expect("what to do");
    assert!(hint.contains("skep node fence a --confirm"), "{hint}");
    // Anything else that would use the data waits as well, a job for one.
    let (why, hint) = placed(&world).expect_err("in use");
    assert!(why.contains("do not have its volumes in use"), "{why}");
    assert!(hint.contains("skep node fence a --confirm"), "{hint}");

    // What the state makes of it once it is fenced.
    let lost = world.allocations.values_mut().next().expect("one");
    lost.observed.state = State::Lost;
    world.around.data_on = None;
    let plan = world.plan(&|_| true);
    assert_eq!(plan.starts.len(), 1, "{plan:?}");
    assert_eq!((plan.starts[0].node, plan.refusal), (id(2), None));
}

#[test]
fn what_is_on_its_node_alone_is_given_up_by_the_clock_as_before() {
    let mut world = shared();
    world.now_ms = 1_000_000_000;
    world.service.spec.storage.volumes[0].storage = None;
    let node = world.nodes.get_mut(&id(1)).expect("there");
    (node.status, node.status_ms) = (NodeStatus::Lost, 1);
    world.around.data_on = Some(id(1));
    let plan = world.plan(&|_| true);
    assert!(plan.starts.is_empty(), "{plan:?}");
    let refusal = plan.refusal.expect("it says why");
    assert!(
        refusal
            .hint
            .is_some_and(|hint| hint.contains("bring `a` back"))
    );
}
