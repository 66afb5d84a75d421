//! What goes in comes out, and rubbish is refused by the field's name.

use std::collections::BTreeMap;

use prost::Message as _;
use skep_model::allocation::{Allocation, Desired, Observed, State};
use skep_model::deployment::{
    Build, BuildOutcome, Built, Deployment, Origin, Status, Step, Trigger,
};
use skep_model::id::{AllocationId, DeploymentId, EnvironmentId, NodeId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::{Image, Service, Target};
use skep_model::spec::{Builder, ServiceSpec, Source};
use skep_model::variable::{Sealed, Variable};

use super::*;

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
        last_release: 3,
        stopped: true,
        removing: false,
        generation: 7,
        created_ms: 8,
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
