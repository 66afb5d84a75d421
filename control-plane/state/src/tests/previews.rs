//! Previews: all of one or nothing, ended once, forgotten when nothing is left of them.

use skep_model::forge::Kept;
use skep_model::notify::Standing;
use skep_model::preview::{Preview, Request, Rules, Why};

use super::*;

pub(super) const PREVIEW: EnvironmentId = EnvironmentId::from_u128(70);
const COPY: ServiceId = ServiceId::from_u128(71);

fn bytes(id: EnvironmentId) -> Vec<u8> {
    id_bytes(id.as_u128())
}

pub(super) fn rules(max: u32) -> Kind {
    let rules = Rules {
        max,
        ..Rules::new(ENVIRONMENT)
    };
    Kind::SetPreviewRules(v1::SetPreviewRules {
        rules: Some((&rules).into()),
    })
}

fn preview(id: EnvironmentId, number: u64) -> Preview {
    Preview {
        environment: id,
        base: ENVIRONMENT,
        name: format!("pr-{number}"),
        request: Some(Request {
            repository: "https://forge.test/shop.git".into(),
            number,
            is_fork: false,
            title: "More".into(),
            url: None,
            heard_ms: Some(100),
        }),
        branch: Some("more".into()),
        commit: Some("c1".into()),
        ttl_ms: 60_000,
        expires_ms: 0,
        created_ms: 0,
        idle_ms: 0,
        seed: None,
        ended: None,
        comment: None,
    }
}

fn deployment(id: u128, service: ServiceId, commit: &str) -> v1::Deployment {
    let origin = Origin::Git {
        repository: "https://forge.test/shop.git".into(),
        branch: "more".into(),
        commit: Some(commit.into()),
        directory: String::new(),
    };
    let kind = create_from(DeploymentId::from_u128(id), None, Trigger::Webhook, origin);
    let Kind::CreateDeployment(message) = kind else {
        panic!("it creates");
    };
    v1::Deployment {
        service: id_bytes(service.as_u128()),
        ..message.deployment.expect("one")
    }
}

/// One with a service and its deployment, delivered as `key`.
pub(super) fn make(id: EnvironmentId, number: u64, key: &str) -> v1::MakePreview {
    let copy = ServiceId::from_u128(id.as_u128() + 1);
    let service = Service {
        id: copy,
        environment: id,
        ..service()
    };
    v1::MakePreview {
        preview: Some((&preview(id, number)).into()),
        services: vec![(&service).into()],
        base_domain: Some("preview.test".into()),
        deployments: vec![deployment(id.as_u128() + 2, copy, "c1")],
        delivery: Some(key.into()),
        ..Default::default()
    }
}

fn push(key: &str, commit: &str, heard_ms: u64, id: u128) -> Kind {
    Kind::PushPreview(v1::PushPreview {
        environment: bytes(PREVIEW),
        commit: Some(commit.into()),
        heard_ms: Some(heard_ms),
        deployments: vec![deployment(id, COPY, commit)],
        delivery: Some(key.into()),
    })
}

fn end(key: Option<&str>, heard_ms: Option<u64>) -> Kind {
    Kind::EndPreview(v1::EndPreview {
        environment: bytes(PREVIEW),
        why: enum_number(&Why::ALL, &Why::Closed),
        heard_ms,
        delivery: key.map(str::to_owned),
        expected_expires_ms: None,
    })
}

fn forget() -> Kind {
    Kind::ForgetPreview(v1::ForgetPreview {
        environment: bytes(PREVIEW),
    })
}

fn drop_copy() -> Kind {
    Kind::DropService(v1::DropService {
        service: id_bytes(COPY.as_u128()),
    })
}

/// A preview that lives.
fn world() -> World {
    let (mut world, _) = World::with_live_release();
    world.ok(rules(2));
    world.ok(Kind::MakePreview(make(PREVIEW, 1, "opened")));
    world
}

#[test]
fn a_preview_is_made_as_a_whole_and_once() {
    let mut world = world();
    let state = &world.state;
    let made = state.preview_of(PREVIEW).expect("a preview");
    assert_eq!(made.expires_ms, state.time_ms() + 60_000);
    let copy = state.service(COPY).expect("its service");
    assert_eq!(state.host_of(copy), "web-pr-1-shop.preview.test");
    assert_eq!(state.deployments_of(COPY).count(), 1);
    assert_eq!(
        state.environment_named(PROJECT, "pr-1").map(|it| it.id),
        Some(PREVIEW)
    );
    // The same delivery again makes nothing; neither does another one of the same pull request.
    let again = Kind::MakePreview(make(EnvironmentId::from_u128(90), 1, "opened"));
    assert_eq!(world.ok(again), Reply::Done);
    let other = Kind::MakePreview(make(EnvironmentId::from_u128(90), 1, "other"));
    assert_eq!(world.refused(other), Code::Conflict);
    let read = State::decode(&world.state.encode()).expect("a snapshot");
    assert_eq!(read, world.state);
}

#[test]
fn what_one_part_of_it_is_refused_for_refuses_the_whole() {
    let mut world = world();
    let next = EnvironmentId::from_u128(90);
    let mut foreign = make(next, 2, "a");
    foreign.deployments = vec![deployment(95, SERVICE, "c1")];
    assert_eq!(
        world.refused(Kind::MakePreview(foreign)),
        Code::Internal,
        "a service of production"
    );
    let mut odd = make(next, 2, "a");
    odd.services[0].name = "Not A Name".into();
    assert_eq!(world.refused(Kind::MakePreview(odd)), Code::Invalid);
    world.ok(Kind::MakePreview(make(next, 2, "a")));
    let third = EnvironmentId::from_u128(100);
    let third = || Kind::MakePreview(make(third, 3, "b"));
    assert_eq!(world.refused(third()), Code::TooLarge, "the most at once");
    world.ok(end(None, None));
    world.ok(third());
    let of_preview = Rules::new(next);
    let of_preview = Kind::SetPreviewRules(v1::SetPreviewRules {
        rules: Some((&of_preview).into()),
    });
    assert_eq!(world.refused(of_preview), Code::Conflict);
}

#[test]
fn a_push_deploys_its_head_once_and_what_is_older_changes_nothing() {
    let mut world = world();
    let before = world.state.preview_of(PREVIEW).expect("one").expires_ms;
    world.ok(push("p1", "c2", 200, 80));
    let state = &world.state;
    let pushed = state.preview_of(PREVIEW).expect("one");
    assert_eq!(pushed.commit.as_deref(), Some("c2"));
    assert!(pushed.expires_ms > before, "its end is put off");
    assert_eq!(state.deployments_of(COPY).count(), 2);
    world.ok(push("p1", "c2", 200, 81));
    world.ok(push("p2", "c2", 200, 82));
    assert_eq!(world.state.deployments_of(COPY).count(), 2, "once");
    assert_eq!(world.refused(push("p3", "c1", 150, 83)), Code::Conflict);
    let ended = world.refused(end(Some("closed"), Some(150)));
    assert_eq!(ended, Code::Conflict, "it was opened again since");
}

#[test]
fn an_ended_one_goes_when_its_services_are_gone_and_production_stays() {
    let mut world = world();
    let production = world.service().clone();
    assert_eq!(world.refused(forget()), Code::Conflict, "it lives");
    world.ok(end(Some("closed"), Some(300)));
    assert!(world.state.service(COPY).expect("going").removing);
    assert_eq!(world.ok(end(Some("closed"), Some(300))), Reply::Done);
    assert_eq!(world.refused(forget()), Code::Conflict, "it has a service");
    assert_eq!(
        world.refused(push("late", "c9", 400, 84)),
        Code::Conflict,
        "what has ended is not pushed to"
    );
    world.ok(drop_copy());
    world.ok(forget());
    let state = &world.state;
    assert!(state.environment(PREVIEW).is_none());
    assert!(state.environment_named(PROJECT, "pr-1").is_none());
    assert!(
        state.preview_of(PREVIEW).is_some(),
        "remembered for what comes late"
    );
    assert_eq!(world.service(), &production);
    // Opened again it is another one, and the old one is not needed any more.
    let next = EnvironmentId::from_u128(90);
    world.ok(Kind::MakePreview(make(next, 1, "reopened")));
    assert!(world.state.preview_of(PREVIEW).is_none());
    let found = world
        .state
        .preview_for(ENVIRONMENT, ("https://forge.test/shop.git", 1));
    assert_eq!(found.map(|it| it.environment), Some(next));
}

/// What came of telling a pull request with the connection of `forges`.
fn settle(changed_ms: u64, before_ms: u64, comment: &Kept) -> Kind {
    Kind::SettleComment(v1::SettleComment {
        workspace: id_bytes(WORKSPACE.as_u128()),
        host: "git.example.com".into(),
        expected_changed_ms: changed_ms,
        environment: bytes(PREVIEW),
        expected_at_ms: before_ms,
        comment: Some(comment.into()),
        is_refused: false,
        resume_ms: 0,
    })
}

#[test]
fn what_a_pull_request_was_told_is_taken_down_once_and_handed_to_its_next_preview() {
    let mut world = world();
    world.ok(super::forges::put(&super::forges::connection(1)));
    let changed_ms = world.state.time_ms();
    let before = world.state.preview_of(PREVIEW).expect("one").clone();
    let comment = Kept {
        id: Some(77),
        digest: u64::MAX,
        standing: Standing::GivenUp,
        attempts: 2,
        since_ms: 6_000,
        at_ms: 7_000,
        problem: Some("403".into()),
    };
    let applied = world.apply(settle(changed_ms, 0, &comment));
    let wanted = [crate::Change::Forges, crate::Change::Preview(PREVIEW)];
    assert_eq!(applied.changes, wanted);
    let after = world.state.preview_of(PREVIEW).expect("one").clone();
    assert_eq!(after.comment.as_ref(), Some(&comment));
    let rest = Preview {
        comment: None,
        ..(*after).clone()
    };
    assert_eq!(rest, *before, "nothing else");
    let connection = world.state.forges().next().expect("one");
    assert_eq!(connection.problem.as_deref(), Some("403"));
    let read = State::decode(&world.state.encode()).expect("a snapshot");
    assert_eq!(read, world.state);

    // Of a leader that was overtaken; of an older token; of nothing that is there.
    assert_eq!(
        world.refused(settle(changed_ms, 0, &comment)),
        Code::Conflict
    );
    assert_eq!(
        world.refused(settle(changed_ms + 1, 7_000, &comment)),
        Code::Conflict
    );
    world.ok(end(Some("closed"), Some(300)));
    world.ok(drop_copy());
    world.ok(forget());
    // The environment is gone, and its end can be told still.
    let ended = Kept {
        digest: 2,
        at_ms: 8_000,
        ..comment
    };
    world.ok(settle(changed_ms, 7_000, &ended));
    let next = EnvironmentId::from_u128(90);
    world.ok(Kind::MakePreview(make(next, 1, "reopened")));
    let made = world.state.preview_of(next).expect("one");
    assert_eq!(made.comment.as_ref(), Some(&ended));
    assert_eq!(
        world.refused(settle(changed_ms, 8_000, &ended)),
        Code::NotFound
    );
}

#[test]
fn an_end_that_was_put_off_does_not_come() {
    let mut world = world();
    let seen = world.state.preview_of(PREVIEW).expect("one").expires_ms;
    world.ok(Kind::ExtendPreview(v1::ExtendPreview {
        environment: bytes(PREVIEW),
        ttl_ms: 90_000,
    }));
    let expires_ms = world.state.preview_of(PREVIEW).expect("one").expires_ms;
    assert_eq!(expires_ms, world.state.time_ms() + 90_000);
    let expire = |at_ms| {
        Kind::EndPreview(v1::EndPreview {
            environment: bytes(PREVIEW),
            why: enum_number(&Why::ALL, &Why::Expired),
            expected_expires_ms: Some(at_ms),
            ..Default::default()
        })
    };
    assert_eq!(world.refused(expire(seen)), Code::Conflict);
    world.ok(expire(expires_ms));
    let mut again = State::default();
    for (index, bytes) in world.log.iter().enumerate() {
        again.apply(index as u64 + 1, bytes);
    }
    assert_eq!(again.encode(), world.state.encode(), "the same log again");
}
