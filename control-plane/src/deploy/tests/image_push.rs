//! Images that are pushed: which, by whom, under which name; and those that must be there before anything is rolled out.

use skep_model::image_push::{PullLogin, PushRegistry, REQUIRED_WAIT_MS};
use skep_model::registry::{Ask, Bucket, RegistryAccess, RegistryLogin, Wanted};
use skep_model::variable::Sealed;

use super::*;
use crate::image_push::{settlement, waiting, work};
use crate::logins;
use crate::secrets::PushUse;

const WORKSPACE: WorkspaceId = WorkspaceId::from_u128(7);
const COMMIT: &str = "0123456789012345678901234567890123456789";
const REFERENCE: &str = "r.example:5000/team/default/p/s";

fn git() -> Origin {
    Origin::Git {
        repository: "https://forge.test/shop.git".into(),
        branch: "main".into(),
        commit: None,
        directory: String::new(),
    }
}

/// Something was built on the one node, and the workspace's images are pushed.
fn built_there(origin: Origin, (shared, required): (bool, bool)) -> World {
    let commit = matches!(origin, Origin::Git { .. }).then(|| COMMIT.to_owned());
    let mut world = World::building(origin);
    world.push_to("r.example:5000", required);
    let plain = built(&[80]);
    let image = Image {
        node: Some(NODE),
        shared,
        ..plain.image
    };
    world.built(&BuildOutcome::Built(Built {
        image,
        commit,
        ..plain
    }))
}

impl World {
    fn push_to(&mut self, host: &str, required: bool) {
        let registry = PushRegistry {
            workspace: WORKSPACE,
            host: host.into(),
            prefix: "team".into(),
            user: "ci".into(),
            password: Sealed(vec![1]),
            pull: None,
            bucket: None,
            required,
            made_ms: 0,
            changed_ms: 0,
        };
        self.apply(Kind::PutPushRegistry(v1::PutPushRegistry {
            registry: Some((&registry).into()),
        }));
    }

    fn begin_push(&mut self) {
        let generation = self.deployment().generation;
        self.apply(Kind::BeginPush(v1::BeginPush {
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            expected_generation: generation,
            step: "pushing".into(),
        }));
    }

    /// Rolls out what is decided.
    fn roll_out(&mut self) {
        let Next::Release(resolved) = self.decide() else {
            panic!("a build makes a release")
        };
        let (deployment, service) = (self.deployment().generation, self.service().generation);
        self.apply(Kind::StartRollout(v1::StartRollout {
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            expected_generation: deployment,
            release: Some((&resolved.release).into()),
            number: 1,
            spec: None,
            expected_service_generation: service,
            step: "rolling out".into(),
        }));
    }

    /// The one image that is to be pushed; what comes of it.
    fn settle(&mut self, found: Option<Result<String, Problem>>) {
        let all = work(&self.state, SERVICE);
        let [one] = &all[..] else {
            panic!("one is to be pushed, not {}", all.len())
        };
        self.apply(settlement(one, found, self.now_ms));
    }

    fn pushed(&self) -> Option<String> {
        let release = self.state.release(SERVICE, 1).expect("there");
        release.image.pushed.clone()
    }
}

fn access() -> RegistryAccess {
    RegistryAccess {
        workspace: Some(WORKSPACE),
        host: "r.example:5000".into(),
        user: "ci".into(),
        password: "secret".into(),
        bucket: None,
    }
}

fn away() -> Problem {
    Problem::new(Code::Unavailable, "it is away")
}

#[test]
fn an_image_is_pushed_under_its_commit_by_the_node_that_built_it_beside_the_rollout() {
    let mut world = built_there(git(), (true, false));
    assert!(
        work(&world.state, SERVICE).is_empty(),
        "it may yet be refused"
    );
    world.roll_out();
    let all = work(&world.state, SERVICE);
    let [one] = &all[..] else { panic!("one image") };
    assert_eq!(one.node(), Some(NODE));
    assert_eq!(one.reference(), format!("{REFERENCE}:{COMMIT}"));
    let ask = Ask {
        host: "r.example:5000".into(),
        repository: "team/default/p/s".into(),
        access: Some(access()),
        wanted: Wanted::Push {
            digest: "sha256:0".into(),
            tag: COMMIT.into(),
        },
    };
    assert_eq!(one.ask(access()), ask);

    // A registry that is away changes nothing about the rollout, and is tried again.
    let before = world.deployment().clone();
    world.settle(Some(Err(away())));
    let after = world.deployment();
    assert_eq!(
        (after.status, after.generation),
        (before.status, before.generation)
    );
    let push = after.push.clone().expect("told");
    assert_eq!(
        (push.problem, push.digest, push.attempts),
        (Some(away()), None, 1)
    );
    assert_eq!(work(&world.state, SERVICE)[0].at_ms, push.next_ms);
    assert!(push.next_ms > world.now_ms);

    world.settle(Some(Ok("sha256:0".into())));
    assert!(work(&world.state, SERVICE).is_empty(), "it is there");
    assert_eq!(world.pushed(), Some(format!("{REFERENCE}@sha256:0")));
}

#[test]
fn another_digest_than_the_releases_is_no_success() {
    let mut world = built_there(git(), (true, false));
    world.roll_out();
    world.settle(Some(Ok("sha256:1".into())));
    let push = world.deployment().push.clone().expect("told");
    let why = push.problem.expect("refused").message;
    assert!(why.contains("sha256:1") && push.digest.is_none(), "{why}");
    assert_eq!(world.pushed(), None);
    assert_eq!(work(&world.state, SERVICE).len(), 1, "tried again");
}

#[test]
fn what_was_overtaken_stays_on_its_node_or_is_nobodys_is_not_pushed() {
    let mut world = built_there(git(), (false, false));
    world.roll_out();
    assert!(
        work(&world.state, SERVICE).is_empty(),
        "no other node can have it"
    );

    let mut world = built_there(git(), (true, false));
    world.roll_out();
    world.settle(Some(Err(away())));
    let newer = Deployment {
        id: DeploymentId::from_u128(4),
        ..world.deployment().clone()
    };
    world.apply(Kind::CreateDeployment(v1::CreateDeployment {
        deployment: Some((&newer).into()),
        delivery: None,
    }));
    assert!(
        work(&world.state, SERVICE).is_empty(),
        "a newer one took over"
    );

    let mut world = built_there(git(), (true, false));
    world.roll_out();
    world.judge(NodeStatus::Lost);
    assert_eq!(work(&world.state, SERVICE)[0].node(), None, "nobody has it");
    world.apply(Kind::RemovePushRegistry(v1::RemovePushRegistry {
        workspace: id_bytes(WORKSPACE.as_u128()),
    }));
    assert!(work(&world.state, SERVICE).is_empty());
}

#[test]
fn an_upload_is_pushed_under_its_deployment() {
    let upload = Origin::Upload {
        upload: UploadId::from_u128(1),
    };
    let mut world = built_there(upload, (true, false));
    world.roll_out();
    let reference = work(&world.state, SERVICE)[0].reference();
    assert_eq!(reference, format!("{REFERENCE}:{DEPLOYMENT}"));
}

#[test]
fn what_is_required_is_there_before_it_is_rolled_out_and_fails_after_its_time() {
    let mut world = built_there(git(), (true, true));
    assert!(matches!(world.decide(), Next::Push(step) if step.contains("r.example")));
    world.begin_push();
    assert_eq!(waiting(&world.state), [DEPLOYMENT]);
    let until_ms = world.deployment().status_ms + REQUIRED_WAIT_MS;
    let wait = Next::Wait {
        until_ms: Some(until_ms),
    };
    assert_eq!(world.decide(), wait);
    world.settle(Some(Err(away())));
    assert_eq!(world.decide(), wait);

    let mut late = built_there(git(), (true, true));
    late.begin_push();
    late.settle(Some(Err(away())));
    late.now_ms = until_ms;
    assert_eq!(late.fails(), away());

    // Nobody insists any more.
    let mut relaxed = built_there(git(), (true, true));
    relaxed.begin_push();
    relaxed.push_to("r.example:5000", false);
    assert!(matches!(relaxed.decide(), Next::Release(_)));

    world.settle(Some(Ok("sha256:0".into())));
    world.roll_out();
    assert_eq!(world.pushed(), Some(format!("{REFERENCE}@sha256:0")));
    assert!(work(&world.state, SERVICE).is_empty());
}

#[test]
fn another_registry_has_what_serves_pushed_again() {
    let mut world = built_there(git(), (true, false));
    world.roll_out();
    world.settle(Some(Ok("sha256:0".into())));
    world.push_to("other.example", false);
    let all = work(&world.state, SERVICE);
    assert_eq!(all.len(), 1);
    assert!(all[0].reference().starts_with("other.example/team/"));
    world.settle(None);
    let push = world.deployment().push.clone().expect("told");
    assert!(
        push.problem
            .is_some_and(|it| it.message.contains("did not answer"))
    );
}

#[test]
fn a_workspace_pulls_as_itself_or_as_the_cluster_and_never_as_another() {
    let secrets = Secrets::new(SealingKey::generate());
    let host = "r.example:5000";
    let seal = |of, text: &str| secrets.seal_push(of, (WORKSPACE, host), text);
    let mut world = World::new(git());
    let registry = PushRegistry {
        workspace: WORKSPACE,
        host: host.into(),
        prefix: String::new(),
        user: "writer".into(),
        password: seal(PushUse::Push, "w"),
        pull: Some(PullLogin {
            user: "reader".into(),
            password: seal(PushUse::Pull, "r"),
        }),
        bucket: None,
        required: false,
        made_ms: 0,
        changed_ms: 0,
    };
    world.apply(Kind::PutPushRegistry(v1::PutPushRegistry {
        registry: Some((&registry).into()),
    }));
    let other = WorkspaceId::from_u128(99);
    let user = |world: &World, workspace: WorkspaceId, host: &str| {
        let access = logins::pull(&world.state, &secrets, (Some(workspace), host));
        access.map(|access| format!("{}:{}", access.user, access.password))
    };
    assert_eq!(user(&world, WORKSPACE, host).as_deref(), Some("reader:r"));
    assert_eq!(user(&world, WORKSPACE, "other.example"), None);
    assert_eq!(user(&world, other, host), None);
    let push = secrets.push_access(&registry).expect("opens");
    assert_eq!((&*push.user, &*push.password), ("writer", "w"));
    // The key of a bucket at the same host is no login for Docker; nodes that get objects have it with its place.
    let bucket = Bucket {
        name: "sites".into(),
        region: "auto".into(),
        path_style: false,
    };
    let mut of_bucket = registry.clone();
    of_bucket.bucket = Some(bucket.clone());
    let access = secrets.pull_access(&of_bucket).expect("opens");
    assert_eq!(access.bucket, Some(bucket));
    let put = |registry: &PushRegistry| {
        Kind::PutPushRegistry(v1::PutPushRegistry {
            registry: Some(registry.into()),
        })
    };
    world.apply(put(&of_bucket));
    assert_eq!(user(&world, WORKSPACE, host), None);
    world.apply(put(&registry));
    // What is sealed for one workspace opens for no other.
    let stolen = PushRegistry {
        workspace: other,
        ..registry
    };
    assert!(secrets.push_access(&stolen).is_err() && secrets.pull_access(&stolen).is_err());

    let login = RegistryLogin {
        password: secrets.seal_registry(host, "c"),
        host: host.into(),
        user: "cluster".into(),
        changed_ms: 0,
    };
    world.apply(Kind::PutRegistry(v1::PutRegistry {
        login: Some((&login).into()),
    }));
    assert_eq!(user(&world, other, host).as_deref(), Some("cluster:c"));
    assert_eq!(user(&world, WORKSPACE, host).as_deref(), Some("reader:r"));
}
