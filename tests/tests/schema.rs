//! The published JSON Schemas: what the readers of files take they take, what the readers refuse by key or type they
//! refuse.

use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::Value;
use skep_model::manifest::Manifest;
use skep_model::project::Project;
use skep_model::schema;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn validator(schema: Value) -> Validator {
    jsonschema::meta::validate(&schema).expect("a schema of draft 2020-12");
    jsonschema::draft202012::new(&schema).expect("a schema")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// As a validator sees the file.
fn value(text: &str) -> Value {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What a page shows as files.
fn shown(page: &str) -> Vec<String> {
    let text = read(&root().join("docs").join(page));
    let blocks = text.split("```toml\n").skip(1);
    let inside = blocks.filter_map(|it| it.split("\n```").next());
    inside.map(str::to_owned).collect()
}

#[test]
fn every_example_is_valid() {
    let (app, project) = (validator(schema::app()), validator(schema::project()));
    let mut apps = shown("skep-toml.md");
    apps.push(read(&root().join("examples/hello/skep.toml")));
    assert!(apps.len() >= 6, "the page shows some");
    for text in apps {
        let read: Result<Manifest, _> = toml::from_str(&text);
        read.unwrap_or_else(|error| panic!("{error}: {text}"));
        let wrong = app.validate(&value(&text)).err().map(|it| it.to_string());
        assert_eq!(wrong, None, "{text}");
    }
    let projects = shown("project-file.md");
    assert!(!projects.is_empty(), "the page shows one");
    for text in projects {
        Project::parse(&text).unwrap_or_else(|problem| panic!("{problem}: {text}"));
        let wrong = project
            .validate(&value(&text))
            .err()
            .map(|it| it.to_string());
        assert_eq!(wrong, None, "{text}");
    }
}

/// A file that says something in each table, so that each place can be spoilt.
const FULL: &str = r#"
type = "web"
port = 80
command = ["a"]
domains = ["a.example.com"]
stop_grace = "10s"
[[routes]]
path = "/a"
redirect = { host = "b.example.com" }
rate_limit = { per_second = 1, burst = 1 }
[resources]
memory = "1GiB"
disk = 1073741824
[build]
args = { A = "1" }
[health]
check = { http = "/" }
[health.liveness]
check = "tcp"
[container]
ulimits = { nofile = 1024, core = "0:0" }
[rollout]
steps = [{ percent = 10, pause = "5m" }]
analysis = { off = true }
[run]
mode = "service"
[autoscale]
targets = ["cpu=70%"]
[autoscale.sizing]
mode = "apply"
[placement]
constraints = ["tier = pro"]
[hooks]
pre_stop = { exec = ["a"] }
[source]
poll = "never"
[[volumes]]
name = "data"
path = "/data"
[env]
A = "1"
"#;

#[test]
fn what_the_reader_of_an_app_refuses_by_key_or_type_the_schema_refuses() {
    let app = validator(schema::app());
    assert!(
        app.is_valid(&value(FULL)),
        "{:?}",
        app.validate(&value(FULL))
    );
    toml::from_str::<Manifest>(FULL).expect("it is read");
    for (old, new) in [
        ("port = 80", "prot = 80"),
        ("port = 80", "port = \"80\""),
        ("port = 80", "port = -1"),
        ("port = 80", "port = 65536"),
        ("type = \"web\"", "type = \"site\""),
        ("command = [\"a\"]", "command = \"a\""),
        ("domains = [\"a.example.com\"]", "domains = [1]"),
        ("stop_grace = \"10s\"", "stop_grace = 10"),
        ("[[routes]]", "[routes]"),
        ("path = \"/a\"", "pfad = \"/a\""),
        ("redirect = { host", "redirect = { hosts"),
        ("per_second = 1, ", ""),
        ("[resources]", "[resource]"),
        ("memory = \"1GiB\"", "memory = true"),
        ("disk = 1073741824", "disk = -1"),
        ("args = { A = \"1\" }", "args = { A = 1 }"),
        ("check = { http = \"/\" }", "check = { https = 1 }"),
        ("check = { http = \"/\" }", "check = { ping = \"/\" }"),
        (
            "check = { http = \"/\" }",
            "check = { http = \"/\", log = \"x\" }",
        ),
        ("check = \"tcp\"", "check = \"udp\""),
        ("check = \"tcp\"", "interval = \"5s\""),
        ("nofile = 1024", "nofile = true"),
        ("percent = 10, ", ""),
        ("percent = 10", "percent = \"10\""),
        ("off = true", "off = \"yes\""),
        ("mode = \"service\"", "mode = \"apply\""),
        ("mode = \"apply\"", "mode = \"service\""),
        ("targets = [\"cpu=70%\"]", "targets = \"cpu=70%\""),
        (
            "constraints = [\"tier = pro\"]",
            "constraint = [\"tier = pro\"]",
        ),
        (
            "pre_stop = { exec = [\"a\"] }",
            "pre_stop = { exec = \"a\" }",
        ),
        ("pre_stop = { exec = [\"a\"] }", "pre_stop = \"a\""),
        ("poll = \"never\"", "poll = 5"),
        ("name = \"data\"\n", ""),
        ("A = \"1\"\n", "A = 1\n"),
    ] {
        let text = FULL.replacen(old, new, 1);
        assert!(text != FULL, "{old} is there");
        // Before what it judges beyond that.
        let problem = toml::from_str::<Manifest>(&text).err();
        assert!(problem.is_some(), "the reader takes {new}");
        assert!(
            !app.is_valid(&value(&text)),
            "the schema takes {new}: {problem:?}"
        );
    }
}

#[test]
fn what_the_reader_of_a_project_refuses_by_key_or_type_the_schema_refuses() {
    const FULL: &str = r#"
project = "shop"
[variables]
REGION = "eu"
KEY = { secret = true }
[services.api]
from = { repository = "https://git.example.com/shop.git", branch = "main" }
replicas = 3
environments = ["production", "staging"]
[services.api.variables]
URL = "x"
[environments.production]
[environments.staging.services.api]
replicas = 1
"#;
    let project = validator(schema::project());
    let valid = project.validate(&value(FULL)).map_err(|it| it.to_string());
    assert_eq!(valid, Ok(()));
    Project::parse(FULL).expect("it is read");
    for (old, new) in [
        ("project = \"shop\"", ""),
        ("project = \"shop\"", "project = 1"),
        ("[variables]", "[variable]"),
        ("REGION = \"eu\"", "REGION = 1"),
        ("secret = true", "secret = false"),
        ("secret = true", "secrets = true"),
        ("secret = true", "secret = true, more = 1"),
        ("[services.api]", "[service.api]"),
        ("branch = \"main\"", "branche = \"main\""),
        ("replicas = 3", "replicas = \"3\""),
        ("replicas = 3", "name = \"api\""),
        ("replicas = 3", "project = \"shop\""),
        ("replicas = 3", "env = { A = \"1\" }"),
        ("replicas = 1", "environments = [\"staging\"]"),
        ("replicas = 1", "replica = 1"),
        (
            "[environments.production]",
            "[environments.production]\nregion = \"eu\"",
        ),
        ("[environments.production]", "[environment.production]"),
    ] {
        let text = FULL.replacen(old, new, 1);
        assert!(text != FULL, "{old} is there");
        let problem = Project::parse(&text).err().map(|it| it.message);
        assert!(problem.is_some(), "the reader takes {new}");
        assert!(
            !project.is_valid(&value(&text)),
            "the schema takes {new}: {problem:?}"
        );
    }
}
