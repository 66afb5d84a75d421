//! Settings and moves: checked, remembered for an hour, part of the snapshot.

use skep_model::rebalance::{MAX_MOVES, Mode, REMEMBERED_MS, Rebalance};

use super::*;

const OTHER: NodeId = NodeId::from_u128(6);

fn set(mode: Mode, moves_per_minute: u32) -> Kind {
    Kind::SetRebalance(v1::SetRebalance {
        mode: enum_number(&Mode::ALL, &mode),
        moves_per_minute,
    })
}

fn moving(allocation: AllocationId, to: NodeId) -> v1::Moving {
    v1::Moving {
        allocation: id_bytes(allocation.as_u128()),
        to: id_bytes(to.as_u128()),
        ..v1::Moving::default()
    }
}

fn begin(allocation: AllocationId, to: NodeId) -> Kind {
    Kind::MoveAllocations(v1::MoveAllocations {
        moves: vec![moving(allocation, to)],
    })
}

#[test]
fn a_pace_is_within_bounds_and_survives_a_snapshot() {
    let (mut world, _) = World::with_live_release();
    assert_eq!(*world.state.rebalance(), Rebalance::default());
    assert_eq!(world.refused(set(Mode::Auto, 0)), Code::Invalid);
    assert_eq!(world.refused(set(Mode::Auto, MAX_MOVES + 1)), Code::Invalid);
    world.ok(set(Mode::Auto, 7));
    let settings = world.state.rebalance();
    assert_eq!((settings.mode, settings.moves_per_minute), (Mode::Auto, 7));
    let again = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(again, world.state);
}

#[test]
fn a_move_is_of_what_runs_to_a_node_that_there_is_and_begins_once() {
    let (mut world, allocation) = World::with_live_release();
    world.join(OTHER, "other");
    let nobody = AllocationId::from_u128(77);
    assert_eq!(world.refused(begin(nobody, OTHER)), Code::NotFound);
    let nowhere = NodeId::from_u128(77);
    assert_eq!(world.refused(begin(allocation, nowhere)), Code::NotFound);
    assert_eq!(world.refused(begin(allocation, NODE)), Code::Conflict);
    let too_many = vec![moving(allocation, OTHER); MAX_MOVES as usize + 1];
    let too_many = Kind::MoveAllocations(v1::MoveAllocations { moves: too_many });
    assert_eq!(world.refused(too_many), Code::Invalid);

    world.ok(begin(allocation, OTHER));
    let moved = world.state.rebalance().moves[&allocation];
    assert_eq!((moved.service, moved.to), (SERVICE, OTHER));
    assert_eq!(moved.at_ms, world.state.time_ms());
    assert_eq!(world.refused(begin(allocation, OTHER)), Code::Conflict);
    let again = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(again, world.state);

    let (mut gone, other) = World::with_live_release();
    gone.join(OTHER, "other");
    gone.desire(other, Desired::Drain);
    assert_eq!(gone.refused(begin(other, OTHER)), Code::Conflict);
}

#[test]
fn a_move_is_forgotten_after_an_hour() {
    let (mut world, allocation) = World::with_live_release();
    world.join(OTHER, "other");
    world.ok(begin(allocation, OTHER));
    let settings = world.state.rebalance().clone();
    let at_ms = settings.moves[&allocation].at_ms;
    let made_by_it = |created_ms, now_ms| {
        let made = AllocationId::from_u128(78);
        settings.is_recent(made, SERVICE, created_ms, now_ms)
    };
    assert!(settings.is_recent(allocation, SERVICE, 0, at_ms + 1));
    assert!(made_by_it(at_ms + 5, at_ms + REMEMBERED_MS - 1));
    assert!(!made_by_it(at_ms - 1, at_ms + 1), "it was there before");
    assert!(!made_by_it(at_ms + 5, at_ms + REMEMBERED_MS));
    let later = v1::Command {
        version: 3,
        time_ms: at_ms + REMEMBERED_MS,
        kind: Some(Kind::MoveAllocations(v1::MoveAllocations::default())),
        ..v1::Command::default()
    };
    world.raw(prost::Message::encode_to_vec(&later));
    assert!(world.state.rebalance().moves.is_empty());
}
