//! Pools come to what they want, whatever order their guests come and go in.

use std::net::Ipv4Addr;

use skep_model::guest_pool::Size;
use skep_model::id::{ClusterId, NodeId, TokenId};
use skep_model::node::{Facts, Node};
use skep_model::pool::{Identity, Kind as GuestKind, Note, Recipe, VmidRange};
use skep_model::provider::{Provider, Proxmox, Trust, Way};
use skep_model::server::{JoinToken, Role};
use skep_model::variable::Sealed;
use skep_proto::convert::{enum_number, note_out};

use super::*;

struct World {
    state: State,
    index: u64,
    ids: u128,
}

impl World {
    fn new(size: Size) -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            ids: 1_000,
        };
        world.ok(Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(ClusterId::from_u128(9).as_u128()),
            workspace: Some(v1::Workspace {
                id: id_bytes(1),
                name: "default".into(),
            }),
            ..Default::default()
        }));
        let provider = Provider {
            name: "home".into(),
            way: Way::Proxmox(Proxmox {
                endpoints: vec!["https://pve1:8006".into()],
                trust: Trust::Pins(vec!["AA".into()]),
                token_id: "skep@pve!skep".into(),
                secret: Sealed(vec![1]),
            }),
            made_ms: 0,
            changed_ms: 0,
        };
        world.ok(Kind::PutProvider(v1::PutProvider {
            provider: Some((&provider).into()),
        }));
        world.put(2, size);
        world
    }

    /// The pool, with guests of so many cores.
    fn put(&mut self, cores: u32, size: Size) {
        let pool = GuestPool {
            name: "web".into(),
            provider: "home".into(),
            recipe: Recipe {
                kind: GuestKind::Vm,
                templates: [("pve1".to_owned(), 9000)].into(),
                full_clone: false,
                storage: None,
                cores,
                memory_mib: 2048,
                disk_gib: 20,
                disk: "scsi0".into(),
                bridge: "vmbr0".into(),
                vlan: None,
                user: None,
                ssh_keys: Vec::new(),
                vmids: VmidRange {
                    first: 5000,
                    last: 5999,
                },
                resource_pool: "skep".into(),
                max_per_host: None,
                addresses: None,
            },
            meta: Default::default(),
            size,
            backups: None,
            fences: true,
            decided: None,
            seen: None,
            edition: 0,
            generation: 0,
            made_ms: 0,
        };
        let known = self.state.guest_pool("web").map_or(0, |it| it.generation);
        self.ok(Kind::PutGuestPool(v1::PutGuestPool {
            pool: Some((&pool).into()),
            expected_generation: known,
        }));
    }

    fn apply(&mut self, kind: Kind) -> Result<(), String> {
        self.index += 1;
        let bytes = skep_state::command(1_000 * self.index, kind);
        let applied = self.state.apply(self.index, &bytes);
        applied.outcome.map(drop).map_err(|it| it.to_string())
    }

    fn ok(&mut self, kind: Kind) {
        self.apply(kind).expect("accepted");
    }

    fn now_ms(&self) -> u64 {
        self.state.time_ms()
    }

    /// What is due is written down; how much it was.
    fn step(&mut self) -> usize {
        let mut next = self.ids;
        let kinds = due(&self.state, self.now_ms(), || {
            next += 1;
            GuestId::from_u128(next)
        });
        self.ids = next;
        let count = kinds.len();
        for kind in kinds {
            self.ok(kind);
        }
        count
    }

    fn note(&mut self, id: GuestId, note: &Note) {
        self.ok(Kind::NoteGuest(v1::NoteGuest {
            id: id_bytes(id.as_u128()),
            note: note_out(note),
        }));
    }

    /// One guest gets on by one step of its way.
    fn advance(&mut self, id: GuestId) {
        let one = (**self.state.guest(id).expect("there")).clone();
        let number = u32::try_from(id.as_u128()).expect("small");
        match one.guest.phase {
            Phase::Planned => {
                let chosen = Note::Chosen {
                    host: "pve1".into(),
                    vmid: 4_000 + number,
                    address: Some(Ipv4Addr::from(number).into()),
                    now_ms: 1,
                };
                self.note(id, &chosen);
            }
            Phase::Cloning => {
                let identity = Identity {
                    mac: format!("{number}"),
                    smbios: None,
                };
                self.note(id, &Note::Identified(identity));
            }
            Phase::Configuring => self.note(id, &Note::Started),
            Phase::Starting => self.join(&one),
            Phase::Ready => {}
            Phase::Leaving => {
                if let Some(node) = one.node {
                    self.judge(node, NodeStatus::Lost);
                }
                self.note(id, &Note::Gone);
            }
            Phase::Gone => {}
        }
    }

    fn join(&mut self, one: &PoolGuest) {
        let token = JoinToken {
            id: TokenId::from_u128(one.guest.id.as_u128()),
            secret_hash: vec![1],
            expires_ms: u64::MAX,
            uses_left: 1,
            role: Role::Node,
            note: String::new(),
            created_ms: 0,
        };
        self.ok(Kind::IntroduceGuest(v1::IntroduceGuest {
            id: id_bytes(one.guest.id.as_u128()),
            token: Some((&token).into()),
        }));
        let mut facts = Facts::default();
        facts.machine.macs = vec![one.guest.identity.clone().expect("known").mac];
        let id = NodeId::from_u128(one.guest.id.as_u128());
        let node = Node {
            id,
            name: one.guest.name(),
            facts,
            status: NodeStatus::Lost,
            status_ms: 0,
            generation: 0,
            joined_ms: 0,
            meta: Default::default(),
            admin: Default::default(),
            seat: 0,
            witnesses: Vec::new(),
            fencing: Default::default(),
        };
        self.ok(Kind::JoinNode(v1::JoinNode {
            token: id_bytes(token.id.as_u128()),
            secret_hash: vec![1],
            node: Some((&node).into()),
        }));
        self.judge(id, NodeStatus::Ready);
    }

    fn judge(&mut self, node: NodeId, status: NodeStatus) {
        self.ok(Kind::SetNodeStatus(v1::SetNodeStatus {
            node: id_bytes(node.as_u128()),
            status: enum_number(&NodeStatus::ALL, &status),
            witnesses: Vec::new(),
        }));
    }

    fn scale(&mut self, wanted: u32) {
        self.ok(Kind::ScaleGuestPool(v1::ScaleGuestPool {
            name: "web".into(),
            wanted,
            expected_generation: 0,
        }));
    }

    /// Of those that are not to go: how many there are, and how many of them work.
    fn staying(&self) -> (usize, usize) {
        let stays = |one: &&std::sync::Arc<PoolGuest>| one.guest.phase < Phase::Leaving;
        let all = self.state.guests().filter(stays);
        let ready = self.state.guests().filter(stays).filter(|it| it.is_ready());
        (all.count(), ready.count())
    }

    /// Guests get on in any order until nothing is left to do; what holds all the while is looked at.
    fn settle(&mut self, random: &mut Lcg, holds: impl Fn(&Self)) {
        for _ in 0..10_000 {
            let written = self.step();
            holds(self);
            let now = self.now_ms();
            let moving: Vec<GuestId> = driven(&self.state, now)
                .filter(|one| !one.is_ready())
                .map(|one| one.guest.id)
                .collect();
            if moving.is_empty() && written == 0 {
                return;
            }
            if !moving.is_empty() {
                self.advance(moving[random.below(moving.len())]);
            }
        }
        panic!("it never settles");
    }
}

/// Numbers in an order that is the same each time.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end
    }
}

fn size(wanted: u32) -> Size {
    Size {
        min: 0,
        max: 20,
        wanted,
        auto: None,
    }
}

#[test]
fn a_pool_grows_and_shrinks_to_what_it_wants() {
    for seed in 0..50 {
        let mut random = Lcg(seed);
        let mut world = World::new(size(3));
        for wanted in [3, 12, 5, 0, 1] {
            world.scale(wanted);
            let before = world.staying().1;
            world.settle(&mut random, |now| {
                let (all, ready) = now.staying();
                let most = before.max(wanted as usize);
                assert!(all <= most, "{seed}: {all} of {most}");
                let fewest = before.min(wanted as usize);
                assert!(ready >= fewest, "{seed}: {ready} of {fewest}");
            });
            assert_eq!(world.staying(), (wanted as usize, wanted as usize));
        }
        assert_eq!(world.state.nodes().count(), 1);
    }
}

#[test]
fn another_comes_before_one_that_is_replaced_goes() {
    for seed in 0..50 {
        let mut random = Lcg(seed);
        let mut world = World::new(size(4));
        world.settle(&mut random, |_| ());
        world.put(4, size(4));
        let all: Vec<GuestId> = world.state.guests().map(|one| one.guest.id).collect();
        for id in &all {
            world.ok(Kind::RetireGuest(v1::RetireGuest {
                id: id_bytes(id.as_u128()),
                replace: true,
                leave: false,
                drain_deadline_ms: 0,
            }));
        }
        world.settle(&mut random, |now| {
            let (all, ready) = now.staying();
            assert!(all <= 5 && ready >= 4, "{seed}: {ready} of {all}");
        });
        assert_eq!(world.staying(), (4, 4));
        assert!(world.state.guests().all(|one| one.edition == 2));
        assert!(all.iter().all(|id| world.state.guest(*id).is_none()));
    }
}

#[test]
fn a_wrong_template_does_not_fill_a_host() {
    let mut world = World::new(size(20));
    assert_eq!(world.step(), COMING_MAX);
    assert_eq!(world.step(), 0);
}

#[test]
fn what_somebody_removed_is_made_again() {
    let mut random = Lcg(1);
    let mut world = World::new(size(2));
    world.settle(&mut random, |_| ());
    let one = (**world.state.guests().next().expect("there")).clone();
    world.note(one.guest.id, &Note::Gone);
    // Its node is still taken to be there: it is forgotten when that is lost.
    world.settle(&mut random, |_| ());
    assert_eq!((world.staying(), world.state.nodes().count()), ((2, 2), 3));
    world.judge(one.node.expect("joined"), NodeStatus::Lost);
    world.settle(&mut random, |_| ());
    assert_eq!(world.state.nodes().count(), 2);
    assert!(world.state.guest(one.guest.id).is_none());
}
