//! Exact effects of commands, and the laws that hold for any of them.

mod autoscale;
mod certificates;
mod claim_laws;
mod claims;
mod deliveries;
mod departed;
mod deployments;
mod fencing;
mod forge_apps;
mod forges;
mod gates;
mod guests;
mod hosts;
mod image_push;
mod jobs;
mod keys;
mod laws;
mod levels;
mod names;
mod nodes;
mod notify;
mod previews;
mod pushed;
mod quarantine;
mod rebalance;
mod registries;
mod resizing;
mod rollouts;
mod scale;
mod servers;
mod settings;
mod split;
mod stacks;
mod tcp;
mod variables;
mod webhooks;

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, Observed, State as Seen};
use skep_model::deployment::{Deployment, Origin, Status, Trigger};
use skep_model::id::{
    AllocationId, ClusterId, DeploymentId, EnvironmentId, NodeId, ProjectId, ServiceId, TokenId,
    WorkspaceId,
};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::problem::Code;
use skep_model::server::JoinToken;
use skep_model::service::{Image, Release, Service, Target};
use skep_model::spec::{ServiceSpec, ServiceType};
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use crate::{Applied, Reply, State, command};

pub(crate) const WORKSPACE: WorkspaceId = WorkspaceId::from_u128(1);
pub(crate) const PROJECT: ProjectId = ProjectId::from_u128(2);
pub(crate) const ENVIRONMENT: EnvironmentId = EnvironmentId::from_u128(3);
pub(crate) const SERVICE: ServiceId = ServiceId::from_u128(4);
pub(crate) const NODE: NodeId = NodeId::from_u128(5);

/// A state under test: applies commands at rising indexes and times.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) index: u64,
    pub(crate) log: Vec<Vec<u8>>,
}

impl World {
    /// A cluster with a node and a service that has no release yet.
    pub(crate) fn with_service() -> Self {
        let mut world = Self::default();
        world.ok(Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(ClusterId::from_u128(9).as_u128()),
            base_domain: "localhost".into(),
            ca_cert_pem: "old\n".into(),
            workspace: Some(
                (&Workspace {
                    id: WORKSPACE,
                    name: "default".into(),
                })
                    .into(),
            ),
            ..Default::default()
        }));
        world.join(NODE, "one");
        world.ok(Kind::EnsureEnvironment(v1::EnsureEnvironment {
            workspace: id_bytes(WORKSPACE.as_u128()),
            project: Some(
                (&Project {
                    id: PROJECT,
                    workspace: WORKSPACE,
                    name: "shop".into(),
                })
                    .into(),
            ),
            environment: Some(
                (&Environment {
                    id: ENVIRONMENT,
                    project: PROJECT,
                    name: "production".into(),
                })
                    .into(),
            ),
        }));
        world.ok(put_service(&service(), 0));
        world
    }

    pub(crate) fn apply(&mut self, kind: Kind) -> Applied {
        self.raw(command(1_000 * (self.index + 1), kind))
    }

    pub(crate) fn raw(&mut self, bytes: Vec<u8>) -> Applied {
        self.index += 1;
        let applied = self.state.apply(self.index, &bytes);
        self.log.push(bytes);
        applied
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, kind: Kind) -> Reply {
        let applied = self.apply(kind);
        applied.outcome.expect("accepted")
    }

    /// The code that a command is refused with; a refusal changes nothing but index and time.
    #[track_caller]
    pub(crate) fn refused(&mut self, kind: Kind) -> Code {
        let before = self.state.clone();
        let applied = self.apply(kind);
        let mut after = self.state.clone();
        after.index = before.index;
        after.time_ms = before.time_ms;
        assert_eq!(after, before, "a refused command changed something");
        assert!(applied.changes.is_empty());
        applied.outcome.expect_err("refused").code
    }

    pub(crate) fn join(&mut self, node: NodeId, name: &str) {
        let token = TokenId::from_u128(node.as_u128());
        let expires_ms = u64::MAX;
        let record = JoinToken {
            id: token,
            secret_hash: vec![7],
            expires_ms,
            uses_left: 1,
            role: skep_model::server::Role::Node,
            note: String::new(),
            created_ms: 0,
        };
        self.ok(Kind::PutToken(v1::PutToken {
            token: Some((&record).into()),
        }));
        self.ok(join(token, vec![7], node, name));
    }

    /// Brings release 1 to `live` with one healthy allocation, and returns that allocation.
    pub(crate) fn with_live_release() -> (Self, AllocationId) {
        let mut world = Self::with_service();
        let allocation = AllocationId::from_u128(100);
        world.deploy(DeploymentId::from_u128(50), 1, allocation);
        (world, allocation)
    }

    /// A whole deployment of an image: queued, built, rolled out, live.
    pub(crate) fn deploy(&mut self, id: DeploymentId, number: u64, allocation: AllocationId) {
        self.ok(create(id, None));
        self.ok(start_rollout(&self.state, id, number));
        let target = Target {
            release: number,
            deployment: id,
        };
        self.ok(start(&self.state, allocation, target));
        self.observe(allocation, Seen::Healthy);
        self.ok(finish(&self.state, id, Status::Live));
    }

    pub(crate) fn observe(&mut self, allocation: AllocationId, state: Seen) {
        self.ok(observe(NODE, allocation, state));
    }

    pub(crate) fn desire(&mut self, allocation: AllocationId, desired: Desired) {
        let desire = v1::Desire {
            allocation: id_bytes(allocation.as_u128()),
            desired: enum_number(&Desired::ALL, &desired),
            reason: "test".into(),
        };
        self.ok(Kind::ApplyPlan(v1::ApplyPlan {
            desires: vec![desire],
            ..Default::default()
        }));
    }

    pub(crate) fn service(&self) -> &Service {
        self.state.service(SERVICE).expect("service")
    }

    pub(crate) fn deployment(&self, id: u128) -> &Deployment {
        self.state
            .deployment(DeploymentId::from_u128(id))
            .expect("deployment")
    }
}

pub(crate) fn service() -> Service {
    Service {
        id: SERVICE,
        environment: ENVIRONMENT,
        name: "web".into(),
        spec: ServiceSpec::default(),
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
    }
}

pub(crate) fn put_service(service: &Service, expected_generation: u64) -> Kind {
    Kind::PutService(v1::PutService {
        service: Some(service.into()),
        expected_generation,
    })
}

pub(crate) fn join(token: TokenId, secret_hash: Vec<u8>, id: NodeId, name: &str) -> Kind {
    let node = Node {
        id,
        name: name.into(),
        facts: Facts::default(),
        status: NodeStatus::Ready,
        status_ms: 0,
        generation: 0,
        joined_ms: 0,
        meta: std::collections::BTreeMap::new(),
        admin: Default::default(),
        seat: 0,
        witnesses: Vec::new(),
        fencing: Default::default(),
    };
    Kind::JoinNode(v1::JoinNode {
        token: id_bytes(token.as_u128()),
        secret_hash,
        node: Some((&node).into()),
    })
}

pub(crate) fn create(id: DeploymentId, delivery: Option<&str>) -> Kind {
    create_from(
        id,
        delivery,
        Trigger::Api,
        Origin::Image {
            reference: "app".into(),
        },
    )
}

pub(crate) fn create_from(
    id: DeploymentId,
    delivery: Option<&str>,
    trigger: Trigger,
    origin: Origin,
) -> Kind {
    let deployment = Deployment {
        id,
        service: SERVICE,
        trigger,
        origin,
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
    };
    let delivery = delivery.map(str::to_owned);
    Kind::CreateDeployment(v1::CreateDeployment {
        deployment: Some((&deployment).into()),
        delivery,
    })
}

pub(crate) fn release(number: u64, deployment: DeploymentId) -> Release {
    Release {
        service: SERVICE,
        number,
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
        port: Some(8080),
        command: Vec::new(),
        variables: BTreeMap::new(),
        resources: ServiceSpec::default().resources,
        placement: Default::default(),
        container: Default::default(),
        hooks: Default::default(),
        health: ServiceSpec::default().health,
        restart: ServiceSpec::default().restart,
        stop_grace_ms: 0,
        storage: Default::default(),
        commit: None,
        branch: None,
        public_url: None,
        file_variables: Default::default(),
        created_ms: 0,
    }
}

pub(crate) fn start_rollout(state: &State, id: DeploymentId, number: u64) -> Kind {
    let deployment = state.deployment(id).expect("deployment");
    let service = state.service(SERVICE).expect("service");
    let is_new = number == service.last_release + 1;
    Kind::StartRollout(v1::StartRollout {
        deployment: id_bytes(id.as_u128()),
        expected_generation: deployment.generation,
        release: is_new.then(|| (&release(number, id)).into()),
        number,
        spec: None,
        expected_service_generation: service.generation,
        step: "rolling out".into(),
    })
}

pub(crate) fn start(state: &State, id: AllocationId, target: Target) -> Kind {
    let allocation = Allocation {
        id,
        service: SERVICE,
        target,
        node: NODE,
        desired: Desired::Run,
        reason: "test".into(),
        desired_ms: 0,
        desired_index: 0,
        observed: Observed::pending(),
        observed_ms: 0,
        created_ms: 0,
        job: None,
    };
    let node = state.node(NODE).expect("node");
    Kind::ApplyPlan(v1::ApplyPlan {
        nodes: vec![v1::Base {
            id: id_bytes(NODE.as_u128()),
            generation: node.generation,
        }],
        services: Vec::new(),
        starts: vec![(&allocation).into()],
        desires: Vec::new(),
    })
}

pub(crate) fn observe(node: NodeId, allocation: AllocationId, state: Seen) -> Kind {
    let observed = Observed {
        state,
        ..Observed::pending()
    };
    Kind::Observe(v1::Observe {
        node: id_bytes(node.as_u128()),
        allocations: vec![v1::AllocationObservation {
            allocation: id_bytes(allocation.as_u128()),
            observed: Some((&observed).into()),
        }],
        ..v1::Observe::default()
    })
}

pub(crate) fn finish(state: &State, id: DeploymentId, status: Status) -> Kind {
    let deployment = state.deployment(id).expect("deployment");
    Kind::FinishDeployment(v1::FinishDeployment {
        deployment: id_bytes(id.as_u128()),
        expected_generation: deployment.generation,
        status: enum_number(&Status::ALL, &status),
        problem: None,
        step: "finished".into(),
    })
}
