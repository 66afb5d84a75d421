//! The whole way: a file in, services and reports out.

mod golden;
mod laws;

use std::collections::{BTreeMap, BTreeSet};

use skep_model::problem::Problem;

use crate::{Beside, Import, Input, Origin, Outcome, import};

fn tried(text: &str) -> Result<Import, Problem> {
    let input = Input {
        text,
        variables: &BTreeMap::new(),
        profiles: &BTreeSet::new(),
        read: &|_| Ok(Beside::Nothing),
    };
    import(&input)
}

fn read(text: &str) -> Import {
    tried(text).expect("accepted")
}

/// What is told of one service with these lines.
fn told(lines: &str) -> Vec<(String, Outcome)> {
    let text = format!(
        "services:\n  a:\n    image: a\n    mem_limit: 64m\n    {lines}\nvolumes:\n  data:\n"
    );
    let reports = read(&text).reports.into_iter();
    let short = |path: String| path.trim_start_matches("services.a.").to_owned();
    reports.map(|it| (short(it.path), it.outcome)).collect()
}

#[test]
fn services_come_in_order_and_what_has_no_counterpart_is_told() {
    let import = read(
        "services:\n  web:\n    image: shop:1\n    ports: [\"8080:80\"]\n    depends_on: [db]\n    privileged: true\n    \
         typo: 1\n    volumes: [\"/var/run/docker.sock:/s\", \"../up:/up\"]\n  db:\n    image: postgres:16\n    volumes: \
         [\"data:/var/lib/data\"]\nvolumes:\n  data:\n",
    );
    let names: Vec<_> = import.services.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["db", "web"]);
    assert_eq!(import.services[1].origin, Origin::Image("shop:1".into()));
    assert_eq!(import.services[1].spec.port, Some(80));
    assert_eq!(import.services[0].spec.storage.volumes[0].name, "data");
    let left = import
        .reports
        .iter()
        .filter(|it| it.outcome == Outcome::Left);
    let left: Vec<_> = left.map(|it| it.path.as_str()).collect();
    let wanted = ["privileged", "typo", "volumes[0]", "volumes[1]"];
    assert_eq!(left, wanted.map(|key| format!("services.web.{key}")));
}

#[test]
fn what_is_quietly_nothing_is_told() {
    use Outcome::{Differs, Left};
    for (lines, wanted) in [
        ("restart: always", vec![]),
        ("depends_on: [nobody]", vec![("depends_on[0]", Left)]),
        (
            "depends_on: {nobody: {required: false}}",
            vec![("depends_on.nobody", Left)],
        ),
        ("healthcheck: {interval: 5s}", vec![("healthcheck", Left)]),
        ("healthcheck: {disable: true}", vec![]),
        ("healthcheck: {test: [NONE]}", vec![]),
        (
            "healthcheck: {test: [RUN, x]}",
            vec![("healthcheck.test", Left)],
        ),
        ("ports: [{published: 80}]", vec![("ports[0]", Left)]),
        ("ports: [443]", vec![("ports[0]", Left)]),
        (
            "ports: [443, 80]",
            vec![("ports[0]", Left), ("ports[1]", Differs)],
        ),
        ("ports: [5432]", vec![("ports[0]", Left)]),
        (
            "deploy: {update_config: {order: sideways}}",
            vec![("deploy.update_config.order", Left)],
        ),
        ("init: yes", vec![]),
        ("init: maybe", vec![("init", Left)]),
        (
            "volumes: [\"data:/a\", \"data:/a\"]",
            vec![("volumes[1]", Left)],
        ),
        ("command: \"a 'b\"", vec![("command", Left)]),
        (
            "environment: {SKEP_X: 1}",
            vec![("environment.SKEP_X", Left)],
        ),
        ("environment: [PORT=80]", vec![("environment[0]", Left)]),
        ("secrets: [nobody]", vec![("secrets[0]", Left)]),
    ] {
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(path, outcome)| (path.to_owned(), outcome))
            .collect();
        assert_eq!(told(lines), wanted, "{lines}");
    }
}

#[test]
fn what_cannot_be_a_file_of_services_is_refused_with_advice() {
    for (text, part) in [
        ("", "no services"),
        ("a: 1", "no services"),
        ("services: {}", "no services"),
        ("services: [a]", "no services"),
        ("services: {a: {}}", "neither an image nor a folder"),
        (
            "services: {a: {build: ../x}}",
            "neither an image nor a folder",
        ),
        ("services: {a: {image: \"a b\"}}", "image"),
        ("services: {\"1\": {image: a}}", "no name"),
        (
            "services: {a_b: {image: a}, a-b: {image: a}}",
            "both be named",
        ),
        (
            "services: {a: {image: a, depends_on: [b]}, b: {image: a, depends_on: [a]}}",
            "wait for each other",
        ),
        ("services: {a: {image: \"${A:?say it}\"}}", "say it"),
        ("services: {a: {image: \"a$\"}}", "dollar sign"),
        ("services: {a: {image: a}, a: {image: b}}", "duplicate"),
        ("- a", "no services"),
    ] {
        let problem = tried(text).expect_err(text);
        let message = problem.message.to_lowercase();
        assert!(message.contains(part), "{text}: {message}");
        assert!(problem.hint.is_some(), "{text}");
    }
    let many = |count: usize| {
        let services = (0..count).map(|number| format!("  a{number}: {{image: a}}\n"));
        format!("services:\n{}", services.collect::<String>())
    };
    assert_eq!(read(&many(100)).services.len(), 100);
    let problem = tried(&many(101)).expect_err("too many");
    assert!(problem.message.contains("more than 100"), "{problem}");
}

#[test]
fn the_shell_wins_over_the_file_beside_and_profiles_choose() {
    let text = "services:\n  a: {image: \"$A\"}\n  b: {image: b, profiles: [p], depends_on: [a]}\n  c: {image: c, depends_on: [b]}\n";
    let files = |path: &str| {
        Ok(match path {
            ".env" => Beside::File("A=file\n".to_owned()),
            _ => Beside::Nothing,
        })
    };
    let of = |variables: &[(&str, &str)], profiles: &[&str]| {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let input = Input {
            text,
            variables: &variables.collect(),
            profiles: &profiles.iter().map(|name| (*name).to_owned()).collect(),
            read: &files,
        };
        import(&input).expect("accepted")
    };
    let first = of(&[], &[]);
    assert_eq!(first.services[0].origin, Origin::Image("file".into()));
    assert_eq!(first.services.len(), 2);
    let paths: Vec<_> = first.reports.iter().map(|it| it.path.as_str()).collect();
    assert!(
        paths.contains(&"services.b") && paths.contains(&"services.c.depends_on[0]"),
        "{paths:?}"
    );
    let second = of(&[("A", "shell")], &["p"]);
    assert_eq!(second.services[0].origin, Origin::Image("shell".into()));
    let names: Vec<_> = second.services.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}
