use skep_model::id::{ClusterId, DeploymentId, EnvironmentId, ProjectId, ServiceId, WorkspaceId};
use skep_model::preview::{DEFAULT_IDLE_MS, Preview, Seed};
use skep_model::service::Target;
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::command;

use super::*;

const PREVIEW: EnvironmentId = EnvironmentId::from_u128(7);

fn service(environment: EnvironmentId) -> Service {
    Service {
        id: ServiceId::from_u128(environment.as_u128() + 1),
        environment,
        name: "web".into(),
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
    }
}

/// A service with a migration, and a preview of it that is filled with data.
fn state() -> State {
    let (workspace, project) = (WorkspaceId::from_u128(1), ProjectId::from_u128(2));
    let base = EnvironmentId::from_u128(3);
    let mut production = service(base);
    production.spec.hooks.release = vec!["migrate".into()];
    let preview = Preview {
        environment: PREVIEW,
        base,
        name: "pr-1".into(),
        request: None,
        branch: None,
        commit: None,
        ttl_ms: 10_000,
        expires_ms: 0,
        created_ms: 0,
        idle_ms: DEFAULT_IDLE_MS,
        seed: Some(Seed {
            service: "web".into(),
            command: vec!["seed".into()],
        }),
        ended: None,
        comment: None,
    };
    let workspace_of = Workspace {
        id: workspace,
        name: "default".into(),
    };
    let project_of = Project {
        id: project,
        workspace,
        name: "shop".into(),
    };
    let environment = Environment {
        id: base,
        project,
        name: "production".into(),
    };
    let commands = [
        Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(ClusterId::from_u128(9).as_u128()),
            workspace: Some((&workspace_of).into()),
            ..Default::default()
        }),
        Kind::EnsureEnvironment(v1::EnsureEnvironment {
            workspace: id_bytes(workspace.as_u128()),
            project: Some((&project_of).into()),
            environment: Some((&environment).into()),
        }),
        Kind::PutService(v1::PutService {
            service: Some((&production).into()),
            expected_generation: 0,
        }),
        Kind::MakePreview(v1::MakePreview {
            preview: Some((&preview).into()),
            ..Default::default()
        }),
    ];
    let mut state = State::default();
    for (index, kind) in commands.into_iter().enumerate() {
        let applied = state.apply(index as u64 + 1, &command(1_000, kind));
        applied.outcome.expect("accepted");
    }
    state
}

/// What an app's own file says.
fn said() -> ServiceSpec {
    ServiceSpec {
        domains: vec!["shop.example.com".into()],
        replicas: 3,
        ..ServiceSpec::default()
    }
}

#[test]
fn hosts_in_an_apps_own_file_are_productions_alone() {
    let state = state();
    let production = service(EnvironmentId::from_u128(3));
    assert_eq!(deployed(&state, &production, said(), false), said());
    let copy = deployed(&state, &service(PREVIEW), said(), false);
    assert!(copy.domains.is_empty() && copy.autoscale.is_some());
    // Files that nodes hand out have no replicas that could sleep.
    let site = deployed(&state, &service(PREVIEW), said(), true);
    assert_eq!((site.autoscale, site.replicas), (None, 1));
}

#[test]
fn a_preview_is_filled_until_it_is_live_and_then_migrates_as_its_base() {
    let state = state();
    let mut copy = service(PREVIEW);
    let first = deployed(&state, &copy, said(), false);
    assert_eq!(first.hooks.release, ["seed"]);
    copy.live = Some(Target {
        release: 1,
        deployment: DeploymentId::from_u128(1),
    });
    let second = deployed(&state, &copy, first, false);
    assert_eq!(second.hooks.release, ["migrate"]);
    let other = Service {
        name: "db".into(),
        ..service(PREVIEW)
    };
    let other = deployed(&state, &other, said(), false);
    assert!(other.hooks.release.is_empty());
}
