//! Guests that become another size: one at a time, and nothing else with them; their nodes are what they were before.

use skep_model::maintenance::Cause;
use skep_model::node::Admin;
use skep_model::pool::{GuestSize, Note, Resizing};

use super::guests::{chosen, id, joined, note, plan, restore, retire, started};
use super::*;

const NODE_ID: NodeId = NodeId::from_u128(55);
const FROM: GuestSize = GuestSize {
    cores: 2,
    memory_mib: 2_048,
    disk_gib: 20,
};
const TO: GuestSize = GuestSize { cores: 4, ..FROM };

fn resize(world: &World, stops: bool, change: impl Fn(&mut v1::ResizeGuest)) -> Kind {
    let node = world.state.node(NODE_ID);
    let mut message = v1::ResizeGuest {
        id: id(0),
        size: Some(TO.into()),
        from: Some(FROM.into()),
        stops,
        may_interrupt: false,
        drain_ms: 1_000,
        cordons: false,
        expected_node_generation: node.map_or(0, |node| node.generation),
    };
    change(&mut message);
    Kind::ResizeGuest(message)
}

fn finish() -> Kind {
    Kind::FinishResize(v1::FinishResize { id: id(0) })
}

fn hasten() -> Kind {
    Kind::HastenResize(v1::HastenResize { id: id(0) })
}

fn admin_is(cordoned: bool, drain_deadline_ms: Option<u64>) -> Kind {
    Kind::SetNodeAdmin(v1::SetNodeAdmin {
        node: id_bytes(NODE_ID.as_u128()),
        cordoned,
        drain_deadline_ms,
    })
}

fn admin(world: &World) -> Admin {
    world.state.node(NODE_ID).expect("there").admin
}

fn resizing(world: &World) -> Resizing {
    world.one(0).guest.resizing.expect("under way")
}

const fn resized() -> Note {
    Note::Resized { now_ms: 9 }
}

#[test]
fn what_has_to_be_down_is_drained_first_and_given_back_when_it_is_done() {
    let mut world = joined(2);
    world.ok(Kind::TakeSeat(v1::TakeSeat {
        node: id_bytes(55),
        expected: Vec::new(),
        seat: id_bytes(9),
    }));
    let late = resize(&world, true, |it| it.expected_node_generation = 70);
    assert_eq!(world.denied(late).0, Code::Conflict);
    let asked = resize(&world, true, |_| {});
    world.ok(asked);
    let deadline_ms = world.state.time_ms() + 1_000;
    assert_eq!(admin(&world), Admin::Draining { deadline_ms });
    assert_eq!(world.one(0).guest.size, Some(TO));
    // Nobody lets anything onto it; who wants it empty as well may.
    for cordoned in [true, false] {
        assert_eq!(world.denied(admin_is(cordoned, None)).0, Code::Conflict);
    }
    assert_eq!(world.denied(finish()).0, Code::Conflict);
    world.ok(hasten());
    let now = Admin::Draining {
        deadline_ms: world.state.time_ms(),
    };
    assert_eq!(admin(&world), now);
    world.ok(note(0, &Note::Down));
    assert_eq!(resizing(&world).down.expect("down").seat, 9);
    assert_eq!(world.denied(hasten()).0, Code::Conflict);
    // What its node was like then stays as it was.
    world.ok(Kind::TakeSeat(v1::TakeSeat {
        node: id_bytes(55),
        expected: id_bytes(9),
        seat: id_bytes(10),
    }));
    world.ok(note(0, &Note::Down));
    assert_eq!(resizing(&world).down.expect("down").seat, 9);
    world.ok(note(0, &resized()));
    assert_eq!(resizing(&world).done_ms, Some(9));
    let bytes = world.state.encode();
    assert_eq!(State::decode(&bytes).expect("decodes"), world.state);
    world.ok(finish());
    assert_eq!(admin(&world), Admin::Eligible);
    let guest = world.one(0).guest;
    assert_eq!((guest.resizing, guest.size), (None, Some(TO)));
    assert_eq!(world.denied(finish()).0, Code::Conflict);
}

#[test]
fn what_somebody_said_of_its_node_stays() {
    // Before: cordoned.
    let mut world = joined(2);
    world.ok(admin_is(true, None));
    let asked = resize(&world, true, |_| {});
    world.ok(asked);
    world.ok(note(0, &resized()));
    world.ok(finish());
    assert_eq!(admin(&world), Admin::Cordoned);
    // Before: drained by somebody. It is theirs to end.
    let theirs = Admin::Draining { deadline_ms: 77 };
    world.ok(admin_is(true, Some(77)));
    let asked = resize(&world, true, |_| {});
    world.ok(asked);
    assert_eq!((admin(&world), resizing(&world).held), (theirs, None));
    assert_eq!(world.denied(hasten()).0, Code::Conflict);
    world.ok(note(0, &Note::Down));
    world.ok(note(0, &resized()));
    world.ok(finish());
    assert_eq!(admin(&world), theirs);
    // Meanwhile.
    world.ok(admin_is(false, None));
    let asked = resize(&world, true, |_| {});
    world.ok(asked);
    world.ok(admin_is(true, Some(77)));
    world.ok(note(0, &Note::Down));
    world.ok(note(0, &resized()));
    world.ok(finish());
    assert_eq!(admin(&world), theirs);
}

#[test]
fn live_its_node_goes_on_unless_it_becomes_smaller() {
    let mut world = joined(2);
    let asked = resize(&world, false, |_| {});
    world.ok(asked);
    assert_eq!(admin(&world), Admin::Eligible);
    world.ok(note(0, &resized()));
    assert_eq!(world.one(0).guest.resizing, None, "nothing is left to do");

    let asked = resize(&world, false, |it| it.cordons = true);
    world.ok(asked);
    assert_eq!(admin(&world), Admin::Cordoned);
    world.ok(note(0, &resized()));
    world.ok(finish());
    assert_eq!(admin(&world), Admin::Eligible);

    // Proxmox leaves it to the next start.
    let asked = resize(&world, false, |_| {});
    world.ok(asked);
    world.ok(note(0, &Note::MustStop));
    let deadline_ms = world.state.time_ms() + 1_000;
    assert_eq!(admin(&world), Admin::Draining { deadline_ms });
    // Another size in its place: what it was before stays known, and that its guest may be on its way down by now: nobody
    // else would start it.
    let again = resize(&world, false, |it| it.size = Some(FROM.into()));
    world.ok(again);
    assert_eq!(
        (resizing(&world).from, resizing(&world).stops),
        (FROM, true)
    );
    world.ok(note(0, &resized()));
    world.ok(finish());
    assert_eq!(admin(&world), Admin::Eligible);
}

#[test]
fn one_at_a_time_and_nothing_else_with_it() {
    let mut coming = started(1);
    let asked = resize(&coming, true, |_| {});
    assert_eq!(coming.denied(asked).0, Code::Conflict);

    let mut world = joined(2);
    let smaller = resize(&world, true, |it| {
        it.size = Some(GuestSize { disk_gib: 19, ..TO }.into());
    });
    assert_eq!(world.denied(smaller).1.as_deref(), Some("disk_gib"));
    let asked = resize(&world, true, |_| {});
    world.ok(asked);
    assert_eq!(world.denied(restore(0, "nas:x")).0, Code::Conflict);
    // Another one of its pool.
    world.ok(plan(1));
    world.ok(chosen(1, 5_001));
    let mut other = world.one(1);
    other.guest.phase = skep_model::pool::Phase::Ready;
    world
        .state
        .guests
        .insert(other.guest.id, std::sync::Arc::new(other));
    let second = resize(&world, true, |it| {
        it.id = id(1);
        it.expected_node_generation = 0;
    });
    assert_eq!(world.denied(second).0, Code::Conflict);
    // Who goes becomes nothing any more.
    world.ok(retire(0, true, true));
    assert_eq!(world.one(0).guest.resizing, None);
    assert_eq!(admin(&world), Admin::Draining { deadline_ms: 99 });

    let mut copied = joined(1);
    copied.ok(restore(0, "nas:x"));
    let asked = resize(&copied, true, |_| {});
    assert_eq!(copied.denied(asked).0, Code::Conflict);
}

/// A host's maintenance ends in the middle of it: the node stays empty, and is given back later.
#[test]
fn a_node_that_somebody_else_gives_back_stays_empty_for_it() {
    let mut world = joined(2);
    world.ok(Kind::SetHostMaintenance(v1::SetHostMaintenance {
        host: "pve1".into(),
        cause: enum_number(&Cause::ALL, &Cause::Operator),
        deadline_ms: 500,
    }));
    assert_eq!(admin(&world), Admin::Draining { deadline_ms: 500 });
    let asked = resize(&world, true, |_| {});
    world.ok(asked);
    assert_eq!(resizing(&world).held, None);
    world.ok(Kind::EndHostMaintenance(v1::EndHostMaintenance {
        host: "pve1".into(),
    }));
    assert_eq!(admin(&world), Admin::Draining { deadline_ms: 500 });
    world.ok(note(0, &Note::Down));
    world.ok(note(0, &resized()));
    world.ok(finish());
    assert_eq!(admin(&world), Admin::Eligible);
}
