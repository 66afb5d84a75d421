//! Lost nodes that are known to be dead, and their return.

use skep_model::node::Fencing;
use skep_model::storage::Volume;
use skep_proto::convert::optional_id_bytes;

use super::*;
use crate::Change;

fn status(status: NodeStatus) -> Kind {
    Kind::SetNodeStatus(v1::SetNodeStatus {
        node: id_bytes(NODE.as_u128()),
        status: enum_number(&NodeStatus::ALL, &status),
        witnesses: Vec::new(),
    })
}

fn fence(seat: u128) -> Kind {
    Kind::FenceNode(v1::FenceNode {
        node: id_bytes(NODE.as_u128()),
        expected_seat: optional_id_bytes(seat),
        by: "home".into(),
        why: "it was stopped".into(),
    })
}

fn back(incarnation: u64) -> Kind {
    Kind::ReturnNode(v1::ReturnNode {
        node: id_bytes(NODE.as_u128()),
        incarnation,
    })
}

fn note(waits: &str) -> Kind {
    Kind::NoteFencing(v1::NoteFencing {
        node: id_bytes(NODE.as_u128()),
        waits: waits.into(),
    })
}

fn take_seat(expected: u128, seat: u128) -> Kind {
    Kind::TakeSeat(v1::TakeSeat {
        node: id_bytes(NODE.as_u128()),
        expected: optional_id_bytes(expected),
        seat: optional_id_bytes(seat),
    })
}

fn fencing(world: &World) -> Fencing {
    world.state.node(NODE).expect("there").fencing.clone()
}

fn same_when_read_again(world: &World) {
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
}

/// A service with data on shared storage, and one allocation of it.
fn shared() -> (World, AllocationId) {
    let mut world = World::with_service();
    let (id, allocation) = (DeploymentId::from_u128(50), AllocationId::from_u128(100));
    world.ok(create(id, None));
    let Kind::StartRollout(mut rollout) = start_rollout(&world.state, id, 1) else {
        panic!("a rollout");
    };
    let mut with_volume = release(1, id);
    with_volume.storage.volumes = vec![Volume {
        name: "data".into(),
        path: "/data".into(),
        owner: None,
        size_bytes: 0,
        read_only: false,
        storage: Some("ceph".into()),
    }];
    rollout.release = Some((&with_volume).into());
    world.ok(Kind::StartRollout(rollout));
    let target = Target {
        release: 1,
        deployment: id,
    };
    world.ok(start(&world.state, allocation, target));
    world.observe(allocation, Seen::Healthy);
    (world, allocation)
}

#[test]
fn what_ran_on_a_fenced_node_is_lost_and_its_agent_comes_back_anew() {
    let (mut world, allocation) = shared();
    world.ok(take_seat(0, 7));
    // Its agent is there.
    world.ok(status(NodeStatus::Ready));
    assert_eq!(world.refused(fence(7)), Code::Conflict);
    world.ok(status(NodeStatus::Lost));
    let work = |world: &World| world.state.shared_work_on(NODE).count();
    assert_eq!(work(&world), 1);

    // Another life of its agent has come since that was looked at.
    world.ok(take_seat(7, 8));
    assert_eq!(world.refused(fence(7)), Code::Conflict);
    world.ok(note("its host is away"));
    assert_eq!(fencing(&world).waits.as_deref(), Some("its host is away"));
    same_when_read_again(&world);

    let before = world.state.node(NODE).expect("there").generation;
    let applied = world.apply(fence(8));
    assert!(applied.outcome.is_ok());
    assert!(applied.changes.contains(&Change::Node(NODE)));
    let lost = world.state.allocation(allocation).expect("kept");
    assert_eq!(lost.observed.state, Seen::Lost);
    let problem = lost.observed.problem.as_ref().expect("why");
    assert_eq!(problem.message, "its node was fenced: it was stopped");
    let now = fencing(&world);
    let fenced = now.fenced.clone().expect("fenced");
    assert_eq!((now.incarnation, now.waits.clone()), (1, None));
    assert_eq!((&*fenced.by, &*fenced.why), ("home", "it was stopped"));
    let node = world.state.node(NODE).expect("there");
    assert!(node.generation > before && !node.may_run_unheard());
    assert_eq!(work(&world), 0);
    same_when_read_again(&world);

    // Said again: once. What it says of before counts no more, and it is lost until it has dropped everything.
    world.ok(fence(8));
    assert_eq!(fencing(&world), now);
    world.observe(allocation, Seen::Healthy);
    let still = world.state.allocation(allocation).expect("kept");
    assert_eq!(still.observed.state, Seen::Lost);
    assert_eq!(world.refused(status(NodeStatus::Ready)), Code::Conflict);

    assert_eq!(world.refused(back(0)), Code::Conflict, "of before");
    world.ok(back(1));
    world.ok(back(1));
    assert_eq!(
        fencing(&world),
        Fencing {
            incarnation: 1,
            ..Fencing::default()
        }
    );
    world.ok(status(NodeStatus::Ready));
    world.ok(status(NodeStatus::Lost));
    world.ok(fence(8));
    assert_eq!(fencing(&world).incarnation, 2);
}

#[test]
fn a_node_with_data_in_use_is_not_forgotten_before_it_is_known_to_be_dead() {
    let (mut world, _) = shared();
    let remove = || {
        Kind::RemoveNode(v1::RemoveNode {
            node: id_bytes(NODE.as_u128()),
        })
    };
    world.ok(status(NodeStatus::Lost));
    assert_eq!(world.refused(remove()), Code::Conflict);
    world.ok(fence(0));
    world.ok(remove());
    assert!(world.state.node(NODE).is_none());
}

#[test]
fn what_is_said_of_a_lost_node_ends_when_it_is_back() {
    let (mut world, _) = shared();
    world.ok(status(NodeStatus::Ready));
    world.ok(note("nothing"));
    assert_eq!(fencing(&world), Fencing::default(), "it is there");
    world.ok(status(NodeStatus::Lost));
    world.ok(note("its host is away"));
    world.ok(status(NodeStatus::Ready));
    assert_eq!(fencing(&world), Fencing::default());
    assert!(
        world
            .state
            .node(NODE)
            .is_some_and(|node| !node.may_run_unheard())
    );
}
