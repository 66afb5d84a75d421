//! What is refused, where it stands, and what was meant.

use crate::project::Project;

/// Text of a file after its first line, then the field, the line and a part of the advice.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    (
        "[services.api]\nreplica = 2",
        "services.api.replica",
        "line 3",
        "`replicas` perhaps?",
    ),
    (
        "[services.api.resources]\nmem = \"1GiB\"",
        "services.api.resources.mem",
        "line 3",
        "memory",
    ),
    (
        "[service.api]\nreplicas = 2",
        "service",
        "line 2",
        "`services` perhaps?",
    ),
    (
        "[environments.a]\nvariable = {}",
        "environments.a.variable",
        "line 3",
        "`variables` perhaps?",
    ),
    (
        "[services.api]\n[services.api]",
        "skep.project.toml",
        "line 3",
        "say it once",
    ),
    (
        "[services.api]\nreplicas = \"two\"",
        "services.api.replicas",
        "line 3",
        "",
    ),
    (
        "[services.api]\n\n[services.api.health]\ninterval = 5",
        "services.api.health.interval",
        "line 5",
        "",
    ),
    ("services = 3", "services", "line 2", "[services]"),
    (
        "[services]\napi = 3",
        "services.api",
        "line 3",
        "[services.api]",
    ),
    (
        "[services.api]\n[environments.a.services.apo]",
        "environments.a.services.apo",
        "line 3",
        "`api` perhaps?",
    ),
    (
        "[services.api]\n[environments.a.services.zzz]",
        "environments.a.services.zzz",
        "line 3",
        "add [services.zzz]",
    ),
    ("[services.API]", "services.API", "line 2", "api"),
    (
        "[services.shared]",
        "services.shared",
        "line 2",
        "references",
    ),
    (
        "[services.api]\nenv = {}",
        "services.api.env",
        "line 3",
        "[services.NAME.variables]",
    ),
    (
        "[services.api.variables]\nA = 1",
        "services.api.variables.A",
        "line 3",
        "in quotes",
    ),
    (
        "[services.api.variables]\nA = { secret = \"x\" }",
        "services.api.variables.A",
        "line 3",
        "skep env set --secret",
    ),
    (
        "[services.api.variables]\nPORT = \"1\"",
        "services.api.variables.PORT",
        "line 3",
        "port",
    ),
    (
        "[variables]\nA = \"${{db.X\"",
        "variables.A",
        "line 3",
        "}}",
    ),
    (
        "[services.api]\nfrom = { image = \"a\", branch = \"b\" }",
        "services.api.from",
        "line 3",
        "leave the rest out",
    ),
    (
        "[services.api]\nfrom = {}",
        "services.api.from",
        "line 3",
        "repository",
    ),
    (
        "[services.api]\nfrom = { imag = \"a\" }",
        "services.api.from.imag",
        "line 3",
        "`image` perhaps?",
    ),
    (
        "[services.api]\nenvironments = [\"b\"]\n[environments.a]",
        "services.api.environments",
        "",
        "add [environments.b]",
    ),
    (
        "[services.api]\nenvironments = [\"b\"]\n[environments.b]\n[environments.a.services.api]",
        "environments.a.services.api",
        "",
        "add `a`",
    ),
    (
        "[services.api]\nreplicas = 1001",
        "services.api.replicas",
        "in production",
        "0 to 1000",
    ),
    (
        "[services.api]\ndomains = [\"a.example\"]\n[environments.a]\n[environments.b]",
        "services.api.domains",
        "a/api",
        "environments.b.services.api",
    ),
    ("= 3", "skep.project.toml", "line 2", "https://toml.io"),
];

#[test]
fn mistakes_are_named_with_their_place_and_what_was_meant() {
    for (text, field, told, advice) in MISTAKES {
        let problem = Project::parse(&format!("project = \"shop\"\n{text}")).expect_err(text);
        assert_eq!(problem.field.as_deref(), Some(*field), "{text}\n{problem}");
        assert!(problem.message.contains(told), "{text}\n{problem}");
        let hint = problem.hint.as_deref().unwrap_or_default();
        assert!(hint.contains(advice), "{text}\n{problem}");
    }
}

#[test]
fn a_file_says_whose_it_is() {
    let problem = Project::parse("[services.api]").expect_err("no project");
    assert_eq!(problem.field.as_deref(), Some("project"));
    let problem = Project::parse("project = \"A B\"").expect_err("no name");
    assert_eq!(problem.field.as_deref(), Some("project"));
}
