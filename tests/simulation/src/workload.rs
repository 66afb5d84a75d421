//! The commands of the simulated cluster, and how its state is read: registers are keys of a node's
//! metadata, exclusiveness is a service that must have one live allocation at most.

use skep_model::allocation::{Allocation, Desired, Observed, State as Seen};
use skep_model::deployment::{Deployment, Origin, Status, Trigger};
use skep_model::id::{
    AllocationId, ClusterId, DeploymentId, EnvironmentId, NodeId, ProjectId, ServiceId, TokenId,
    WorkspaceId,
};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::server::{JoinToken, Role};
use skep_model::service::{Image, Release, Service, Target};
use skep_model::spec::{ServiceSpec, ServiceType};
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Key, State, command, with_key};

use crate::client::{NOTHING, Operation, Request};

const WORKSPACE: WorkspaceId = WorkspaceId::from_u128(1);
const PROJECT: ProjectId = ProjectId::from_u128(2);
const ENVIRONMENT: EnvironmentId = EnvironmentId::from_u128(3);
const SERVICE: ServiceId = ServiceId::from_u128(4);
const NODE: NodeId = NodeId::from_u128(5);
const TOKEN: TokenId = TokenId::from_u128(6);
const DEPLOYMENT: DeploymentId = DeploymentId::from_u128(7);
const TARGET: Target = Target {
    release: 1,
    deployment: DEPLOYMENT,
};

/// The next command that the cluster needs before its work can begin; none: it is ready.
pub(crate) fn found(state: &State, now_ms: u64) -> Option<Vec<u8>> {
    let kind = if state.cluster().is_none() {
        init_cluster()
    } else if state.node(NODE).is_none() && state.token(TOKEN).is_none() {
        put_token()
    } else if state.node(NODE).is_none() {
        join_node()
    } else if state.environment(ENVIRONMENT).is_none() {
        ensure_environment()
    } else if state.service(SERVICE).is_none() {
        put_service()
    } else if state.deployment(DEPLOYMENT).is_none() {
        create_deployment()
    } else if state.release(SERVICE, 1).is_none() {
        start_rollout(state)?
    } else {
        return None;
    };
    Some(command(now_ms, kind))
}

/// A client's or agent's command. None for a read.
pub(crate) fn write(request: &Request, now_ms: u64) -> Option<Vec<u8>> {
    let kind = match request.operation {
        Operation::Read { .. } => return None,
        Operation::Write { value } => Kind::SetNodeMeta(v1::SetNodeMeta {
            node: id_bytes(NODE.as_u128()),
            set: [(register(request.client), value.to_string())].into(),
            unset: Vec::new(),
        }),
        Operation::Fail { allocation } => fail(AllocationId::from_u128(allocation)),
    };
    let key = Key::Own {
        key: request.key.to_be_bytes(),
        since: request.since,
    };
    Some(with_key(command(now_ms, kind), key))
}

/// What the leader's scheduler would do: one allocation where there is none. Based on the node's
/// generation as this view has it.
pub(crate) fn schedule(state: &State, id: u128, now_ms: u64) -> Option<Vec<u8>> {
    state.release(SERVICE, 1)?;
    if live_allocations(state) > 0 {
        return None;
    }
    let node = state.node(NODE)?;
    let allocation = Allocation {
        id: AllocationId::from_u128(id),
        service: SERVICE,
        target: TARGET,
        node: NODE,
        desired: Desired::Run,
        reason: "one is wanted".to_owned(),
        desired_ms: 0,
        desired_index: 0,
        observed: Observed::pending(),
        observed_ms: 0,
        created_ms: 0,
        job: None,
    };
    let plan = v1::ApplyPlan {
        nodes: vec![v1::Base {
            id: id_bytes(NODE.as_u128()),
            generation: node.generation,
        }],
        starts: vec![(&allocation).into()],
        ..v1::ApplyPlan::default()
    };
    Some(command(now_ms, Kind::ApplyPlan(plan)))
}

/// How many allocations of the exclusive service live.
pub(crate) fn live_allocations(state: &State) -> usize {
    state
        .allocations_of(SERVICE)
        .filter(|allocation| allocation.is_live())
        .count()
}

/// The one that lives, if any.
pub(crate) fn live_allocation(state: &State) -> Option<u128> {
    state
        .allocations_of(SERVICE)
        .find(|allocation| allocation.is_live())
        .map(|allocation| allocation.id.as_u128())
}

/// What a register holds.
pub(crate) fn read(state: &State, client: usize) -> u64 {
    state
        .node(NODE)
        .and_then(|node| node.meta.get(&register(client))?.parse().ok())
        .unwrap_or(NOTHING)
}

fn register(client: usize) -> String {
    format!("r{client}")
}

fn init_cluster() -> Kind {
    let workspace = Workspace {
        id: WORKSPACE,
        name: "default".to_owned(),
    };
    Kind::InitCluster(v1::InitCluster {
        cluster: id_bytes(ClusterId::from_u128(9).as_u128()),
        base_domain: "localhost".to_owned(),
        workspace: Some((&workspace).into()),
        server: Some(v1::Server {
            id: id_bytes(1),
            member: 1,
            name: "one".to_owned(),
            cluster_address: "one:7001".to_owned(),
            api_address: "one:7000".to_owned(),
            version: "0".to_owned(),
            feature_level: skep_state::format(),
            ..v1::Server::default()
        }),
        ..v1::InitCluster::default()
    })
}

fn put_token() -> Kind {
    let token = JoinToken {
        id: TOKEN,
        secret_hash: vec![7],
        expires_ms: u64::MAX,
        uses_left: 1,
        role: Role::Node,
        note: String::new(),
        created_ms: 0,
    };
    Kind::PutToken(v1::PutToken {
        token: Some((&token).into()),
    })
}

fn join_node() -> Kind {
    let node = Node {
        id: NODE,
        name: "node".to_owned(),
        facts: Facts::default(),
        status: NodeStatus::Ready,
        status_ms: 0,
        generation: 0,
        joined_ms: 0,
        meta: Default::default(),
        admin: Default::default(),
        seat: 0,
        witnesses: Vec::new(),
        fencing: Default::default(),
    };
    Kind::JoinNode(v1::JoinNode {
        token: id_bytes(TOKEN.as_u128()),
        secret_hash: vec![7],
        node: Some((&node).into()),
    })
}

fn ensure_environment() -> Kind {
    let project = Project {
        id: PROJECT,
        workspace: WORKSPACE,
        name: "shop".to_owned(),
    };
    let environment = Environment {
        id: ENVIRONMENT,
        project: PROJECT,
        name: "production".to_owned(),
    };
    Kind::EnsureEnvironment(v1::EnsureEnvironment {
        workspace: id_bytes(WORKSPACE.as_u128()),
        project: Some((&project).into()),
        environment: Some((&environment).into()),
    })
}

fn put_service() -> Kind {
    let service = Service {
        id: SERVICE,
        environment: ENVIRONMENT,
        name: "web".to_owned(),
        spec: ServiceSpec::default(),
        variables: Default::default(),
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
    Kind::PutService(v1::PutService {
        service: Some((&service).into()),
        expected_generation: 0,
    })
}

fn create_deployment() -> Kind {
    let deployment = Deployment {
        id: DEPLOYMENT,
        service: SERVICE,
        trigger: Trigger::Api,
        origin: Origin::Image {
            reference: "app".to_owned(),
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
    };
    Kind::CreateDeployment(v1::CreateDeployment {
        deployment: Some((&deployment).into()),
        delivery: None,
    })
}

fn start_rollout(state: &State) -> Option<Kind> {
    let spec = ServiceSpec::default();
    let release = Release {
        service: SERVICE,
        number: 1,
        deployment: DEPLOYMENT,
        image: Image {
            reference: "app".to_owned(),
            digest: "sha256:0".to_owned(),
            node: None,
            shared: false,
            bundle: false,
            pushed: None,
        },
        kind: ServiceType::Web,
        port: Some(8080),
        command: Vec::new(),
        variables: Default::default(),
        resources: spec.resources,
        placement: spec.placement.clone(),
        container: spec.container.clone(),
        hooks: spec.hooks.clone(),
        health: spec.health,
        restart: spec.restart,
        stop_grace_ms: 0,
        storage: Default::default(),
        commit: None,
        branch: None,
        public_url: None,
        file_variables: Default::default(),
        created_ms: 0,
    };
    Some(Kind::StartRollout(v1::StartRollout {
        deployment: id_bytes(DEPLOYMENT.as_u128()),
        expected_generation: state.deployment(DEPLOYMENT)?.generation,
        release: Some((&release).into()),
        number: 1,
        spec: None,
        expected_service_generation: state.service(SERVICE)?.generation,
        step: "rolling out".to_owned(),
    }))
}

fn fail(allocation: AllocationId) -> Kind {
    let observed = Observed {
        state: Seen::Failed,
        ..Observed::pending()
    };
    Kind::Observe(v1::Observe {
        node: id_bytes(NODE.as_u128()),
        allocations: vec![v1::AllocationObservation {
            allocation: id_bytes(allocation.as_u128()),
            observed: Some((&observed).into()),
        }],
        ..v1::Observe::default()
    })
}
