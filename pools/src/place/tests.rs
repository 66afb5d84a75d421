//! Hosts and numbers.

use serde_json::{Value, json};
use skep_model::id::GuestId;
use skep_model::pool::Note;

use super::*;
use crate::next::tests::{range, recipe};

fn hosts(rows: Value) -> Vec<cluster::Host> {
    serde_json::from_value(rows).expect("hosts")
}

fn rows(rows: Value) -> Vec<cluster::Guest> {
    serde_json::from_value(rows).expect("guests")
}

const GIB: u64 = 1 << 30;

fn two_hosts() -> Vec<cluster::Host> {
    hosts(json!([
        {"node": "pve1", "status": "online", "maxmem": 64 * GIB},
        {"node": "pve2", "status": "online", "maxmem": 32 * GIB},
    ]))
}

fn made(id: u128, host: &str, vmid: u32) -> Guest {
    let mut guest = Guest::planned(GuestId::from_u128(id));
    let (host, now_ms) = (host.to_owned(), 0);
    guest.take(Note::Chosen {
        host,
        vmid,
        address: None,
        now_ms,
    });
    guest
}

fn planned() -> Guest {
    Guest::planned(GuestId::from_u128(1))
}

#[test]
fn the_fewest_of_its_own_then_the_most_room() {
    let choice = |others: &[Guest], rows: &[cluster::Guest]| {
        choose(&recipe(), &planned(), others, (&two_hosts(), rows)).map(|it| it.host)
    };
    assert_eq!(choice(&[], &[]).as_deref(), Ok("pve1"));
    assert_eq!(choice(&[made(2, "pve1", 5000)], &[]).as_deref(), Ok("pve2"));
    // It has moved since: where it is counts.
    let moved = rows(json!([{"id": "qemu/5000", "type": "qemu", "vmid": 5000, "node": "pve2"}]));
    assert_eq!(
        choice(&[made(2, "pve1", 5000)], &moved).as_deref(),
        Ok("pve1")
    );
    let mut gone = made(2, "pve1", 5000);
    gone.take(Note::Gone);
    assert_eq!(choice(&[gone], &[]).as_deref(), Ok("pve1"));
    // Memory that guests were promised, whosever they are; a template was promised none.
    let full = rows(json!([
        {"id": "qemu/1", "type": "qemu", "vmid": 101, "node": "pve1", "maxmem": 60 * GIB},
        {"id": "qemu/9001", "type": "qemu", "vmid": 9001, "node": "pve2", "maxmem": 60 * GIB, "template": 1},
    ]));
    assert_eq!(choice(&[], &full).as_deref(), Ok("pve2"));
}

#[test]
fn a_guest_grows_where_its_host_has_that_much_left_beside_the_others() {
    let to = |cores, gib: u32| GuestSize {
        cores,
        memory_mib: gib << 10,
        disk_gib: 1,
    };
    let hosts =
        hosts(json!([{"node": "pve1", "status": "online", "maxmem": 64 * GIB, "maxcpu": 8}]));
    let rows = rows(json!([
        {"id": "qemu/5000", "type": "qemu", "vmid": 5000, "node": "pve1", "maxmem": 8 * GIB},
        {"id": "qemu/101", "type": "qemu", "vmid": 101, "node": "pve1", "maxmem": 40 * GIB},
        {"id": "qemu/102", "type": "qemu", "vmid": 102, "node": "pve2", "maxmem": 40 * GIB},
        {"id": "qemu/9000", "type": "qemu", "vmid": 9000, "node": "pve1", "maxmem": 40 * GIB, "template": 1},
    ]));
    let grows = |size| grows(("pve1", 5000), size, (&hosts, &rows));
    assert_eq!(grows(to(8, 24)), Ok(()));
    let refused = grows(to(8, 25)).expect_err("too much");
    assert!(
        refused.contains("65536 MiB") && refused.contains("40960 MiB"),
        "{refused}"
    );
    assert!(
        grows(to(9, 8))
            .expect_err("too many")
            .contains("8 processors")
    );
    // What has promised too much already is not made worse by less.
    let crowded: Vec<cluster::Guest> = rows.iter().chain(&rows).cloned().collect();
    assert_eq!(
        super::grows(("pve1", 5000), to(8, 16), (&hosts, &crowded)),
        Ok(())
    );
}

#[test]
fn each_host_that_cannot_says_why() {
    let mut recipe = recipe();
    recipe.max_per_host = Some(1);
    recipe.templates.insert("pve3".to_owned(), 9002);
    let hosts = hosts(json!([
        {"node": "pve1", "status": "offline", "maxmem": 64 * GIB},
        {"node": "pve2", "status": "online", "maxmem": 32 * GIB},
    ]));
    let others = [made(2, "pve2", 5000)];
    let refused = choose(&recipe, &planned(), &others, (&hosts, &[])).expect_err("none");
    assert_eq!(
        refused,
        "no host can have it: pve1 is away; pve2 has 1 of at most 1; pve3 is no host of this cluster"
    );
}

#[test]
fn a_number_is_free_where_nobody_has_it_or_was_given_it() {
    let number = |guest: &Guest, others: &[Guest], rows: &[cluster::Guest]| {
        choose(&recipe(), guest, others, (&two_hosts(), rows)).map(|it| it.vmid)
    };
    assert_eq!(number(&planned(), &[], &[]), Ok(5000));
    let taken = rows(json!([{"id": "lxc/5000", "type": "lxc", "vmid": "5000", "node": "pve9"}]));
    assert_eq!(
        number(&planned(), &[made(2, "pve1", 5001)], &taken),
        Ok(5002)
    );
    // Its own turned out to be somebody's, maybe out of sight: not that one again.
    assert_eq!(number(&made(1, "pve1", 5002), &[], &[]), Ok(5003));
    assert_eq!(number(&made(1, "pve1", 5003), &[], &[]), Ok(5000));
    let all: Vec<Guest> = (0u32..4)
        .map(|it| made(u128::from(it) + 2, "pve1", 5000 + it))
        .collect();
    let refused = number(&planned(), &all, &[]).expect_err("none");
    assert_eq!(refused, "no number from 5000 to 5003 is free");
}

/// Guests come and go in an order that is made up: whoever may exist keeps its address to itself, and as long as fewer are
/// there than addresses, each gets one.
#[test]
fn no_address_is_given_twice_while_its_guest_may_exist() {
    let mut recipe = recipe();
    recipe.addresses = Some(range());
    recipe.vmids.last = 5099;
    let room: Vec<cluster::Host> = hosts(json!([
        {"node": "pve1", "status": "online", "maxmem": 4096 * GIB},
    ]));
    let all: Vec<IpAddr> = range().iter().collect();
    let (mut guests, mut refused): (Vec<Guest>, usize) = (Vec::new(), 0);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..300u128 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pick = usize::try_from(seed >> 40).expect("few");
        match pick % 5 {
            0 | 1 => guests.push(Guest::planned(GuestId::from_u128(round + 1))),
            2 if !guests.is_empty() => {
                let at = pick % guests.len();
                guests[at].take(Note::Leave);
            }
            3 if !guests.is_empty() => {
                let at = pick % guests.len();
                guests[at].take(Note::Gone);
            }
            _ => {}
        }
        for at in 0..guests.len() {
            if guests[at].phase != Phase::Planned {
                continue;
            }
            match choose(&recipe, &guests[at], &guests, (&room, &[])) {
                Ok(Choice {
                    host,
                    vmid,
                    address,
                }) => guests[at].take(Note::Chosen {
                    host,
                    vmid,
                    address,
                    now_ms: 0,
                }),
                Err(why) => {
                    assert_eq!(why, "no address from 10.0.0.100 to 10.0.0.103 is free");
                    refused += 1;
                }
            }
        }
        let there = guests.iter().filter(|it| it.phase < Phase::Gone);
        let given: Vec<IpAddr> = there.filter_map(|it| it.given).collect();
        let distinct: BTreeSet<&IpAddr> = given.iter().collect();
        assert_eq!(distinct.len(), given.len(), "round {round}: {given:?}");
        assert!(given.iter().all(|it| all.contains(it)), "{given:?}");
        let waiting = guests.iter().any(|it| it.phase == Phase::Planned);
        assert!(
            !waiting || given.len() == all.len(),
            "round {round}: {given:?}"
        );
        guests.retain(|it| it.phase != Phase::Gone);
    }
    assert!(refused > 0, "the range was never full");
}

#[test]
fn an_address_that_was_seen_is_taken_too() {
    let mut recipe = recipe();
    recipe.addresses = Some(range());
    let address = |guest: &Guest, others: &[Guest]| {
        let choice = choose(&recipe, guest, others, (&two_hosts(), &[]));
        choice.expect("room").address.map(|it| it.to_string())
    };
    assert_eq!(address(&planned(), &[]).as_deref(), Some("10.0.0.100"));
    let mut seen = made(2, "pve1", 5001);
    seen.take(Note::Found("10.0.0.100".parse().expect("one")));
    assert_eq!(address(&planned(), &[seen]).as_deref(), Some("10.0.0.101"));
    // Its own is not in its way when it needs another number.
    let mut own = planned();
    own.take(Note::Chosen {
        host: "pve1".to_owned(),
        vmid: 5000,
        address: Some("10.0.0.100".parse().expect("one")),
        now_ms: 0,
    });
    let others = [own.clone()];
    assert_eq!(address(&own, &others).as_deref(), Some("10.0.0.100"));
}
