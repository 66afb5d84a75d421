//! Requests as a file that a person has read against each forge's manual; answers in the forges' words, as tables.

use std::fmt::Write as _;

use super::*;

const COMMIT: &str = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";

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
fn each_forge_is_asked_as_its_manual_says() {
    let mut text = String::new();
    for kind in Kind::ALL {
        for part in Part::of(kind) {
            let request = site(kind).checks(*part, "Team/shop", (COMMIT, "release/2"));
            let request = request.expect("made");
            assert!(request.body.is_none());
            writeln!(text, "{} {}", request.method, request.url).expect("text");
        }
    }
    assert_eq!(text, include_str!("../golden/checks.txt"), "{text}");
}

/// `name: state` of each, and what the branch asks for.
fn read(kind: Kind, parts: &[(Part, &str)]) -> Checks {
    let mut checks = Checks::default();
    for (part, body) in parts {
        let read = checks.add(kind, *part, body.as_bytes());
        read.unwrap_or_else(|| panic!("not read: {body}"));
    }
    checks
}

fn shown(checks: &Checks) -> String {
    let all = checks.outcomes.iter();
    let all: Vec<String> = all.map(|(name, it)| format!("{name}: {it:?}")).collect();
    format!("{} -> {:?}", all.join(", "), checks.colour())
}

#[test]
fn answers_are_read_in_each_forges_words() {
    let github = read(
        Kind::GitHub,
        &[
            (
                Part::Required,
                r#"{"name": "main", "protected": true, "protection": {"enabled": true,
                "required_status_checks": {"enforcement_level": "non_admins", "contexts": ["build", "skep/shop/production/web"]}}}"#,
            ),
            (
                Part::Runs,
                r#"{"total_count": 3, "check_runs": [
                {"name": "build", "status": "completed", "conclusion": "success"},
                {"name": "lint", "status": "completed", "conclusion": "failure"},
                {"name": "docs", "status": "queued", "conclusion": null}]}"#,
            ),
            (
                Part::Statuses,
                r#"{"state": "pending", "statuses": [
                {"context": "skep/shop/production/web", "state": "pending"},
                {"context": "ci/old", "state": "success"}]}"#,
            ),
        ],
    );
    assert_eq!(
        shown(&github),
        "build: Green, ci/old: Green, docs: Pending, lint: Red -> Green",
        "the branch asks for `build` alone, and our own status is nobody's check"
    );
    let gitlab = read(
        Kind::GitLab,
        &[(
            Part::Statuses,
            r#"[{"name": "test", "status": "success", "allow_failure": false},
            {"name": "flaky", "status": "failed", "allow_failure": true},
            {"name": "by hand", "status": "manual", "allow_failure": true},
            {"name": "deploy", "status": "created", "allow_failure": false},
            {"name": "skep/shop/production/web", "status": "running", "allow_failure": false}]"#,
        )],
    );
    assert_eq!(
        shown(&gitlab),
        "by hand: Green, deploy: Pending, flaky: Green, test: Green -> Pending(\"`deploy` has not ended\")"
    );
    let gitea = read(
        Kind::Gitea,
        &[
            (
                Part::Required,
                r#"{"name": "main", "enable_status_check": true, "status_check_contexts": ["ci/*"]}"#,
            ),
            (
                Part::Statuses,
                r#"{"state": "success", "statuses": [{"context": "ci/test", "status": "success"},
                {"context": "ci/lint", "status": "warning"}, {"context": "other", "status": "error"}]}"#,
            ),
        ],
    );
    assert_eq!(
        shown(&gitea),
        "ci/lint: Green, ci/test: Green, other: Red -> Green"
    );
    let none = read(
        Kind::Forgejo,
        &[
            (
                Part::Required,
                r#"{"enable_status_check": false, "status_check_contexts": ["x"]}"#,
            ),
            (
                Part::Statuses,
                r#"{"state": "", "statuses": null, "total_count": 0}"#,
            ),
        ],
    );
    assert_eq!(shown(&none), " -> Pending(\"no check has reported\")");
    let bitbucket = read(
        Kind::Bitbucket,
        &[(
            Part::Statuses,
            r#"{"size": 2, "values": [{"key": "a", "name": "Pipeline", "state": "STOPPED"},
            {"key": "skep/shop", "name": "skep/shop/production/web", "state": "INPROGRESS"}]}"#,
        )],
    );
    assert_eq!(shown(&bitbucket), "Pipeline: Red -> Red(\"Pipeline\")");
}

#[test]
fn what_no_manual_promises_is_not_read() {
    for (kind, part, body) in [
        (Kind::GitHub, Part::Runs, "[]"),
        (
            Kind::GitHub,
            Part::Runs,
            r#"{"check_runs": [{"status": 1}]}"#,
        ),
        (Kind::GitHub, Part::Statuses, "<html>"),
        (Kind::GitLab, Part::Statuses, r#"{"message": "no"}"#),
        (Kind::Bitbucket, Part::Statuses, "[]"),
        (Kind::Gitea, Part::Statuses, "7"),
    ] {
        let read = Checks::default().add(kind, part, body.as_bytes());
        assert_eq!(read, None, "{kind:?} {part:?} {body}");
    }
}

#[test]
fn of_one_name_the_worse_counts_and_a_missing_name_is_waited_for() {
    let runs = |list: &str| {
        let body = format!(r#"{{"check_runs": [{list}]}}"#);
        read(Kind::GitHub, &[(Part::Runs, &body)])
    };
    let green = r#"{"name": "a", "status": "completed", "conclusion": "success"}"#;
    let red = r#"{"name": "a", "status": "completed", "conclusion": "action_required"}"#;
    for list in [format!("{green},{red}"), format!("{red},{green}")] {
        assert_eq!(runs(&list).colour(), Colour::Red("a".into()), "{list}");
    }
    let mut checks = runs(green);
    assert_eq!(checks.colour(), Colour::Green);
    checks.required = vec!["a".into(), "b".into()];
    assert_eq!(
        checks.colour(),
        Colour::Pending("`b` has not reported".into())
    );
}
