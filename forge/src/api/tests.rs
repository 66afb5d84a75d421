//! Requests as files that a person has read against each forge's manual; answers as tables.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use skep_model::deployment::{Deployment, Origin, Status, Trigger};
use skep_model::forge::Kind;
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::problem::{Code, Problem};

use super::*;

const COMMIT: &str = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";

fn report(state: State) -> Report {
    Report {
        repository: "Team/shop".into(),
        commit: COMMIT.into(),
        state,
        context: "skep/shop/production/web".into(),
        description: "live".into(),
        url: Some("http://web.shop.example.com".into()),
    }
}

fn shown(request: &Request) -> String {
    let mut text = format!("{} {}\n", request.method, request.url);
    for (name, value) in &request.headers {
        writeln!(text, "{name}: {value}").expect("text");
    }
    if let Some(body) = &request.body {
        writeln!(text, "{body:#}").expect("text");
    }
    text
}

fn site(kind: Kind) -> Site<'static> {
    let api_url = match kind {
        Kind::GitHub => "https://api.github.com",
        Kind::GitLab => "https://gitlab.com/api/v4",
        Kind::Gitea => "http://10.0.0.7:3000/api/v1",
        Kind::Forgejo => "https://codeberg.org/api/v1",
        Kind::Bitbucket => "https://api.bitbucket.org/2.0",
    };
    Site {
        kind,
        api_url,
        token: "s3cret",
    }
}

#[test]
fn requests_are_those_of_each_forge() {
    let mut text = String::new();
    for kind in Kind::ALL {
        let site = site(kind);
        for request in [site.who(), site.status(&report(State::Success))] {
            writeln!(text, "{}", shown(&request.expect("made"))).expect("text");
        }
    }
    assert_eq!(text, include_str!("golden/requests.txt"), "{text}");
}

#[test]
fn requests_for_comments_are_those_of_each_forge() {
    let notice = Notice {
        mark: "01j".into(),
        repository: "Team/shop".into(),
        number: 12,
        preview: "pr-12".into(),
        project: "shop".into(),
        base: "production".into(),
        life: Life::Ended(0, skep_model::preview::Why::Closed),
        services: Vec::new(),
    };
    let mut text = String::new();
    for kind in Kind::ALL {
        let site = site(kind);
        for request in [
            site.comments(&notice, 2),
            site.comment(&notice),
            site.edit(&notice, 77),
        ] {
            let mut request = request.expect("made");
            // As of the other requests.
            request.headers.clear();
            writeln!(text, "{}", shown(&request)).expect("text");
        }
    }
    assert_eq!(text, include_str!("golden/comments.txt"), "{text}");
}

#[test]
fn comments_are_read_as_each_forge_writes_them() {
    use super::comments::{identity, listed, made};
    let github =
        r#"[{"id":7,"user":{"id":1,"login":"bot"},"body":"x"},{"id":8,"user":null,"body":"y"}]"#;
    let gitlab = r#"[{"id":7,"author":{"id":1,"username":"bot"},"body":"x","system":false},
        {"id":8,"body":"y"}]"#;
    let bitbucket = r#"{"values":[{"id":7,"user":{"uuid":"1"},"content":{"raw":"x"}},
        {"id":8,"content":{"raw":"y"}},
        {"id":9,"deleted":true,"user":{"uuid":"1"},"content":{"raw":"z"}}],"next":"https://..."}"#;
    for (kind, body) in [
        (Kind::GitHub, github),
        (Kind::Gitea, github),
        (Kind::Forgejo, github),
        (Kind::GitLab, gitlab),
        (Kind::Bitbucket, bitbucket),
    ] {
        let page = listed(kind, body.as_bytes()).expect("a list");
        let seen = page
            .found
            .iter()
            .map(|it| (it.id, it.author.as_deref(), &*it.text));
        let seen: Vec<_> = seen.collect();
        assert_eq!(seen, [(7, Some("1"), "x"), (8, None, "y")], "{kind}");
        assert_eq!(page.is_last, kind != Kind::Bitbucket, "{kind}");
        assert_eq!(listed(kind, b""), None, "{kind}: cut off");
        let me = match kind {
            Kind::Bitbucket => serde_json::json!({"uuid": "1"}),
            _ => serde_json::json!({"id": 1}),
        };
        assert_eq!(identity(kind, &me).as_deref(), Some("1"));
    }
    assert_eq!(made(br#"{"id":7}"#), Some(7));
    assert_eq!(made(b"<html>"), None);
}

#[test]
fn each_forge_has_its_own_words() {
    let word = |kind: Kind, state: State| {
        let request = site(kind).status(&report(state)).expect("made");
        let body = request.body.expect("a body");
        body["state"].as_str().expect("text").to_owned()
    };
    let states = [
        State::Pending,
        State::Running,
        State::Success,
        State::Failure,
        State::Error,
        State::Canceled,
    ];
    for (kind, wanted) in [
        (Kind::GitHub, "pending pending success failure error error"),
        (Kind::Gitea, "pending pending success failure error error"),
        (Kind::Forgejo, "pending pending success failure error error"),
        (
            Kind::GitLab,
            "pending running success failed failed canceled",
        ),
        (
            Kind::Bitbucket,
            "INPROGRESS INPROGRESS SUCCESSFUL FAILED FAILED STOPPED",
        ),
    ] {
        assert_eq!(states.map(|it| word(kind, it)).join(" "), wanted, "{kind}");
    }
}

#[test]
fn what_is_longer_than_a_forge_takes_is_cut_and_stays_apart_from_others() {
    let long = Report {
        context: "skep/a-long-project/production/a-long-service".into(),
        description: "é".repeat(300) + "\nsecond line",
        url: None,
        ..report(State::Failure)
    };
    let body = |kind: Kind, report: &Report| {
        let request = site(kind).status(report).expect("made");
        request.body.expect("a body")
    };
    let length = |kind: Kind| {
        let body = body(kind, &long);
        body["description"].as_str().expect("text").chars().count()
    };
    assert_eq!(Kind::ALL.map(length), [140, 255, 255, 255, 255]);
    assert_eq!(body(Kind::GitHub, &long)["target_url"], "");
    assert!(body(Kind::GitLab, &long).get("target_url").is_none());
    let bitbucket = body(Kind::Bitbucket, &long);
    let stand_in = format!("https://bitbucket.org/Team/shop/commits/{COMMIT}");
    assert_eq!(bitbucket["url"], *stand_in);
    let key = |context: &str| {
        let context = context.to_owned();
        let report = Report {
            context,
            ..long.clone()
        };
        let body = body(Kind::Bitbucket, &report);
        body["key"].as_str().expect("text").to_owned()
    };
    let (one, other) = (key(&long.context), key(&format!("{}2", long.context)));
    assert!(
        one != other && one.len() == 40 && other.len() == 40,
        "{one} {other}"
    );
    assert_eq!(key("skep/a/b/c"), "skep/a/b/c");
}

#[test]
fn a_user_and_a_token_of_bitbucket_are_sent_as_such() {
    let site = Site {
        token: "me@example.com:s3cret",
        ..site(Kind::Bitbucket)
    };
    let text = shown(&site.who().expect("made"));
    assert!(
        text.contains("Basic bWVAZXhhbXBsZS5jb206czNjcmV0"),
        "{text}"
    );
}

/// Kind, status, headers, body, and what it means.
type Case = (
    Kind,
    u16,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

#[test]
fn answers_say_whether_it_is_told_again() {
    const ENQUEUE: &str =
        r#"{"message":"Cannot transition status via :enqueue from :pending (Reason(s): ...)"}"#;
    let spent = &[
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "1120"),
    ];
    let left = &[
        ("x-ratelimit-remaining", "7"),
        ("x-ratelimit-reset", "1120"),
    ];
    let far = &[
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "999999"),
    ];
    let gitlab = &[("ratelimit-remaining", "0"), ("ratelimit-reset", "1030")];
    let cases: &[Case] = &[
        (Kind::GitHub, 201, &[], "", "taken"),
        (
            Kind::GitHub,
            401,
            &[],
            r#"{"message":"Bad credentials"}"#,
            "unknown",
        ),
        (Kind::GitHub, 403, left, "", "never"),
        (Kind::GitHub, 403, spent, "", "later 120000"),
        (Kind::GitHub, 429, far, "", "later 3600000"),
        (
            Kind::GitHub,
            403,
            &[("retry-after", "30")],
            "",
            "later 30000",
        ),
        (Kind::GitHub, 429, &[], "", "later 60000"),
        (Kind::GitLab, 429, gitlab, "", "later 30000"),
        (Kind::GitLab, 400, &[], ENQUEUE, "taken"),
        (Kind::Gitea, 400, &[], ENQUEUE, "never"),
        (Kind::Gitea, 404, &[], "<html>", "never"),
        (
            Kind::GitHub,
            422,
            &[],
            r#"{"message":"No commit found"}"#,
            "never",
        ),
        (Kind::GitHub, 301, &[], "", "never"),
        (Kind::Gitea, 409, &[], "", "again"),
        (Kind::Gitea, 500, &[], "", "again"),
        (Kind::Gitea, 503, &[], "", "again"),
        (Kind::Gitea, 503, &[("retry-after", "5")], "", "later 5000"),
    ];
    for (kind, status, headers, body, wanted) in cases {
        let pairs = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let headers: HeaderMap = pairs.collect();
        let after = headers.get("retry-after").map(|it| {
            let text = it.to_str().expect("text");
            text.parse::<u64>().expect("a number") * 1_000
        });
        let verdict = judge(
            *kind,
            &Answered {
                about: About::Status,
                status: StatusCode::from_u16(*status).expect("a status"),
                headers: &headers,
                body: body.as_bytes(),
                retry_after_ms: after,
                now_s: 1_000,
            },
        );
        let text = match &verdict {
            Verdict::Taken => "taken".to_owned(),
            Verdict::Unknown(_) => "unknown".to_owned(),
            Verdict::Never(_) => "never".to_owned(),
            Verdict::Later { pause_ms, .. } => format!("later {pause_ms}"),
            Verdict::Again(_) => "again".to_owned(),
        };
        assert_eq!(text, *wanted, "{kind} {status} {body}: {verdict:?}");
        if let (401, Verdict::Unknown(why)) = (status, &verdict) {
            assert!(
                why.contains("Bad credentials") && why.contains("skep forge add"),
                "{why}"
            );
        }
    }
}

#[test]
fn each_forge_names_who_the_token_is() {
    for (kind, body, wanted) in [
        (Kind::GitHub, r#"{"login":"bot","id":1}"#, Some("bot")),
        (
            Kind::GitLab,
            r#"{"username":"bot","name":"B"}"#,
            Some("bot"),
        ),
        (Kind::Forgejo, r#"{"login":"bot"}"#, Some("bot")),
        (Kind::Bitbucket, r#"{"nickname":"bot"}"#, Some("bot")),
        (Kind::Gitea, "<html>", None),
    ] {
        assert_eq!(who(kind, body.as_bytes()).as_deref(), wanted, "{kind}");
    }
}

#[test]
fn a_deployment_is_told_as_it_stands() {
    let of = |status: Status, problem: Option<(Code, &str)>| Deployment {
        id: DeploymentId::from_u128(1),
        service: ServiceId::from_u128(2),
        trigger: Trigger::Webhook,
        origin: Origin::Release { number: 1 },
        status,
        problem: problem.map(|(code, text)| Problem::new(code, text)),
        build: None,
        release: None,
        steps: Vec::new(),
        created_ms: 0,
        status_ms: 0,
        generation: 1,
        source: None,
        no_cache: false,
        told: None,
        held: None,
        shown: None,
        push: None,
    };
    let build = Some((Code::Invalid, "the build failed\nstep 3"));
    let nodes = Some((Code::Unavailable, "no node builds"));
    let newer = Some((Code::Canceled, "superseded by deployment x"));
    for (status, problem, state, text) in [
        (Status::Queued, nodes, State::Pending, "queued"),
        (Status::Building, None, State::Running, "building"),
        (Status::Deploying, None, State::Running, "rolling out"),
        (Status::Live, None, State::Success, "live"),
        (Status::Failed, build, State::Failure, "the build failed"),
        (Status::Failed, nodes, State::Error, "no node builds"),
        (Status::Canceled, None, State::Canceled, "canceled"),
        (
            Status::Superseded,
            newer,
            State::Canceled,
            "superseded by deployment x",
        ),
        (Status::Superseded, None, State::Success, "live"),
        (
            Status::RolledBack,
            None,
            State::Failure,
            "rolled back to an older release",
        ),
    ] {
        let told = standing(&of(status, problem));
        assert_eq!(told, (state, text.to_owned()), "{status:?}");
    }
}
