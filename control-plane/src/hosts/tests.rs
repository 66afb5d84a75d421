//! What is told of hosts that have promised too much: once when it begins, once when it ends.

use super::*;

fn over(host: &str, promised: u64) -> Overcommit {
    Overcommit {
        host: host.to_owned(),
        promised,
        has: 64,
    }
}

#[test]
fn each_host_is_told_of_once_when_it_begins_and_once_when_it_ends() {
    let promises = Promises::default();
    let begun = promises.note("home", vec![over("pve1", 65)]);
    assert_eq!(begun, [Alarm::Begun(over("pve1", 65))]);
    // More of it is no news, and shown.
    assert_eq!(promises.note("home", vec![over("pve1", 70)]), []);
    assert_eq!(promises.all(), [("home".to_owned(), over("pve1", 70))]);
    // Hosts of the same name at another provider are others.
    let begun = promises.note("away", vec![over("pve1", 80)]);
    assert_eq!(begun, [Alarm::Begun(over("pve1", 80))]);
    let ended = promises.note("home", Vec::new());
    assert_eq!(ended, [Alarm::Ended("pve1".to_owned())]);
    assert_eq!(promises.note("home", Vec::new()), []);
    assert_eq!(promises.all(), [("away".to_owned(), over("pve1", 80))]);
    promises.keep(|provider| provider != "away");
    assert_eq!(promises.all(), []);
}
