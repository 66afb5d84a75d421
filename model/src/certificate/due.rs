//! Which certificates are due: from what is wanted, what there is and the time. The same answer whoever asks.

use std::collections::{BTreeMap, BTreeSet};

use super::wildcard::{is_under, wildcard_of};
use super::{Certificate, Source};

/// Renewed when two thirds of the life are over (what the authorities recommend), later by up to 1/20 of it:
/// what was issued in one hour is not renewed in one hour.
const JITTER_PARTS: u64 = 20;
/// Pause after the first failure, ms; doubles.
const FIRST_PAUSE_MS: u64 = 60_000;
/// Longest pause, ms: authorities allow five failures of a host in an hour, and forget within one.
const LAST_PAUSE_MS: u64 = 12 * 3_600_000;
/// Longest rest after one was issued, ms.
const LONGEST_REST_MS: u64 = 3_600_000;
/// Ends of names that no public authority issues for, and that lead nowhere from outside.
const PRIVATE: [&str; 6] = ["localhost", "local", "internal", "invalid", "onion", "arpa"];

/// Domains that the local CA issues for: reserved for what is not the world's.
pub const LOCAL_DOMAINS: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// Hosts, and the directory of whoever is to issue for each.
pub type Wanted = BTreeMap<String, String>;

/// What there is, by name.
pub type Entry<'a> = (&'a str, &'a Certificate);

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Hosts to order a certificate for, the most urgent first.
    pub order: Vec<String>,
    /// Certificates of hosts that nobody has any more.
    pub forget: Vec<String>,
    /// When time alone makes the next one due, ms since the epoch.
    pub wake_ms: Option<u64>,
    /// Hosts that go without one: there are as many certificates as there may be.
    pub without_room: usize,
}

/// Whether an issuer could be asked for this very host, no wildcard.
pub fn is_certifiable(host: &str) -> bool {
    let Some((rest, last)) = host.rsplit_once('.') else {
        return false;
    };
    let is_number = last.bytes().all(|b| b.is_ascii_digit());
    !rest.is_empty() && !is_number && !host.starts_with("*.") && !PRIVATE.contains(&last)
}

/// Whether the local CA issues for this host: one in a private domain, or a wildcard for more than such a domain.
pub fn is_local(host: &str) -> bool {
    LOCAL_DOMAINS.iter().any(|domain| {
        let rest = host
            .strip_suffix(domain)
            .and_then(|rest| rest.strip_suffix('.'));
        rest.is_some_and(|rest| !rest.is_empty() && rest != "*")
    })
}

/// When a certificate is renewed.
pub fn renew_ms(name: &str, not_before_ms: u64, not_after_ms: u64) -> u64 {
    let life = not_after_ms.saturating_sub(not_before_ms);
    let two_thirds = not_before_ms.saturating_add(life / 3 * 2);
    let span = life / JITTER_PARTS;
    let jitter = hash(name, not_before_ms) % span.max(1);
    two_thirds.saturating_add(jitter)
}

/// How long is waited after so many failures of this host, in ms; from 3/4 of a pause to all of it.
pub fn backoff_ms(name: &str, failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(20);
    let pause = (FIRST_PAUSE_MS << doublings).min(LAST_PAUSE_MS);
    pause - hash(name, u64::from(failures)) % (pause / 4)
}

/// Before when one that was issued at `now_ms` is not asked for again, whatever its times say: clocks differ, and an
/// issuer counts.
pub fn settled_ms(not_before_ms: u64, not_after_ms: u64, now_ms: u64) -> u64 {
    let life = not_after_ms.saturating_sub(not_before_ms);
    now_ms.saturating_add((life / 4).min(LONGEST_REST_MS))
}

/// When another one is asked for.
pub(super) fn attempt_ms(certificate: &Certificate) -> u64 {
    let Some(material) = &certificate.material else {
        return certificate.next_ms;
    };
    let due = match certificate.is_asked {
        true => 0,
        false => renew_ms(
            &certificate.name,
            material.not_before_ms,
            material.not_after_ms,
        ),
    };
    due.max(certificate.next_ms)
}

/// Compares the hosts that are `wanted` with what there is. `kept` are hosts that somebody has, with or without a
/// route.
pub fn decide<'a>(
    wanted: &Wanted,
    kept: &BTreeSet<String>,
    have: impl Iterator<Item = Entry<'a>>,
    now_ms: u64,
) -> Due {
    let have: BTreeMap<&str, &Certificate> = have.collect();
    let uploads = have.values().filter(|it| it.source == Source::Uploaded);
    let by_hand: BTreeSet<&str> = uploads
        .filter_map(|it| it.material.as_ref())
        .filter(|material| material.not_after_ms > now_ms)
        .flat_map(|material| &material.names)
        .map(String::as_str)
        .collect();
    let has_upload = |host: &str| {
        by_hand.contains(host) || wildcard_of(host).is_some_and(|it| by_hand.contains(&*it))
    };
    let mut due = Due::default();
    let mut order = Vec::new();
    for (host, directory) in wanted.iter().filter(|(host, _)| !has_upload(host)) {
        let (at_ms, ends_ms) = match have.get(host.as_str()) {
            None => (0, 0),
            // By hand under the host's own name, whatever is in it: not taken over while it holds.
            Some(it) if it.is_held_upload(now_ms) => continue,
            // Another issuer than the one that is asked now: as soon as may be.
            Some(it) if it.material.is_some() && it.directory != *directory => (
                it.next_ms,
                it.material.as_ref().map_or(0, |it| it.not_after_ms),
            ),
            Some(it) => (
                attempt_ms(it),
                it.material.as_ref().map_or(0, |it| it.not_after_ms),
            ),
        };
        match at_ms <= now_ms {
            true => order.push((ends_ms, host.clone())),
            false => due.wake_ms = Some(due.wake_ms.map_or(at_ms, |old| old.min(at_ms))),
        }
    }
    order.sort();
    due.order = order.into_iter().map(|(_, host)| host).collect();
    let issued = have.values().filter(|it| it.source == Source::Acme);
    let is_held = |name: &str| {
        let material = have.get(name).and_then(|it| it.material.as_ref());
        material.is_some_and(|it| it.not_after_ms > now_ms)
    };
    let is_gone = |name: &str| {
        let wildcard = wildcard_of(name).filter(|it| wanted.contains_key(it));
        let is_replaced = wildcard.is_some_and(|it| is_held(&it));
        // What it stands for may not have one of its own yet.
        let stands_for_some = wanted
            .keys()
            .any(|host| is_under(host, name) && !is_held(host));
        !wanted.contains_key(name) && (is_replaced || !kept.contains(name)) && !stands_for_some
    };
    let gone = issued.filter(|it| is_gone(&it.name));
    due.forget = gone.map(|it| it.name.clone()).collect();
    due
}

/// FNV-1a: spreads names, proves nothing.
pub(crate) fn hash(name: &str, salt: u64) -> u64 {
    let bytes = name.bytes().chain(salt.to_be_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Material;
    use crate::variable::Sealed;

    const DAY_MS: u64 = 86_400_000;
    const CA: &str = "https://ca.example/dir";

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn by(directory: &str, names: &[&str]) -> Wanted {
        let names = names.iter();
        names
            .map(|name| ((*name).to_owned(), directory.to_owned()))
            .collect()
    }

    fn issued(name: &str, source: Source, names: &[&str]) -> Certificate {
        let material = Material {
            chain_pem: String::new(),
            key: Sealed(Vec::new()),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            not_before_ms: 0,
            not_after_ms: 90 * DAY_MS,
            serial: String::new(),
            issuer: String::new(),
        };
        Certificate {
            source,
            material: Some(material),
            directory: CA.to_owned(),
            ..Certificate::wanted(name)
        }
    }

    fn asked(wanted: &[&str], have: &[Certificate], now_ms: u64) -> Due {
        let entries = have.iter().map(|it| (it.name.as_str(), it));
        decide(&by(CA, wanted), &set(wanted), entries, now_ms)
    }

    #[test]
    fn one_is_due_at_two_thirds_of_its_life_and_never_all_at_once() {
        let have = ["a.example", "b.example"].map(|name| issued(name, Source::Acme, &[name]));
        let names = ["a.example", "b.example"];
        let early = asked(&names, &have, 59 * DAY_MS);
        assert_eq!(early.order, [""; 0]);
        let at = early.wake_ms.expect("one is next");
        assert!((60 * DAY_MS..65 * DAY_MS).contains(&at), "{at}");
        assert_eq!(
            asked(&names, &have, at).order.len(),
            1,
            "the other is later"
        );
        let late = asked(&names, &have, 65 * DAY_MS);
        assert_eq!((late.order.len(), late.wake_ms), (2, None));
        assert_eq!(late, asked(&names, &have, 65 * DAY_MS));
    }

    #[test]
    fn what_is_missing_comes_first_and_after_a_failure_waits_its_time() {
        let mut failed = Certificate::wanted("a.example");
        failed.failures = 1;
        failed.next_ms = 5_000;
        let old = issued("z.example", Source::Acme, &["z.example"]);
        let have = [failed, old];
        let names = ["a.example", "b.example", "z.example"];
        let due = asked(&names, &have, 4_000);
        assert_eq!(due.order, ["b.example"]);
        assert_eq!(due.wake_ms, Some(5_000));
        let due = asked(&names, &have, 80 * DAY_MS);
        assert_eq!(due.order, ["a.example", "b.example", "z.example"]);
    }

    #[test]
    fn an_upload_that_holds_stands_for_its_names() {
        let exact = issued("mine", Source::Uploaded, &["a.example", "*.b.example"]);
        let names = ["a.example", "x.b.example", "x.y.b.example"];
        let due = asked(&names, std::slice::from_ref(&exact), DAY_MS);
        assert_eq!(due.order, ["x.y.b.example"]);
        assert_eq!(due.forget, [""; 0], "an operator's is never forgotten");
        let over = asked(&names, &[exact], 90 * DAY_MS);
        assert_eq!(over.order.len(), 3);
    }

    #[test]
    fn another_issuer_or_a_person_asks_anew_and_a_host_that_nobody_has_is_forgotten() {
        let mut have = issued("a.example", Source::Acme, &["a.example"]);
        let entry = |it: &Certificate| {
            decide(
                &by("https://other.example/dir", &["a.example"]),
                &BTreeSet::new(),
                std::iter::once(("a.example", it)),
                DAY_MS,
            )
        };
        assert_eq!(entry(&have).order, ["a.example"]);
        have.next_ms = 2 * DAY_MS;
        assert_eq!(
            entry(&have).order,
            [""; 0],
            "a failure is waited for all the same"
        );
        have.next_ms = 0;
        have.is_asked = true;
        assert_eq!(
            asked(&["a.example"], std::slice::from_ref(&have), DAY_MS).order,
            ["a.example"]
        );
        let kept = decide(
            &by(CA, &[]),
            &set(&["a.example"]),
            std::iter::once(("a.example", &have)),
            0,
        );
        assert_eq!(kept, Due::default());
        let gone = decide(
            &by(CA, &[]),
            &set(&[]),
            std::iter::once(("a.example", &have)),
            0,
        );
        assert_eq!(gone.forget, ["a.example"]);
    }

    #[test]
    fn an_upload_under_a_hosts_own_name_is_not_taken_over_while_it_holds() {
        let odd = issued("a.example", Source::Uploaded, &["b.example"]);
        let due = |now_ms| asked(&["a.example"], std::slice::from_ref(&odd), now_ms);
        assert_eq!(due(DAY_MS).order, [""; 0]);
        assert_eq!(due(90 * DAY_MS).order, ["a.example"]);
    }

    #[test]
    fn a_wildcard_and_single_hosts_take_each_others_place_without_a_gap() {
        let single = issued("a.example.com", Source::Acme, &["a.example.com"]);
        let wild = issued("*.example.com", Source::Acme, &["*.example.com"]);
        let forgotten = |wanted: &[&str], have: &[&Certificate]| {
            let entries = have.iter().map(|it| (it.name.as_str(), *it));
            let kept = set(&["a.example.com"]);
            decide(&by(CA, wanted), &kept, entries, DAY_MS).forget
        };
        // The single one is shown until there is a wildcard, and then it is in its way.
        let none = Certificate::wanted("*.example.com");
        assert_eq!(forgotten(&["*.example.com"], &[&none, &single]), [""; 0]);
        let done = forgotten(&["*.example.com"], &[&wild, &single]);
        assert_eq!(done, ["a.example.com"]);
        // And back.
        let none = Certificate::wanted("a.example.com");
        assert_eq!(forgotten(&["a.example.com"], &[&wild, &none]), [""; 0]);
        let done = forgotten(&["a.example.com"], &[&wild, &single]);
        assert_eq!(done, ["*.example.com"]);
    }

    #[test]
    fn one_that_ends_at_once_is_not_asked_for_at_once() {
        let mut have = issued("a.example", Source::Acme, &["a.example"]);
        have.next_ms = settled_ms(0, 90 * DAY_MS, 95 * DAY_MS);
        assert_eq!(have.next_ms, 95 * DAY_MS + LONGEST_REST_MS);
        assert_eq!(settled_ms(0, 40, 100), 110);
        let due = asked(&["a.example"], &[have], 95 * DAY_MS);
        assert_eq!((due.order.len(), due.wake_ms.is_some()), (0, true));
    }

    #[test]
    fn pauses_grow_to_half_a_day() {
        let pauses: Vec<u64> = (1..40)
            .map(|failures| backoff_ms("a.example", failures))
            .collect();
        assert!((45_000..=60_000).contains(&pauses[0]), "{}", pauses[0]);
        assert!((90_000..=120_000).contains(&pauses[1]));
        assert!(pauses[38] <= LAST_PAUSE_MS && pauses[38] >= LAST_PAUSE_MS / 4 * 3);
        assert_ne!(backoff_ms("a.example", 5), backoff_ms("b.example", 5));
    }

    #[test]
    fn private_names_are_the_local_cas() {
        for good in [
            "a.localhost",
            "shop.internal",
            "*.apps.internal",
            "x.home.arpa",
        ] {
            assert!(is_local(good) && !is_certifiable(good), "{good}");
        }
        for bad in [
            "localhost",
            "*.localhost",
            "a.example",
            "alocalhost",
            "x.arpa",
            "*.internal",
            "10.0.0.1",
        ] {
            assert!(!is_local(bad), "{bad}");
        }
    }

    #[test]
    fn public_names_alone_are_asked_for() {
        for good in ["a.example", "a.b.example.com", "xn--4ca.example"] {
            assert!(is_certifiable(good), "{good}");
        }
        for bad in [
            "",
            "a",
            ".com",
            "*.example.com",
            "web.localhost",
            "a.internal",
            "10.0.0.1",
            "a.local",
        ] {
            assert!(!is_certifiable(bad), "{bad}");
        }
    }
}
