use crate::autoscale::Autoscale;
use crate::placement::Placement;
use crate::routing::RouteSpec;
use crate::run::{Mode, Run};
use crate::spec::{ServiceSpec, ServiceType};
use crate::storage::{HostPath, Storage, Volume};
use crate::tcp::TcpSpec;

use super::*;

const COPIED: Copied = Copied {
    idle_ms: DEFAULT_IDLE_MS,
    is_fork: false,
};

fn production() -> ServiceSpec {
    ServiceSpec {
        domains: vec!["shop.example.com".into()],
        routes: vec![
            RouteSpec {
                host: Some("www.example.com".into()),
                path: "/".into(),
                ..RouteSpec::default()
            },
            RouteSpec {
                path: "/admin".into(),
                ..RouteSpec::default()
            },
        ],
        replicas: 5,
        autoscale: Some(Autoscale {
            max: 20,
            ..Autoscale::default()
        }),
        placement: Placement::default(),
        ..ServiceSpec::default()
    }
}

#[test]
fn a_copy_is_small_and_has_nothing_that_is_productions_alone() {
    let copy = adapted(&production(), COPIED);
    assert!(copy.domains.is_empty() && copy.hosts().is_empty());
    assert_eq!(
        copy.routes.len(),
        1,
        "of its generated name: {:?}",
        copy.routes
    );
    let autoscale = copy.autoscale.as_ref().expect("it sleeps");
    assert_eq!((copy.replicas, autoscale.max), (1, 1));
    let idle = autoscale.scale_to_zero.map(|it| it.idle_ms);
    assert_eq!(idle, Some(DEFAULT_IDLE_MS));
    assert_eq!(copy.check_given(), Ok(()));
    assert_eq!(adapted(&copy, COPIED), copy, "twice is once");
    let awake = Copied {
        idle_ms: 0,
        ..COPIED
    };
    assert_eq!(adapted(&production(), awake).autoscale, None);
}

#[test]
fn a_database_keeps_its_volumes_and_never_sleeps() {
    let database = ServiceSpec {
        kind: ServiceType::Worker,
        tcp: vec![TcpSpec {
            port: 5432,
            entry: Some(15432),
            ..TcpSpec::default()
        }],
        storage: Storage {
            volumes: vec![Volume {
                name: "data".into(),
                path: "/data".into(),
                owner: None,
                size_bytes: 0,
                read_only: false,
                storage: None,
            }],
            host_paths: vec![HostPath {
                host: "/srv/certs".into(),
                path: "/certs".into(),
                read_only: true,
            }],
            ..Storage::default()
        },
        ..ServiceSpec::default()
    };
    assert_eq!(database.check_given(), Ok(()));
    let copy = adapted(&database, COPIED);
    assert_eq!(copy.storage.volumes, database.storage.volumes);
    assert!(copy.storage.host_paths.is_empty() && copy.tcp.is_empty());
    assert_eq!((copy.port, &copy.autoscale), (Some(5432), &None));
    assert_eq!(copy.check_given(), Ok(()));
}

#[test]
fn what_is_due_by_the_clock_waits_and_strangers_get_no_names_of_secrets() {
    let cron = ServiceSpec {
        kind: ServiceType::Worker,
        run: Run {
            mode: Mode::Cron,
            schedule: Some("@daily".into()),
            ..Run::default()
        },
        ..ServiceSpec::default()
    };
    assert!(adapted(&cron, COPIED).run.paused);
    let mut web = production();
    web.build.secrets = ["NPM_TOKEN".to_owned()].into();
    web.fetch.ssh_key = Some("DEPLOY_KEY".into());
    web.fetch.known_hosts = Some("h ssh-ed25519 AAAA".into());
    let own = adapted(&web, COPIED);
    assert_eq!(
        (&own.build.secrets, &own.fetch),
        (&web.build.secrets, &web.fetch)
    );
    let fork = Copied {
        is_fork: true,
        ..COPIED
    };
    let theirs = adapted(&web, fork);
    assert!(theirs.build.secrets.is_empty() && theirs.fetch.is_silent());
}

#[test]
fn each_bound_of_the_rules_is_named() {
    let rules = |change: fn(&mut Rules)| {
        let mut rules = Rules::new(EnvironmentId::from_u128(1));
        change(&mut rules);
        rules.check().err().and_then(|problem| problem.field)
    };
    assert_eq!(rules(|_| {}), None);
    assert_eq!(rules(|it| it.idle_ms = 0), None);
    type Change = fn(&mut Rules);
    let cases: [(Change, &str); 7] = [
        (|it| it.ttl_ms = 1, "ttl"),
        (|it| it.max = 0, "max"),
        (|it| it.idle_ms = 1, "idle"),
        (|it| it.services = ["A b".to_owned()].into(), "services"),
        (|it| it.base_domain = Some("*.x".into()), "base_domain"),
        (
            |it| {
                it.seed = Some(Seed {
                    service: "db".into(),
                    command: Vec::new(),
                })
            },
            "seed.command",
        ),
        (
            |it| {
                it.services.insert("web".into());
                it.seed = Some(Seed {
                    service: "db".into(),
                    command: vec!["seed".into()],
                })
            },
            "seed.service",
        ),
    ];
    for (change, field) in cases {
        assert_eq!(rules(change).as_deref(), Some(field));
    }
}

#[test]
fn who_does_not_say_when_is_believed() {
    let request = |heard_ms| Request {
        repository: "r".into(),
        number: 1,
        is_fork: false,
        title: String::new(),
        url: None,
        heard_ms,
    };
    assert!(request(Some(5)).is_stale(Some(4)));
    assert!(!request(Some(5)).is_stale(Some(5)) && !request(Some(5)).is_stale(None));
    assert!(!request(None).is_stale(Some(1)));
}
