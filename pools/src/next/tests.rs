//! A guest's way as a table: what is written down, what is seen, what is done.

use skep_model::id::GuestId;
use skep_model::pool::{Addresses, Identity, Kind, VmidRange};
use skep_proxmox::Config;

use super::*;

const MAC: &str = "BC:24:11:00:00:01";
const UUID: &str = "0f1e2d3c-0000-4000-8000-000000000001";
const NOW: u64 = 1_000_000_000;

pub(crate) fn recipe() -> Recipe {
    Recipe {
        kind: Kind::Vm,
        templates: [("pve1".to_owned(), 9000), ("pve2".to_owned(), 9001)].into(),
        full_clone: false,
        storage: None,
        cores: 4,
        memory_mib: 8192,
        disk_gib: 32,
        disk: "scsi0".to_owned(),
        bridge: "vmbr0".to_owned(),
        vlan: Some(10),
        user: Some("skep".to_owned()),
        ssh_keys: vec!["ssh-ed25519 AAA a@b".to_owned()],
        vmids: VmidRange {
            first: 5000,
            last: 5003,
        },
        resource_pool: "skep".to_owned(),
        max_per_host: None,
        addresses: None,
    }
}

/// Four addresses.
pub(crate) fn range() -> Addresses {
    let parse = |text: &str| text.parse().expect("an address");
    Addresses {
        first: parse("10.0.0.100"),
        last: parse("10.0.0.103"),
        prefix: 24,
        gateway: parse("10.0.0.1"),
        dns: vec![parse("10.0.0.53")],
    }
}

fn identity() -> Identity {
    Identity {
        mac: MAC.to_owned(),
        smbios: Some(UUID.to_owned()),
    }
}

fn guest(phase: Phase) -> Guest {
    let mut guest = Guest::planned(GuestId::from_u128(7));
    let chosen = Note::Chosen {
        host: "pve1".to_owned(),
        vmid: 5000,
        address: None,
        now_ms: NOW,
    };
    if phase >= Phase::Cloning {
        guest.take(chosen);
    }
    if phase >= Phase::Configuring {
        guest.take(Note::Identified(identity()));
    }
    guest.phase = phase;
    guest
}

/// What a template gives a clone, and what the recipe makes of it.
pub(crate) fn facts(changes: &[(&str, &str)]) -> Facts {
    let mut entries: std::collections::BTreeMap<String, String> = [
        ("name", guest(Phase::Cloning).name().as_str()),
        ("cores", "4"),
        ("memory", "8192"),
        ("tags", "skep"),
        ("scsi0", "local:vm-5000-disk-0,size=32G"),
        ("net0", &format!("virtio={MAC},bridge=vmbr0,tag=10")),
        ("smbios1", &format!("uuid={UUID}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for (name, value) in changes {
        entries.insert((*name).to_owned(), (*value).to_owned());
    }
    Facts {
        host: "pve1".to_owned(),
        is_running: false,
        lock: None,
        resource_pool: Some("skep".to_owned()),
        config: Config { entries },
        waiting: Default::default(),
        is_another: false,
    }
}

fn step(guest: &Guest, presence: Presence, is_busy: bool) -> Step {
    let seen = Seen { presence, is_busy };
    next(&recipe(), guest, &seen, NOW)
}

fn ours(changes: &[(&str, &str)]) -> Presence {
    Presence::Ours(facts(changes))
}

fn running() -> Presence {
    Presence::Ours(Facts {
        is_running: true,
        ..facts(&[])
    })
}

fn waits(step: &Step) -> bool {
    matches!(step, Step::Wait(_))
}

#[test]
fn from_nothing_to_a_guest_that_runs() {
    let planned = guest(Phase::Planned);
    assert_eq!(step(&planned, Presence::Absent, false), Step::Choose);
    let cloning = guest(Phase::Cloning);
    assert_eq!(
        step(&cloning, Presence::Absent, false),
        Step::Ask(Ask::Clone)
    );
    assert!(waits(&step(&cloning, Presence::Absent, true)));
    assert!(waits(&step(&cloning, ours(&[("tags", "")]), true)));
    let found = step(&cloning, ours(&[("tags", "")]), false);
    assert_eq!(found, Step::Record(Note::Identified(identity())));

    let known = guest(Phase::Configuring);
    for change in [
        ("tags", "other"),
        ("cores", "2"),
        ("memory", "2048"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr1,tag=10"),
    ] {
        let asked = step(&known, ours(&[change]), false);
        assert_eq!(asked, Step::Ask(Ask::Configure), "{change:?}");
    }
    let small = ours(&[("scsi0", "local:vm-5000-disk-0,size=3584M")]);
    assert_eq!(step(&known, small, false), Step::Ask(Ask::Resize));
    assert!(waits(&step(&known, ours(&[("scsi0", "none")]), false)));
    assert_eq!(step(&known, ours(&[]), false), Step::Ask(Ask::Start));
    assert_eq!(step(&known, running(), false), Step::Record(Note::Started));

    let mut starting = guest(Phase::Starting);
    assert_eq!(step(&starting, running(), false), Step::Introduce);
    starting.take(Note::Introduced { now_ms: NOW });
    assert_eq!(
        step(&starting, running(), false),
        Step::Ask(Ask::FindAddress)
    );
    assert_eq!(step(&starting, ours(&[]), false), Step::Ask(Ask::Start));
    starting.address = Some("10.0.0.5".parse().expect("one"));
    assert!(waits(&step(&starting, running(), false)));
    assert_eq!(step(&guest(Phase::Ready), running(), false), Step::Done);
}

#[test]
fn it_is_introduced_where_it_runs_and_again_where_nothing_came_of_it() {
    let mut starting = guest(Phase::Starting);
    let at = |guest: &Guest, presence: Presence, now_ms| {
        let is_busy = false;
        next(&recipe(), guest, &Seen { presence, is_busy }, now_ms)
    };
    assert_eq!(at(&starting, ours(&[]), NOW), Step::Ask(Ask::Start));
    assert!(waits(&step(&starting, running(), true)));
    starting.address = Some("10.0.0.5".parse().expect("one"));
    assert_eq!(at(&starting, running(), NOW), Step::Introduce);
    starting.take(Note::Introduced { now_ms: NOW });
    for (now_ms, is_again) in [
        // The clock of another leader is behind.
        (NOW - 60_000, false),
        (NOW, false),
        (NOW + INTRODUCED_MS - 1, false),
        (NOW + INTRODUCED_MS, true),
    ] {
        let is = at(&starting, running(), now_ms) == Step::Introduce;
        assert_eq!(is, is_again, "{now_ms}");
    }
    starting.take(Note::Joined);
    assert_eq!(at(&starting, running(), NOW + INTRODUCED_MS), Step::Done);
    // What is in its configuration has served.
    let told = |env: &str| {
        let facts = facts(&[("env", env)]);
        Presence::Ours(Facts {
            is_running: true,
            ..facts
        })
    };
    let asked = at(&starting, told("TZ=UTC\0SKEP_JOIN_TOKEN=a"), NOW);
    assert_eq!(asked, Step::Ask(Ask::Forget));
    assert_eq!(at(&starting, told("TZ=UTC"), NOW), Step::Done);
}

#[test]
fn an_address_that_it_was_given_is_in_its_configuration() {
    let mut known = guest(Phase::Configuring);
    known.given = Some("10.0.0.100".parse().expect("one"));
    let mut recipe = recipe();
    recipe.addresses = Some(range());
    for (ipconfig0, is_right) in [
        ("ip=10.0.0.100/24,gw=10.0.0.1", true),
        ("ip=dhcp", false),
        ("ip=10.0.0.101/24,gw=10.0.0.1", false),
    ] {
        let (presence, is_busy) = (ours(&[("ipconfig0", ipconfig0)]), false);
        let asked = next(&recipe, &known, &Seen { presence, is_busy }, NOW);
        let expected = if is_right { Ask::Start } else { Ask::Configure };
        assert_eq!(asked, Step::Ask(expected), "{ipconfig0}");
    }
}

#[test]
fn a_number_that_is_somebodys_is_left_and_what_was_ours_is_gone() {
    assert_eq!(
        step(&guest(Phase::Cloning), Presence::Foreign, false),
        Step::Choose
    );
    for phase in [Phase::Configuring, Phase::Starting, Phase::Ready] {
        for presence in [Presence::Foreign, Presence::Absent] {
            let asked = step(&guest(phase), presence, false);
            assert_eq!(asked, Step::Record(Note::Gone), "{phase:?}");
        }
        let unknown = Presence::Unknown("it moves".to_owned());
        assert!(waits(&step(&guest(phase), unknown, false)));
    }
}

#[test]
fn it_is_removed_only_where_all_of_the_proof_is_there() {
    let leaving = guest(Phase::Leaving);
    assert_eq!(step(&leaving, running(), false), Step::Ask(Ask::ShutDown));
    assert_eq!(step(&leaving, ours(&[]), false), Step::Ask(Ask::Remove));
    for held in [
        step(&leaving, ours(&[]), true),
        step(&leaving, ours(&[("protection", "1")]), false),
        step(
            &leaving,
            Presence::Ours(Facts {
                lock: Some("backup".to_owned()),
                ..facts(&[])
            }),
            false,
        ),
        step(
            &leaving,
            Presence::Ours(Facts {
                resource_pool: None,
                ..facts(&[])
            }),
            false,
        ),
        step(&leaving, Presence::Unknown("it moves".to_owned()), false),
    ] {
        assert!(waits(&held), "{held:?}");
    }
    for presence in [Presence::Absent, Presence::Foreign] {
        let gone = step(&leaving, presence, false);
        assert_eq!(gone, Step::Record(Note::Gone));
    }
    assert_eq!(step(&guest(Phase::Gone), ours(&[]), false), Step::Done);
}

#[test]
fn what_was_asked_for_and_never_seen_is_waited_for() {
    let mut guest = guest(Phase::Cloning);
    guest.take(Note::Leave);
    let seen = |is_busy| Seen {
        presence: Presence::Absent,
        is_busy,
    };
    assert!(waits(&next(
        &recipe(),
        &guest,
        &seen(false),
        NOW + LOST_ANSWER_MS - 1
    )));
    assert!(waits(&next(
        &recipe(),
        &guest,
        &seen(true),
        NOW + LOST_ANSWER_MS
    )));
    let late = next(&recipe(), &guest, &seen(false), NOW + LOST_ANSWER_MS);
    assert_eq!(late, Step::Record(Note::Gone));
}

#[test]
fn a_guest_becomes_a_copy_of_itself_and_runs_again() {
    use skep_model::pool::Restoring;

    let mut one = guest(Phase::Ready);
    one.restoring = Some(Restoring {
        archive: "nas:backup/x".to_owned(),
        asked_ms: NOW,
        is_back: false,
    });
    assert_eq!(step(&one, running(), false), Step::Ask(Ask::ShutDown));
    assert_eq!(step(&one, ours(&[]), false), Step::Ask(Ask::Restore));
    // While its disks are replaced it has a lock, and no name.
    assert!(waits(&step(&one, ours(&[("lock", "create")]), true)));
    assert!(waits(&step(&one, Presence::Foreign, true)));
    let archive = || "nas:backup/x".to_owned();
    // Of one that was named before, and is wanted no more.
    one.take(Note::BroughtBack("nas:backup/other".to_owned()));
    assert_eq!(step(&one, ours(&[]), false), Step::Ask(Ask::Restore));
    one.take(Note::BroughtBack(archive()));
    assert_eq!(step(&one, ours(&[]), false), Step::Ask(Ask::Start));
    // A restore of the one before came about after all: neither started nor said to be it.
    let another = |is_running| {
        Presence::Ours(Facts {
            is_another: true,
            is_running,
            ..facts(&[])
        })
    };
    for is_running in [false, true] {
        let seen = step(&one, another(is_running), false);
        assert_eq!(seen, Step::Record(Note::NotBack(archive())));
    }
    let restored = Step::Record(Note::Restored(archive()));
    assert_eq!(step(&one, running(), false), restored.clone());
    one.take(Note::Restored(archive()));
    assert_eq!(step(&one, running(), false), Step::Done);

    // Of another size than the copy: it keeps its own.
    one.size = Some(recipe().size());
    one.restoring = Some(Restoring {
        archive: "nas:backup/x".to_owned(),
        asked_ms: NOW,
        is_back: true,
    });
    let smaller = ours(&[("memory", "2048")]);
    assert_eq!(step(&one, smaller, false), Step::Ask(Ask::Reshape));
    assert_eq!(step(&one, ours(&[]), false), Step::Ask(Ask::Start));
    // Somebody else has started it, before it had that.
    for (change, ask) in [
        (("memory", "2048"), Some(Ask::ShutDown)),
        (("scsi0", "local:vm-5000-disk-0,size=8G"), Some(Ask::Resize)),
        (("cores", "4"), None),
    ] {
        let runs = Presence::Ours(Facts {
            is_running: true,
            ..facts(&[change])
        });
        let expected = ask.map_or(restored.clone(), Step::Ask);
        assert_eq!(step(&one, runs, false), expected, "{change:?}");
    }

    // Who leaves becomes nothing any more.
    one.restoring = Some(Restoring {
        archive: "nas:backup/x".to_owned(),
        asked_ms: NOW,
        is_back: true,
    });
    one.take(Note::Leave);
    assert_eq!(one.restoring, None);
}
