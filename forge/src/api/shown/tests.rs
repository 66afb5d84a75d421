//! A GitHub of a few lines answers: there is one deployment, whatever was taken down of it.

use std::fmt::Write as _;

use skep_model::forge::Kind;

use super::*;

fn shown(state: Option<State>) -> Shown {
    Shown {
        mark: "01d".into(),
        repository: "Team/shop".into(),
        commit: "366701fde727cb7a9e7f21eb88264f59f6f9b89c".into(),
        environment: "shop/production".into(),
        is_transient: false,
        is_production: true,
        state,
        description: "live".into(),
        url: Some("http://web.shop.example.com".into()),
    }
}

/// Answers to what is asked, in their order: what was asked, and what came of it.
fn told(id: Option<u64>, answers: &[(u16, &str)]) -> (String, Left) {
    let shown = shown(Some(State::Success));
    let mut showing = Showing::new(&shown, id);
    let site = Site {
        kind: Kind::GitHub,
        api_url: "https://api.github.com",
        token: "t",
    };
    let mut asked = String::new();
    for (status, body) in answers {
        let request = showing.request(&site).expect("made");
        let path = request.url.split("/Team/shop/").nth(1).expect("there");
        let path = path.split('?').next().expect("a path");
        write!(asked, "{} {path}, ", request.method).expect("text");
        let status = StatusCode::from_u16(*status).expect("a status");
        let verdict = crate::api::judge(
            Kind::GitHub,
            &crate::api::Answered {
                about: crate::api::About::Deployment,
                status,
                headers: &http::HeaderMap::new(),
                body: body.as_bytes(),
                retry_after_ms: None,
                now_s: 0,
            },
        );
        if let Some(left) = showing.heard(Some(status), verdict, body.as_bytes()) {
            return (asked.trim_end_matches(", ").to_owned(), left);
        }
    }
    panic!("it goes on: {asked}");
}

#[test]
fn there_is_one_deployment_whatever_was_taken_down_of_it() {
    let ours = r#"[{"id":5,"payload":{"skep":"01c"}},{"id":7,"payload":{"skep":"01d"}}]"#;
    let as_text = r#"[{"id":7,"payload":"{\"skep\":\"01d\"}"}]"#;
    let others = r#"[{"id":5,"payload":{}},{"id":6,"payload":""}]"#;
    let (done, made) = ((201, "{}"), (201, r#"{"id":9}"#));
    let first = "GET deployments, POST deployments, POST deployments/9/statuses";
    let found = "GET deployments, POST deployments/7/statuses";
    for (name, id, answers, wanted, left) in [
        (
            "first",
            None,
            &[(200, others), made, done][..],
            first,
            Some(9),
        ),
        (
            "known",
            Some(7),
            &[done],
            "POST deployments/7/statuses",
            Some(7),
        ),
        (
            "made, and not taken down",
            None,
            &[(200, ours), done],
            found,
            Some(7),
        ),
        ("as text", None, &[(200, as_text), done], found, Some(7)),
        (
            "known, and gone",
            Some(3),
            &[(404, ""), (200, "[]"), made, done],
            &format!("POST deployments/3/statuses, {first}"),
            Some(9),
        ),
    ] {
        let (asked, came) = told(id, answers);
        assert_eq!(asked, wanted, "{name}");
        assert_eq!((came.id, came.verdict), (left, Verdict::Taken), "{name}");
    }
}

#[test]
fn what_is_refused_or_odd_makes_no_second_one() {
    let (_, left) = told(None, &[(403, "")]);
    assert!(matches!(&left.verdict, Verdict::Never(why) if why.contains("deployments")));
    let (_, left) = told(None, &[(200, "<html>")]);
    assert!(matches!(left.verdict, Verdict::Again(_)));
    // It is made, and its status is not taken: the number is known from now on.
    let (_, left) = told(None, &[(200, "[]"), (201, r#"{"id":9}"#), (502, "")]);
    assert!(matches!(left.verdict, Verdict::Again(_)) && left.id == Some(9));
    let (_, left) = told(Some(3), &[(404, ""), (200, "[]"), (500, "")]);
    assert!(matches!(left.verdict, Verdict::Again(_)) && left.id.is_none());
}

#[test]
fn requests_say_what_github_wants() {
    let mut text = String::new();
    for state in [
        None,
        Some(State::Pending),
        Some(State::Running),
        Some(State::Failure),
    ] {
        let status = shown(state).status();
        writeln!(text, "{}", status["state"]).expect("text");
    }
    assert_eq!(
        text,
        "\"inactive\"\n\"queued\"\n\"in_progress\"\n\"failure\"\n"
    );
    let live = shown(Some(State::Success));
    let wanted = json!({
        "state": "success",
        "description": "live",
        "environment_url": "http://web.shop.example.com",
        "auto_inactive": false,
    });
    assert_eq!(live.status(), wanted);
    assert!(live.digest() != shown(None).digest());
    let wanted = json!({
        "ref": "366701fde727cb7a9e7f21eb88264f59f6f9b89c",
        "task": "deploy:skep",
        "environment": "shop/production",
        "description": "by Skep",
        "payload": { "skep": "01d" },
        "transient_environment": false,
        "production_environment": true,
        "auto_merge": false,
        "required_contexts": [],
    });
    assert_eq!(live.made(), wanted);
}
