//! Hosts and numbers.

use serde_json::{Value, json};
use skep_model::id::GuestId;
use skep_model::pool::Note;

use super::*;
use crate::next::tests::recipe;

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
    guest.take(Note::Chosen { host, vmid, now_ms });
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
