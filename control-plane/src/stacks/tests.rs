//! What a file means, what it takes of a service, and what is next.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::deployment::{Deployment, Origin, Status, Trigger};
use skep_model::id::{DeploymentId, EnvironmentId, ServiceId};
use skep_model::polling::Seen;
use skep_model::problem::Problem;
use skep_model::service::{Service, Target};
use skep_model::spec::{ServiceSpec, Source};
use skep_model::stack::{Change, Member, Planned, Prune, Reading, Settings, Stack};
use skep_model::variable::VariableInput;

use super::course::{Course, There};
use super::due::{self, Memory};
use super::merge::merged;
use super::*;
use crate::api::{new_service, queued};

const ENVIRONMENT: EnvironmentId = EnvironmentId::from_u128(1);
const DB: ServiceId = ServiceId::from_u128(2);

fn settings(path: &str) -> Settings {
    Settings {
        repository: "https://forge.test/team/shop.git".into(),
        branch: "main".into(),
        path: path.into(),
        ..Settings::default()
    }
}

/// What a repository has, by path; a text that begins with `tree ` is a folder.
fn repository(all: &[(&str, &str)]) -> BTreeMap<String, Seen> {
    let seen = |text: &str| match text.strip_prefix("tree ") {
        Some(id) => Seen::Folder(id.to_owned()),
        None => Seen::File(text.to_owned()),
    };
    all.iter()
        .map(|(path, text)| ((*path).to_owned(), seen(text)))
        .collect()
}

/// Asks for places until nothing is missing; with how often that was.
fn read(
    settings: &Settings,
    shared: &BTreeMap<String, VariableInput>,
    all: &BTreeMap<String, Seen>,
) -> (usize, Result<File, Problem>) {
    let mut seen = BTreeMap::new();
    for round in 0..10 {
        match understand(settings, shared, ("c1", &seen)) {
            Ok(Understood::More(more)) => {
                assert!(!more.is_empty() && more.iter().all(|it| !seen.contains_key(it)));
                let one = |path: String| {
                    let found = all.get(&path).cloned().unwrap_or(Seen::Nothing);
                    (path, found)
                };
                seen.extend(more.into_iter().map(one));
            }
            Ok(Understood::File(file)) => return (round, Ok(*file)),
            Err(problem) => return (round, Err(problem)),
        }
    }
    panic!("it never ends");
}

fn shared(all: &[(&str, &str, bool)]) -> BTreeMap<String, VariableInput> {
    let input = |(name, value, secret): &(&str, &str, bool)| VariableInput {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
        secret: *secret,
    };
    all.iter().map(|it| (it.0.to_owned(), input(it))).collect()
}

#[test]
fn what_a_file_names_is_asked_for_until_nothing_is_missing() {
    let file = "\
services:
  web:
    build: {context: ../web}
    env_file: [\"${WHERE}/web.env\"]
    configs: [page]
  db: {image: \"postgres:${VERSION}\"}
configs:
  page: {file: ./page.html}
";
    let all = repository(&[
        ("deploy/compose.yml", &file.replace("../web", "web")),
        ("deploy/.env", "WHERE=../conf\n"),
        ("conf/web.env", "A=1\n"),
        ("deploy/page.html", "<p>"),
        ("deploy/web", "tree t1"),
    ]);
    let shared = shared(&[("VERSION", "16", false)]);
    let (rounds, found) = read(&settings("deploy"), &shared, &all);
    let found = found.expect("understood");
    assert!(rounds <= 4, "{rounds}: a node is asked five times at most");
    assert_eq!((&*found.path, &*found.commit), ("deploy/compose.yml", "c1"));
    let web = found.services.iter().find(|it| it.name == "web");
    let web = web.expect("web");
    assert_eq!(web.tree.as_deref(), Some("t1"));
    assert_eq!(web.variables["A"].value, "1");
    let Some(Source::Git {
        directory, branch, ..
    }) = &web.spec.source
    else {
        panic!("{:?}", web.spec.source);
    };
    assert_eq!((&**directory, &**branch), ("deploy/web", "main"));
    let db = found.services.iter().find(|it| it.name == "db");
    let reference = "postgres:16".to_owned();
    assert_eq!(
        db.expect("db").spec.source,
        Some(Source::Image { reference })
    );
}

#[test]
fn a_file_that_cannot_be_carried_out_says_what_is_wrong() {
    for (files, told) in [
        (
            &[][..],
            "the repository has none of compose.yaml, compose.yml",
        ),
        (
            &[("compose.yaml", "tree t1")],
            "compose.yaml: it is a folder",
        ),
        (&[("compose.yaml", "a: [\n")], "compose.yaml: not YAML"),
        (
            &[("compose.yaml", "services: {}\n")],
            "compose.yaml: services: the file has no services",
        ),
        (
            &[("compose.yaml", "services: {web: {build: web}}\n")],
            "the repository has no folder `web`",
        ),
        (
            &[(
                "compose.yaml",
                "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}\n",
            )],
            "a, b wait for each other",
        ),
    ] {
        let (_, found) = read(&settings(""), &BTreeMap::new(), &repository(files));
        let problem = found.expect_err(told);
        assert!(problem.to_string().contains(told), "{problem}, not {told}");
    }
}

#[test]
fn what_leads_out_of_the_repository_is_read_nowhere() {
    let text = "\
services:
  web: {image: x, mem_limit: 64m, env_file: [../../etc/passwd, /etc/shadow]}
";
    let all = repository(&[("app/compose.yaml", text)]);
    let (_, found) = read(&settings("app/compose.yaml"), &BTreeMap::new(), &all);
    let found = found.expect("understood");
    let told: Vec<&str> = found.reports.iter().map(|it| &*it.message).collect();
    assert!(
        told.len() == 2
            && told
                .iter()
                .all(|it| it.contains("leads out of the repository")),
        "{told:?}"
    );
}

#[test]
fn what_a_secret_reaches_is_secret_or_refused() {
    let shared = shared(&[
        ("PASS", "hunter2", true),
        ("REGION", "eu", false),
        ("REFERS", "${{db.X}}", false),
    ]);
    let text = "\
services:
  web:
    image: a:${REGION}
    environment:
      DATABASE: \"user=shop pass=${PASS}\"
      WHERE: \"${REGION}\"
      THAT: \"${REFERS}\"
";
    let (_, found) = read(
        &settings(""),
        &shared,
        &repository(&[("compose.yaml", text)]),
    );
    let found = found.expect("understood");
    let web = &found.services[0].variables;
    assert_eq!(
        (&*web["DATABASE"].value, web["DATABASE"].secret),
        ("user=shop pass=hunter2", true)
    );
    assert_eq!((&*web["WHERE"].value, web["WHERE"].secret), ("eu", false));
    assert_eq!(
        &*web["THAT"].value, "",
        "what refers to others has no value here"
    );
    for text in [
        "services: {web: {image: \"a:${PASS}\"}}\n",
        "services: {web: {image: a, command: [\"--pass=${PASS}\"]}}\n",
        "services: {web: {build: \"${PASS}\"}}\n",
        "services: {\"${PASS}\": {image: a}}\n",
        "services: {web: {image: a, cpus: \"${PASS}\"}}\n",
    ] {
        let all = repository(&[("compose.yaml", text), ("hunter2", "tree t1")]);
        let (_, found) = read(&settings(""), &shared, &all);
        match found {
            Err(problem) => assert!(!problem.to_string().contains("hunter2"), "{problem}"),
            Ok(file) => assert!(!format!("{file:?}").contains("hunter2"), "{text}: {file:?}"),
        }
    }
}

fn spec(change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = ServiceSpec {
        kind: skep_model::spec::ServiceType::Worker,
        ..ServiceSpec::default()
    };
    change(&mut spec);
    spec
}

#[test]
fn what_the_file_says_is_in_force_and_what_it_does_not_say_stays() {
    let before: BTreeSet<String> = ["replicas".to_owned(), "command".to_owned()].into();
    let current = spec(|it| {
        it.replicas = 5;
        it.command = vec!["old".into()];
        it.domains = vec!["a.example".into()];
        it.resources.cpu_millis = 700;
    });
    let wanted = spec(|it| {
        it.replicas = 2;
        it.resources.memory_bytes = 64 << 20;
    });
    let found = merged(Some(&current), &wanted, &before);
    assert_eq!(
        found.spec.replicas, 2,
        "scaled by hand, and the file says 2"
    );
    assert!(
        found.spec.command.is_empty(),
        "the file had said it and does not any more"
    );
    assert_eq!(found.spec.domains, ["a.example"], "the file never said it");
    let resources = found.spec.resources;
    assert_eq!(
        (resources.cpu_millis, resources.memory_bytes),
        (700, 64 << 20)
    );
    assert_eq!(
        found.changed,
        ["command", "replicas", "resources.memory_bytes"]
    );
    let said = ["replicas", "resources.memory_bytes"].map(str::to_owned);
    assert_eq!(found.said, BTreeSet::from(said));
    // Twice is as once.
    let again = merged(Some(&found.spec), &wanted, &found.said);
    assert_eq!((again.spec, again.changed), (found.spec, Vec::new()));
}

fn wanted(name: &str, tree: Option<&str>, on: &[&str]) -> Wanted {
    Wanted {
        name: name.into(),
        spec: spec(|it| {
            it.source = Some(match tree {
                None => Source::Image {
                    reference: "a:1".into(),
                },
                Some(_) => Source::Git {
                    repository: "https://forge.test/team/shop.git".into(),
                    branch: "main".into(),
                    directory: name.into(),
                },
            });
        }),
        variables: shared(&[("A", "1", false)]),
        tree: tree.map(str::to_owned),
        depends_on: on.iter().map(|it| (*it).to_owned()).collect(),
    }
}

/// A service as a reading made it, and how its deployment ended.
struct Made {
    service: Service,
    variables: BTreeMap<String, VariableInput>,
    member: Member,
    newest: Deployment,
}

impl Made {
    fn of(wanted: &Wanted, status: Status) -> Self {
        let mut service = new_service(DB, ENVIRONMENT, &wanted.name);
        let made = turn(wanted, None, 1);
        service.spec = made.spec;
        let id = DeploymentId::from_u128(7);
        let origin = Origin::Release { number: 1 };
        let newest = Deployment {
            status,
            ..queued(id, DB, (Trigger::Poll, origin))
        };
        service.live = (status == Status::Live).then_some(Target {
            release: 4,
            deployment: id,
        });
        Self {
            service,
            variables: wanted.variables.clone(),
            member: Member {
                service: DB,
                built: wanted.tree.clone(),
                said: made.said,
                deployment: Some(id),
                reading: 1,
            },
            newest,
        }
    }

    fn current(&self) -> Current<'_> {
        Current {
            service: &self.service,
            variables: &self.variables,
            member: Some(&self.member),
            newest: Some(&self.newest),
        }
    }
}

#[test]
fn a_turn_is_no_more_than_what_changed() {
    let plain = || wanted("db", Some("t1"), &[]);
    let live = Made::of(&plain(), Status::Live);
    let says = |change: fn(&mut Wanted)| {
        let mut wanted = plain();
        change(&mut wanted);
        let turn = turn(&wanted, Some(live.current()), 2);
        (turn.change, turn.deploy, turn.fields.join(" "))
    };
    let is = |change, deploy, fields: &str| (change, deploy, fields.to_owned());
    assert_eq!(says(|_| {}), is(Change::Same, Deploy::Nothing, ""));
    assert_eq!(
        says(|it| it.tree = Some("t2".into())),
        is(Change::Build, Deploy::Source, "files")
    );
    assert_eq!(
        says(|it| it.spec.dockerfile = Some("Other".into())),
        is(Change::Build, Deploy::Source, "dockerfile")
    );
    assert_eq!(
        says(|it| it.spec.command = vec!["serve".into()]),
        is(Change::Configure, Deploy::Release(4), "command")
    );
    assert_eq!(
        says(|it| it.variables = shared(&[("A", "2", false)])),
        is(Change::Configure, Deploy::Release(4), "variables.A")
    );
    assert_eq!(
        says(|it| it.variables = shared(&[("B", "1", false)])),
        is(
            Change::Configure,
            Deploy::Release(4),
            "variables.B variables.A"
        )
    );
    assert_eq!(
        says(|it| it.spec.replicas = 3),
        is(Change::Set, Deploy::Nothing, "replicas")
    );
    // What is live has another image than what failed.
    let failed = Made::of(&plain(), Status::Failed);
    let mut other = plain();
    other.spec.command = vec!["serve".into()];
    let of_failed = |wanted: &Wanted, reading| {
        let turn = turn(wanted, Some(failed.current()), reading);
        (turn.change, turn.deploy)
    };
    assert_eq!(of_failed(&other, 1), (Change::Configure, Deploy::Source));
    assert_eq!(of_failed(&plain(), 1), (Change::Same, Deploy::Nothing));
    assert_eq!(of_failed(&plain(), 2), (Change::Again, Deploy::Source));
    let mut building = Made::of(&plain(), Status::Building);
    building.service.live = live.service.live;
    let turn = turn(&other, Some(building.current()), 1);
    assert_eq!(
        turn.deploy,
        Deploy::Source,
        "what is being built is not what is live"
    );
}

fn stack(number: u64, names: &[&str], prune: Prune) -> Stack {
    let planned = |name: &&str| Planned {
        name: (*name).to_owned(),
        change: Change::Make,
        fields: Vec::new(),
    };
    Stack {
        environment: ENVIRONMENT,
        settings: Settings {
            prune,
            ..settings("")
        },
        generation: 1,
        created_ms: 0,
        asked: 1,
        answered: 1,
        seen: Some("c1".into()),
        reading: Some(Reading {
            number,
            commit: "c1".into(),
            file: "compose.yaml".into(),
            read_ms: 0,
            services: names.iter().map(planned).collect(),
            reports: Vec::new(),
            more_reports: 0,
            end: None,
        }),
        trouble: None,
        members: BTreeMap::new(),
    }
}

fn file(services: Vec<Wanted>) -> File {
    File {
        path: "compose.yaml".into(),
        commit: "c1".into(),
        services,
        reports: Vec::new(),
    }
}

/// What is next of a database and two that depend on it, one on the other, where that is how they are.
fn next(all: &BTreeMap<&str, Made>, refused: &[&str]) -> (Vec<String>, Course) {
    let names = ["db", "api", "web"];
    let services = vec![
        wanted("db", None, &[]),
        wanted("api", Some("t1"), &["db"]),
        wanted("web", Some("t1"), &["api"]),
    ];
    let refused = refused
        .iter()
        .map(|it| ((*it).to_owned(), Problem::invalid("spec", "no")))
        .collect();
    let there = |name: &str| match all.get(name) {
        Some(made) if made.service.removing => There::Going,
        Some(made) => There::Service(made.current()),
        None => There::Nothing,
    };
    let stack = stack(1, &names, Prune::Auto);
    let course = course(&stack, &file(services), there, &refused);
    let turns = course.turns.iter().map(|(name, _)| name.clone());
    (turns.collect(), course)
}

#[test]
fn who_depends_on_others_waits_for_them_and_fails_with_them() {
    let made = |name: &'static str, tree, on: &[&str], status| {
        (name, Made::of(&wanted(name, tree, on), status))
    };
    let db = |status| made("db", None, &[], status);
    let api = |status| made("api", Some("t1"), &["db"], status);
    let web = |status| made("web", Some("t1"), &["api"], status);
    let end = |course: &Course| course.end.clone().map(|it| it.map(|it| it.message));

    let (turns, course) = next(&BTreeMap::new(), &[]);
    assert_eq!((turns, end(&course)), (vec!["db".to_owned()], None));
    let (turns, course) = next(&[db(Status::Deploying)].into(), &[]);
    assert_eq!((turns.len(), end(&course)), (0, None));
    let (turns, _) = next(&[db(Status::Live)].into(), &[]);
    assert_eq!(turns, ["api"]);
    let (turns, course) = next(
        &[db(Status::Live), api(Status::AwaitingApproval)].into(),
        &[],
    );
    assert_eq!(
        (turns.len(), end(&course)),
        (0, None),
        "a gate holds up who depends on it"
    );

    let (turns, course) = next(&[db(Status::Live), api(Status::Failed)].into(), &[]);
    let told = end(&course).flatten().expect("told");
    assert!(turns.is_empty() && !course.prune);
    assert!(
        told.contains("web: it depends on `api`, which is not live"),
        "{told}"
    );
    let (_, course) = next(&BTreeMap::new(), &["db"]);
    let told = end(&course).flatten().expect("told");
    assert!(
        told.contains("db: spec: no") && told.contains("api: it depends on `db`"),
        "{told}"
    );

    let all = [db(Status::Live), api(Status::Live), web(Status::Live)];
    let (turns, course) = next(&all.into(), &[]);
    assert_eq!((turns.len(), end(&course)), (0, Some(None)));
    assert!(course.prune, "only now what the file has no more goes");
    // One of that name is on its way out.
    let mut going = db(Status::Live);
    going.1.service.removing = true;
    let (turns, course) = next(&[going].into(), &[]);
    assert_eq!((turns.len(), end(&course)), (0, None));
}

#[test]
fn what_is_somebody_elses_is_not_touched() {
    let mut made = Made::of(&wanted("db", None, &[]), Status::Live);
    made.service.spec.replicas = 9;
    let current = Current {
        member: None,
        ..made.current()
    };
    let mut stack = stack(1, &["db"], Prune::Ask);
    let file = file(vec![wanted("db", None, &[])]);
    let there = |_: &str| There::Service(current);
    let found = course(&stack, &file, there, &BTreeMap::new());
    assert!(found.turns.is_empty());
    let told = found.end.flatten().expect("told").message;
    assert!(
        told.contains("not the stack's") && told.contains("--adopt"),
        "{told}"
    );
    assert_eq!(
        reading(&stack, &file, there).services[0].change,
        Change::Taken
    );
    stack.settings.adopt = true;
    let found = course(&stack, &file, there, &BTreeMap::new());
    assert_eq!(found.turns.len(), 1);
    assert_eq!(
        found.turns[0].1.spec.replicas, 9,
        "the file says nothing of it"
    );
}

#[test]
fn a_stack_is_asked_when_somebody_wants_it_and_by_the_clock() {
    let mut stack = stack(1, &[], Prune::Ask);
    if let Some(reading) = &mut stack.reading {
        reading.end = Some(skep_model::stack::End {
            at_ms: 0,
            problem: None,
        });
    }
    let fresh = Memory::default();
    let asked = Memory {
        asked_ms: Some(1_000),
        ..fresh
    };
    assert_eq!(due::at_ms(&stack, fresh, 5_000), Some(305_000));
    assert_eq!(due::at_ms(&stack, asked, 0), Some(301_000));
    assert!(due::is_poll(&stack, asked));
    let unheard = Memory {
        unheard: 1,
        ..asked
    };
    assert_eq!(due::at_ms(&stack, unheard, 0), Some(11_000));
    let asking = Memory {
        is_asking: true,
        ..asked
    };
    assert_eq!(due::at_ms(&stack, asking, 0), None);
    stack.settings.poll_ms = Some(0);
    assert_eq!(due::at_ms(&stack, asked, 0), None);
    stack.asked = 2;
    assert_eq!(due::at_ms(&stack, asked, 0), Some(1_500));
    assert!(
        !due::is_poll(&stack, asked),
        "it is read though nothing was pushed"
    );
    // A new leader finds a file that is not carried out.
    stack.answered = 2;
    stack.reading.as_mut().expect("one").end = None;
    assert_eq!(due::at_ms(&stack, fresh, 0), Some(0));
    let has_file = Memory {
        has_file: true,
        ..fresh
    };
    assert_eq!(due::at_ms(&stack, has_file, 0), None);
}
