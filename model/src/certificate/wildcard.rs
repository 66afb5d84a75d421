//! Which wildcards stand for which hosts, where wildcards can be had.

use std::collections::BTreeSet;

use super::is_certifiable;

/// The wildcard that stands for a host; none: no name can have one.
pub(super) fn wildcard_of(host: &str) -> Option<String> {
    let (_, parent) = host.split_once('.')?;
    Some(format!("*.{parent}"))
}

/// Whether `wildcard` stands for this very host.
pub(super) fn is_under(host: &str, wildcard: &str) -> bool {
    let parent = wildcard.strip_prefix("*.");
    let of_host = host.split_once('.').filter(|(label, _)| *label != "*");
    of_host.is_some_and(|(_, own)| Some(own) == parent)
}

/// What is asked for where a zone proves: the wildcards among `hosts`, one for each of the domains `bases` that
/// single words of theirs are in, and every host that none of these stands for.
pub fn by_wildcards<'a>(
    hosts: &BTreeSet<String>,
    bases: impl Iterator<Item = &'a str>,
) -> BTreeSet<String> {
    let can_be_had = |wildcard: &str| wildcard.strip_prefix("*.").is_some_and(is_certifiable);
    let own = hosts.iter().filter(|host| can_be_had(host)).cloned();
    let mut wanted: BTreeSet<String> = own.collect();
    for base in bases {
        let wildcard = format!("*.{base}");
        if can_be_had(&wildcard) && hosts.iter().any(|host| is_under(host, &wildcard)) {
            wanted.insert(wildcard);
        }
    }
    let is_alone = |host: &&String| {
        is_certifiable(host) && wildcard_of(host).is_none_or(|it| !wanted.contains(&it))
    };
    let alone: Vec<String> = hosts.iter().filter(is_alone).cloned().collect();
    wanted.extend(alone);
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wildcard_stands_for_all_single_words() {
        for (hosts, bases, wanted) in [
            (
                &["a.apps.example.com", "b.apps.example.com"][..],
                &["apps.example.com"][..],
                &["*.apps.example.com"][..],
            ),
            (
                &["a.b.apps.example.com", "apps.example.com", "a.other.com"],
                &["apps.example.com"],
                &["a.b.apps.example.com", "a.other.com", "apps.example.com"],
            ),
            (
                &["*.shop.example", "a.shop.example", "shop.example"],
                &["localhost"],
                &["*.shop.example", "shop.example"],
            ),
            (
                &["*.com", "*.web.localhost", "a.localhost"],
                &["localhost"],
                &[],
            ),
        ] {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            let found = by_wildcards(&hosts, bases.iter().copied());
            assert_eq!(Vec::from_iter(found), wanted);
        }
    }
}
