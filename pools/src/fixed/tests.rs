//! Machines are taken and given back.

use std::collections::BTreeMap;

use skep_model::id::GuestId;

use super::*;

fn machines(count: u8) -> Vec<Machine> {
    let machine = |number: u8| Machine {
        name: format!("m{number}"),
        address: [10, 0, 0, number].into(),
        mac: format!("bc:24:11:00:00:{number:02x}"),
    };
    (1..=count).map(machine).collect()
}

#[test]
fn a_machine_is_taken_told_by_people_and_given_back() {
    let machines = machines(1);
    let fixed = Fixed {
        machines: &machines,
    };
    let mut guest = Guest::planned(GuestId::from_u128(1));
    let mut phases = Vec::new();
    let why = loop {
        match fixed.next(&guest, &[], 1) {
            Turn::Note(note) => guest.take(note),
            Turn::Wait(why) => break why,
            other => panic!("{other:?}"),
        }
        phases.push(guest.phase);
        assert!(phases.len() < 9, "{phases:?}");
    };
    assert!(why.contains("`m1` how to join"), "{why}");
    let expected = [
        Phase::Cloning,
        Phase::Configuring,
        Phase::Starting,
        Phase::Starting,
    ];
    assert_eq!(phases, expected);
    let identity = guest.identity.clone().expect("known");
    assert_eq!(identity.mac, "BC:24:11:00:00:01");
    let mut second = Guest::planned(GuestId::from_u128(2));
    let taken = fixed.next(&second, &[guest.clone()], 1);
    let is_told =
        |turn: &Turn| matches!(turn, Turn::Wait(why) if why.starts_with("all 1 machines"));
    assert!(is_told(&taken), "{taken:?}");
    guest.take(Note::Joined);
    assert_eq!(fixed.next(&guest, &[], 1), Turn::Done);
    guest.take(Note::Leave);
    assert_eq!(fixed.next(&guest, &[], 1), Turn::Note(Note::Gone));
    guest.take(Note::Gone);
    // Its agent may still run there, until it is forgotten.
    let taken = fixed.next(&second, &[guest], 1);
    assert!(is_told(&taken), "{taken:?}");
    let Turn::Note(note) = fixed.next(&second, &[], 1) else {
        panic!("it is free");
    };
    second.take(note);
    assert_eq!(second.host.as_deref(), Some("m1"));
    let none = Fixed { machines: &[] };
    second.take(Note::Identified(identity));
    assert!(matches!(none.next(&second, &[], 1), Turn::Wait(_)));
}

/// Guests come and go in an order that is made up.
#[test]
fn no_machine_is_two_guests() {
    let machines = machines(5);
    let fixed = Fixed {
        machines: &machines,
    };
    let mut guests: BTreeMap<GuestId, Guest> = BTreeMap::new();
    let (mut seed, mut waited) = (0x9e37_79b9_7f4a_7c15u64, 0);
    for round in 0..3_000u128 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pick = usize::try_from(seed >> 40).expect("few");
        let ids: Vec<GuestId> = guests.keys().copied().collect();
        if pick % 7 == 0 {
            let guest = Guest::planned(GuestId::from_u128(round + 1));
            guests.insert(guest.id, guest);
        } else if !ids.is_empty() {
            let id = ids[pick % ids.len()];
            let all: Vec<Guest> = guests.values().cloned().collect();
            let guest = guests.get_mut(&id).expect("known");
            match fixed.next(guest, &all, 1) {
                _ if pick % 11 == 0 => guest.take(Note::Leave),
                Turn::Note(note) => guest.take(note),
                Turn::Wait(why) if why.contains("are taken") => waited += 1,
                Turn::Wait(_) => guest.take(Note::Joined),
                _ => {}
            }
        }
        let there = guests.values().filter(|it| it.phase < Phase::Gone);
        let names: Vec<&String> = there.filter_map(|it| it.host.as_ref()).collect();
        let distinct: BTreeSet<&&String> = names.iter().collect();
        assert_eq!(names.len(), distinct.len(), "round {round}: {names:?}");
        guests.retain(|_, it| it.phase < Phase::Gone);
    }
    assert!(waited > 0, "they were never all taken");
}
