//! Laws: the same log gives the same bytes; a snapshot is the state; rubbish changes nothing.

use super::*;
use proptest::prelude::*;

/// A log that touches every map of the state.
fn busy() -> World {
    let (mut world, allocation) = World::with_live_release();
    world.deploy(DeploymentId::from_u128(51), 2, AllocationId::from_u128(101));
    world.desire(allocation, Desired::Drain);
    world.ok(create(DeploymentId::from_u128(52), Some("github/x")));
    let record = JoinToken {
        id: TokenId::from_u128(1),
        secret_hash: vec![1],
        expires_ms: u64::MAX,
        uses_left: 2,
    };
    world.ok(Kind::PutToken(v1::PutToken {
        token: Some((&record).into()),
    }));
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
