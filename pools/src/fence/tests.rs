//! Every combination of what may be known, against a judgement of its own that is written as a list of reasons not to.

use skep_proxmox::calls::cluster::Member;

use super::*;
use crate::next::tests::facts;
use crate::seen::Facts;

const NOW: u64 = 10_000_000;

/// One combination.
#[derive(Debug, Clone, Copy)]
struct Case {
    is_quorate: bool,
    /// Its host: none, away, there.
    host: Option<bool>,
    is_other_there: bool,
    presence: &'static str,
    is_busy: bool,
    was_stopped: bool,
    /// Of high availability: none, or the state.
    managed: Option<&'static str>,
    away_ms: Option<u64>,
}

fn presence(name: &str) -> Presence {
    let ours = |is_running, lock: Option<&str>| {
        Presence::Ours(Facts {
            is_running,
            lock: lock.map(str::to_owned),
            ..facts(&[])
        })
    };
    match name {
        "absent" => Presence::Absent,
        "foreign" => Presence::Foreign,
        "unknown" => Presence::Unknown("it moves".to_owned()),
        "runs" => ours(true, None),
        "locked" => ours(false, Some("migrate")),
        _ => ours(false, None),
    }
}

fn verdict(case: Case) -> Verdict {
    let member = |name: &str, is_online| Member {
        name: name.to_owned(),
        is_online,
        address: None,
    };
    let mut hosts = vec![member("pve2", case.is_other_there)];
    hosts.extend(case.host.map(|is_online| member("pve1", is_online)));
    let cluster = cluster::Status {
        name: Some("c".to_owned()),
        is_quorate: case.is_quorate,
        hosts,
    };
    let managed = case.managed.map(|state| ha::Resource {
        sid: "vm:5000".to_owned(),
        state: (!state.is_empty()).then(|| state.to_owned()),
    });
    let managed: Vec<ha::Resource> = managed.into_iter().collect();
    let away_since = case.away_ms.map(|ms| ("pve1".to_owned(), NOW - ms));
    let away_since = away_since.into_iter().collect();
    let around = Around {
        cluster: &cluster,
        managed: &managed,
        away_since: &away_since,
        now_ms: NOW,
    };
    let seen = Seen {
        presence: presence(case.presence),
        is_busy: case.is_busy,
    };
    confirmed_dead((5000, "pve1"), &seen, case.was_stopped, around)
}

/// Each reason alone is enough.
fn may_run(case: Case) -> bool {
    let is_gone = ["absent", "foreign"].contains(&case.presence);
    let is_host_there = case.host == Some(true);
    let is_watched = matches!(case.managed, Some("" | "started"));
    let reasons = [
        !case.is_quorate,
        is_gone && (case.is_busy || !case.is_other_there || case.host == Some(false)),
        !is_gone && case.host.is_none(),
        !is_gone && is_host_there && case.presence != "stopped",
        !is_gone && is_host_there && (case.is_busy || !case.was_stopped),
        !is_gone && case.host == Some(false) && !is_watched,
        !is_gone && case.host == Some(false) && case.away_ms.unwrap_or(0) < WATCHDOG_MS,
    ];
    reasons.contains(&true)
}

/// It was there to be stopped, and high availability was to have it run.
fn was_ended(case: Case) -> bool {
    let is_there = case.presence == "stopped" && case.host == Some(true);
    is_there && matches!(case.managed, Some("" | "started"))
}

#[test]
fn dead_is_only_what_nothing_speaks_against() {
    let (mut dead, mut all) = (0, 0);
    let presences = ["absent", "foreign", "unknown", "runs", "locked", "stopped"];
    let managed = [
        None,
        Some(""),
        Some("started"),
        Some("stopped"),
        Some("ignored"),
        Some("disabled"),
    ];
    let away = [None, Some(0), Some(WATCHDOG_MS - 1), Some(WATCHDOG_MS)];
    for bits in 0..16u32 {
        let bit = |number: u32| bits >> number & 1 == 1;
        for host in [None, Some(false), Some(true)] {
            for presence in presences {
                for managed in managed {
                    for away_ms in away {
                        let case = Case {
                            is_quorate: bit(0),
                            host,
                            is_other_there: bit(1),
                            presence,
                            is_busy: bit(2),
                            was_stopped: bit(3),
                            managed,
                            away_ms,
                        };
                        let found = verdict(case);
                        let is_dead = matches!(found, Verdict::Dead { .. });
                        assert_eq!(is_dead, !may_run(case), "{case:?}: {found:?}");
                        if let Verdict::Dead { is_wanted, .. } = found {
                            assert_eq!(is_wanted, was_ended(case), "{case:?}");
                        }
                        (dead, all) = (dead + usize::from(is_dead), all + 1);
                    }
                }
            }
        }
    }
    assert_eq!(all, 16 * 3 * 6 * 6 * 4);
    assert!(dead > 0);
}

#[test]
fn what_is_said_of_the_cases_that_people_meet() {
    let stopped = Case {
        is_quorate: true,
        host: Some(true),
        is_other_there: true,
        presence: "stopped",
        is_busy: false,
        was_stopped: true,
        managed: None,
        away_ms: None,
    };
    let away = Case {
        host: Some(false),
        presence: "unknown",
        was_stopped: false,
        away_ms: Some(3_600_000),
        ..stopped
    };
    for (case, text) in [
        (stopped, "it was stopped, and its host says that it is"),
        (
            Case {
                was_stopped: false,
                ..stopped
            },
            "it is stopped, and nobody knows for how long",
        ),
        (
            away,
            "pve1 is away, which ends nothing there: high availability does not have the guest",
        ),
        (
            Case {
                managed: Some("started"),
                ..away
            },
            "pve1 has been away for 3600 s: its watchdog has reset it",
        ),
        (
            Case {
                managed: Some("started"),
                away_ms: Some(60_000),
                ..away
            },
            "pve1 has been away for 60 s: that its watchdog has reset it is certain after 180 s",
        ),
        (
            Case {
                is_quorate: false,
                ..stopped
            },
            "the hosts have no majority: what others do is not known",
        ),
    ] {
        let (Verdict::Dead { why, .. } | Verdict::NotYet { why }) = verdict(case);
        assert_eq!(why, text);
    }
}

#[test]
fn how_long_a_host_is_away_counts_from_looks_that_follow_each_other() {
    let look = |away: &mut Away, is_online, is_quorate, now_ms| {
        let cluster = cluster::Status {
            name: Some("c".to_owned()),
            is_quorate,
            hosts: vec![Member {
                name: "pve1".to_owned(),
                is_online,
                address: None,
            }],
        };
        away.look(&cluster, now_ms);
        away.since().get("pve1").copied()
    };
    let mut away = Away::default();
    assert_eq!(look(&mut away, true, true, NOW), None);
    assert_eq!(look(&mut away, false, true, NOW + 1_000), Some(NOW + 1_000));
    assert_eq!(
        look(&mut away, false, true, NOW + 30_000),
        Some(NOW + 1_000)
    );
    // It may have come and gone meanwhile, as far as anybody has looked.
    let late = NOW + 30_000 + LOOKS_APART_MS + 1;
    assert_eq!(look(&mut away, false, true, late), Some(late));
    // Whoever has no majority sees nobody.
    assert_eq!(look(&mut away, false, false, late + 1), None);
    assert_eq!(look(&mut away, false, true, late + 2), Some(late + 2));
    assert_eq!(look(&mut away, true, true, late + 3), None);
    // A clock that was set back.
    assert_eq!(look(&mut away, false, true, late + 4), Some(late + 4));
    assert_eq!(look(&mut away, false, true, NOW), Some(NOW));
}
