//! What is to be told of which deployment, and what an answer leads to.

use std::collections::BTreeMap;

use skep_model::deployment::{Status, Trigger};
use skep_model::forge::{Access, Kind as ForgeKind};
use skep_model::id::{ClusterId, DeploymentId, EnvironmentId, ProjectId};
use skep_model::rollout::Progress;
use skep_model::service::Service;
use skep_model::spec::ServiceSpec;
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_model::variable::Sealed;
use skep_state::command;

use super::*;
use crate::api::queued;

const SERVICE: ServiceId = ServiceId::from_u128(4);
const WORKSPACE: WorkspaceId = WorkspaceId::from_u128(1);
pub(super) const ONE: &str = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";
const OTHER: &str = "466701fde727cb7a9e7f21eb88264f59f6f9b89c";

pub(super) fn apply(state: &mut State, kind: Kind) {
    let applied = state.apply(state.index() + 1, &command(1_000, kind));
    applied.outcome.expect("accepted");
}

/// A service, and a connection to `git.test`.
pub(super) fn connected() -> State {
    connected_as(ForgeKind::Gitea)
}

/// The same, to a forge of this kind.
pub(super) fn connected_as(kind: ForgeKind) -> State {
    let mut state = State::default();
    let workspace = Workspace {
        id: WORKSPACE,
        name: "default".into(),
    };
    let project = Project {
        id: ProjectId::from_u128(2),
        workspace: workspace.id,
        name: "shop".into(),
    };
    let environment = Environment {
        id: EnvironmentId::from_u128(3),
        project: project.id,
        name: "production".into(),
    };
    apply(
        &mut state,
        Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(ClusterId::from_u128(9).as_u128()),
            workspace: Some((&workspace).into()),
            ..v1::InitCluster::default()
        }),
    );
    apply(
        &mut state,
        Kind::EnsureEnvironment(v1::EnsureEnvironment {
            workspace: id_bytes(workspace.id.as_u128()),
            project: Some((&project).into()),
            environment: Some((&environment).into()),
        }),
    );
    put_service(&mut state, None);
    let connection = Connection {
        workspace: WORKSPACE,
        host: "git.test".into(),
        kind,
        api_url: "https://git.test/api/v1".into(),
        access: Access::Token(Sealed(vec![1])),
        ca_pem: None,
        made_ms: 0,
        changed_ms: 0,
        is_refused: false,
        resume_ms: 0,
        problem: None,
        asked_ms: 0,
    };
    let connection = Some((&connection).into());
    apply(&mut state, Kind::PutForge(v1::PutForge { connection }));
    state
}

fn put_service(state: &mut State, statuses: Option<bool>) {
    let known = state.service(SERVICE).map(|known| (**known).clone());
    let mut service = known.unwrap_or_else(|| Service {
        id: SERVICE,
        environment: EnvironmentId::from_u128(3),
        name: "web".into(),
        spec: ServiceSpec::default(),
        variables: BTreeMap::new(),
        webhook_secret: None,
        live: None,
        rollout: None,
        progress: Progress::default(),
        last_release: 0,
        stopped: false,
        removing: false,
        generation: 0,
        created_ms: 0,
        scaling: None,
        pinned: None,
    });
    service.spec.pushes.statuses = statuses;
    let expected_generation = service.generation;
    apply(
        state,
        Kind::PutService(v1::PutService {
            service: Some((&service).into()),
            expected_generation,
        }),
    );
}

pub(super) fn deploy(state: &mut State, id: u128, origin: Origin) {
    let id = DeploymentId::from_u128(id);
    let deployment = queued(id, SERVICE, (Trigger::Webhook, origin));
    apply(
        state,
        Kind::CreateDeployment(v1::CreateDeployment {
            deployment: Some((&deployment).into()),
            delivery: None,
        }),
    );
}

pub(super) fn git(host: &str, commit: Option<&str>) -> Origin {
    Origin::Git {
        repository: format!("https://{host}/Team/shop.git"),
        branch: "main".into(),
        commit: commit.map(str::to_owned),
        directory: String::new(),
    }
}

fn deployment_of(news: &News) -> Arc<Deployment> {
    match &news.of {
        Of::Deployment(deployment) => Arc::clone(deployment),
        Of::Preview(_) | Of::Shown(_) => panic!("a deployment"),
    }
}

/// Deployment, its status, and when it is told.
fn seen(state: &State) -> Vec<(u128, Status, u64)> {
    let all = news(state, SERVICE).into_iter();
    all.map(|it| {
        let deployment = deployment_of(&it);
        (deployment.id.as_u128(), deployment.status, it.at_ms)
    })
    .collect()
}

fn settle(state: &mut State, verdict: Verdict, now_ms: u64) {
    let first = news(state, SERVICE).into_iter().next().expect("news");
    let deployment = deployment_of(&first);
    let settled = settlement(&first.connection, &deployment, (verdict, now_ms));
    apply(state, settled);
}

#[test]
fn only_deployments_of_a_known_commit_of_a_connected_host_are_told() {
    let image = Origin::Image {
        reference: "app".into(),
    };
    for (name, origin, count) in [
        ("connected", git("git.test", Some(ONE)), 1),
        ("another host", git("other.test", Some(ONE)), 0),
        ("no commit yet", git("git.test", None), 0),
        ("short commit", git("git.test", Some("366701f")), 0),
        ("image", image, 0),
    ] {
        let mut state = connected();
        deploy(&mut state, 10, origin);
        assert_eq!(seen(&state).len(), count, "{name}");
        put_service(&mut state, Some(false));
        assert_eq!(seen(&state), [], "{name}: nothing is written back");
    }
}

#[test]
fn of_each_commit_only_the_newest_deployment_is_told() {
    let mut state = connected();
    deploy(&mut state, 10, git("git.test", Some(ONE)));
    deploy(&mut state, 11, git("git.test", Some(OTHER)));
    deploy(&mut state, 12, git("git.test", Some(ONE)));
    let wanted = [(12, Status::Queued, 0), (11, Status::Superseded, 0)];
    assert_eq!(seen(&state), wanted);
    assert_eq!(waiting(&state, &news(&state, SERVICE)[0].connection), 2);
    let told = report(&state, &deployment_of(&news(&state, SERVICE)[0])).expect("there");
    assert_eq!(
        (&*told.repository, &*told.commit, &*told.context),
        ("Team/shop", ONE, "skep/shop/production/web")
    );
    settle(&mut state, Verdict::Taken, 5_000);
    assert_eq!(seen(&state), wanted[1..]);
    settle(&mut state, Verdict::Taken, 5_000);
    assert_eq!(seen(&state), []);
}

#[test]
fn what_is_not_taken_is_told_again_later_or_never() {
    let mut state = connected();
    deploy(&mut state, 10, git("git.test", Some(ONE)));
    settle(&mut state, Verdict::Again("500".into()), 5_000);
    let first = seen(&state)[0].2;
    assert!((5_001..=10_000).contains(&first), "{first}");
    settle(&mut state, Verdict::Again("500".into()), first);
    let second = seen(&state)[0].2;
    assert!(second - first > 5_000, "pauses grow: {first} {second}");

    let limited = Verdict::Later {
        pause_ms: 60_000,
        why: "429".into(),
    };
    settle(&mut state, limited, 20_000);
    assert_eq!(seen(&state)[0].2, 80_000);
    // Whatever else there is to tell waits, too.
    deploy(&mut state, 11, git("git.test", Some(OTHER)));
    let times: Vec<u64> = seen(&state).iter().map(|it| it.2).collect();
    assert_eq!(times, [80_000, 80_000]);

    settle(&mut state, Verdict::Never("404".into()), 90_000);
    assert_eq!(seen(&state).len(), 1, "the other one is tried");
    settle(&mut state, Verdict::Unknown("401".into()), 91_000);
    assert_eq!(seen(&state), [], "nothing is tried with this token");
}

#[test]
fn one_status_is_tried_for_a_day() {
    let mut state = connected();
    deploy(&mut state, 10, git("git.test", Some(ONE)));
    settle(&mut state, Verdict::Again("away".into()), 5_000);
    settle(
        &mut state,
        Verdict::Again("away".into()),
        5_000 + GIVE_UP_MS,
    );
    assert_eq!(seen(&state), []);
}

#[test]
fn a_token_is_in_a_header_that_is_not_shown_and_nowhere_else() {
    let mut state = connected();
    deploy(&mut state, 10, git("git.test", Some(ONE)));
    for kind in ForgeKind::ALL {
        let first = news(&state, SERVICE).remove(0);
        let connection = Connection {
            kind,
            ..(*first.connection).clone()
        };
        let report = report(&state, &deployment_of(&first)).expect("there");
        let sent = request(site(&connection, "s3cret-token").status(&report)).expect("made");
        let shown = format!("{sent:?}");
        assert!(!shown.contains("s3cret-token"), "{shown}");
        assert!(
            sent.headers().values().any(|it| it.is_sensitive()),
            "{kind}"
        );
        assert!(!sent.uri().to_string().contains("s3cret"), "{kind}");
    }
}
