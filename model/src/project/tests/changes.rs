//! What a file changes, by example.

use super::{carried_out, has, read, running, value};
use crate::problem::Problem;
use crate::project::{Change, Current, Given, Place, Plan, Project, Running, plan};
use crate::spec::{ServiceSpec, Source};

const SHOP: &str = r#"
project = "shop"

[variables]
REGION = "eu"

[services.api]
from = { image = "shop/api:1" }
replicas = 2

[services.api.variables]
DB = "postgres://${{zdb.USER}}@${{zdb.SKEP_PRIVATE_HOST}}/${{shared.REGION}}"

[services.zdb]
from = { image = "postgres:17" }
type = "worker"

[services.zdb.variables]
USER = "shop"
"#;

/// A change that no file said.
type ByHand = fn(&mut Current);

/// One line a change.
fn told(plan: &Plan) -> Vec<String> {
    let fields = |fields: &[super::super::Field]| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let one =
            |it: &super::super::Field| format!("{} {} {}", it.path, text(&it.old), text(&it.new));
        fields.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let line = |change: &Change| match change {
        Change::Shared(it) => format!("{}: {}", it.environment, fields(&it.fields)),
        Change::Service(it) => {
            let new = if it.is_new { " new" } else { "" };
            let deploy = format!("{:?}", it.deploy).to_lowercase();
            format!("{}{new} {deploy}: {}", it.place, fields(&it.fields))
        }
        Change::Remove(place) => format!("{place} goes"),
    };
    plan.changes.iter().map(line).collect()
}

fn changes(file: &Project, current: &Current) -> Vec<String> {
    told(&plan(file, current, false).expect("accepted"))
}

#[test]
fn what_is_referred_to_comes_first() {
    let plan = plan(&read(SHOP), &Current::default(), false).expect("accepted");
    assert_eq!(
        told(&plan),
        [
            "production: variables.REGION - \"eu\"",
            "production/zdb new source: from.image - \"postgres:17\", type - \"worker\", \
             variables.USER - \"shop\"",
            "production/api new source: from.image - \"shop/api:1\", replicas 1 2, variables.DB - \
             \"postgres://${{zdb.USER}}@${{zdb.SKEP_PRIVATE_HOST}}/${{shared.REGION}}\"",
        ]
    );
}

#[test]
fn circles_of_references_have_an_order_too() {
    let file = "project = \"p\"\n[services.a.variables]\nX = \"${{b.SKEP_PRIVATE_HOST}}\"\n\
                [services.b.variables]\nX = \"${{a.SKEP_PRIVATE_HOST}}\"";
    let plan = plan(&read(file), &Current::default(), false).expect("accepted");
    assert_eq!(plan.changes.len(), 2);
}

#[test]
fn a_change_by_hand_is_told_field_by_field_and_what_brings_it() {
    let file = read(SHOP);
    let there = carried_out(&file);
    assert!(changes(&file, &there).is_empty());
    let by_hand: [(ByHand, &str); 7] = [
        (
            |it| has(it, ("production", "api")).spec.replicas = 7,
            "production/api nothing: replicas 7 2",
        ),
        (
            |it| {
                let api = has(it, ("production", "api"));
                api.spec.source = Some(Source::Image {
                    reference: "shop/api:0".to_owned(),
                });
            },
            "production/api source: from.image \"shop/api:0\" \"shop/api:1\"",
        ),
        (
            |it| {
                let zdb = has(it, ("production", "zdb"));
                zdb.variables.insert("USER".to_owned(), value("x"));
            },
            "production/zdb redeploy: variables.USER \"x\" \"shop\"",
        ),
        (
            |it| has(it, ("production", "zdb")).spec.kind = Default::default(),
            // Its folder is as usual in the file, so it stays.
            "production/zdb redeploy: type - \"worker\"",
        ),
        (
            |it| has(it, ("production", "zdb")).running = Running::Failed,
            "production/zdb source: ",
        ),
        (
            |it| has(it, ("production", "zdb")).running = Running::Behind,
            "production/zdb redeploy: ",
        ),
        (
            |it| {
                let shared = it.shared.get_mut("production").expect("there");
                shared.insert("REGION".to_owned(), Given::Secret);
            },
            "production: variables.REGION a secret \"eu\"",
        ),
    ];
    for (change, wanted) in by_hand {
        let mut current = there.clone();
        change(&mut current);
        assert_eq!(changes(&file, &current), [wanted]);
    }
}

#[test]
fn what_is_stopped_is_changed_and_stays_stopped() {
    let file = read(SHOP);
    let mut there = carried_out(&file);
    let api = has(&mut there, ("production", "api"));
    api.running = Running::Stopped;
    assert!(changes(&file, &there).is_empty());
    has(&mut there, ("production", "api")).spec.port = Some(1);
    let file = read(&SHOP.replace("replicas = 2", "replicas = 2\nport = 3"));
    assert_eq!(changes(&file, &there), ["production/api nothing: port 1 3"]);
}

#[test]
fn a_folder_is_nothing_that_a_file_can_bring() {
    let file = read("project = \"p\"\n[services.web]\nreplicas = 2");
    let created = plan(&file, &Current::default(), false).expect("accepted");
    assert_eq!(told(&created), ["production/web new folder: replicas 1 2"]);
    let mut there = carried_out(&file);
    has(&mut there, ("production", "web")).running = Running::Never;
    assert!(changes(&file, &there).is_empty());
    let file = read("project = \"p\"\n[services.web]\ndockerfile = \"b\"");
    has(&mut there, ("production", "web")).running = Running::Current;
    assert_eq!(
        changes(&file, &there),
        ["production/web folder: dockerfile - \"b\""]
    );
}

#[test]
fn what_the_file_does_not_say_stays_unless_it_is_pruned() {
    let file = read(SHOP);
    let mut there = carried_out(&file);
    let extra = running(ServiceSpec::default());
    for environment in ["production", "staging"] {
        there
            .services
            .insert(Place::new(environment, "old"), extra.clone());
    }
    let api = has(&mut there, ("production", "api"));
    api.spec.domains = vec!["a.example".to_owned()];
    api.variables.insert("KEY".to_owned(), Given::Secret);
    assert!(changes(&file, &there).is_empty());
    let pruned = plan(&file, &there, true).expect("accepted");
    // Of environments that the file does not name nothing goes.
    assert_eq!(
        told(&pruned),
        [
            "production/api redeploy: variables.KEY a secret -",
            "production/old goes"
        ]
    );
}

#[test]
fn secrets_are_set_already_or_missing() {
    let text =
        "[services.api.variables]\nKEY = { secret = true }\n[variables]\nROOT = { secret = true }";
    let file = read(&format!("project = \"p\"\n{text}"));
    let missing = |current: &Current| -> Vec<_> {
        let plan = plan(&file, current, false).expect("accepted");
        let name = |it: &super::super::Missing| (it.service.clone(), it.name.clone(), it.is_new);
        plan.missing.iter().map(name).collect()
    };
    let shared = (None, "ROOT".to_owned(), false);
    let own = |is_new| (Some("api".to_owned()), "KEY".to_owned(), is_new);
    assert_eq!(missing(&Current::default()), [shared.clone(), own(true)]);
    let mut there = carried_out(&file);
    assert!(missing(&there).is_empty());
    // What everybody may read is no secret.
    let api = has(&mut there, ("production", "api"));
    api.variables.insert("KEY".to_owned(), value("x"));
    there.shared.clear();
    assert_eq!(missing(&there), [shared, own(false)]);
}

#[test]
fn environments_differ_where_they_say_so() {
    let text = r#"
        project = "shop"
        [variables]
        LEVEL = "info"
        [services.api]
        replicas = 3
        domains = ["shop.example"]
        resources = { cpu = "1", memory = "1GiB" }
        [services.mail]
        environments = ["production"]
        [environments.production]
        [environments.staging.variables]
        LEVEL = "debug"
        [environments.staging.services.api]
        replicas = 1
        domains = ["staging.shop.example"]
        resources = { memory = "256MiB" }
        [environments.staging.services.api.variables]
        MODE = "trial"
    "#;
    let there = carried_out(&read(text));
    let names: Vec<String> = there.services.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["production/api", "production/mail", "staging/api"]);
    let spec = |environment| &there.services[&Place::new(environment, "api")].spec;
    let (one, other) = (spec("production"), spec("staging"));
    assert_eq!((one.replicas, other.replicas), (3, 1));
    assert_eq!(
        (one.resources.cpu_millis, other.resources.cpu_millis),
        (1_000, 1_000)
    );
    assert_eq!(other.resources.memory_bytes, 256 << 20);
    assert_eq!(other.domains, ["staging.shop.example"]);
    let level = |environment: &str| there.shared[environment]["LEVEL"].clone();
    assert_eq!(
        [level("production"), level("staging")],
        [value("info"), value("debug")]
    );
    let staging = &there.services[&Place::new("staging", "api")];
    assert_eq!(staging.variables["MODE"], value("trial"));
}

#[test]
fn a_host_that_moves_is_let_go_first() {
    let file = |a: &str, b: &str| {
        let one = |name, hosts| format!("[services.{name}]\ndomains = {hosts}\n");
        read(&format!("project = \"p\"\n{}{}", one("a", a), one("b", b)))
    };
    let before = carried_out(&file("[]", "[\"x.example\", \"y.example\"]"));
    let after = plan(&file("[\"x.example\"]", "[]"), &before, false).expect("accepted");
    let frees = after.changes.iter().map(|it| match it {
        Change::Service(it) => (it.place.service.clone(), it.frees_hosts),
        other => panic!("{other:?}"),
    });
    let wanted = [("a".to_owned(), false), ("b".to_owned(), true)];
    assert_eq!(frees.collect::<Vec<_>>(), wanted);
}

#[test]
fn what_would_come_of_it_is_checked_with_what_there_is() {
    // Each is fine alone: a volume has one writer.
    let mut there = carried_out(&read(
        "project = \"p\"\n[[services.db.volumes]]\nname = \"d\"\npath = \"/d\"",
    ));
    there
        .services
        .values_mut()
        .for_each(|it| it.running = Running::Never);
    let more = read("project = \"p\"\n[services.db]\nreplicas = 2");
    let Problem { field, .. } = plan(&more, &there, false).expect_err("two writers");
    assert_eq!(field.as_deref(), Some("services.db.replicas"));
}
