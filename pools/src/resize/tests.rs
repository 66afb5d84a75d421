//! A size as a table: what is written down, what is in effect, what is done; and the whole way of a guest, with every state
//! in which somebody may have died.

use skep_model::id::GuestId;

use super::*;
use crate::next::tests::{facts, recipe};

const NOW: u64 = 7_000;

fn size(cores: u32, memory_mib: u32, disk_gib: u32) -> GuestSize {
    GuestSize {
        cores,
        memory_mib,
        disk_gib,
    }
}

fn resizing(stops: bool, may_interrupt: bool, is_down: bool) -> Resizing {
    Resizing {
        asked_ms: 1,
        from: recipe().size(),
        stops,
        may_interrupt,
        drain_ms: 0,
        held: None,
        down: is_down.then(Default::default),
        done_ms: None,
    }
}

/// Of a guest that is to have 8 cores, 16 GiB and 40 GiB.
fn step(how: &Resizing, changes: &[(&str, &str)], waiting: &[(&str, &str)], runs: bool) -> Step {
    let mut guest = Guest::planned(GuestId::from_u128(7));
    guest.size = Some(size(8, 16_384, 40));
    let facts = Facts {
        is_running: runs,
        waiting: waiting
            .iter()
            .map(|(name, now)| ((*name).to_owned(), Some((*now).to_owned())))
            .collect(),
        ..facts(changes)
    };
    next((&recipe(), &guest), how, &facts, NOW)
}

const DISK: (&str, &str) = ("scsi0", "local:vm-5000-disk-0,size=40G");
const WRITTEN: [(&str, &str); 3] = [DISK, ("cores", "8"), ("memory", "16384")];
const WAITS: [(&str, &str); 2] = [("cores", "4"), ("memory", "8192")];

#[test]
fn each_thing_is_done_once_whoever_goes_on() {
    let (live, may) = (resizing(false, false, false), resizing(false, true, false));
    let (stops, down) = (resizing(true, true, false), resizing(true, true, true));
    let done = Step::Record(Note::Resized { now_ms: NOW });
    let ask = Step::Ask;
    for how in [&live, &may, &stops, &down] {
        // The disk first, and whether it runs or not.
        for runs in [true, false] {
            assert_eq!(step(how, &[], &[], runs), ask(Ask::Resize), "{how:?}");
        }
        assert_eq!(step(how, &WRITTEN, &[], true), done, "{how:?}");
    }
    // Live: written down, and then it is seen whether that is in effect.
    assert_eq!(step(&live, &[DISK], &[], true), ask(Ask::Reshape));
    assert_eq!(
        step(&may, &WRITTEN, &WAITS, true),
        Step::Record(Note::MustStop)
    );
    assert!(matches!(step(&live, &WRITTEN, &WAITS, true), Step::Wait(_)));
    let one = &WAITS[1..];
    assert!(matches!(step(&live, &WRITTEN, one, true), Step::Wait(_)));
    // Somebody else has stopped it: what is written down is in effect when they start it.
    assert_eq!(step(&live, &[DISK], &[], false), ask(Ask::Reshape));
    assert_eq!(step(&live, &WRITTEN, &[], false), done);
    // Down: nothing of a guest that runs is changed.
    assert_eq!(step(&stops, &[DISK], &[], true), ask(Ask::ShutDown));
    assert_eq!(step(&stops, &WRITTEN, &WAITS, true), ask(Ask::ShutDown));
    assert_eq!(step(&stops, &[DISK], &[], false), Step::Record(Note::Down));
    assert_eq!(step(&down, &[DISK], &[], false), ask(Ask::Reshape));
    assert_eq!(step(&down, &WRITTEN, &[], false), ask(Ask::Start));
    // Somebody has started it before it was changed.
    assert_eq!(step(&down, &[DISK], &[], true), ask(Ask::ShutDown));
    assert!(matches!(
        step(&live, &[("scsi0", "none")], &[], true),
        Step::Wait(_)
    ));
}

#[test]
fn memory_that_is_plugged_in_is_rounded_up_and_no_more() {
    let hot = [("hotplug", "memory"), ("numa", "1")];
    let of = |memory: &'static str, hot: &[(&str, &str)], to: u32| {
        let mut changes = vec![("memory", memory)];
        changes.extend_from_slice(hot);
        let facts = facts(&changes);
        has(size(4, to, 32), &facts, |name| facts.config.get(name))
    };
    assert!(of("6144", &hot, 6_000));
    assert!(!of("6144", &[], 6_000), "nobody rounds that");
    assert!(!of("6656", &hot, 6_000), "that is a module more");
    assert!(!of("5632", &hot, 6_000), "that is too little");
    // Beyond 17 GiB modules have a GiB, beyond 49 two.
    assert_eq!(
        [17_408, 17_409, 50_176, 50_177].map(dimm_mib),
        [512, 1_024, 1_024, 2_048]
    );
    assert_eq!(dimm_mib(u32::MAX), 1 << 20);
}

#[test]
fn the_way_is_live_only_where_all_of_it_can_be() {
    let look = |cores, memory| Look {
        host: "pve1".to_owned(),
        size: size(4, 8_192, 32),
        hot: Hot { cores, memory },
    };
    for (kind, look, to, expected) in [
        (Kind::Vm, look(None, false), size(4, 8_192, 64), Way::Live),
        (Kind::Vm, look(None, false), size(8, 8_192, 32), Way::Down),
        (Kind::Vm, look(None, false), size(4, 9_216, 32), Way::Down),
        (
            Kind::Vm,
            look(Some(8), false),
            size(8, 8_192, 32),
            Way::LiveOrDown,
        ),
        // More than there are, or fewer than there were.
        (Kind::Vm, look(Some(8), true), size(9, 8_192, 32), Way::Down),
        (Kind::Vm, look(Some(8), true), size(2, 8_192, 32), Way::Down),
        (
            Kind::Vm,
            look(None, true),
            size(4, 9_216, 32),
            Way::LiveOrDown,
        ),
        (Kind::Vm, look(None, true), size(4, 4_096, 32), Way::Down),
        // One of both cannot.
        (Kind::Vm, look(None, true), size(8, 9_216, 32), Way::Down),
        (Kind::Lxc, look(None, false), size(1, 512, 32), Way::Live),
    ] {
        assert_eq!(way(kind, &look, to), expected, "{look:?} to {to}");
    }
}

#[test]
fn processors_that_are_plugged_in_are_told_from_those_that_there_are() {
    let of = |changes: &[(&str, &str)], to: u32| cores(size(to, 8_192, 32), &facts(changes));
    assert_eq!(of(&[], 8), (Some(8), None));
    let plugged = [("cores", "8"), ("sockets", "2"), ("vcpus", "4")];
    assert_eq!(of(&plugged, 16), (None, Some(16)));
    assert_eq!(of(&plugged, 17), (Some(9), Some(17)));
    let mut hot = plugged.to_vec();
    hot.push(("hotplug", "cpu"));
    let look = Look::of(&recipe(), &facts(&hot)).expect("a size");
    assert_eq!((look.size.cores, look.hot.cores), (4, Some(16)));
    assert_eq!(
        Look::of(&recipe(), &facts(&plugged))
            .expect("one")
            .hot
            .cores,
        None
    );
}

#[test]
fn a_copy_of_another_size_gets_its_own_before_it_starts() {
    let mut guest = Guest::planned(GuestId::from_u128(7));
    assert_eq!(lacks(&recipe(), &guest, &facts(&[("cores", "2")])), None);
    guest.size = Some(size(8, 16_384, 40));
    let of = |changes: &[(&str, &str)]| lacks(&recipe(), &guest, &facts(changes));
    assert_eq!(of(&[]), Some(Ask::Resize));
    assert_eq!(of(&[DISK]), Some(Ask::Reshape));
    assert_eq!(of(&WRITTEN), None);
}
