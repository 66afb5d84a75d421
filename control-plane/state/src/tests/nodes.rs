//! Nodes, services, and who may say what.

use skep_model::node::Admin;

use super::*;
use crate::Change;

#[test]
fn a_token_is_good_once_and_only_with_its_secret() {
    let mut world = World::with_service();
    let token = TokenId::from_u128(77);
    let record = JoinToken {
        id: token,
        secret_hash: vec![1, 2],
        expires_ms: u64::MAX,
        uses_left: 1,
        role: skep_model::server::Role::Node,
        note: String::new(),
        created_ms: 0,
    };
    world.ok(Kind::PutToken(v1::PutToken {
        token: Some((&record).into()),
    }));
    let two = NodeId::from_u128(6);
    assert_eq!(
        world.refused(join(token, vec![9, 9], two, "two")),
        Code::Unauthenticated
    );
    assert_eq!(
        world.refused(join(token, vec![1, 2], two, "one")),
        Code::Conflict,
        "the name is taken"
    );
    world.ok(join(token, vec![1, 2], two, "two"));
    assert_eq!(
        world.refused(join(token, vec![1, 2], NodeId::from_u128(8), "three")),
        Code::Unauthenticated
    );
}

#[test]
fn an_expired_token_is_refused() {
    let mut world = World::with_service();
    let token = TokenId::from_u128(77);
    let expires_ms = 1_000 * (world.index + 2);
    let record = JoinToken {
        id: token,
        secret_hash: vec![1],
        expires_ms,
        uses_left: 9,
        role: skep_model::server::Role::Node,
        note: String::new(),
        created_ms: 0,
    };
    world.ok(Kind::PutToken(v1::PutToken {
        token: Some((&record).into()),
    }));
    assert_eq!(
        world.refused(join(token, vec![1], NodeId::from_u128(6), "two")),
        Code::Unauthenticated
    );
}

#[test]
fn a_node_speaks_of_itself_alone() {
    let (mut world, allocation) = World::with_live_release();
    world.join(NodeId::from_u128(6), "two");
    world.ok(observe(NodeId::from_u128(6), allocation, Seen::Failed));
    assert_eq!(
        world
            .state
            .allocation(allocation)
            .expect("there")
            .observed
            .state,
        Seen::Healthy
    );
}

#[test]
fn ends_are_final_and_desired_never_goes_back() {
    let (mut world, allocation) = World::with_live_release();
    world.desire(allocation, Desired::Stop);
    world.desire(allocation, Desired::Run);
    assert_eq!(
        world.state.allocation(allocation).expect("there").desired,
        Desired::Stop
    );
    world.observe(allocation, Seen::Stopped);
    world.observe(allocation, Seen::Running);
    assert_eq!(
        world
            .state
            .allocation(allocation)
            .expect("there")
            .observed
            .state,
        Seen::Stopped
    );
}

#[test]
fn a_worker_changes_no_table_and_what_ceases_to_have_routes_does() {
    let (mut world, allocation) = World::with_live_release();
    let mut worker = world.service().clone();
    worker.spec.kind = ServiceType::Worker;
    world.ok(put_service(&worker, worker.generation));
    let revision = world.state.routes_revision();
    assert_eq!(revision, world.index, "its routes are gone");
    world.observe(allocation, Seen::Unhealthy);
    world.observe(allocation, Seen::Healthy);
    world.desire(allocation, Desired::Drain);
    assert_eq!(world.state.routes_revision(), revision);
    let mut back = world.service().clone();
    back.spec = service().spec;
    world.ok(put_service(&back, back.generation));
    assert_eq!(world.state.routes_revision(), world.index, "they are back");
}

#[test]
fn an_observation_says_what_it_changed_once() {
    let (mut world, allocation) = World::with_live_release();
    let first = world
        .apply(observe(NODE, allocation, Seen::Unhealthy))
        .changes;
    assert!(first.contains(&Change::Routes), "{first:?}");
    assert!(first.contains(&Change::Allocation {
        allocation,
        node: NODE,
        service: SERVICE
    }));
    let again = world
        .apply(observe(NODE, allocation, Seen::Unhealthy))
        .changes;
    assert_eq!(again, Vec::new());
}

#[test]
fn a_removed_service_waits_for_its_allocations() {
    let (mut world, allocation) = World::with_live_release();
    let generation = world.service().generation;
    world.ok(put_service(
        &Service {
            removing: true,
            ..service()
        },
        generation,
    ));
    let drop = || {
        Kind::DropService(v1::DropService {
            service: id_bytes(SERVICE.as_u128()),
        })
    };
    assert_eq!(world.refused(drop()), Code::Conflict);
    world.desire(allocation, Desired::Stop);
    world.observe(allocation, Seen::Stopped);
    world.ok(drop());
    assert!(world.state.service(SERVICE).is_none());
    assert_eq!(
        world.state.allocations().count() + world.state.deployments().count(),
        0
    );
    assert!(world.state.route_table().routes.is_empty());
    world.ok(put_service(&service(), 0));
}

#[test]
fn a_domain_has_one_owner_who_is_named() {
    let mut world = World::with_service();
    let spec = ServiceSpec {
        domains: vec!["shop.example.com".into()],
        ..ServiceSpec::default()
    };
    world.ok(put_service(
        &Service {
            spec: spec.clone(),
            ..service()
        },
        1,
    ));
    let other = Service {
        id: ServiceId::from_u128(44),
        name: "other".into(),
        spec,
        ..service()
    };
    let problem = world
        .apply(put_service(&other, 0))
        .outcome
        .expect_err("taken");
    assert!(
        problem.message.contains("default/shop/production/web"),
        "{problem}"
    );
}

#[test]
fn a_removed_node_loses_its_allocations() {
    let (mut world, allocation) = World::with_live_release();
    let remove = || {
        Kind::RemoveNode(v1::RemoveNode {
            node: id_bytes(NODE.as_u128()),
        })
    };
    world.ok(remove());
    assert_eq!(
        world
            .state
            .allocation(allocation)
            .expect("kept")
            .observed
            .state,
        Seen::Lost
    );
    assert_eq!(world.state.node_named("one"), None);
}

#[test]
fn who_testified_is_kept_while_the_node_is_lost() {
    let mut world = World::with_service();
    let judge = |status, by: &[u128]| {
        Kind::SetNodeStatus(v1::SetNodeStatus {
            node: id_bytes(NODE.as_u128()),
            status: enum_number(&NodeStatus::ALL, &status),
            witnesses: by.iter().map(|id| id_bytes(*id)).collect(),
        })
    };
    let witnesses = |world: &World| world.state.node(NODE).expect("there").witnesses.clone();
    world.ok(judge(NodeStatus::Ready, &[8]));
    assert_eq!(
        witnesses(&world),
        [],
        "of a node that lives there is nothing to testify"
    );
    world.ok(judge(NodeStatus::Lost, &[8, 9, 10, 11]));
    assert_eq!(
        witnesses(&world),
        [8, 9, 10].map(NodeId::from_u128),
        "so many at most"
    );
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    world.ok(judge(NodeStatus::Ready, &[]));
    world.ok(judge(NodeStatus::Lost, &[]));
    assert_eq!(witnesses(&world), [], "by its silence alone");
    let mut odd = judge(NodeStatus::Ready, &[]);
    if let Kind::SetNodeStatus(message) = &mut odd {
        message.witnesses = vec![vec![1]];
    }
    assert_eq!(world.refused(odd), Code::Internal);
}

#[test]
fn what_operators_want_of_a_node_is_told_to_placement_once() {
    let mut world = World::with_service();
    let set = |cordoned, drain_deadline_ms| {
        Kind::SetNodeAdmin(v1::SetNodeAdmin {
            node: id_bytes(NODE.as_u128()),
            cordoned,
            drain_deadline_ms,
        })
    };
    let generation = |world: &World| world.state.node(NODE).expect("there").generation;
    let before = generation(&world);
    world.ok(set(false, None));
    assert_eq!(generation(&world), before, "nothing is new");
    for (kind, admin) in [
        (set(true, None), Admin::Cordoned),
        (set(true, Some(7)), Admin::Draining { deadline_ms: 7 }),
        (set(false, None), Admin::Eligible),
    ] {
        let before = generation(&world);
        world.ok(kind);
        assert_eq!(world.state.node(NODE).expect("there").admin, admin);
        assert_eq!(generation(&world), before + 1);
        let read = State::decode(&world.state.encode()).expect("decodes");
        assert_eq!(read, world.state);
    }
    let nobody = v1::SetNodeAdmin {
        node: id_bytes(99),
        ..v1::SetNodeAdmin::default()
    };
    assert_eq!(world.refused(Kind::SetNodeAdmin(nobody)), Code::NotFound);
}

#[test]
fn a_seat_goes_from_one_life_of_an_agent_to_the_next_and_to_nobody_else() {
    let mut world = World::with_service();
    let take = |expected: u128, seat: u128| {
        Kind::TakeSeat(v1::TakeSeat {
            node: id_bytes(NODE.as_u128()),
            expected: skep_proto::convert::optional_id_bytes(expected),
            seat: skep_proto::convert::optional_id_bytes(seat),
        })
    };
    let generation = world.state.node(NODE).expect("there").generation;
    world.ok(take(0, 1));
    world.ok(take(1, 2));
    // Said again: the same.
    world.ok(take(1, 2));
    assert_eq!(world.refused(take(1, 3)), Code::Conflict, "a copy");
    assert_eq!(world.refused(take(0, 3)), Code::Conflict, "an older copy");
    assert_eq!(world.refused(take(2, 0)), Code::Internal);
    let node = world.state.node(NODE).expect("there");
    assert_eq!((node.seat, node.generation), (2, generation));
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
}
