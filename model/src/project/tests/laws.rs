//! What holds of every project: an export says what there is, all of it and nothing else.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::{carried_out, running};
use crate::autoscale::{Autoscale, ScaleToZero};
use crate::container::Container;
use crate::health::{Check, Probe};
use crate::hooks::{Hooks, Init, PreStop};
use crate::project::{Current, Found, Given, Place, Project, Running, Variables, export, plan};
use crate::rollout::{CanaryStep, Strategy as Rollout};
use crate::routing::RouteSpec;
use crate::run::Mode;
use crate::spec::{Resources, ServiceSpec, ServiceType, Source};
use crate::storage::{SecretFile, Volume};

fn source() -> impl Strategy<Value = Option<Source>> {
    let image = "[a-z]{1,6}:[0-9]".prop_map(|reference| Source::Image { reference });
    let git = ("https://[a-z]{1,6}/x", "main|next", "|web").prop_map(
        |(repository, branch, directory)| Source::Git {
            repository,
            branch,
            directory,
        },
    );
    option::of(prop_oneof![image, git])
}

fn resources() -> impl Strategy<Value = Resources> {
    (1..5_000_u32, 6_u64 << 20..1 << 40, 0..3_u64).prop_map(|(cpu_millis, memory_bytes, more)| {
        Resources {
            cpu_millis,
            memory_bytes,
            cpu_limit_millis: if more == 1 { cpu_millis + 7 } else { 0 },
            memory_limit_bytes: if more == 2 { memory_bytes + 1 } else { 0 },
            disk_bytes: more * 1_000_001,
        }
    })
}

/// Changes of the usual specification, each alone accepted beside all others.
type Edit = fn(&mut ServiceSpec, u32);
const EDITS: &[Edit] = &[
    |it, n| it.port = Some(1 + n as u16),
    |it, n| it.command = vec!["/app".into(), format!("it's \"{n}\"\n")],
    |it, n| it.stop_grace_ms = u64::from(n),
    |it, n| it.health.path = Some(format!("/{n}")),
    |it, n| {
        it.health.startup = Some(Probe {
            interval_ms: 1_500 + u64::from(n),
            ..Probe::new(Check::Exec(vec!["/up".into()]))
        });
    },
    |it, n| it.restart.window_ms = 1_000 + u64::from(n),
    |it, n| it.update.drain_ms = u64::from(n),
    |it, n| it.run.retries = n % 5,
    |it, n| {
        it.rollout.strategy = Rollout::Canary;
        it.rollout.steps = vec![
            CanaryStep {
                percent: 1 + n % 50,
                pause_ms: Some(1_000),
            },
            CanaryStep {
                percent: 60,
                pause_ms: None,
            },
        ];
    },
    |it, n| {
        it.autoscale = Some(Autoscale {
            min: 1,
            max: 2 + n,
            targets: vec!["cpu = 70%".parse().expect("a target")],
            down_window_ms: 60_000 + u64::from(n),
            ..Autoscale::default()
        });
    },
    |it, _| {
        it.autoscale = Some(Autoscale {
            min: 0,
            max: 3,
            targets: vec!["in_flight = 10".parse().expect("a target")],
            scale_to_zero: Some(ScaleToZero { idle_ms: 600_000 }),
            ..Autoscale::default()
        });
    },
    |it, n| {
        it.container = Container {
            read_only: n % 2 == 0,
            pids: 100 + n,
            tmpfs: BTreeMap::from([("/tmp".into(), 1_048_577)]),
            ..Container::default()
        };
    },
    |it, n| {
        it.hooks = Hooks {
            init: vec![Init {
                command: vec!["/init".into()],
                timeout_ms: 1_000 + u64::from(n),
            }],
            pre_stop: Some(PreStop::Exec(vec!["/end".into()])),
            ..Hooks::default()
        };
    },
    |it, n| it.pushes.poll_ms = Some(if n % 2 == 0 { 0 } else { 10_000 + u64::from(n) }),
    |it, n| {
        it.pushes.wait_for_ci = Some(crate::pushes::WaitForCi {
            deadline_ms: 60_000 + u64::from(n),
        });
    },
    |it, _| it.pushes.watch = vec!["api/**".into(), "!**/*.md".into()],
    |it, n| it.build.timeout_ms = 60_000 + u64::from(n),
    |it, n| it.build.args = BTreeMap::from([("V".into(), n.to_string())]),
    |it, _| it.nixpacks.packages = vec!["ffmpeg".into()],
    |it, n| it.site.spa = Some(n % 2 == 0),
    |it, n| {
        let key = SecretFile {
            variable: "KEY".into(),
            path: format!("/run/{n}"),
            ..secret_file()
        };
        it.storage.secrets = vec![key];
    },
    |it, n| {
        let volume = Volume {
            name: "data".into(),
            path: "/data".into(),
            owner: None,
            size_bytes: u64::from(n) << 20,
            read_only: false,
            storage: None,
        };
        it.storage.volumes = vec![volume];
        (it.replicas, it.autoscale) = (1, None);
        it.rollout = Default::default();
    },
    |it, n| {
        it.routes = vec![RouteSpec {
            path: format!("/r{n}"),
            strip_prefix: true,
            body_limit_bytes: Some(1_000 + u64::from(n)),
            ..RouteSpec::default()
        }];
    },
    |it, _| {
        it.kind = ServiceType::Worker;
        (it.routes, it.autoscale, it.health) = Default::default();
        it.domains.clear();
        it.hooks.pre_stop = None;
    },
    |it, n| {
        *it = ServiceSpec {
            resources: it.resources,
            ..ServiceSpec::default()
        };
        it.run.mode = Mode::Cron;
        it.run.schedule = Some(format!("{} * * * *", n % 60));
        it.run.catch_up_ms = u64::from(n) * 1_000;
    },
];

fn secret_file() -> SecretFile {
    serde_json::from_str("{\"variable\":\"A\",\"path\":\"/a\"}").expect("a file")
}

fn spec() -> impl Strategy<Value = ServiceSpec> {
    let edits = vec((0..EDITS.len(), 0..5_000_u32), 0..6);
    (source(), resources(), 0..5_u32, edits).prop_map(|(source, resources, replicas, edits)| {
        let mut spec = ServiceSpec {
            resources,
            replicas,
            ..ServiceSpec::default()
        };
        for (which, number) in edits {
            let before = spec.clone();
            EDITS[which](&mut spec, number);
            // What does not go together is not said together.
            if spec.check_given().is_err() {
                spec = before;
            }
        }
        ServiceSpec { source, ..spec }
    })
}

fn variables() -> impl Strategy<Value = Variables> {
    let given = prop_oneof![
        3 => "[ -~]{0,8}|\\PC{0,4}|a\nb\t\"".prop_map(|it| Given::Value(it.replace("${{", ""))),
        1 => Just(Given::Secret),
    ];
    btree_map("[A-F]", given, 0..4)
}

/// Few names, so that services are in several environments, and often the same in all.
fn current() -> impl Strategy<Value = Current> {
    let found = (spec(), variables(), any::<bool>());
    let environment = "production|staging|pr-1";
    let services = btree_map((environment, "api|web|db"), (found, 0..2_u8), 0..6);
    (services, spec(), btree_map(environment, variables(), 0..3)).prop_map(
        |(services, usual, shared)| {
            let mut current = Current::default();
            for ((environment, service), ((spec, variables, has_host), alike)) in services {
                let mut spec = if alike == 0 { usual.clone() } else { spec };
                if has_host && spec.is_routed() && spec.storage.volumes.is_empty() {
                    spec.domains = vec![format!("{service}.{environment}.example")];
                }
                let found = Found {
                    variables,
                    ..running(spec)
                };
                current
                    .services
                    .insert(Place::new(&environment, &service), found);
            }
            current.shared = shared;
            current.shared.retain(|_, variables| !variables.is_empty());
            current
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_export_changes_nothing_and_makes_the_same_of_nothing(current in current()) {
        let text = export("shop", &current).text();
        let file = Project::parse(&text).map_err(|it| TestCaseError::fail(format!("{it}\n{text}")))?;
        prop_assert_eq!(&file, &export("shop", &current), "{}", text);
        let plan = plan(&file, &current, true).map_err(|it| TestCaseError::fail(it.to_string()))?;
        prop_assert!(plan.is_empty(), "{:?}\n{}", plan, text);
        prop_assert_eq!(carried_out(&file), current, "{}", text);
    }

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(before in current(), wanted in current()) {
        let file = export("shop", &wanted);
        // A file may name what does not go together with what is there: that is refused, not half done.
        let Ok(plan_of_it) = plan(&file, &before, true) else { return Ok(()) };
        let after = after(&before, &file, &plan_of_it);
        let left = plan(&file, &after, true).map_err(|it| TestCaseError::fail(it.to_string()))?;
        prop_assert!(left.changes.is_empty(), "{:?}", left);
    }
}

/// What there is when a plan has been carried out.
fn after(before: &Current, file: &Project, done: &crate::project::Plan) -> Current {
    use crate::project::Change;
    let mut now = before.clone();
    let turn = |has: &mut Variables, set: &BTreeMap<String, String>, unset: &[String]| {
        has.extend(
            set.iter()
                .map(|(name, it)| (name.clone(), Given::Value(it.clone()))),
        );
        has.retain(|name, _| !unset.contains(name));
    };
    for change in &done.changes {
        match change {
            Change::Shared(it) => {
                let has = now.shared.entry(it.environment.clone()).or_default();
                turn(has, &it.set, &it.unset);
            }
            Change::Service(it) => {
                let made = running(it.spec.clone());
                let found = now.services.entry(it.place.clone()).or_insert(made);
                found.spec = it.spec.clone();
                found.running = Running::Current;
                turn(&mut found.variables, &it.set, &it.unset);
            }
            Change::Remove(place) => {
                now.services.remove(place);
            }
        }
    }
    assert!(file.places().iter().all(|it| now.services.contains_key(it)));
    now
}
