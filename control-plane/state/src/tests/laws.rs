//! Laws: the same log gives the same bytes; a snapshot is the state; rubbish changes nothing.

use std::sync::Arc;

use super::*;
use crate::{Key, with_key};
use proptest::prelude::*;
use skep_proto::v1::ask_notification::What;
use skep_proto::v1::settle_notification::Then;

/// A log that touches every map of the state.
pub(super) fn busy() -> World {
    let mut world = super::notify::told();
    let allocation = AllocationId::from_u128(100);
    world.deploy(DeploymentId::from_u128(50), 1, allocation);
    world.deploy(DeploymentId::from_u128(51), 2, AllocationId::from_u128(101));
    world.desire(allocation, Desired::Drain);
    world.ok(create(DeploymentId::from_u128(52), Some("github/x")));
    let record = JoinToken {
        id: TokenId::from_u128(1),
        secret_hash: vec![1],
        expires_ms: u64::MAX,
        uses_left: 2,
        role: skep_model::server::Role::Node,
        note: String::new(),
        created_ms: 0,
    };
    world.ok(Kind::PutToken(v1::PutToken {
        token: Some((&record).into()),
    }));
    world.ok(super::servers::update(&super::servers::server(1, "one")));
    world.token(500, skep_model::server::Role::Server, 3);
    world.ok(super::servers::join_server(
        &super::servers::server(2, "two"),
        false,
    ));
    world.ok(Kind::RotateCa(v1::RotateCa {
        step: Some(v1::rotate_ca::Step::Begin(v1::Ca {
            cert_pem: "new".into(),
            sealed_key: vec![2],
        })),
    }));
    world.ok(Kind::SetNodeMeta(v1::SetNodeMeta {
        node: id_bytes(NODE.as_u128()),
        set: BTreeMap::from([("zone".into(), "a".into())]),
        unset: Vec::new(),
    }));
    world.ok(super::quarantine::report(
        NODE,
        &[(300, 1), (301, 1), (302, 9)],
    ));
    world.ok(super::quarantine::settle(301, false));
    let hosts = [("*.a.test", "/"), ("b.test", "/x")];
    world.ok(put_service(&super::claims::sibling(60, "api", &hosts), 0));
    let fewer = Service {
        generation: 1,
        ..super::claims::sibling(60, "api", &hosts[..1])
    };
    world.ok(put_service(&fewer, 1));
    world.ok(super::pushed::first());
    world.ok(super::stacks::put("main", 0));
    world.ok(super::stacks::take(1, 1, Ok(&["db"])));
    super::guests::some(&mut world);
    world.ok(super::claims::set_base(ENVIRONMENT, Some("apps.test")));
    for key in 0..4 {
        let since = world.state.index();
        let key = Key::Own {
            key: [key; 16],
            since,
        };
        let bytes = with_key(command(0, create(DeploymentId::from_u128(53), None)), key);
        let _ = world.raw(bytes);
    }
    world
}

#[test]
fn the_same_log_gives_the_same_bytes() {
    let world = busy();
    let mut twin = State::default();
    for (at, bytes) in world.log.iter().enumerate() {
        let _ = twin.apply(at as u64 + 1, bytes);
    }
    assert_eq!(twin, world.state);
    assert_eq!(twin.encode(), world.state.encode());
}

#[test]
fn a_snapshot_is_the_state_with_its_indexes() {
    let world = busy();
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
}

#[test]
fn a_snapshot_shares_with_the_state_before_it_what_did_not_change() {
    let (mut world, allocation) = World::with_live_release();
    let old = world.state.clone();
    world.desire(allocation, Desired::Drain);
    let bytes = world.state.encode();
    let read = State::decode_beside(&bytes, &old).expect("decodes");
    assert_eq!(read, world.state);
    let is_shared = |id| Arc::ptr_eq(&read.allocations[&id], &old.allocations[&id]);
    assert!(!is_shared(allocation), "it was told to drain");
    assert!(Arc::ptr_eq(
        &read.services[&SERVICE],
        &old.services[&SERVICE]
    ));
    assert!(
        read.releases
            .iter()
            .all(|(key, release)| Arc::ptr_eq(release, &old.releases[key]))
    );
    assert!(
        read.deployments
            .iter()
            .all(|(id, one)| Arc::ptr_eq(one, &old.deployments[id]))
    );
}

#[test]
fn a_newer_format_is_refused_in_words() {
    let bytes = prost::Message::encode_to_vec(&v1::Snapshot {
        version: 99,
        ..Default::default()
    });
    let error = State::decode(&bytes).expect_err("newer");
    assert!(error.to_string().contains("format 99"), "{error}");
}

#[test]
fn a_view_stays_what_it_was() {
    let mut world = busy();
    let view = world.state.clone();
    let bytes = view.encode();
    world.ok(create(DeploymentId::from_u128(60), None));
    assert_eq!(view.encode(), bytes);
}

#[test]
fn the_clusters_clock_never_goes_back() {
    let mut state = State::default();
    let late = command(500, Kind::PutToken(v1::PutToken::default()));
    let early = command(100, Kind::PutToken(v1::PutToken::default()));
    let _ = state.apply(1, &late);
    let _ = state.apply(2, &early);
    assert_eq!(state.time_ms(), 500);
}

proptest! {
    #[test]
    fn rubbish_never_panics_and_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut world = busy();
        let before = world.state.clone();
        let applied = world.state.apply(world.index + 1, &bytes);
        if applied.outcome.is_err() {
            let mut after = world.state.clone();
            after.index = before.index;
            after.time_ms = before.time_ms;
            prop_assert_eq!(after, before);
        }
    }
}

/// One of many commands, good, bad and stale, some under a key that may come again.
fn any_command(world: &World, pick: u8, arg: u8) -> Vec<u8> {
    use super::{notify, quarantine, servers};
    let id = u128::from(arg % 5);
    let state = &world.state;
    let allocation = AllocationId::from_u128(100 + id);
    let meta = |key: &str| {
        Kind::SetNodeMeta(v1::SetNodeMeta {
            node: id_bytes(4 + id),
            set: BTreeMap::from([(key.to_owned(), format!("{arg}"))]),
            unset: vec!["old".into()],
        })
    };
    let rotate = |step| Kind::RotateCa(v1::RotateCa { step: Some(step) });
    let seen = Seen::ALL[usize::from(arg) % Seen::ALL.len()];
    let half_bad = v1::Observe {
        node: id_bytes(NODE.as_u128()),
        allocations: vec![
            v1::AllocationObservation {
                allocation: id_bytes(allocation.as_u128()),
                observed: Some((&Observed::pending()).into()),
            },
            v1::AllocationObservation::default(),
        ],
        ..v1::Observe::default()
    };
    let number = u64::from(arg % 12);
    let kind = match pick % 20 {
        0 => observe(NODE, allocation, seen),
        1 => Kind::Observe(half_bad),
        2 => quarantine::report(NODE, &[(300 + id, 1), (301, 9), (100 + id, 1)]),
        3 => quarantine::settle(300 + id, arg.is_multiple_of(2)),
        4 => meta("zone"),
        5 => meta("Bad Key"),
        6 => servers::join_server(
            &servers::server(2 + id, &format!("s{id}")),
            arg.is_multiple_of(2),
        ),
        7 => servers::remove(1 + id),
        8 => servers::update(&servers::server(1 + id, &format!("t{}", arg % 3))),
        9 => rotate(v1::rotate_ca::Step::Activate(true)),
        10 => rotate(v1::rotate_ca::Step::Finish(true)),
        11 => create(
            DeploymentId::from_u128(60 + id),
            (arg.is_multiple_of(2)).then_some("d"),
        ),
        12 => join(
            TokenId::from_u128(1),
            vec![arg % 2],
            NodeId::from_u128(20 + id),
            &format!("n{id}"),
        ),
        13 => Kind::RemoveNode(v1::RemoveNode {
            node: id_bytes(20 + id),
        }),
        14 => Kind::RemoveToken(v1::RemoveToken {
            token: id_bytes(1 + id),
        }),
        15 => Kind::ScaleService(v1::ScaleService {
            service: id_bytes(SERVICE.as_u128()),
            expected_generation: u64::from(arg),
            replicas: u32::from(arg),
            reason: "law".into(),
        }),
        16 => notify::settle(number, u32::from(arg % 2), Then::Delivered(true)),
        17 => notify::settle(number, 0, Then::NextMs(u64::from(arg))),
        18 => notify::ask(What::Again(number)),
        _ => put_service(
            &Service {
                stopped: arg.is_multiple_of(2),
                ..service()
            },
            u64::from(arg),
        ),
    };
    let bytes = command(1_000 * world.index + u64::from(arg), kind);
    let key = [arg % 8; 16];
    match pick / 64 {
        0 => with_key(
            bytes,
            Key::Own {
                key,
                since: state.index(),
            },
        ),
        1 => with_key(
            bytes,
            Key::Caller {
                key,
                digest: [pick % 2; 16],
            },
        ),
        _ => bytes,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever begins from a snapshot, anywhere in the log, ends with the same bytes; and whatever is
    /// refused leaves no trace but its key.
    #[test]
    fn a_restart_anywhere_changes_nothing(picks in proptest::collection::vec(any::<(u8, u8)>(), 1..60), at in any::<proptest::sample::Index>()) {
        let mut world = busy();
        let restart = at.index(picks.len());
        let mut twin = world.state.clone();
        for (number, (pick, arg)) in picks.into_iter().enumerate() {
            if number == restart {
                twin = State::decode(&twin.encode()).expect("decodes");
            }
            let bytes = any_command(&world, pick, arg);
            let before = world.state.clone();
            let applied = world.raw(bytes.clone());
            let again = twin.apply(world.index, &bytes);
            prop_assert_eq!((&applied.outcome, applied.repeat, &applied.changes), (&again.outcome, again.repeat, &again.changes));
            if applied.outcome.is_err() {
                let mut after = world.state.clone();
                after.index = before.index;
                after.time_ms = before.time_ms;
                after.keys = before.keys.clone();
                prop_assert!(after == before, "a refusal left a trace");
                prop_assert!(applied.changes.is_empty());
            }
            let read = crate::Answer::decode(&crate::Answer { outcome: applied.outcome.clone(), repeat: applied.repeat }.encode());
            prop_assert_eq!(read, Ok(crate::Answer { outcome: applied.outcome, repeat: applied.repeat }));
        }
        prop_assert!(twin == world.state);
        prop_assert_eq!(twin.encode(), world.state.encode());
    }
}
