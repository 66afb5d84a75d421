//! What is remembered of guests that are there no more: as many as prove copies, no longer than their pool is there.

use skep_model::id::GuestId;
use skep_model::pool::{Departed, MAX_DEPARTED, Note};

use super::guests::{forget, joined, note, plan, retire};
use super::*;

fn remembered(world: &World) -> Vec<Departed> {
    let of = |pool| world.state.departed_of(pool);
    assert_eq!(of("wea").chain(of("wec")).count(), 0);
    of("web").map(|it| (**it).clone()).collect()
}

#[test]
fn who_was_there_is_remembered_by_id_and_number() {
    let mut world = joined(2);
    let id = world.one(0).guest.id;
    world.ok(retire(0, false, true));
    world.ok(note(0, &Note::Gone));
    assert_eq!(
        remembered(&world),
        [],
        "its copies are its own until it is forgotten"
    );
    world.ok(forget(0));
    let departed = Departed {
        id,
        pool: "web".to_owned(),
        vmid: 5000,
        gone_ms: world.state.time_ms(),
    };
    assert_eq!(remembered(&world), std::slice::from_ref(&departed));
    // One that never was there has no copies.
    world.ok(plan(1));
    world.ok(note(1, &Note::Gone));
    world.ok(forget(1));
    assert_eq!(remembered(&world), std::slice::from_ref(&departed));
    let again = State::decode(&world.state.encode()).expect("whole");
    assert_eq!(again, world.state);
    world.ok(Kind::RemoveGuestPool(v1::RemoveGuestPool {
        name: "web".into(),
    }));
    assert_eq!(remembered(&world), []);
}

#[test]
fn the_oldest_are_forgotten_where_they_are_too_many() {
    let mut world = joined(1);
    for number in 0..MAX_DEPARTED {
        let one = Departed {
            // The ids are in no order of time.
            id: GuestId::from_u128(u128::MAX - number as u128),
            pool: "web".to_owned(),
            vmid: 5001,
            gone_ms: number as u64,
        };
        let key = (one.pool.clone(), one.id);
        world.state.departed.insert(key, one.into());
    }
    world.ok(retire(0, false, true));
    world.ok(note(0, &Note::Gone));
    world.ok(forget(0));
    let all = remembered(&world);
    assert_eq!(all.len(), MAX_DEPARTED);
    assert!(all.iter().all(|it| it.gone_ms > 0));
    assert!(all.iter().any(|it| it.vmid == 5000));
}
