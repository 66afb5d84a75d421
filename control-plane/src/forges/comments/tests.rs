//! What a pull request is told, and what an answer leads to.

use skep_forge::api::{State as Stands, Verdict};
use skep_model::deployment::{Origin, Trigger};
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::preview::Why;
use skep_proto::convert::enum_number;

use super::super::tests::{apply, connected};
use super::*;
use crate::api::queued;

const BASE: EnvironmentId = EnvironmentId::from_u128(3);
const PREVIEW: EnvironmentId = EnvironmentId::from_u128(7);
const COPY: ServiceId = ServiceId::from_u128(8);
const HEAD: &str = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";

fn copy(statuses: Option<bool>) -> Service {
    let mut service = Service {
        id: COPY,
        environment: PREVIEW,
        name: "web".into(),
        spec: Default::default(),
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
    service.spec.pushes.statuses = statuses;
    service
}

fn preview(environment: EnvironmentId, number: Option<u64>) -> Preview {
    let request = |number| Request {
        repository: "git.test/team/shop".into(),
        number,
        is_fork: false,
        title: "More".into(),
        url: None,
        heard_ms: None,
    };
    Preview {
        environment,
        base: BASE,
        name: format!("pr-{}", environment.as_u128()),
        request: number.map(request),
        branch: None,
        commit: None,
        ttl_ms: 60_000,
        expires_ms: 0,
        created_ms: 0,
        idle_ms: 0,
        seed: None,
        ended: None,
        comment: None,
    }
}

fn make(preview: &Preview, services: &[Service]) -> Kind {
    let deployments = services.iter().map(|service| {
        let origin = Origin::Git {
            repository: "https://git.test/Team/shop.git".into(),
            branch: "more".into(),
            commit: Some(HEAD.into()),
            directory: String::new(),
        };
        let id = DeploymentId::from_u128(service.id.as_u128() + 1);
        let deployment = queued(id, service.id, (Trigger::Webhook, origin));
        (&deployment).into()
    });
    Kind::MakePreview(v1::MakePreview {
        preview: Some(preview.into()),
        deployments: deployments.collect(),
        services: services.iter().map(Into::into).collect(),
        ..Default::default()
    })
}

fn end(why: Why) -> Kind {
    Kind::EndPreview(v1::EndPreview {
        environment: id_bytes(PREVIEW.as_u128()),
        why: enum_number(&Why::ALL, &why),
        ..Default::default()
    })
}

/// A preview of a pull request at a connected forge.
pub(crate) fn previewed() -> State {
    let mut state = connected();
    let base = state.services().next().expect("a service").clone();
    let mut base = (*base).clone();
    base.spec.source = Some(Source::Git {
        repository: "https://git.test/Team/shop.git".into(),
        branch: "main".into(),
        directory: String::new(),
    });
    let expected_generation = base.generation;
    apply(
        &mut state,
        Kind::PutService(v1::PutService {
            service: Some((&base).into()),
            expected_generation,
        }),
    );
    apply(&mut state, make(&preview(PREVIEW, Some(12)), &[copy(None)]));
    state
}

fn told(state: &State) -> Option<(Box<Wanted>, u64)> {
    let news = comment_news(state, PREVIEW)?;
    match news.of {
        Of::Preview(wanted) => Some((wanted, news.at_ms)),
        Of::Deployment(_) | Of::Shown(_) => panic!("a preview"),
    }
}

fn settle(state: &mut State, id: Option<u64>, verdict: Verdict, now_ms: u64) {
    let (wanted, _) = told(state).expect("news");
    let connection = state.forges().next().expect("one").clone();
    let left = Left { id, verdict };
    let settled = comment_settlement(&connection, &wanted, (left, now_ms));
    apply(state, settled);
}

#[test]
fn a_pull_request_is_told_how_its_preview_stands_until_it_knows() {
    let mut state = previewed();
    let (wanted, at_ms) = told(&state).expect("news");
    let notice = &wanted.notice;
    assert_eq!(
        (&*notice.repository, notice.number, at_ms),
        ("Team/shop", 12, 0)
    );
    let line = &notice.services[0];
    assert_eq!(line.standing, Some((Stands::Pending, "queued".into())));
    assert_eq!(line.commit.as_deref(), Some(HEAD));
    assert_eq!(notice.life, Life::Until(61_000));
    assert!(wanted.makes && wanted.id.is_none());
    assert_eq!(comment_state(&state, PREVIEW), Some(CommentState::Waiting));
    let connection = state.forges().next().expect("one").clone();
    assert_eq!(
        super::super::waiting(&state, &connection),
        2,
        "and a status"
    );

    settle(&mut state, Some(77), Verdict::Taken, 5_000);
    assert!(told(&state).is_none());
    assert_eq!(comment_state(&state, PREVIEW), Some(CommentState::Told));
    apply(&mut state, end(Why::Closed));
    let (wanted, _) = told(&state).expect("news");
    assert_eq!(wanted.notice.life, Life::Ended(1_000, Why::Closed));
    assert_eq!((wanted.id, wanted.makes), (Some(77), false));
}

#[test]
fn who_wants_nothing_written_back_is_not_told_of() {
    for (name, preview, service, is_told) in [
        ("of a request", preview(PREVIEW, Some(12)), copy(None), true),
        ("by hand", preview(PREVIEW, None), copy(None), false),
        (
            "kept out",
            preview(PREVIEW, Some(12)),
            copy(Some(false)),
            false,
        ),
    ] {
        let mut state = connected();
        apply(&mut state, make(&preview, &[service]));
        assert_eq!(told(&state).is_some(), is_told, "{name}");
    }
    let mut state = previewed();
    let elsewhere = Preview {
        request: Some(Request {
            repository: "other.test/team/shop".into(),
            ..preview(PREVIEW, Some(13)).request.expect("one")
        }),
        environment: EnvironmentId::from_u128(20),
        name: "elsewhere".into(),
        ..preview(PREVIEW, None)
    };
    apply(&mut state, make(&elsewhere, &[]));
    assert!(comment_news(&state, elsewhere.environment).is_none());
}

#[test]
fn an_end_that_came_before_anything_was_told_makes_no_comment() {
    let mut state = previewed();
    apply(&mut state, end(Why::Expired));
    let (wanted, _) = told(&state).expect("it is looked for");
    assert!(!wanted.makes);
    settle(&mut state, None, Verdict::Taken, 5_000);
    assert!(told(&state).is_none());
}

#[test]
fn the_next_preview_of_a_request_has_its_comment() {
    let mut state = previewed();
    settle(&mut state, Some(77), Verdict::Taken, 5_000);
    let first = told_mark(&state);
    apply(&mut state, end(Why::Closed));
    let next = EnvironmentId::from_u128(30);
    let again = Service {
        id: ServiceId::from_u128(31),
        environment: next,
        ..copy(None)
    };
    apply(&mut state, make(&preview(next, Some(12)), &[again]));
    assert!(told(&state).is_none(), "the newer one has the word");
    let Some(Of::Preview(wanted)) = comment_news(&state, next).map(|it| it.of) else {
        panic!("it is told");
    };
    assert_eq!(wanted.id, Some(77));
    assert_eq!(wanted.notice.mark, first);
}

fn told_mark(state: &State) -> String {
    let (_, wanted) = wanted(state, PREVIEW).expect("wanted");
    wanted.notice.mark
}

#[test]
fn a_comment_that_is_not_taken_is_told_again_or_given_up_with_its_reason() {
    let mut state = previewed();
    settle(&mut state, None, Verdict::Again("502".into()), 5_000);
    let (wanted, at_ms) = told(&state).expect("again");
    assert!((5_001..=10_000).contains(&at_ms) && wanted.id.is_none());
    let limited = Verdict::Later {
        pause_ms: 60_000,
        why: "429".into(),
    };
    settle(&mut state, None, limited, 20_000);
    assert_eq!(told(&state).map(|it| it.1), Some(80_000));
    settle(
        &mut state,
        None,
        Verdict::Never("403 locked".into()),
        90_000,
    );
    assert!(told(&state).is_none());
    let preview = state.preview_of(PREVIEW).expect("there").clone();
    assert_eq!(comment_state(&state, PREVIEW), Some(CommentState::GivenUp));
    let problem = preview.comment.as_ref().and_then(|it| it.problem.clone());
    assert_eq!(problem.as_deref(), Some("403 locked"));
    // Something new to tell is tried.
    apply(&mut state, end(Why::Removed));
    assert!(told(&state).is_some());
    settle(&mut state, None, Verdict::Unknown("401".into()), 95_000);
    assert!(told(&state).is_none(), "nothing is told with this token");
    assert_eq!(comment_state(&state, PREVIEW), Some(CommentState::Waiting));
}
