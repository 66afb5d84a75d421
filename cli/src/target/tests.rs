//! Resolution of service names: what is found, and what is said where nothing or too much is.

use serde_json::json;

use super::*;

fn view(project: &str, environment: &str, name: &str) -> ServiceView {
    let id = "0".repeat(26);
    serde_json::from_value(json!({
        "id": id, "project": project, "environment": environment, "name": name, "state": "new",
        "urls": [], "spec": {}, "live": null, "rollout": null, "last_release": 0,
        "deployment": null, "allocations": { "wanted": 1, "live": 0, "healthy": 0 },
        "stopped": false, "removing": false, "generation": 1, "created_ms": 0,
    }))
    .expect("a view")
}

fn find_in(services: &[ServiceView], text: &str, scope: &Scope) -> Result<String, Problem> {
    choose(&parse(Some(text), scope)?, services).map(|target| target.to_string())
}

fn scope(project: Option<&str>, environment: Option<&str>) -> Scope {
    Scope {
        project: project.map(str::to_owned),
        environment: environment.map(str::to_owned),
    }
}

#[test]
fn a_name_is_completed_as_far_as_it_is_unambiguous() {
    let services = [
        view("shop", "production", "web"),
        view("shop", "staging", "web"),
        view("shop", "staging", "jobs"),
        view("blog", "production", "db"),
        view("shop", "production", "db"),
    ];
    let any = Scope::default();
    let cases = [
        ("web", "shop/production/web"),
        ("shop/web", "shop/production/web"),
        ("shop/staging/web", "shop/staging/web"),
        ("jobs", "shop/staging/jobs"),
        ("blog/db", "blog/production/db"),
    ];
    for (text, found) in cases {
        assert_eq!(
            find_in(&services, text, &any).as_deref(),
            Ok(found),
            "{text}"
        );
    }
    let staging = scope(None, Some("staging"));
    assert_eq!(
        find_in(&services, "web", &staging).as_deref(),
        Ok("shop/staging/web")
    );
    let blog = scope(Some("blog"), None);
    assert_eq!(
        find_in(&services, "db", &blog).as_deref(),
        Ok("blog/production/db")
    );
}

#[test]
fn an_ambiguous_name_lists_the_candidates() {
    let services = [
        view("blog", "production", "db"),
        view("shop", "production", "db"),
    ];
    let problem = find_in(&services, "db", &Scope::default()).expect_err("two");
    assert_eq!(problem.code, Code::Invalid);
    let hint = problem.hint.expect("candidates");
    assert!(
        hint.contains("blog/production/db") && hint.contains("shop/production/db"),
        "{hint}"
    );
}

#[test]
fn a_missing_service_says_what_there_is() {
    let problem = find_in(&[], "web", &Scope::default()).expect_err("none");
    assert_eq!(problem.code, Code::NotFound);
    assert!(problem.hint.expect("advice").contains("skep up"));
    let services = [view("shop", "production", "web")];
    let problem = find_in(&services, "shop/wbe", &Scope::default()).expect_err("none");
    assert!(problem.message.contains("`shop/wbe`"), "{problem}");
    assert!(problem.hint.expect("names").contains("shop/production/web"));
}

#[test]
fn odd_references_are_refused_before_they_become_a_path() {
    for (text, field) in [
        ("a/b/c/d", "service"),
        ("..", "service"),
        ("../web", "project"),
        ("shop//web", "environment"),
        ("", "service"),
    ] {
        let problem = parse(Some(text), &Scope::default()).expect_err(text);
        assert_eq!(problem.field.as_deref(), Some(field), "{text}");
    }
    let problem = parse(Some("shop/web"), &scope(Some("blog"), None)).expect_err("two projects");
    assert_eq!(problem.field.as_deref(), Some("project"));
}
