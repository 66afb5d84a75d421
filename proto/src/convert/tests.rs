//! What goes in comes out, and rubbish is refused by the field's name.

use std::collections::BTreeMap;

use prost::Message as _;
use skep_model::allocation::{Allocation, Desired, Observed, State};
use skep_model::autoscale::{Autoscale, Mode, ScaleToZero, Sizing, Window};
use skep_model::container::Container;
use skep_model::deployment::{
    Build, BuildOutcome, Built, Deployment, Origin, Status, Step, Trigger,
};
use skep_model::forge::{Kept, Told};
use skep_model::gate::{Held, Pin};
use skep_model::health::{Check, Health, Probe};
use skep_model::hooks::{Hooks, Init, PreStop};
use skep_model::id::{AllocationId, DeploymentId, EnvironmentId, NodeId, ServiceId};
use skep_model::image_push::Push;
use skep_model::node::{Admin, Facts, Node, NodeStatus};
use skep_model::notify::Standing;
use skep_model::placement::{CutOff, Placement, Strategy};
use skep_model::problem::{Code, Problem};
use skep_model::pushes::{Pushes, WaitForCi};
use skep_model::rollout::{self, Analysis, CanaryStep, Phase, Policy, Progress, Promote};
use skep_model::service::{Image, Service, Target};
use skep_model::spec::{Builder, Resources, ServiceSpec, Source};
use skep_model::variable::{Sealed, Variable};

use super::*;

/// Every field has a value of its own.
fn placement() -> Placement {
    Placement {
        pool: Some("web".into()),
        constraints: vec!["tier = pro".parse().expect("a rule")],
        relaxed: true,
        spread: vec!["zone a=60%,b=40% max-skew 2".parse().expect("a spread")],
        max_per: vec!["1 per host".parse().expect("a limit")],
        affinities: vec!["with db on host weight -5".parse().expect("an affinity")],
        strategy: Some(Strategy::Balanced),
        ports: vec![80],
        dynamic_ports: 3,
        devices: [("gpu".to_owned(), 2)].into(),
        architectures: vec!["aarch64".into()],
        private_network: true,
        priority: -10,
        max_unavailable: Some(0),
        cut_off: CutOff::Stop { after_ms: 30_000 },
    }
}

#[test]
fn a_node_survives_the_bytes_in_every_state() {
    for admin in [
        Admin::Eligible,
        Admin::Cordoned,
        Admin::Draining { deadline_ms: 0 },
    ] {
        let before = Node {
            id: NodeId::from_u128(1),
            name: "n".into(),
            facts: Facts {
                devices: [("gpu".to_owned(), 2)].into(),
                private_network: true,
                storage: true,
                volumes: vec![skep_model::storage::HeldVolume {
                    service: ServiceId::from_u128(7),
                    name: "data".into(),
                }],
                host_paths: vec!["/srv".into()],
                shared_storage: vec!["ceph".into()],
                ..Facts::default()
            },
            status: NodeStatus::Lost,
            status_ms: 1,
            generation: 2,
            joined_ms: 3,
            seat: 77,
            witnesses: vec![NodeId::from_u128(8), NodeId::from_u128(9)],
            fencing: skep_model::node::Fencing {
                incarnation: 3,
                fenced: Some(skep_model::node::Fenced {
                    at_ms: 4,
                    by: "pve".into(),
                    why: "it was stopped".into(),
                }),
                waits: Some("its host is away".into()),
            },
            meta: [("zone".to_owned(), "a".to_owned())].into(),
            admin,
        };
        let bytes = v1::Node::from(&before).encode_to_vec();
        let after = v1::Node::decode(&*bytes).expect("decodes");
        assert_eq!(Node::try_from(after), Ok(before));
    }
}

#[test]
fn a_placement_that_asks_nothing_has_no_bytes_and_rubbish_names_its_field() {
    let mut spec = ServiceSpec::default();
    assert_eq!(v1::ServiceSpec::from(&spec).placement, None);
    spec.placement = placement();
    let mut message = v1::ServiceSpec::from(&spec);
    assert_eq!(ServiceSpec::try_from(message.clone()), Ok(spec));
    let stored = message.placement.as_mut().expect("it asks");
    stored.constraints.push("no rule".into());
    assert_eq!(ServiceSpec::try_from(message), Err(error("constraints")));
}

#[test]
fn every_phase_survives_the_bytes_and_a_plain_rollout_has_none() {
    let phases = [
        Phase::Rolling,
        Phase::Canary { step: 0 },
        Phase::Trial,
        Phase::Kept { until_ms: 0 },
        Phase::Before,
    ];
    for phase in phases {
        let progress = Progress {
            phase,
            ..Progress::default()
        };
        let service = Service {
            progress,
            ..service()
        };
        let bytes = v1::Service::from(&service).encode_to_vec();
        let message = v1::Service::decode(&*bytes).expect("decodes");
        assert_eq!(message.progress.is_none(), phase == Phase::Rolling);
        assert_eq!(Service::try_from(message), Ok(service));
    }
    assert_eq!(v1::ServiceSpec::from(&ServiceSpec::default()).rollout, None);
}

fn container() -> Container {
    Container {
        user: Some("1:2".into()),
        read_only: true,
        cap_add: ["NET_RAW".to_owned()].into(),
        cap_drop: ["ALL".to_owned()].into(),
        pids: 7,
        swap_bytes: 8,
        ulimits: [("nofile".to_owned(), "1:2".parse().expect("a limit"))].into(),
        tmpfs: [("/tmp".to_owned(), 9)].into(),
        shm_bytes: 10,
        sysctls: [("kernel.sem".to_owned(), "1 2".to_owned())].into(),
        init: false,
        stop_signal: Some("SIGINT".into()),
    }
}

fn hooks() -> Hooks {
    Hooks {
        release: vec!["migrate".into()],
        release_timeout_ms: 1,
        init: vec![Init {
            command: vec!["wait".into()],
            timeout_ms: 2,
        }],
        pre_stop: Some(PreStop::Http("/quit".into())),
    }
}

fn health() -> Health {
    let probe = |check| Probe {
        check,
        port: Some(1),
        interval_ms: 2,
        timeout_ms: 3,
        failures: 4,
    };
    Health {
        check: Some(Check::Grpc("a.B".into())),
        port: Some(9),
        startup: Some(probe(Check::Log("up".into()))),
        liveness: Some(probe(Check::Exec(vec!["x".into()]))),
        ..Health::default()
    }
}

#[test]
fn every_kind_of_check_and_hook_survives() {
    let checks = [
        Check::Http("/a".into()),
        Check::Https("/b".into()),
        Check::Tcp,
        Check::Grpc(String::new()),
        Check::Exec(vec!["c".into(), "d".into()]),
        Check::Log("e".into()),
    ];
    for check in checks {
        let bytes = v1::HealthCheck::from(&check).encode_to_vec();
        let message = v1::HealthCheck::decode(&*bytes).expect("decodes");
        assert_eq!(Check::try_from(message), Ok(check));
    }
    let spec = v1::ServiceSpec::from(&ServiceSpec::default());
    assert_eq!((spec.container, spec.hooks), (None, None));
    let exec = Hooks {
        pre_stop: Some(PreStop::Exec(vec!["f".into()])),
        ..Hooks::default()
    };
    let spec = ServiceSpec {
        hooks: exec,
        ..ServiceSpec::default()
    };
    let bytes = v1::ServiceSpec::from(&spec).encode_to_vec();
    let message = v1::ServiceSpec::decode(&*bytes).expect("decodes");
    assert_eq!(ServiceSpec::try_from(message), Ok(spec));
}

fn service() -> Service {
    let target = Target {
        release: 3,
        deployment: DeploymentId::from_u128(9),
    };
    Service {
        id: ServiceId::from_u128(1),
        environment: EnvironmentId::from_u128(2),
        name: "web".into(),
        spec: ServiceSpec {
            source: Some(Source::Git {
                repository: "r".into(),
                branch: "b".into(),
                directory: "d".into(),
            }),
            builder: Some(Builder::Nixpacks),
            port: Some(3000),
            domains: vec!["a.b".into()],
            routes: vec![super::route::tests::route()],
            placement: placement(),
            container: container(),
            hooks: hooks(),
            pushes: Pushes {
                watch: vec!["api/**".into()],
                tags: Some("v*".into()),
                poll_ms: Some(60_000),
                statuses: Some(false),
                wait_for_ci: Some(WaitForCi {
                    deadline_ms: 120_000,
                }),
            },
            health: health(),
            rollout: Policy {
                strategy: rollout::Strategy::Canary,
                max_unavailable: 2,
                promote: Promote::Manual,
                keep_ms: 3,
                steps: vec![
                    CanaryStep {
                        percent: 4,
                        pause_ms: Some(0),
                    },
                    CanaryStep {
                        percent: 5,
                        pause_ms: None,
                    },
                ],
                analysis: Analysis {
                    off: true,
                    errors_percent: 6,
                    slow_percent: 7,
                },
            },
            resources: Resources {
                memory_limit_bytes: 1 << 31,
                disk_bytes: 5,
                ..Resources::default()
            },
            ..ServiceSpec::default()
        },
        variables: BTreeMap::from([(
            "A".into(),
            Variable {
                value: Sealed(vec![1, 2]),
                secret: true,
            },
        )]),
        webhook_secret: Some(Sealed(vec![])),
        live: Some(target),
        rollout: None,
        progress: Progress {
            phase: Phase::Kept { until_ms: 0 },
            since_ms: 4,
            paused: true,
        },
        last_release: 3,
        stopped: true,
        removing: false,
        generation: 7,
        created_ms: 8,
        scaling: None,
        pinned: Some(Pin {
            reason: "as it is".into(),
            since_ms: 9,
        }),
    }
}

#[test]
fn a_service_survives_the_bytes() {
    let before = service();
    let bytes = v1::Service::from(&before).encode_to_vec();
    let after: Service = v1::Service::decode(&*bytes)
        .expect("decodes")
        .try_into()
        .expect("means something");
    assert_eq!(after, before);
}

#[test]
fn a_deployment_survives_the_bytes() {
    let image = Image {
        reference: "a:b".into(),
        digest: "sha256:c".into(),
        node: Some(NodeId::from_u128(5)),
        shared: true,
        bundle: true,
        pushed: Some("r:5000/a/b@sha256:c".into()),
    };
    for outcome in [
        None,
        Some(BuildOutcome::Failed(Problem::invalid("f", "m").hint("h"))),
        Some(BuildOutcome::Built(Built {
            image,
            exposed: vec![80],
            commit: None,
            manifest: Some(String::new()),
        })),
    ] {
        let before = Deployment {
            id: DeploymentId::from_u128(1),
            service: ServiceId::from_u128(2),
            trigger: Trigger::Webhook,
            origin: Origin::Git {
                repository: "r".into(),
                branch: "b".into(),
                commit: Some("c".into()),
                directory: String::new(),
            },
            status: Status::Building,
            problem: Some(Problem::new(Code::Busy, "x")),
            build: Some(Build {
                node: NodeId::from_u128(5),
                outcome,
                lost: 1,
            }),
            release: None,
            steps: vec![Step {
                at_ms: 1,
                text: "t".into(),
            }],
            created_ms: 1,
            status_ms: 2,
            generation: 3,
            source: Some(Source::Image {
                reference: "i".into(),
            }),
            no_cache: true,
            told: Some(Told {
                status: Status::Building,
                standing: Standing::Pending { next_ms: 9 },
                attempts: 2,
                since_ms: 7,
                at_ms: 8,
            }),
            held: Some(Held {
                approved_ms: Some(4),
                despite_freeze: true,
                heard: 3,
            }),
            shown: Some(Kept {
                id: Some(7),
                digest: u64::MAX,
                standing: Standing::GivenUp,
                attempts: 2,
                since_ms: 7,
                at_ms: 8,
                problem: Some("403".into()),
            }),
            push: Some(Push {
                reference: "r:5000/a:c".into(),
                digest: None,
                problem: Some(Problem::new(Code::Busy, "y")),
                attempts: 1,
                at_ms: 4,
                next_ms: 5,
            }),
        };
        let after: Deployment = v1::Deployment::from(&before)
            .try_into()
            .expect("means something");
        assert_eq!(after, before);
    }
}

#[test]
fn every_enum_number_comes_back() {
    for state in State::ALL {
        let before = Observed {
            state,
            ..Observed::pending()
        };
        assert_eq!(Observed::try_from(v1::Observed::from(&before)), Ok(before));
    }
    assert_eq!(enum_value("state", &State::ALL, 0), Err(error("state")));
    assert_eq!(enum_value("state", &State::ALL, 11), Err(error("state")));
}

#[test]
fn rubbish_names_the_field() {
    let good = Allocation {
        id: AllocationId::from_u128(1),
        service: ServiceId::from_u128(2),
        target: Target {
            release: 1,
            deployment: DeploymentId::from_u128(3),
        },
        node: NodeId::from_u128(4),
        desired: Desired::Drain,
        reason: "r".into(),
        desired_ms: 5,
        desired_index: 6,
        observed: Observed::pending(),
        observed_ms: 7,
        created_ms: 8,
        job: None,
    };
    let message = v1::Allocation::from(&good);
    assert_eq!(Allocation::try_from(message.clone()), Ok(good));
    let broken = v1::Allocation {
        node: vec![1],
        ..message.clone()
    };
    assert_eq!(Allocation::try_from(broken), Err(error("node")));
    let broken = v1::Allocation {
        target: None,
        ..message
    };
    assert_eq!(Allocation::try_from(broken), Err(error("target")));
}

#[test]
fn an_autoscaler_survives_the_bytes_and_rubbish_names_its_field() {
    let autoscale = Autoscale {
        min: 2,
        max: 40,
        targets: vec![
            "cpu=70%".parse().expect("a target"),
            "custom:jobs=3".parse().expect("a target"),
        ],
        schedules: vec![Window {
            from: "0 8 * * *".into(),
            to: "0 18 * * *".into(),
            time_zone: "Europe/Berlin".into(),
            min: Some(3),
            max: None,
        }],
        scale_to_zero: Some(ScaleToZero { idle_ms: 7_000 }),
        up: "100% or 4/15s".parse().expect("a rate"),
        down: "never".parse().expect("a rate"),
        tolerance_up_percent: 1,
        tolerance_down_percent: 2,
        stable_window_ms: 30_000,
        burst_window_ms: 4_000,
        down_window_ms: 5_000,
        sizing: Some(Sizing {
            mode: Mode::Apply,
            ..Sizing::default()
        }),
    };
    let spec = ServiceSpec {
        autoscale: Some(autoscale),
        ..ServiceSpec::default()
    };
    let mut message = v1::ServiceSpec::from(&spec);
    assert_eq!(ServiceSpec::try_from(message.clone()), Ok(spec));
    let stored = message.autoscale.as_mut().expect("it has one");
    stored.targets.push("no target".into());
    assert_eq!(ServiceSpec::try_from(message), Err(error("targets")));
}

#[test]
fn what_is_mounted_round_trips_and_is_absent_where_there_is_nothing() {
    use skep_model::storage::{FileMode, HostPath, SecretFile, Storage, Volume};

    let spec = ServiceSpec {
        storage: Storage {
            volumes: vec![Volume {
                name: "data".into(),
                path: "/data".into(),
                owner: Some("1000:999".parse().expect("an owner")),
                size_bytes: 1 << 30,
                read_only: true,
                storage: Some("ceph".into()),
            }],
            host_paths: vec![HostPath {
                host: "/srv/media".into(),
                path: "/media".into(),
                read_only: true,
            }],
            secrets: vec![SecretFile {
                variable: "KEY".into(),
                path: "/run/secrets/key".into(),
                mode: FileMode(0o440),
                owner: None,
            }],
        },
        ..ServiceSpec::default()
    };
    let mut message = v1::ServiceSpec::from(&spec);
    assert_eq!(ServiceSpec::try_from(message.clone()), Ok(spec));
    let storage = message.storage.as_mut().expect("it has some");
    storage.volumes[0].owner = "nobody".into();
    assert_eq!(
        ServiceSpec::try_from(message).expect_err("odd").field,
        "owner"
    );
    assert_eq!(v1::ServiceSpec::from(&ServiceSpec::default()).storage, None);
}
