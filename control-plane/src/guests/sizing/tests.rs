//! What is decided of pools that scale themselves, on a state that is made of commands alone: guests come step by step, the
//! planner places, and all that it starts is well.

use std::net::Ipv4Addr;

use skep_model::allocation::{Allocation, Desired, Observed, State as Seen};
use skep_model::deployment::{Deployment, Origin, Status, Trigger};
use skep_model::guest_pool::{Auto, Size};
use skep_model::id::{
    AllocationId, ClusterId, DeploymentId, EnvironmentId, ProjectId, ServiceId, TokenId,
    WorkspaceId,
};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::pool::{Identity, Kind as GuestKind, Note, Recipe, VmidRange};
use skep_model::provider::{Provider, Proxmox, Trust, Way};
use skep_model::server::{JoinToken, Role};
use skep_model::service::{Image, Release, Service};
use skep_model::settings::{Quota, Scope};
use skep_model::spec::{ServiceSpec, ServiceType};
use skep_model::storage::HeldVolume;
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_model::variable::Sealed;
use skep_proto::convert::{enum_number, note_out};
use skep_scheduler::draft::Draft;
use skep_scheduler::rollout::{self, Input};

use super::*;
use crate::guests::plan::{driven, due};
use crate::placement::{cluster_of, quotas, surroundings};

const ENVIRONMENT: EnvironmentId = EnvironmentId::from_u128(9);
pub(in crate::guests) const GIB: u64 = 1 << 30;
const START_MS: u64 = 10_000_000;

/// A cluster with its pools, and the leader that looks after them.
pub(in crate::guests) struct World {
    pub(in crate::guests) state: State,
    pub(in crate::guests) now_ms: u64,
    ids: u128,
    pub(in crate::guests) memory: Memory,
    /// What was decided, in order.
    pub(in crate::guests) said: Vec<String>,
    /// No guest gets on.
    pub(in crate::guests) is_full: bool,
}

/// A pool of guests with so many cores and GiB, whose nodes go after two minutes.
pub(in crate::guests) fn pool(name: &str, (cores, memory_gib): (u32, u32), max: u32) -> GuestPool {
    let number = name.bytes().map(u32::from).sum::<u32>() * 1_000;
    GuestPool {
        name: name.into(),
        provider: "home".into(),
        recipe: Recipe {
            kind: GuestKind::Vm,
            templates: [("pve1".to_owned(), 90), ("pve2".to_owned(), 91)].into(),
            full_clone: false,
            storage: None,
            cores,
            memory_mib: memory_gib * 1_024,
            disk_gib: 20,
            disk: "scsi0".into(),
            bridge: "vmbr0".into(),
            vlan: None,
            user: None,
            ssh_keys: Vec::new(),
            vmids: VmidRange {
                first: number,
                last: number + 999,
            },
            resource_pool: "skep".into(),
            max_per_host: None,
            addresses: None,
        },
        meta: Default::default(),
        size: Size {
            min: 0,
            max,
            wanted: 0,
            auto: Some(Auto {
                idle_ms: 120_000,
                ..Auto::default()
            }),
        },
        decided: None,
        seen: None,
        backups: None,
        fences: true,
        edition: 0,
        generation: 0,
        made_ms: 0,
    }
}

impl World {
    pub(in crate::guests) fn new(pools: &[GuestPool]) -> Self {
        let mut world = Self {
            state: State::default(),
            now_ms: START_MS,
            ids: 1_000,
            memory: Memory::default(),
            said: Vec::new(),
            is_full: false,
        };
        world.ok(Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(ClusterId::from_u128(5).as_u128()),
            workspace: Some(
                (&Workspace {
                    id: WorkspaceId::from_u128(7),
                    name: "default".into(),
                })
                    .into(),
            ),
            ..Default::default()
        }));
        world.ok(Kind::EnsureEnvironment(v1::EnsureEnvironment {
            workspace: id_bytes(7),
            project: Some(
                (&Project {
                    id: ProjectId::from_u128(8),
                    workspace: WorkspaceId::from_u128(7),
                    name: "p".into(),
                })
                    .into(),
            ),
            environment: Some(
                (&Environment {
                    id: ENVIRONMENT,
                    project: ProjectId::from_u128(8),
                    name: "e".into(),
                })
                    .into(),
            ),
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
        for pool in pools {
            world.put(pool);
        }
        world
    }

    pub(in crate::guests) fn put(&mut self, pool: &GuestPool) {
        let known = self.state.guest_pool(&pool.name);
        self.ok(Kind::PutGuestPool(v1::PutGuestPool {
            pool: Some(pool.into()),
            expected_generation: known.map_or(0, |it| it.generation),
        }));
    }

    fn apply(&mut self, kind: Kind) -> Result<(), String> {
        let bytes = skep_state::command(self.now_ms, kind);
        let applied = self.state.apply(self.state.index() + 1, &bytes);
        applied.outcome.map(drop).map_err(|it| it.to_string())
    }

    #[track_caller]
    pub(in crate::guests) fn ok(&mut self, kind: Kind) {
        self.apply(kind).expect("accepted");
    }

    /// A service with a deployment that waits.
    pub(super) fn deployment(&mut self, number: u128, spec: ServiceSpec, origin: Origin) {
        let id = ServiceId::from_u128(number);
        let service = Service {
            id,
            environment: ENVIRONMENT,
            name: format!("s{number}"),
            spec,
            variables: BTreeMap::new(),
            webhook_secret: None,
            live: None,
            rollout: None,
            progress: Default::default(),
            last_release: 0,
            stopped: false,
            removing: false,
            generation: 0,
            created_ms: 0,
            scaling: None,
            pinned: None,
        };
        self.ok(Kind::PutService(v1::PutService {
            service: Some((&service).into()),
            expected_generation: 0,
        }));
        let made = Deployment {
            origin,
            ..deployment_of(id, DeploymentId::from_u128(number + 1_000_000))
        };
        self.ok(Kind::CreateDeployment(v1::CreateDeployment {
            deployment: Some((&made).into()),
            delivery: None,
        }));
    }

    /// A live service of so many allocations of this size.
    pub(in crate::guests) fn service(
        &mut self,
        number: u128,
        (cpu_millis, memory_bytes): (u32, u64),
        replicas: u32,
        change: impl Fn(&mut Release),
    ) {
        let id = ServiceId::from_u128(number);
        let mut spec = ServiceSpec {
            replicas,
            ..ServiceSpec::default()
        };
        spec.resources.cpu_millis = cpu_millis;
        spec.resources.memory_bytes = memory_bytes;
        let deployment = DeploymentId::from_u128(number + 1_000_000);
        let mut release = release_of(id, deployment, &spec);
        change(&mut release);
        self.deployment(number, spec, deployment_of(id, deployment).origin);
        let generation = |world: &Self| {
            let deployment = world.state.deployment(deployment).expect("made");
            let service = world.state.service(id).expect("made");
            (deployment.generation, service.generation)
        };
        let (expected_generation, expected_service_generation) = generation(self);
        self.ok(Kind::StartRollout(v1::StartRollout {
            deployment: id_bytes(deployment.as_u128()),
            expected_generation,
            release: Some((&release).into()),
            number: 1,
            spec: None,
            expected_service_generation,
            step: "rolls out".into(),
        }));
        self.ok(Kind::FinishDeployment(v1::FinishDeployment {
            deployment: id_bytes(deployment.as_u128()),
            expected_generation: generation(self).0,
            status: enum_number(&Status::ALL, &Status::Live),
            problem: None,
            step: "live".into(),
        }));
    }

    pub(in crate::guests) fn scale(&mut self, number: u128, replicas: u32) {
        let known = self.state.service(ServiceId::from_u128(number));
        let mut service = (**known.expect("there")).clone();
        service.spec.replicas = replicas;
        self.ok(Kind::PutService(v1::PutService {
            service: Some((&service).into()),
            expected_generation: service.generation,
        }));
    }

    /// One decision, carried out.
    pub(in crate::guests) fn decide(&mut self) -> Option<String> {
        let cluster = cluster_of(&self.state);
        let decision = decide(&self.state, cluster, &mut self.memory, self.now_ms)?;
        self.ok(decision.kind);
        self.said.push(decision.reason.clone());
        Some(decision.reason)
    }

    /// What time and all others do, then one decision.
    pub(in crate::guests) fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        self.place();
        self.guests();
        self.decide();
    }

    pub(in crate::guests) fn run(&mut self, seconds: u64) {
        (0..seconds / 10).for_each(|_| self.tick(10_000));
    }

    /// The leader is another one.
    pub(in crate::guests) fn forget(&mut self) {
        self.memory = Memory::default();
    }

    /// Each service one step on; what starts is well, what is to stop has.
    pub(in crate::guests) fn place(&mut self) {
        let services: Vec<ServiceId> = self.state.services().map(|it| it.id).collect();
        for id in services {
            let service = self.state.service(id).expect("there").clone();
            // None: it is to be built first.
            let Some(release) = self.state.release(id, 1).cloned() else {
                continue;
            };
            let cluster = cluster_of(&self.state);
            let (around, quotas) = (
                surroundings(&self.state, &service),
                quotas(&self.state, &service),
            );
            let allocations = self.state.allocations_of(id).map(|it| &**it).collect();
            let mut ids = self.ids;
            let input = Input {
                service: &service,
                release: Some(&release),
                live_release: None,
                allocations,
                now_ms: self.now_ms,
                drained: &|_| true,
                around: &around,
                quotas: &quotas,
                limit: 1_000,
            };
            let plan = rollout::plan(&mut Draft::new(&cluster), &input, &mut || {
                ids += 1;
                AllocationId::from_u128(ids)
            });
            self.ids = ids;
            if plan.is_empty() {
                continue;
            }
            let desires = plan.desires.iter().map(|it| v1::Desire {
                allocation: id_bytes(it.allocation.as_u128()),
                desired: enum_number(&Desired::ALL, &it.desired),
                reason: it.reason.clone(),
            });
            self.ok(Kind::ApplyPlan(v1::ApplyPlan {
                starts: plan.allocations().map(|it| (&it).into()).collect(),
                desires: desires.collect(),
                ..Default::default()
            }));
        }
        self.observe();
    }

    fn observe(&mut self) {
        let told = |it: &Allocation| match it.desired {
            Desired::Stop => Seen::Stopped,
            _ => Seen::Healthy,
        };
        let live = self.state.allocations().filter(|it| it.is_live());
        let live: Vec<(NodeId, AllocationId, Seen)> = live
            .map(|it| (it.node, it.id, told(it)))
            .filter(|(_, id, seen)| {
                let known = self.state.allocation(*id);
                known.is_some_and(|it| it.observed.state != *seen)
            })
            .collect();
        for (node, id, state) in live {
            let observed = Observed {
                state,
                ..Observed::pending()
            };
            self.ok(Kind::Observe(v1::Observe {
                node: id_bytes(node.as_u128()),
                allocations: vec![v1::AllocationObservation {
                    allocation: id_bytes(id.as_u128()),
                    observed: Some((&observed).into()),
                }],
                ..v1::Observe::default()
            }));
        }
    }

    /// What is due of guests is written down, and each gets on by one step.
    pub(in crate::guests) fn guests(&mut self) {
        self.begin_sessions();
        let mut next = self.ids;
        let kinds = due(&self.state, self.now_ms, || {
            next += 1;
            GuestId::from_u128(next)
        });
        self.ids = next;
        for kind in kinds {
            self.ok(kind);
        }
        let moving: Vec<GuestId> = driven(&self.state, self.now_ms)
            .filter(|one| !one.is_ready())
            .map(|one| one.guest.id)
            .collect();
        for id in moving {
            self.advance(id);
        }
    }

    /// The first ones, of nodes that have joined.
    fn begin_sessions(&mut self) {
        let nodes = self.state.nodes();
        let new: Vec<NodeId> = nodes
            .filter(|it| it.status == NodeStatus::Lost && it.status_ms == it.joined_ms)
            .map(|it| it.id)
            .collect();
        for id in new {
            self.judge(id, NodeStatus::Ready);
        }
    }

    pub(in crate::guests) fn note(&mut self, id: GuestId, note: &Note) {
        self.ok(Kind::NoteGuest(v1::NoteGuest {
            id: id_bytes(id.as_u128()),
            note: note_out(note),
        }));
    }

    fn advance(&mut self, id: GuestId) {
        let one = (**self.state.guest(id).expect("there")).clone();
        let number = u32::try_from(id.as_u128()).expect("small");
        if self.is_full && one.guest.phase < Phase::Ready {
            if one.guest.problem.is_none() {
                self.note(id, &Note::Stuck(Some("no host has room".into())));
            }
            return;
        }
        match one.guest.phase {
            Phase::Planned => {
                self.note(id, &Note::Stuck(None));
                let chosen = Note::Chosen {
                    host: if number.is_multiple_of(2) {
                        "pve1"
                    } else {
                        "pve2"
                    }
                    .into(),
                    vmid: 4_000 + number,
                    address: Some(Ipv4Addr::from(number).into()),
                    now_ms: self.now_ms,
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
            Phase::Ready | Phase::Gone => {}
            Phase::Leaving => {
                if let Some(node) = one.node {
                    self.judge(node, NodeStatus::Lost);
                }
                self.note(id, &Note::Gone);
            }
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
        let pool = self.state.guest_pool(&one.pool).expect("there");
        let memory = u64::from(pool.recipe.memory_mib) << 20;
        let mut facts = Facts {
            architecture: "x86_64".into(),
            cpu_millis: pool.recipe.cores * 1_000,
            // Less than the recipe leads one to think.
            memory_bytes: memory - memory / 10,
            disk_bytes: 10 * GIB,
            builder: true,
            ..Facts::default()
        };
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
            fencing: Default::default(),
            witnesses: Vec::new(),
        };
        self.ok(Kind::JoinNode(v1::JoinNode {
            token: id_bytes(token.id.as_u128()),
            secret_hash: vec![1],
            node: Some((&node).into()),
        }));
    }

    pub(in crate::guests) fn judge(&mut self, node: NodeId, status: NodeStatus) {
        self.ok(Kind::SetNodeStatus(v1::SetNodeStatus {
            node: id_bytes(node.as_u128()),
            status: enum_number(&NodeStatus::ALL, &status),
            witnesses: Vec::new(),
        }));
    }

    pub(in crate::guests) fn nodes(&self, pool: &str) -> usize {
        let guests = self.state.guests_of(pool);
        guests.filter(|it| it.is_ready() && it.counts()).count()
    }

    pub(in crate::guests) fn wanted(&self, pool: &str) -> u32 {
        self.state.guest_pool(pool).expect("there").size.wanted
    }

    /// How many allocations run.
    pub(in crate::guests) fn running(&self) -> usize {
        let all = self.state.allocations();
        all.filter(|it| it.is_live() && it.desired == Desired::Run)
            .count()
    }
}

/// Release 1 of a service.
fn release_of(id: ServiceId, deployment: DeploymentId, spec: &ServiceSpec) -> Release {
    Release {
        service: id,
        number: 1,
        deployment,
        image: Image {
            reference: "app".into(),
            digest: "sha256:0".into(),
            node: None,
            shared: false,
            bundle: false,
            pushed: None,
        },
        kind: ServiceType::Web,
        port: Some(80),
        command: Vec::new(),
        variables: BTreeMap::new(),
        resources: spec.resources,
        placement: Default::default(),
        container: Default::default(),
        hooks: Default::default(),
        health: spec.health.clone(),
        restart: spec.restart,
        stop_grace_ms: 0,
        storage: Default::default(),
        commit: None,
        branch: None,
        public_url: None,
        file_variables: Default::default(),
        created_ms: 0,
    }
}

/// A deployment of an image.
fn deployment_of(service: ServiceId, id: DeploymentId) -> Deployment {
    Deployment {
        id,
        service,
        trigger: Trigger::Api,
        origin: Origin::Image {
            reference: "app".into(),
        },
        status: Status::Queued,
        problem: None,
        build: None,
        release: None,
        steps: Vec::new(),
        created_ms: 0,
        status_ms: 0,
        generation: 0,
        source: None,
        no_cache: false,
        told: None,
        held: None,
        shown: None,
        push: None,
    }
}

#[test]
fn work_without_a_place_orders_nodes_and_their_end_ends_them() {
    let mut world = World::new(&[pool("a", (2, 4), 5)]);
    world.place();
    assert_eq!(world.decide(), None, "nothing waits");
    world.service(1, (1_000, GIB), 5, |_| {});
    let said = world.decide().expect("nodes are ordered");
    assert_eq!(said, "3 more nodes: without a place: 5 of `s1-e-p`");
    assert_eq!(world.decide(), None, "what is ordered counts as there");
    world.run(120);
    assert_eq!((world.nodes("a"), world.running()), (3, 5));
    assert_eq!(world.said.len(), 1);
    world.scale(1, 0);
    world.run(120);
    assert_eq!(world.nodes("a"), 3, "not yet");
    // A new leader goes on: it only takes longer.
    world.forget();
    world.run(1_200);
    assert_eq!(world.nodes("a"), 0);
    assert_eq!(world.state.guests().count(), 0);
    assert_eq!(world.said.len(), 4, "{:?}", world.said);
    assert!(
        world.said[1].contains("goes: for 2 min"),
        "{:?}",
        world.said
    );
}

#[test]
fn what_no_node_of_a_pool_mends_orders_none_and_says_why() {
    let mut world = World::new(&[pool("a", (2, 4), 5)]);
    world.service(1, (1_000, 8 * GIB), 3, |_| {});
    assert_eq!(world.decide(), None);
    let lines = |world: &World| {
        let pool = world.state.guest_pool("a").expect("there");
        outlook(&world.state, pool, world.now_ms).join("\n")
    };
    let said = lines(&world);
    assert!(
        said.contains("3 without a place, none fits") && said.contains("memory"),
        "{said}"
    );
    // Beyond a quota nothing waits for a node.
    let mut world = World::new(&[pool("a", (2, 4), 5)]);
    let quota = Quota {
        allocations: Some(2),
        ..Quota::default()
    };
    world.ok(Kind::SetScope(v1::SetScope {
        scope: Some(Scope::Environment(ENVIRONMENT).into()),
        quota: Some((&quota).into()),
        ..Default::default()
    }));
    world.service(1, (1_500, GIB), 4, |_| {});
    assert_eq!(
        world.decide().as_deref(),
        Some("2 more nodes: without a place: 2 of `s1-e-p`")
    );
    world.run(600);
    assert_eq!((world.nodes("a"), world.said.len()), (2, 1));
    assert_eq!(lines(&world), "as it should be");
    // A pool is not what another one's nodes are for.
    let mut world = World::new(&[pool("a", (2, 4), 5)]);
    world.service(1, (100, GIB), 1, |it| it.placement.pool = Some("b".into()));
    assert_eq!(world.decide(), None);
}

#[test]
fn a_provider_that_is_full_is_asked_no_more_and_another_pool_is() {
    let mut dear = pool("b", (2, 4), 5);
    dear.size.auto = Some(Auto {
        cost: 9,
        idle_ms: 120_000,
        ..Auto::default()
    });
    let mut world = World::new(&[pool("a", (2, 4), 5), dear]);
    world.is_full = true;
    world.service(1, (1_500, GIB), 2, |_| {});
    world.tick(10_000);
    assert_eq!((world.wanted("a"), world.wanted("b")), (2, 0));
    world.run(60);
    // What does not come is given up while the other's are on their way.
    assert_eq!(world.wanted("b"), 2, "{:?}", world.said);
    // Nobody delivers: each is given up in its time, and asked again after ever longer pauses.
    world.run(8 * 3_600);
    let orders = world.said.iter().filter(|it| it.contains("more node"));
    let given_up = world.said.iter().filter(|it| it.contains("given up"));
    let counts = (orders.count(), given_up.count());
    assert!((6..40).contains(&counts.0), "{counts:?}: {:#?}", world.said);
    assert!(counts.1 >= 6, "{counts:?}");
    // The hosts have room again: it comes, and what is too much goes.
    world.is_full = false;
    world.run(3 * 3_600);
    assert_eq!(world.running(), 2);
    assert_eq!(world.nodes("a") + world.nodes("b"), 2, "{:?}", world.said);
    assert_eq!(world.state.guests().count(), 2);
}

#[test]
fn a_pool_of_a_program_has_no_hosts_and_grows_all_the_same() {
    let mut world = World::new(&[]);
    let provider = Provider {
        name: "cloud".into(),
        way: Way::Exec(skep_model::pool::Program {
            file: "cloud.sh".into(),
            ..Default::default()
        }),
        made_ms: 0,
        changed_ms: 0,
    };
    world.ok(Kind::PutProvider(v1::PutProvider {
        provider: Some((&provider).into()),
    }));
    let mut burst = pool("burst", (2, 4), 3);
    burst.provider = "cloud".into();
    burst.recipe = Recipe::sized(2, 4_096, 20);
    world.put(&burst);
    world.service(1, (1_500, GIB), 2, |_| {});
    world.tick(10_000);
    assert_eq!(world.wanted("burst"), 2, "{:?}", world.said);
}

#[test]
fn a_node_that_somebody_needs_stays() {
    type Need = fn(&mut World, NodeId);
    let needs: [(&str, Need); 3] = [
        ("volume", |world, node| {
            let mut facts = world.state.node(node).expect("there").facts.clone();
            facts.volumes = vec![HeldVolume {
                service: ServiceId::from_u128(1),
                name: "data".into(),
            }];
            world.ok(Kind::UpdateNode(v1::UpdateNode {
                node: id_bytes(node.as_u128()),
                facts: Some((&facts).into()),
            }));
        }),
        ("cordoned", |world, node| {
            world.ok(Kind::SetNodeAdmin(v1::SetNodeAdmin {
                node: id_bytes(node.as_u128()),
                cordoned: true,
                drain_deadline_ms: None,
            }));
        }),
        ("silent", |world, node| world.judge(node, NodeStatus::Lost)),
    ];
    for (name, need) in needs {
        let mut world = World::new(&[pool("a", (2, 4), 5)]);
        world.service(1, (1_500, GIB), 1, |_| {});
        world.run(120);
        world.scale(1, 0);
        world.run(20);
        let guest = world.state.guests().next().expect("there").clone();
        need(&mut world, guest.node.expect("joined"));
        world.run(1_200);
        assert_eq!(world.said.len(), 1, "{name}: {:?}", world.said);
    }
}

/// A pool that was empty learns what its nodes are like, and does not order one again that did not help.
#[test]
fn what_a_node_turned_out_to_be_is_remembered_beyond_it() {
    let mut world = World::new(&[pool("a", (2, 4), 5)]);
    // Less than the recipe's memory, more than what is left of it.
    world.service(1, (100, GIB * 36 / 10), 1, |_| {});
    let fits_by_recipe = world.decide().is_some();
    world.run(2 * 3_600);
    let orders = world.said.iter().filter(|it| it.contains("more node"));
    assert_eq!(
        orders.count(),
        usize::from(fits_by_recipe),
        "{:?}",
        world.said
    );
    assert!(fits_by_recipe, "the case is one");
    assert_eq!((world.nodes("a"), world.running()), (0, 0));
    assert!(world.state.guest_pool("a").expect("there").seen.is_some());
}

#[test]
fn the_hosts_limit_is_a_limit() {
    let mut small = pool("a", (2, 4), 9);
    small.recipe.max_per_host = Some(1);
    let mut world = World::new(&[small]);
    world.service(1, (1_500, GIB), 5, |_| {});
    world.run(600);
    assert_eq!((world.wanted("a"), world.running()), (2, 2));
    assert_eq!(world.said.len(), 1);
}

/// So is whoever has to come before it may go.
#[test]
fn the_fewest_stay_and_are_made_anew() {
    let mut two = pool("a", (2, 4), 9);
    (two.size.min, two.size.wanted) = (2, 2);
    let mut world = World::new(&[two]);
    world.is_full = true;
    world.run(1_300);
    let first = world.said.first().expect("given up").clone();
    assert!(first.contains("no host has room"), "{first}");
    world.is_full = false;
    world.run(3_600);
    assert_eq!((world.wanted("a"), world.nodes("a")), (2, 2));
    assert_eq!(world.state.guests().count(), 2);
}
