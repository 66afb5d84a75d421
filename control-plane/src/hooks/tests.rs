//! Exactly one effect for each event.

use skep_forge::{Gone, Push, Repository};
use skep_model::id::{EnvironmentId, ServiceId};
use skep_model::pushes::Pushes;
use skep_model::spec::ServiceSpec;

use super::*;

fn commit(digit: &str) -> Commit {
    Commit::new(&digit.repeat(40)).expect("a commit")
}

fn service(source: Option<Source>) -> Service {
    Service {
        id: ServiceId::from_u128(1),
        environment: EnvironmentId::from_u128(2),
        name: "web".into(),
        spec: ServiceSpec {
            source,
            ..ServiceSpec::default()
        },
        variables: Default::default(),
        webhook_secret: None,
        live: None,
        rollout: None,
        progress: Default::default(),
        last_release: 0,
        stopped: false,
        removing: false,
        generation: 1,
        scaling: Default::default(),
        pinned: None,
        created_ms: 0,
    }
}

fn git() -> Service {
    service(Some(Source::Git {
        repository: "https://forge.test/shop.git".into(),
        branch: "main".into(),
        directory: "app".into(),
    }))
}

fn image() -> Service {
    service(Some(Source::Image {
        reference: "registry.test:5000/team/app:1".into(),
    }))
}

fn push(branch: &str) -> Push {
    Push {
        repository: Repository::default(),
        branch: branch.into(),
        before: Some(commit("a")),
        after: commit("b"),
        forced: false,
        commits: Vec::new(),
        lists_all: false,
        is_complete: false,
        head_message: None,
        pusher: None,
    }
}

fn asked(reference: Option<&str>, commit: Option<Commit>, image: Option<&str>) -> Event {
    Event::Asked(Asked {
        reference: reference.map(str::to_owned),
        commit,
        image: image.map(str::to_owned),
    })
}

/// In one line: `deploy COMMIT|IMAGE`, `nothing ...`, `refuse FIELD`.
fn said(service: &Service, event: &Event) -> String {
    match effects(&State::default(), service, event) {
        Effect::Pong => "pong".to_owned(),
        Effect::Deploy(Origin::Git { commit, .. }, _) => {
            format!(
                "deploy {}",
                commit.map_or("newest".to_owned(), |it| it[..2].to_owned())
            )
        }
        Effect::Deploy(Origin::Image { reference }, _) => format!("deploy {reference}"),
        Effect::Deploy(other, _) => panic!("{other:?}"),
        Effect::Nothing(why) => format!("nothing {why}"),
        Effect::Refuse(problem) => format!("refuse {}", problem.field.unwrap_or_default()),
    }
}

#[test]
fn each_event_has_one_effect() {
    let gone = || Gone {
        repository: Repository::default(),
        name: "old".into(),
    };
    let change = |action| {
        Event::Change(Box::new(Change {
            action,
            repository: Repository::default(),
            number: 7,
            head: None,
            head_branch: "x".into(),
            head_repository: None,
            base_branch: "main".into(),
            is_fork: true,
            title: String::new(),
            author: None,
            draft: false,
            url: None,
            updated_ms: None,
        }))
    };
    let tag = Event::Tag(Tag {
        repository: Repository::default(),
        name: "v1".into(),
        commit: commit("c"),
        message: None,
    });
    let mut tagged = git();
    tagged.spec.pushes = Pushes {
        watch: Vec::new(),
        tags: Some("v*".into()),
        ..Pushes::default()
    };
    let uploaded = service(None);
    let cases = [
        (&git(), Event::Ping, "pong"),
        (&uploaded, Event::Ping, "pong"),
        (&git(), Event::Push(push("main")), "deploy bb"),
        (
            &git(),
            Event::Push(push("dev")),
            "nothing the service deploys `main`, not `dev`",
        ),
        (
            &uploaded,
            Event::Push(push("main")),
            "nothing the service has no git source",
        ),
        (
            &git(),
            tag.clone(),
            "nothing the service deploys the branch `main`, and tag `v1` is none",
        ),
        (&tagged, tag, "deploy cc"),
        (
            &tagged,
            Event::Push(push("main")),
            "nothing the service deploys tags `v*`, not a branch",
        ),
        (
            &git(),
            Event::BranchDeleted(gone()),
            "nothing it was deleted: nothing is done about the end of the branch `old`",
        ),
        (
            &git(),
            Event::TagDeleted(gone()),
            "nothing it was deleted: nothing is done about the end of the tag `old`",
        ),
        (
            &git(),
            change(Action::Closed { merged: true }),
            "nothing pull request 7 was merged: its environment says nothing of previews",
        ),
        (
            &git(),
            Event::Other("star".into()),
            "nothing nothing is done about `star`",
        ),
    ];
    for (service, event, wanted) in cases {
        assert_eq!(said(service, &event), wanted, "{event:?}");
    }
}

#[test]
fn a_signed_request_chooses_only_among_what_the_service_deploys() {
    let cases = [
        (git(), asked(None, None, None), "deploy newest"),
        (
            git(),
            asked(Some("main"), Some(commit("d")), None),
            "deploy dd",
        ),
        (
            git(),
            asked(Some("refs/heads/main"), None, None),
            "deploy newest",
        ),
        (
            git(),
            asked(Some("dev"), None, None),
            "nothing the service deploys `main`, not `dev`",
        ),
        (
            git(),
            asked(None, Commit::new("abcdef1"), None),
            "refuse commit",
        ),
        (
            git(),
            asked(Some("refs/tags/v1"), None, None),
            "refuse commit",
        ),
        (
            git(),
            asked(Some("refs/tags/v1"), Some(commit("d")), None),
            "nothing the service deploys the branch `main`, and tag `v1` is none",
        ),
        (git(), asked(None, None, Some("evil:1")), "refuse image"),
        (service(None), asked(None, None, None), "refuse ref"),
        (
            image(),
            asked(None, None, Some("registry.test:5000/team/app:2")),
            "deploy registry.test:5000/team/app:2",
        ),
        (
            image(),
            asked(None, None, Some("registry.test:5000/team/app@sha256:00")),
            "deploy registry.test:5000/team/app@sha256:00",
        ),
        (
            image(),
            asked(None, None, Some("registry.test:5000/team/app-evil:2")),
            "refuse image",
        ),
        (
            image(),
            asked(None, None, Some("registry.test/team/app:2")),
            "refuse image",
        ),
        (image(), asked(None, None, Some("app; rm")), "refuse image"),
        (image(), asked(None, None, None), "refuse ref"),
    ];
    for (service, event, wanted) in cases {
        assert_eq!(said(&service, &event), wanted, "{event:?}");
    }
}

#[test]
fn what_touches_nothing_is_deployed_where_nothing_was_before() {
    let mut untouched = push("main");
    untouched.is_complete = true;
    untouched.commits = vec![skep_forge::PushedCommit {
        id: String::new(),
        message: String::new(),
        added: vec!["docs/a".into()],
        modified: Vec::new(),
        removed: Vec::new(),
    }];
    match effects(&State::default(), &git(), &Event::Push(untouched)) {
        Effect::Deploy(_, why) => assert!(why.contains("never deployed"), "{why}"),
        other => panic!("{other:?}"),
    }
}
