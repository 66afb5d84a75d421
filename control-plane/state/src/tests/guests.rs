//! Pools that make their nodes: counted, numbered once, joined by proof alone, and gone before they are forgotten.

use std::net::Ipv4Addr;

use skep_model::guest_pool::{Auto, GuestPool, PoolGuest, Size};
use skep_model::id::GuestId;
use skep_model::node::Admin;
use skep_model::pool::{
    Backups, Identity, Kind as GuestKind, Machine, Note, Phase, Program, Recipe, VmidRange, name_of,
};
use skep_model::provider::{Provider, Proxmox, Trust, Way};
use skep_model::server::Role;
use skep_model::variable::Sealed;
use skep_proto::convert::note_out;

use super::*;

const FIRST: u128 = 900;

fn provider() -> Kind {
    let provider = Provider {
        name: "home".into(),
        way: Way::Proxmox(Proxmox {
            endpoints: vec!["https://pve1:8006".into()],
            trust: Trust::Pins(vec!["AA".into()]),
            token_id: "skep@pve!skep".into(),
            secret: Sealed(vec![1]),
        }),
        made_ms: 70,
        changed_ms: 70,
    };
    Kind::PutProvider(v1::PutProvider {
        provider: Some((&provider).into()),
    })
}

fn other_provider(name: &str, way: Way) -> Kind {
    let provider = Provider {
        name: name.into(),
        way,
        made_ms: 70,
        changed_ms: 70,
    };
    Kind::PutProvider(v1::PutProvider {
        provider: Some((&provider).into()),
    })
}

fn program() -> Way {
    Way::Exec(Program {
        file: "cloud.sh".into(),
        parameters: [("size".to_owned(), "cx22".to_owned())].into(),
        deadline_s: 60,
    })
}

/// Machines m1, m2, ...
fn machines(count: u8) -> Vec<Machine> {
    let machine = |number: u8| Machine {
        name: format!("m{number}"),
        address: [10, 0, 0, number].into(),
        mac: format!("bc:24:11:00:01:{number:02x}"),
    };
    (1..=count).map(machine).collect()
}

/// A pool of a provider that is no Proxmox cluster.
fn plain(name: &str, provider: &str, recipe: Recipe) -> GuestPool {
    GuestPool {
        provider: provider.into(),
        recipe,
        ..pool(name, 5000, 2)
    }
}

fn asked(number: u128, machine: Option<&str>) -> Kind {
    let asked = Note::Asked {
        machine: machine.map(str::to_owned),
        address: None,
        now_ms: 1,
    };
    note(number, &asked)
}

fn pool(name: &str, first_vmid: u32, wanted: u32) -> GuestPool {
    GuestPool {
        name: name.into(),
        provider: "home".into(),
        recipe: Recipe {
            kind: GuestKind::Vm,
            templates: [("pve1".to_owned(), 9000)].into(),
            full_clone: false,
            storage: None,
            cores: 2,
            memory_mib: 2048,
            disk_gib: 20,
            disk: "scsi0".into(),
            bridge: "vmbr0".into(),
            vlan: Some(7),
            user: None,
            ssh_keys: Vec::new(),
            vmids: VmidRange {
                first: first_vmid,
                last: first_vmid + 99,
            },
            resource_pool: "skep".into(),
            max_per_host: None,
            addresses: None,
        },
        meta: [("tier".to_owned(), "web".to_owned())].into(),
        size: Size {
            min: 0,
            max: 5,
            wanted,
            auto: None,
        },
        backups: None,
        decided: None,
        seen: None,
        // What the cluster counts, nobody else says.
        fences: true,
        edition: 70,
        generation: 70,
        made_ms: 70,
    }
}

fn put(pool: &GuestPool, expected_generation: u64) -> Kind {
    Kind::PutGuestPool(v1::PutGuestPool {
        pool: Some(pool.into()),
        expected_generation,
    })
}

pub(super) fn id(number: u128) -> Vec<u8> {
    id_bytes(FIRST + number)
}

pub(super) fn plan(number: u128) -> Kind {
    Kind::PlanGuest(v1::PlanGuest {
        id: id(number),
        pool: "web".into(),
    })
}

pub(super) fn note(number: u128, note: &Note) -> Kind {
    Kind::NoteGuest(v1::NoteGuest {
        id: id(number),
        note: note_out(note),
    })
}

pub(super) fn chosen(number: u128, vmid: u32) -> Kind {
    let chosen = Note::Chosen {
        host: "pve1".into(),
        vmid,
        address: Some(Ipv4Addr::from(vmid).into()),
        now_ms: 1,
    };
    note(number, &chosen)
}

pub(super) fn retire(number: u128, replace: bool, leave: bool) -> Kind {
    Kind::RetireGuest(v1::RetireGuest {
        id: id(number),
        replace,
        leave,
        drain_deadline_ms: 99,
    })
}

pub(super) fn forget(number: u128) -> Kind {
    Kind::ForgetGuest(v1::ForgetGuest { id: id(number) })
}

fn identity() -> Identity {
    Identity {
        mac: "BC:24:11:00:00:01".into(),
        smbios: Some("00000000-0000-4000-8000-000000000001".into()),
    }
}

fn introduce(number: u128, token: u128) -> Kind {
    let token = JoinToken {
        id: TokenId::from_u128(token),
        secret_hash: vec![7],
        expires_ms: u64::MAX,
        uses_left: 1,
        role: Role::Node,
        note: String::new(),
        created_ms: 0,
    };
    Kind::IntroduceGuest(v1::IntroduceGuest {
        id: id(number),
        token: Some((&token).into()),
    })
}

/// A node that joins with a token, as a machine.
fn join(token: u128, name: &str, machine: (&str, Option<&str>)) -> Kind {
    let mut facts = Facts::default();
    facts.machine.macs = vec![machine.0.to_owned()];
    facts.machine.uuid = machine.1.map(str::to_owned);
    let node = Node {
        id: NodeId::from_u128(55),
        name: name.to_owned(),
        facts,
        status: NodeStatus::Lost,
        status_ms: 0,
        generation: 0,
        joined_ms: 0,
        // Operators say what is in it, not the node.
        meta: [("tier".to_owned(), "mine".to_owned())].into(),
        admin: Admin::Eligible,
        seat: 0,
        witnesses: Vec::new(),
        fencing: Default::default(),
    };
    Kind::JoinNode(v1::JoinNode {
        token: id_bytes(token),
        secret_hash: vec![7],
        node: Some((&node).into()),
    })
}

/// The same, which scales itself.
fn scaling(wanted: u32) -> GuestPool {
    let mut pool = pool("web", 5000, wanted);
    pool.size.auto = Some(Auto {
        cost: 3,
        headroom_cpu_millis: 2_000,
        headroom_memory_bytes: 1 << 30,
        spare: 1,
        idle_ms: 60_000,
    });
    pool
}

fn decide(expected_generation: u64, wanted: u32, guest: Option<u128>) -> Kind {
    Kind::DecideNodes(v1::DecideNodes {
        pool: "web".into(),
        expected_generation,
        wanted,
        guest: guest.map(id).unwrap_or_default(),
        drain_deadline_ms: 99,
        reason: "because".into(),
    })
}

/// A bit of everything.
pub(super) fn some(world: &mut World) {
    world.ok(provider());
    world.ok(put(&pool("web", 5000, 3), 0));
    world.ok(plan(0));
    world.ok(chosen(0, 5000));
    world.ok(note(0, &Note::Identified(identity())));
    world.ok(introduce(0, 700));
    world.ok(plan(1));
    world.ok(retire(1, true, true));
    world.ok(put(&scaling(3), 1));
    world.ok(decide(2, 4, None));
    world.ok(other_provider("cloud", program()));
    world.ok(other_provider("rack", Way::Static(machines(2))));
    world.ok(put(
        &plain("burst", "cloud", Recipe::sized(2, 4_096, 32)),
        0,
    ));
    world.ok(put(&plain("metal", "rack", Recipe::default()), 0));
}

fn world(wanted: u32) -> World {
    let mut world = World::with_service();
    world.ok(provider());
    world.ok(put(&pool("web", 5000, wanted), 0));
    world
}

/// One whose guest runs, and is known.
pub(super) fn started(wanted: u32) -> World {
    let mut world = world(wanted);
    world.ok(plan(0));
    world.ok(chosen(0, 5000));
    world.ok(note(0, &Note::Identified(identity())));
    world.ok(note(0, &Note::Started));
    world
}

/// One whose guest's node has joined.
pub(super) fn joined(wanted: u32) -> World {
    let mut world = started(wanted);
    world.ok(introduce(0, 700));
    let identity = identity();
    let mac = identity.mac.to_lowercase();
    world.ok(join(
        700,
        &name_of(GuestId::from_u128(FIRST)),
        (&mac, identity.smbios.as_deref()),
    ));
    world
}

impl World {
    pub(super) fn one(&self, number: u128) -> PoolGuest {
        let id = GuestId::from_u128(FIRST + number);
        (**self.state.guest(id).expect("there")).clone()
    }

    fn wanted(&self) -> u32 {
        self.state.guest_pool("web").expect("there").size.wanted
    }

    pub(super) fn denied(&mut self, kind: Kind) -> (Code, Option<String>) {
        let before = self.state.clone();
        let problem = self.apply(kind).outcome.expect_err("refused");
        assert!(before.guests == self.state.guests && before.nodes == self.state.nodes);
        (problem.code, problem.field)
    }
}

#[test]
fn as_many_are_planned_as_are_wanted() {
    let mut world = world(2);
    world.ok(plan(0));
    world.ok(plan(1));
    assert_eq!(world.denied(plan(1)).0, Code::Conflict);
    assert_eq!(world.denied(plan(2)).0, Code::Conflict);
    // One that is replaced is counted no more: another comes beside it.
    world.ok(retire(0, true, false));
    world.ok(plan(2));
    assert_eq!(world.denied(plan(3)).0, Code::Conflict);
    assert_eq!(world.wanted(), 2);
}

#[test]
fn a_number_is_one_guests_and_one_pools() {
    let mut world = world(3);
    world.ok(plan(0));
    world.ok(plan(1));
    world.ok(chosen(0, 5000));
    assert_eq!(world.denied(chosen(1, 5000)).0, Code::Conflict);
    world.ok(chosen(1, 5001));
    // Of what is gone for good, it may be had again.
    world.ok(note(0, &Note::Gone));
    world.ok(plan(2));
    world.ok(chosen(2, 5000));
    let overlaps = world.denied(put(&pool("db", 5050, 0), 0));
    assert_eq!(overlaps, (Code::Conflict, Some("vmids".into())));
    world.ok(put(&pool("db", 5100, 0), 0));
}

#[test]
fn a_pool_says_what_its_provider_follows() {
    let mut world = world(1);
    world.ok(other_provider("cloud", program()));
    world.ok(other_provider("rack", Way::Static(machines(2))));
    let sized = Recipe::sized(2, 4_096, 32);
    let of_proxmox = pool("web", 5000, 1).recipe;
    let mut auto = plain("burst", "rack", Recipe::default());
    auto.size.auto = Some(Auto::default());
    let mut copied = plain("burst", "cloud", sized.clone());
    copied.backups = Some(Backups {
        schedule: "0 3 * * 0".into(),
        time_zone: "UTC".into(),
        storage: "nas".into(),
        keep: 4,
        since_ms: 0,
    });
    for (field, odd) in [
        ("templates", plain("burst", "cloud", of_proxmox.clone())),
        ("templates", plain("burst", "rack", of_proxmox)),
        ("cores", plain("burst", "rack", sized.clone())),
        ("vmids", plain("burst", "home", sized.clone())),
        ("auto", auto),
        ("backups", copied),
        ("provider", plain("burst", "nobody", sized.clone())),
    ] {
        assert_eq!(world.denied(put(&odd, 0)).1.as_deref(), Some(field));
    }
    // Neither has numbers that could overlap with another's.
    for (name, provider, recipe) in [
        ("burst", "cloud", sized.clone()),
        ("burst2", "cloud", sized),
        ("metal", "rack", Recipe::default()),
        ("metal2", "rack", Recipe::default()),
    ] {
        world.ok(put(&plain(name, provider, recipe), 0));
    }
    // Whoever has a pool stays what it is.
    let other = world.denied(other_provider("cloud", Way::Static(machines(1))));
    assert_eq!(other, (Code::Conflict, Some("provider".into())));
    world.ok(other_provider("cloud", program()));
}

#[test]
fn a_machine_is_one_guests_until_that_is_forgotten() {
    let mut world = world(0);
    let rack = |machines: Vec<Machine>| other_provider("rack", Way::Static(machines));
    world.ok(rack(machines(2)));
    let twice = other_provider("rack2", Way::Static(machines(1)));
    let denied = world.denied(twice);
    assert_eq!(denied, (Code::Conflict, Some("machines".into())));
    world.ok(Kind::RemoveGuestPool(v1::RemoveGuestPool {
        name: "web".into(),
    }));
    world.ok(put(&plain("web", "rack", Recipe::default()), 0));
    world.ok(plan(0));
    world.ok(plan(1));
    world.ok(asked(0, Some("m1")));
    // Both were driven from one view.
    assert_eq!(world.denied(asked(1, Some("m1"))).0, Code::Conflict);
    world.ok(asked(1, Some("m2")));
    let its = |number: u8| {
        Note::Identified(Identity {
            mac: format!("BC:24:11:00:01:{number:02X}"),
            smbios: None,
        })
    };
    world.ok(note(0, &its(1)));
    // A machine that is taken stays what it is; others come and go.
    let mut changed = machines(2);
    changed[0].mac = "bc:24:11:00:01:99".into();
    for list in [changed, machines(2)[1..].to_vec()] {
        let denied = world.denied(rack(list));
        assert_eq!(denied, (Code::Conflict, Some("machines".into())));
    }
    world.ok(rack(machines(3)));
    world.ok(introduce(0, 700));
    let name = name_of(GuestId::from_u128(FIRST));
    let other = join(700, &name, ("bc:24:11:00:01:02", None));
    assert_eq!(world.denied(other).0, Code::Forbidden);
    // What is no Proxmox guest has no SMBIOS id to prove.
    world.ok(join(700, &name, ("bc:24:11:00:01:01", Some("any"))));
    let node = world.state.node(NodeId::from_u128(55)).expect("joined");
    assert_eq!(node.meta["host"], "m1");
    world.ok(retire(0, true, true));
    world.ok(note(0, &Note::Gone));
    world.ok(plan(2));
    // Its agent may still run there.
    assert_eq!(world.denied(asked(2, Some("m1"))).0, Code::Conflict);
    world.ok(forget(0));
    world.ok(asked(2, Some("m1")));
}

#[test]
fn a_pool_keeps_what_its_guests_are_made_of() {
    let mut world = world(1);
    let mut other = pool("web", 5000, 1);
    other.recipe.cores = 4;
    world.ok(put(&other, 1));
    let now = world.state.guest_pool("web").expect("there").clone();
    assert_eq!((now.edition, now.generation), (2, 2));
    assert_eq!(world.denied(put(&other, 1)).0, Code::Conflict);
    world.ok(plan(0));
    assert_eq!(world.one(0).edition, 2);
    other.recipe.resource_pool = "other".into();
    let denied = world.denied(put(&other, 2));
    assert_eq!(denied.1.as_deref(), Some("resource_pool"));
    let remove = Kind::RemoveGuestPool(v1::RemoveGuestPool { name: "web".into() });
    assert_eq!(world.denied(remove.clone()).0, Code::Conflict);
    let provider = Kind::RemoveProvider(v1::RemoveProvider {
        name: "home".into(),
    });
    assert_eq!(world.denied(provider.clone()).0, Code::Conflict);
    world.ok(note(0, &Note::Gone));
    world.ok(forget(0));
    world.ok(remove);
    world.ok(provider);
}

#[test]
fn a_token_of_a_guest_lets_that_very_machine_in() {
    let mut world = started(1);
    let name = name_of(GuestId::from_u128(FIRST));
    let (mac, uuid) = ("bc:24:11:00:00:01", identity().smbios);
    let uuid = uuid.as_deref();
    world.ok(introduce(0, 700));
    // Another one makes the first good for nothing.
    world.ok(introduce(0, 701));
    let unknown = world.denied(join(700, &name, (mac, uuid))).0;
    assert_eq!(unknown, Code::Unauthenticated);
    for machine in [
        ("bc:24:11:00:00:02", uuid),
        (mac, Some("00000000-0000-4000-8000-000000000002")),
        (mac, None),
    ] {
        assert_eq!(world.denied(join(701, &name, machine)).0, Code::Forbidden);
    }
    assert_eq!(
        world.denied(join(701, "web-1", (mac, uuid))).0,
        Code::Forbidden
    );
    world.ok(join(701, &name, (mac, uuid)));
    let one = world.one(0);
    let node = world.state.node(NodeId::from_u128(55)).expect("joined");
    assert_eq!((one.guest.phase, one.node), (Phase::Ready, Some(node.id)));
    let said: Vec<(&str, &str)> = node.meta.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(said, [("host", "pve1"), ("pool", "web"), ("tier", "web")]);
    assert!(world.state.guest_of(node.id).is_some());
}

#[test]
fn nobody_is_introduced_before_it_is_known_or_once_it_is_there() {
    let mut world = world(1);
    world.ok(plan(0));
    world.ok(chosen(0, 5000));
    assert_eq!(world.denied(introduce(0, 700)).0, Code::Conflict);
    let mut world = joined(1);
    assert_eq!(world.denied(introduce(0, 702)).0, Code::Conflict);
}

#[test]
fn whoever_leaves_is_drained_counted_once_and_forgotten_with_its_node() {
    let mut world = joined(1);
    world.ok(retire(0, false, true));
    assert_eq!(
        (world.wanted(), world.one(0).guest.phase),
        (0, Phase::Leaving)
    );
    // Said twice: counted once.
    world.ok(retire(0, false, true));
    assert_eq!(world.wanted(), 0);
    let node = NodeId::from_u128(55);
    let admin = world.state.node(node).expect("there").admin;
    assert_eq!(admin, Admin::Draining { deadline_ms: 99 });
    let uncordon = Kind::SetNodeAdmin(v1::SetNodeAdmin {
        node: id_bytes(55),
        ..Default::default()
    });
    assert_eq!(world.denied(uncordon).0, Code::Conflict);
    assert_eq!(world.denied(forget(0)).0, Code::Conflict);
    world.ok(note(0, &Note::Gone));
    world.ok(forget(0));
    assert!(world.state.node(node).is_none());
    assert_eq!(world.state.guests().count(), 0);
}

#[test]
fn a_pool_keeps_its_fewest_and_what_more_it_has_goes_without_counting() {
    let mut world = world(3);
    let mut fewest = pool("web", 5000, 3);
    fewest.size.min = 2;
    world.ok(put(&fewest, 1));
    for number in 0..3 {
        world.ok(plan(number));
    }
    let scale = |wanted| {
        Kind::ScaleGuestPool(v1::ScaleGuestPool {
            name: "web".into(),
            wanted,
            expected_generation: 0,
        })
    };
    let too_few = world.denied(scale(1));
    assert_eq!(too_few.1.as_deref(), Some("wanted"));
    world.ok(scale(2));
    world.ok(retire(0, false, true));
    assert_eq!(world.wanted(), 2);
    assert_eq!(world.denied(retire(1, false, true)).0, Code::Conflict);
    // In its place comes another.
    world.ok(retire(1, true, true));
    world.ok(plan(3));
    assert_eq!(world.wanted(), 2);
}

pub(super) fn restore(number: u128, archive: &str) -> Kind {
    Kind::RestoreGuest(v1::RestoreGuest {
        id: id(number),
        archive: archive.into(),
        instead_of: String::new(),
    })
}

/// Another copy than the one before.
fn restore_instead(before: &str, archive: &str) -> Kind {
    Kind::RestoreGuest(v1::RestoreGuest {
        id: id(0),
        archive: archive.into(),
        instead_of: before.into(),
    })
}

#[test]
fn a_guest_becomes_an_older_copy_and_its_agent_may_speak_again() {
    let mut world = joined(1);
    let node = NodeId::from_u128(55);
    world.ok(Kind::TakeSeat(v1::TakeSeat {
        node: id_bytes(55),
        expected: Vec::new(),
        seat: id_bytes(9),
    }));
    assert_eq!(world.denied(restore(0, "")).1.as_deref(), Some("archive"));
    assert_eq!(world.denied(restore(1, "nas:x")).0, Code::NotFound);
    world.ok(restore(0, "nas:x"));
    assert_eq!(
        world.denied(restore(0, "nas:x")),
        (Code::Conflict, Some("archive".into()))
    );
    let seat = |world: &World| world.state.node(node).expect("there").seat;
    assert_eq!(seat(&world), 9, "its disks are what they were");
    world.ok(note(0, &brought_back("nas:x")));
    let restoring = world.one(0).guest.restoring.expect("under way");
    assert!(restoring.is_back);
    assert_eq!(seat(&world), 0);
    // Said again, after the agent of the older disk has begun to speak.
    world.ok(Kind::TakeSeat(v1::TakeSeat {
        node: id_bytes(55),
        expected: Vec::new(),
        seat: id_bytes(10),
    }));
    world.ok(note(0, &brought_back("nas:x")));
    assert_eq!(seat(&world), 10);
    world.ok(note(0, &Note::Restored("nas:x".into())));
    assert_eq!(world.one(0).guest.restoring, None);
    world.ok(restore(0, "nas:y"));

    let mut leaving = joined(1);
    leaving.ok(retire(0, true, false));
    assert_eq!(leaving.denied(restore(0, "nas:x")).0, Code::Conflict);
    let mut coming = started(1);
    assert_eq!(coming.denied(restore(0, "nas:x")).0, Code::Conflict);
}

fn brought_back(archive: &str) -> Note {
    Note::BroughtBack(archive.into())
}

#[test]
fn until_it_is_back_another_copy_takes_the_first_ones_place() {
    let mut world = joined(1);
    let sit = |seat: u128| {
        Kind::TakeSeat(v1::TakeSeat {
            node: id_bytes(55),
            expected: Vec::new(),
            seat: id_bytes(seat),
        })
    };
    let seat = |world: &World| {
        let node = world.state.node(NodeId::from_u128(55));
        node.expect("there").seat
    };
    let restoring = |world: &World| world.one(0).guest.restoring.expect("under way");
    world.ok(sit(9));
    world.ok(restore(0, "nas:lost"));
    let first = restoring(&world);
    world.ok(note(0, &Note::Stuck(Some("it is not there".into()))));
    // Nobody gives up what they have not seen.
    for before in ["", "nas:x"] {
        let denied = world.denied(restore_instead(before, "nas:x"));
        assert_eq!(denied.0, Code::Conflict);
    }
    world.ok(restore_instead("nas:lost", "nas:x"));
    let second = restoring(&world);
    assert_eq!(world.one(0).guest.problem, None, "that was of the first");
    assert_eq!(second.archive, "nas:x");
    // No task of the second in which the first was asked for is taken for this one's.
    assert_eq!(second.asked_ms % 1_000, 0);
    assert!(second.asked_ms / 1_000 > first.asked_ms / 1_000);
    // Of the first one, which somebody was still at.
    world.ok(note(0, &brought_back("nas:lost")));
    world.ok(note(0, &Note::Restored("nas:lost".into())));
    assert_eq!((restoring(&world), seat(&world)), (second, 9));
    world.ok(note(0, &brought_back("nas:x")));
    assert_eq!(seat(&world), 0);
    world.ok(sit(10));
    // It does not start, and was named for that; again, with the seat of whoever spoke from the second's disks.
    world.ok(restore_instead("nas:x", "nas:y"));
    assert!(!restoring(&world).is_back);
    world.ok(note(0, &Note::Restored("nas:x".into())));
    assert_eq!(restoring(&world).archive, "nas:y");
    world.ok(note(0, &brought_back("nas:y")));
    assert_eq!(seat(&world), 0);
    world.ok(sit(11));
    world.ok(note(0, &Note::NotBack("nas:x".into())));
    assert!(restoring(&world).is_back);
    world.ok(note(0, &Note::NotBack("nas:y".into())));
    assert!(!restoring(&world).is_back);
    world.ok(note(0, &brought_back("nas:y")));
    assert_eq!(seat(&world), 0);
    world.ok(note(0, &Note::Restored("nas:y".into())));
    assert_eq!(world.one(0).guest.restoring, None);
    // It was back before that was heard.
    let late = world.denied(restore_instead("nas:y", "nas:x"));
    assert_eq!(late.0, Code::Conflict);
}

#[test]
fn copies_are_asked_for_from_when_that_was_said() {
    let mut world = world(1);
    let mut pool = pool("web", 5000, 1);
    pool.backups = Some(Backups {
        schedule: "@weekly".into(),
        time_zone: "UTC".into(),
        storage: "nas".into(),
        keep: 4,
        since_ms: 77,
    });
    let since = |world: &World| {
        let pool = world.state.guest_pool("web").expect("there");
        pool.backups.as_ref().expect("said").since_ms
    };
    world.ok(put(&pool, 1));
    let said = since(&world);
    assert_eq!(said, world.state.time_ms(), "nobody else says it");
    // As it is: nothing begins anew.
    pool.backups.as_mut().expect("said").since_ms = said;
    pool.recipe.cores = 4;
    world.ok(put(&pool, 2));
    assert_eq!(since(&world), said);
    pool.backups.as_mut().expect("said").keep = 0;
    assert_eq!(
        world.denied(put(&pool, 3)).1.as_deref(),
        Some("backups.keep")
    );
}

#[test]
fn a_pool_that_scales_itself_is_nobody_elses_to_scale() {
    let mut world = started(2);
    world.ok(introduce(0, 700));
    world.ok(join(
        700,
        &name_of(GuestId::from_u128(FIRST)),
        ("bc:24:11:00:00:01", identity().smbios.as_deref()),
    ));
    let scale = |wanted| {
        Kind::ScaleGuestPool(v1::ScaleGuestPool {
            name: "web".into(),
            wanted,
            expected_generation: 0,
        })
    };
    // It does not scale itself yet.
    assert_eq!(world.refused(decide(1, 3, None)), Code::Conflict);
    world.ok(put(&scaling(2), 1));
    assert_eq!(world.refused(scale(3)), Code::Conflict);
    assert_eq!(world.refused(decide(1, 3, None)), Code::Conflict, "stale");
    assert_eq!(world.refused(decide(2, 6, None)), Code::Invalid, "too many");
    world.ok(decide(2, 3, None));
    let found = |world: &World| world.state.guest_pool("web").expect("there").clone();
    let pool = found(&world);
    assert_eq!((pool.size.wanted, pool.generation), (3, 3));
    let decided = pool.decided.clone().expect("said");
    assert_eq!(
        (decided.at_ms, &*decided.reason),
        (world.state.time_ms(), "because")
    );
    world.ok(decide(3, 0, Some(0)));
    let pool = found(&world);
    // Fewer come than are wanted: one fewer is.
    assert_eq!((pool.size.wanted, pool.generation), (2, 4));
    let one = world.state.guest(GuestId::from_u128(FIRST)).expect("there");
    assert_eq!(one.guest.phase, Phase::Leaving);
    // What the next one will be like, when no other is there to look at.
    assert!(
        pool.seen.is_none(),
        "a node that says nothing of its memory teaches nothing"
    );
    // Said anew, it is what it was.
    world.ok(put(&scaling(2), 4));
    assert_eq!(found(&world).decided, pool.decided);
    let mut manual = scaling(2);
    manual.size.auto = None;
    world.ok(put(&manual, 5));
    world.ok(scale(1));
}

#[test]
fn what_a_node_was_like_is_remembered_as_it_goes() {
    let mut world = started(2);
    world.ok(introduce(0, 700));
    world.ok(join(
        700,
        &name_of(GuestId::from_u128(FIRST)),
        ("bc:24:11:00:00:01", identity().smbios.as_deref()),
    ));
    let mut node = (**world.state.node(NodeId::from_u128(55)).expect("joined")).clone();
    node.facts.memory_bytes = 7 << 30;
    world.state.put_node(node);
    world.ok(retire(0, false, true));
    let pool = world.state.guest_pool("web").expect("there");
    let seen = pool.seen.as_ref().expect("learned");
    assert_eq!((seen.edition, seen.facts.memory_bytes), (1, 7 << 30));
}
