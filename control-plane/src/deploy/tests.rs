//! Each status with each thing that can happen in it: what is decided.

use std::collections::BTreeMap;

use skep_identity::seal::SealingKey;
use skep_model::allocation::{Allocation, Desired, Observed, State as Seen};
use skep_model::deployment::{BuildOutcome, Built, Deployment, Origin, Status, Trigger};
use skep_model::id::{
    AllocationId, DeploymentId, EnvironmentId, NodeId, ProjectId, ServiceId, TokenId, UploadId,
    WorkspaceId,
};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::problem::{Code, Problem};
use skep_model::pushed::NOT_HELD;
use skep_model::rollout::{Control, Phase, Progress};
use skep_model::run::{Mode, Run};
use skep_model::server::JoinToken;
use skep_model::service::{Image, Service, Target};
use skep_model::spec::{ServiceSpec, Source};
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{State, command};

use super::decide::{Inputs, Next, decide};
use crate::secrets::Secrets;

mod gates;
mod image_push;
mod sites;

const NODE: NodeId = NodeId::from_u128(1);
const SERVICE: ServiceId = ServiceId::from_u128(2);
const DEPLOYMENT: DeploymentId = DeploymentId::from_u128(3);

/// A state, built by commands alone.
struct World {
    state: State,
    now_ms: u64,
    is_published: bool,
    refusals: BTreeMap<ServiceId, Problem>,
    converged: BTreeMap<ServiceId, u64>,
    checks: BTreeMap<DeploymentId, crate::checks::Seen>,
}

impl World {
    fn new(origin: Origin) -> Self {
        let mut world = Self {
            state: State::default(),
            now_ms: 1_000,
            is_published: true,
            refusals: BTreeMap::new(),
            converged: BTreeMap::new(),
            checks: BTreeMap::new(),
        };
        let (workspace, project, environment) = (
            WorkspaceId::from_u128(7),
            ProjectId::from_u128(8),
            EnvironmentId::from_u128(9),
        );
        world.apply(Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(5),
            workspace: Some(
                (&Workspace {
                    id: workspace,
                    name: "default".into(),
                })
                    .into(),
            ),
            ..Default::default()
        }));
        world.apply(Kind::EnsureEnvironment(v1::EnsureEnvironment {
            workspace: id_bytes(workspace.as_u128()),
            project: Some(
                (&Project {
                    id: project,
                    workspace,
                    name: "p".into(),
                })
                    .into(),
            ),
            environment: Some(
                (&Environment {
                    id: environment,
                    project,
                    name: "e".into(),
                })
                    .into(),
            ),
        }));
        let service = Service {
            id: SERVICE,
            environment,
            name: "s".into(),
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
        };
        world.apply(Kind::PutService(v1::PutService {
            service: Some((&service).into()),
            expected_generation: 0,
        }));
        let deployment = Deployment {
            id: DEPLOYMENT,
            service: SERVICE,
            trigger: Trigger::Api,
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
        let deployment = Some((&deployment).into());
        world.apply(Kind::CreateDeployment(v1::CreateDeployment {
            deployment,
            delivery: None,
        }));
        world
    }

    fn with_node(mut self) -> Self {
        self.join(NODE, 1);
        self
    }

    /// One more that builds, ready.
    fn another_node(&mut self, node: NodeId) {
        self.join(node, 2);
    }

    fn join(&mut self, id: NodeId, token_id: u128) {
        let token = JoinToken {
            id: TokenId::from_u128(token_id),
            secret_hash: vec![1],
            expires_ms: u64::MAX,
            uses_left: 1,
            role: skep_model::server::Role::Node,
            note: String::new(),
            created_ms: 0,
        };
        self.apply(Kind::PutToken(v1::PutToken {
            token: Some((&token).into()),
        }));
        let node = Node {
            id,
            name: format!("node{token_id}"),
            facts: Facts {
                builder: true,
                ..Facts::default()
            },
            status: NodeStatus::Lost,
            status_ms: 0,
            generation: 0,
            joined_ms: 0,
            meta: std::collections::BTreeMap::new(),
            admin: Default::default(),
            seat: 0,
            witnesses: Vec::new(),
            fencing: Default::default(),
        };
        let join = v1::JoinNode {
            token: id_bytes(token_id),
            secret_hash: vec![1],
            node: Some((&node).into()),
        };
        self.apply(Kind::JoinNode(join));
        self.judge_node(id, NodeStatus::Ready);
    }

    fn judge(&mut self, status: NodeStatus) {
        self.judge_node(NODE, status);
    }

    fn judge_node(&mut self, node: NodeId, status: NodeStatus) {
        let status = enum_number(&NodeStatus::ALL, &status);
        self.apply(Kind::SetNodeStatus(v1::SetNodeStatus {
            node: id_bytes(node.as_u128()),
            status,
            witnesses: Vec::new(),
        }));
    }

    fn building(origin: Origin) -> Self {
        let mut world = Self::new(origin).with_node();
        let generation = world.deployment().generation;
        world.apply(Kind::AssignBuild(v1::AssignBuild {
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            expected_generation: generation,
            node: id_bytes(NODE.as_u128()),
            step: "building".into(),
        }));
        world
    }

    fn built(self, outcome: &BuildOutcome) -> Self {
        self.built_at(NODE, outcome)
    }

    fn built_at(mut self, node: NodeId, outcome: &BuildOutcome) -> Self {
        let build = v1::BuildObservation {
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            outcome: Some(outcome.into()),
        };
        let node = id_bytes(node.as_u128());
        self.apply(Kind::Observe(v1::Observe {
            node,
            allocations: vec![],
            builds: vec![build],
            quarantine: None,
        }));
        self
    }

    /// Rolling out release 1, with one allocation seen as given.
    fn deploying(seen: Observed) -> Self {
        let mut world = Self::building(image()).built(&BuildOutcome::Built(built(&[])));
        let Next::Release(resolved) = world.decide() else {
            panic!("a build makes a release")
        };
        let (deployment, service) = (world.deployment().generation, world.service().generation);
        world.apply(Kind::StartRollout(v1::StartRollout {
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            expected_generation: deployment,
            release: Some((&resolved.release).into()),
            number: 1,
            spec: None,
            expected_service_generation: service,
            step: "rolling out".into(),
        }));
        let allocation = Allocation {
            id: AllocationId::from_u128(40),
            service: SERVICE,
            target: Target {
                release: 1,
                deployment: DEPLOYMENT,
            },
            node: NODE,
            desired: Desired::Run,
            reason: String::new(),
            desired_ms: 0,
            desired_index: 0,
            observed: Observed::pending(),
            observed_ms: 0,
            created_ms: 0,
            job: None,
        };
        world.start(allocation);
        let observation = v1::AllocationObservation {
            allocation: id_bytes(40),
            observed: Some((&seen).into()),
        };
        let node = id_bytes(NODE.as_u128());
        world.apply(Kind::Observe(v1::Observe {
            node,
            allocations: vec![observation],
            builds: vec![],
            quarantine: None,
        }));
        world
    }

    fn start(&mut self, allocation: Allocation) {
        self.apply(Kind::ApplyPlan(v1::ApplyPlan {
            starts: vec![(&allocation).into()],
            ..Default::default()
        }));
    }

    fn allocation(&self, id: u128) -> Allocation {
        let all = self.state.allocation(AllocationId::from_u128(id));
        (**all.expect("there")).clone()
    }

    #[track_caller]
    fn apply(&mut self, kind: Kind) {
        let bytes = command(self.now_ms, kind);
        self.state
            .apply(self.state.index() + 1, &bytes)
            .outcome
            .expect("accepted");
    }

    fn deployment(&self) -> &Deployment {
        self.state.deployment(DEPLOYMENT).expect("there")
    }

    fn service(&self) -> &Service {
        self.state.service(SERVICE).expect("there")
    }

    fn decide(&self) -> Next {
        let secrets = Secrets::new(SealingKey::generate());
        let inputs = Inputs {
            view: &self.state,
            secrets: &secrets,
            refusals: &self.refusals,
            converged: &self.converged,
            checks: &self.checks,
            is_published: self.is_published,
            now_ms: self.now_ms,
        };
        decide(&inputs, self.deployment())
    }

    #[track_caller]
    fn fails(&self) -> Problem {
        match self.decide() {
            Next::Fail(problem, _) => problem,
            other => panic!("not failed but {other:?}"),
        }
    }
}

impl World {
    /// The same, with this mode from now on.
    fn running_as(mut self, run: Run) -> Self {
        let mut service = self.service().clone();
        service.spec.run = run;
        let generation = service.generation;
        self.apply(Kind::PutService(v1::PutService {
            service: Some((&service).into()),
            expected_generation: generation,
        }));
        self
    }
}

impl World {
    fn control(&mut self, control: Control) {
        self.apply(Kind::ControlRollout(v1::ControlRollout {
            service: id_bytes(SERVICE.as_u128()),
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            control: enum_number(&Control::ALL, &control),
            full: false,
            by: "admin".into(),
        }));
    }

    fn enter(&mut self, phase: Phase) {
        let progress = Progress {
            phase,
            ..Progress::default()
        };
        self.apply(Kind::AdvanceRollout(v1::AdvanceRollout {
            service: id_bytes(SERVICE.as_u128()),
            expected_generation: self.service().generation,
            progress: Some((&progress).into()),
            step: "goes on".into(),
        }));
    }
}

#[test]
fn what_is_tried_or_paused_is_not_live_and_takes_its_time() {
    let day_ms = 86_400_000;
    let forever = Next::Wait { until_ms: None };
    let mut world = World::deploying(seen(Seen::Healthy));
    world.is_published = true;
    assert_eq!(world.decide(), Next::Live);
    for phase in [Phase::Trial, Phase::Canary { step: 0 }] {
        world.enter(phase);
        assert_eq!(world.decide(), forever, "{phase:?}");
    }
    world.now_ms += day_ms;
    assert_eq!(world.decide(), forever, "until somebody promotes it");
    let until_ms = world.now_ms + day_ms;
    world.enter(Phase::Kept { until_ms });
    let wait = Next::Wait {
        until_ms: Some(until_ms),
    };
    assert_eq!(world.decide(), wait);
    world.control(Control::Pause);
    world.now_ms = until_ms;
    assert_eq!(world.decide(), forever, "paused");
    world.control(Control::Resume);
    assert_eq!(world.decide(), Next::Live);

    // Not healthy: a pause has no deadline, and one begins when it is resumed.
    let mut world = World::deploying(seen(Seen::Starting));
    world.control(Control::Pause);
    world.now_ms += day_ms;
    assert_eq!(world.decide(), forever);
    world.control(Control::Resume);
    assert!(matches!(world.decide(), Next::Wait { until_ms: Some(at) } if at > world.now_ms));
    world.now_ms += day_ms;
    assert_eq!(world.fails().code, Code::Timeout);
    // What failed has failed, paused or not.
    let mut world = World::deploying(seen(Seen::Failed));
    world.control(Control::Pause);
    world.fails();
}

#[test]
fn a_batch_is_live_once_its_job_is_made_and_a_system_service_once_it_is_everywhere() {
    let mode = |mode| Run {
        mode,
        ..Run::default()
    };
    let mut batch = World::deploying(seen(Seen::Stopped)).running_as(mode(Mode::Batch));
    assert!(matches!(batch.decide(), Next::Wait { .. }));
    batch.apply(Kind::PlanJobs(v1::PlanJobs {
        service: id_bytes(SERVICE.as_u128()),
        deployment: id_bytes(DEPLOYMENT.as_u128()),
        ..v1::PlanJobs::default()
    }));
    assert_eq!(batch.decide(), Next::Live);

    let mut system = World::deploying(seen(Seen::Healthy)).running_as(mode(Mode::System));
    assert!(matches!(system.decide(), Next::Wait { .. }));
    let generation = system.service().generation;
    // Seen before the rollout was begun: says nothing of it.
    system.converged.insert(SERVICE, generation - 1);
    assert!(matches!(system.decide(), Next::Wait { .. }));
    system.converged.insert(SERVICE, generation);
    // What a node that is dead has of an older release holds up nobody.
    system.start(Allocation {
        id: AllocationId::from_u128(41),
        target: Target {
            release: 1,
            deployment: DeploymentId::from_u128(30),
        },
        ..system.allocation(40)
    });
    assert_eq!(system.decide(), Next::Live);

    let cron = Run {
        schedule: Some("@daily".into()),
        ..mode(Mode::Cron)
    };
    let cron = World::deploying(seen(Seen::Stopped)).running_as(cron);
    assert_eq!(cron.decide(), Next::Live);
}

fn image() -> Origin {
    Origin::Image {
        reference: "app".into(),
    }
}

fn built(exposed: &[u16]) -> Built {
    let image = Image {
        reference: "app".into(),
        digest: "sha256:0".into(),
        node: None,
        shared: false,
        bundle: false,
        pushed: None,
    };
    Built {
        image,
        exposed: exposed.to_vec(),
        commit: None,
        manifest: None,
    }
}

fn seen(state: Seen) -> Observed {
    Observed {
        state,
        ..Observed::pending()
    }
}

#[test]
fn a_new_source_comes_with_the_release_that_was_built_from_it() {
    let mut world = World::building(image()).built(&BuildOutcome::Built(built(&[])));
    let source = |reference: &str| {
        Some(Source::Image {
            reference: reference.into(),
        })
    };
    let resolved = |world: &World, new: Option<Source>| {
        let deployment = Deployment {
            source: new,
            ..world.deployment().clone()
        };
        let secrets = Secrets::new(SealingKey::generate());
        let service = world.service();
        let built = built(&[]);
        super::release::resolve(&world.state, service, &deployment, &built, &secrets)
            .expect("resolved")
    };
    assert_eq!(resolved(&world, source("new")).spec.source, source("new"));
    // Nothing named: whatever the service has by now.
    let mut service = world.service().clone();
    service.spec.source = source("old");
    world.apply(Kind::PutService(v1::PutService {
        service: Some((&service).into()),
        expected_generation: service.generation,
    }));
    assert_eq!(resolved(&world, None).spec.source, source("old"));
    assert_eq!(resolved(&world, source("new")).spec.source, source("new"));
}

#[test]
fn a_build_goes_to_a_ready_node_and_waits_for_one_with_a_reason() {
    assert_eq!(World::new(image()).with_node().decide(), Next::Build(NODE));
    let mut world = World::new(image());
    let Next::Note(problem) = world.decide() else {
        panic!("it says why it waits")
    };
    assert!(problem.message.contains("no node is ready"));
    world.now_ms += 120_000;
    assert_eq!(world.fails().code, Code::Unplaceable);
}

#[test]
fn a_lost_builder_fails_the_deployment_with_what_to_do() {
    let mut world = World::building(Origin::Upload {
        upload: UploadId::from_u128(1),
    });
    assert!(matches!(world.decide(), Next::Wait { until_ms: Some(_) }));
    world.judge(NodeStatus::Lost);
    assert!(world.fails().hint.expect("advice").contains("upload again"));
}

fn pushed() -> Origin {
    Origin::Pushed {
        branch: "main".into(),
        commit: "a".repeat(40),
        directory: String::new(),
    }
}

impl World {
    /// These nodes hold what is deployed.
    fn held_by(&mut self, nodes: &[NodeId]) {
        let known = self.state.pushed(SERVICE);
        let old = known.map(|_| "a".repeat(40));
        self.apply(Kind::PushReferences(v1::PushReferences {
            service: id_bytes(SERVICE.as_u128()),
            updates: vec![v1::push_references::Update {
                name: "refs/heads/main".into(),
                old,
                new: Some("a".repeat(40)),
            }],
            holders: nodes.iter().map(|it| id_bytes(it.as_u128())).collect(),
            deployment: None,
        }));
    }
}

#[test]
fn what_is_pushed_is_built_where_it_is_held_and_waits_for_who_holds_it() {
    let other = NodeId::from_u128(77);
    let mut world = World::new(pushed()).with_node();
    world.another_node(other);
    let problem = world.fails();
    assert!(problem.hint.expect("advice").contains("git push skep"));
    world.held_by(&[other]);
    assert_eq!(world.decide(), Next::Build(other));
    world.apply(Kind::SetNodeStatus(v1::SetNodeStatus {
        node: id_bytes(other.as_u128()),
        status: enum_number(&NodeStatus::ALL, &NodeStatus::Lost),
        witnesses: Vec::new(),
    }));
    let Next::Note(problem) = world.decide() else {
        panic!("it says whom it waits for")
    };
    assert_eq!(problem.code, Code::Unavailable);
    // However long.
    world.now_ms += 1_000_000_000;
    assert!(matches!(world.decide(), Next::Note(_)));
    world.held_by(&[NODE, other]);
    assert_eq!(world.decide(), Next::Build(NODE));
}

#[test]
fn a_builder_that_has_not_what_it_should_hold_is_asked_no_more() {
    let other = NodeId::from_u128(77);
    let mut world = World::building(pushed());
    world.another_node(other);
    world.held_by(&[NODE, other]);
    let gone = Problem::new(Code::Runtime, "not here").at(NOT_HELD);
    world.apply(Kind::Observe(v1::Observe {
        node: id_bytes(NODE.as_u128()),
        builds: vec![v1::BuildObservation {
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            outcome: Some((&BuildOutcome::Failed(gone)).into()),
        }],
        ..Default::default()
    }));
    assert_eq!(world.decide(), Next::Forget(NODE));
    world.apply(Kind::ForgetHolder(v1::ForgetHolder {
        service: id_bytes(SERVICE.as_u128()),
        node: id_bytes(NODE.as_u128()),
    }));
    assert_eq!(world.decide(), Next::Build(other));
    world.apply(Kind::ForgetHolder(v1::ForgetHolder {
        service: id_bytes(SERVICE.as_u128()),
        node: id_bytes(other.as_u128()),
    }));
    assert_eq!(world.fails().field.as_deref(), Some(NOT_HELD));
}

#[test]
fn a_build_that_was_lost_goes_on_elsewhere_but_not_for_ever() {
    let git = Origin::Git {
        repository: "r".into(),
        branch: "main".into(),
        commit: None,
        directory: String::new(),
    };
    let mut world = World::building(git);
    world.judge(NodeStatus::Lost);
    // Nowhere else.
    assert!(world.fails().hint.expect("advice").contains("skep deploy"));
    let other = NodeId::from_u128(77);
    world.another_node(other);
    assert_eq!(world.decide(), Next::Build(other));
    let deployment = world.deployment().clone();
    world.apply(Kind::AssignBuild(v1::AssignBuild {
        deployment: id_bytes(deployment.id.as_u128()),
        expected_generation: deployment.generation,
        node: id_bytes(other.as_u128()),
        step: "again".into(),
    }));
    let build = world.deployment().build.clone().expect("a build");
    assert_eq!((build.node, build.lost), (other, 1));
    assert_eq!(world.state.builds_on(NODE).count(), 0);
    assert_eq!(world.state.builds_on(other).count(), 1);
    // The app's own fault is nobody else's.
    let problem = Problem::new(Code::BuildFailed, "step 3 failed");
    let world = world.built_at(other, &BuildOutcome::Failed(problem.clone()));
    assert_eq!(world.fails(), problem);
}

#[test]
fn a_failed_build_is_the_deployments_failure() {
    let problem = Problem::new(Code::BuildFailed, "step 3 failed");
    let world = World::building(image()).built(&BuildOutcome::Failed(problem.clone()));
    assert_eq!(world.fails(), problem);
}

#[test]
fn the_apps_own_file_is_in_the_release() {
    let text = "port = 3000\nreplicas = 2\n[env]\nA = \"b\"";
    let outcome = BuildOutcome::Built(Built {
        manifest: Some(text.into()),
        ..built(&[80])
    });
    let Next::Release(resolved) = World::building(image()).built(&outcome).decide() else {
        panic!("a release")
    };
    assert_eq!(
        (resolved.release.port, resolved.spec.replicas),
        (Some(3000), 2)
    );
    assert!(resolved.release.variables.contains_key("A"));
    let broken = BuildOutcome::Built(Built {
        manifest: Some("prot = 1".into()),
        ..built(&[])
    });
    assert_eq!(
        World::building(image()).built(&broken).fails().code,
        Code::Invalid
    );
}

#[test]
fn live_when_healthy_and_published_not_before() {
    let mut world = World::deploying(seen(Seen::Running));
    assert!(matches!(world.decide(), Next::Wait { .. }));
    world = World::deploying(seen(Seen::Healthy));
    assert_eq!(world.decide(), Next::Live);
    world.is_published = false;
    assert!(matches!(world.decide(), Next::Wait { .. }));
}

#[test]
fn a_failed_container_fails_the_rollout_with_its_last_lines() {
    let problem = Problem::new(Code::Crashed, "exited with code 3");
    let observed = Observed {
        state: Seen::Failed,
        restarts: 3,
        problem: Some(problem.clone()),
        log_tail: "boom".into(),
        exit_code: None,
        ports: Vec::new(),
    };
    assert_eq!(
        World::deploying(observed).decide(),
        Next::Fail(problem, "boom".into())
    );
}

#[test]
fn what_fits_nowhere_is_said_and_then_given_up() {
    let mut world = World::deploying(seen(Seen::Pending));
    let refusal = Problem::new(Code::Unplaceable, "1 node lacks memory");
    world.refusals.insert(SERVICE, refusal.clone());
    assert_eq!(world.decide(), Next::Note(refusal.clone()));
    world.now_ms += 30_000;
    assert_eq!(world.fails(), refusal);
}

#[test]
fn an_endless_rollout_is_given_up_with_the_count() {
    let mut world = World::deploying(seen(Seen::Starting));
    world.now_ms += 3_600_000;
    let problem = world.fails();
    assert_eq!(problem.code, Code::Timeout);
    assert!(problem.message.contains("0 of 1"), "{problem}");
}

#[test]
fn a_release_has_what_its_variables_refer_to_and_secrets_stay_secret() {
    let text = "port = 3000\n[env]\nURL = \"x://${{KEY}}@${{s.PORT}}\"\nPLAIN = \"p\"";
    let outcome = BuildOutcome::Built(Built {
        manifest: Some(text.into()),
        ..built(&[80])
    });
    let world = World::building(image()).built(&outcome);
    let secrets = Secrets::new(SealingKey::generate());
    let mut service = world.service().clone();
    let key = skep_model::variable::VariableInput {
        name: "KEY".into(),
        value: "s3cret".into(),
        secret: true,
    };
    let built = Built {
        manifest: Some(text.into()),
        ..built(&[80])
    };
    let resolve = |service: &skep_model::service::Service| {
        super::release::resolve(&world.state, service, world.deployment(), &built, &secrets)
    };
    let problem = resolve(&service).expect_err("KEY is not set");
    assert_eq!(problem.field.as_deref(), Some("variables.URL"));
    assert!(problem.message.contains("URL -> "), "{problem}");
    let sealed = secrets.seal_variable(service.id, &key);
    service.variables.insert("KEY".into(), sealed);
    let release = resolve(&service).expect("resolved").release;
    let url = &release.variables["URL"];
    let shown = secrets
        .open_variable(service.id, "URL", url)
        .expect("opens");
    assert_eq!((shown.as_str(), url.secret), ("x://s3cret@3000", true));
    // The image goes on with what its own file said, resolved anew.
    let key = skep_model::variable::VariableInput {
        value: "other".into(),
        ..key
    };
    let sealed = secrets.seal_variable(service.id, &key);
    service.variables.insert("KEY".into(), sealed);
    let pair = (&service, world.deployment());
    let again = super::release::renew(&world.state, &secrets, pair, &release);
    let again = again.expect("resolved").release;
    let shown = secrets.open_variable(service.id, "URL", &again.variables["URL"]);
    assert_eq!(shown.expect("opens"), "x://other@3000");
    assert!(again.variables.contains_key("PLAIN"));
}
