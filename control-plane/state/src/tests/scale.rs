//! Figures, not laws: `cargo test --release -p skep-state scale -- --ignored --nocapture`.

#![expect(clippy::disallowed_methods, reason = "measures")]

use super::*;
use crate::{Key, with_key};

const NODES: u128 = 10_000;
const SERVICES: u128 = 1_000;
const ALLOCATIONS: u128 = 100_000;
/// Commands between two views, as a busy log gives them out.
const BATCH: usize = 100;
/// Allocations in one plan.
const PLAN: usize = 100;

/// Time on the processor: what else the machine does is left out.
struct Busy(f64);

impl Busy {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        let ns = text.split(' ').next().and_then(|first| first.parse().ok());
        Self(ns.unwrap_or(f64::NAN) / 1e9)
    }

    fn elapsed(&self) -> f64 {
        Self::now().0 - self.0
    }
}

fn meta(node: u128, value: &str) -> Kind {
    Kind::SetNodeMeta(v1::SetNodeMeta {
        node: id_bytes(node),
        set: BTreeMap::from([("bench".into(), value.into())]),
        unset: Vec::new(),
    })
}

fn big() -> World {
    let mut world = World::with_service();
    for node in 0..NODES {
        world.join(NodeId::from_u128(10_000 + node), &format!("node-{node}"));
        world.ok(Kind::UpdateNode(v1::UpdateNode {
            node: id_bytes(10_000 + node),
            facts: Some(
                (&Facts {
                    hostname: format!("node-{node}.lan"),
                    architecture: "x86_64".into(),
                    kernel: "6.1.0-31-cloud-amd64".into(),
                    docker_version: "20.10.24".into(),
                    agent_version: "0.1.0".into(),
                    ..Facts::default()
                })
                    .into(),
            ),
        }));
    }
    for number in 0..SERVICES {
        let id = ServiceId::from_u128(100_000 + number);
        let one = Service {
            id,
            name: format!("service-{number}"),
            ..service()
        };
        world.ok(put_service(&one, 0));
        let deployment = DeploymentId::from_u128(200_000 + number);
        world.state.put_deployment(Deployment {
            id: deployment,
            service: id,
            status: Status::Live,
            ..origin(deployment)
        });
        let one = Release {
            service: id,
            ..release(1, deployment)
        };
        world.state.releases.insert((id, 1), one.into());
    }
    place(&mut world);
    world.log.clear();
    world
}

fn origin(id: DeploymentId) -> Deployment {
    let Kind::CreateDeployment(message) = create(id, None) else {
        unreachable!("made so");
    };
    let message = message.deployment.expect("made so");
    message.try_into().expect("means something")
}

fn place(world: &mut World) {
    let ids: Vec<u128> = (0..ALLOCATIONS).collect();
    for plan in ids.chunks(PLAN) {
        let starts = plan.iter().map(|number| {
            let service = number % SERVICES;
            let target = Target {
                release: 1,
                deployment: DeploymentId::from_u128(200_000 + service),
            };
            let Kind::ApplyPlan(one) = start(
                &world.state,
                AllocationId::from_u128(1_000_000 + number),
                target,
            ) else {
                unreachable!("made so");
            };
            v1::Allocation {
                service: id_bytes(100_000 + service),
                node: id_bytes(10_000 + number % NODES),
                ..one.starts[0].clone()
            }
        });
        world.ok(Kind::ApplyPlan(v1::ApplyPlan {
            starts: starts.collect(),
            ..v1::ApplyPlan::default()
        }));
    }
}

fn rate(world: &mut World, what: &str, commands: &[Vec<u8>]) {
    let begun = Busy::now();
    let mut view = world.state.clone();
    for batch in commands.chunks(BATCH) {
        for one in batch {
            world.index += 1;
            let applied = world.state.apply(world.index, one);
            assert!(applied.outcome.is_ok());
        }
        view = world.state.clone();
    }
    assert_eq!(view.index(), world.index);
    println!("{what}: {:.0}/s", commands.len() as f64 / begun.elapsed());
}

#[test]
#[ignore = "takes a minute; figures only"]
fn scale() {
    let mut world = big();
    let begun = Busy::now();
    let bytes = world.state.encode();
    println!(
        "encode: {:.3} s, {} KiB",
        begun.elapsed(),
        bytes.len() >> 10
    );
    let begun = Busy::now();
    let read = State::decode(&bytes).expect("decodes");
    println!("decode: {:.3} s", begun.elapsed());
    assert!(read == world.state);
    drop(read);
    let value = "v".repeat(200);
    let scattered = |number: u128| 10_000 + number * 7_919 % NODES;
    let plain: Vec<_> = (0..500_000)
        .map(|n| command(1, meta(scattered(n), &format!("{n}{value}"))))
        .collect();
    rate(&mut world, "metadata of all nodes", &plain);
    let one: Vec<_> = (0..500_000)
        .map(|n| command(1, meta(10_000 + n % 16, &format!("{n}{value}"))))
        .collect();
    rate(&mut world, "metadata of 16 nodes", &one);
    let since = world.state.index();
    let own = |key: u128| Key::Own {
        key: key.to_be_bytes(),
        since: since + 10_000_000,
    };
    let keyed: Vec<_> = (0u128..)
        .zip(&plain)
        .map(|(n, bytes)| {
            with_key(
                bytes.clone(),
                own(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834)),
            )
        })
        .collect();
    rate(&mut world, "the same with keys", &keyed);
    let seen = |n: u128, state| {
        observe(
            NodeId::from_u128(10_000 + n % NODES),
            AllocationId::from_u128(1_000_000 + n % ALLOCATIONS),
            state,
        )
    };
    let observed: Vec<_> = (0..300_000)
        .map(|n| {
            command(
                1,
                seen(
                    n,
                    if n < 100_000 {
                        Seen::Healthy
                    } else {
                        Seen::Unhealthy
                    },
                ),
            )
        })
        .collect();
    rate(&mut world, "observations", &observed);
}
