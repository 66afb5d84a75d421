//! Private addresses, and what is known by name.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use skep_model::network::{BLOCK, GRACE_MS};

use super::claims::{OTHER_ENVIRONMENT, service_in};
use super::*;

const HOUR_AND_MORE: u64 = GRACE_MS + 60_000;

fn drop_service(id: u128) -> Kind {
    Kind::DropService(v1::DropService {
        service: id_bytes(id),
    })
}

impl World {
    fn add(&mut self, own: bool, id: u128) -> Applied {
        let service = service_in(own, id, &format!("s{id}"), &[]);
        self.apply(put_service(&service, 0))
    }

    fn remove(&mut self, id: u128) {
        let mut service = (**self.state.service(ServiceId::from_u128(id)).expect("it")).clone();
        service.removing = true;
        let generation = service.generation;
        self.ok(put_service(&service, generation));
        self.ok(drop_service(id));
    }

    fn address(&self, id: u128) -> Option<Ipv4Addr> {
        self.state.private_address(ServiceId::from_u128(id))
    }

    fn wait(&mut self, ms: u64) {
        let later = self.state.time_ms + ms;
        let kind = Kind::SetPrivatePool(v1::SetPrivatePool {
            pool: self.state.private_pool().to_string(),
        });
        self.raw(command(later, kind));
    }
}

fn pool(text: &str) -> Kind {
    Kind::SetPrivatePool(v1::SetPrivatePool { pool: text.into() })
}

#[test]
fn an_environment_has_blocks_of_its_own_and_a_service_keeps_its_address() {
    let mut world = World::with_claims(&[]);
    let first = world.address(SERVICE.as_u128()).expect("an address");
    assert_eq!(first, Ipv4Addr::new(10, 201, 0, 1));
    for id in 200..240 {
        world.add(true, id).outcome.expect("added");
    }
    world.add(false, 300).outcome.expect("added");
    // The first block was full after 30, the second is this environment's, too.
    assert_eq!(world.address(228), Some(Ipv4Addr::new(10, 201, 0, 30)));
    assert_eq!(world.address(229), Some(Ipv4Addr::new(10, 201, 0, 33)));
    assert_eq!(world.address(300), Some(Ipv4Addr::new(10, 201, 0, 65)));
    assert_eq!(world.address(SERVICE.as_u128()), Some(first));
    assert_eq!(world.refused(pool("8.8.8.0/24")), Code::Invalid);
    world.ok(pool("10.77.0.0/24"));
    world.add(true, 400).outcome.expect("added");
    // What is free in its own block comes before a block of the new pool.
    assert_eq!(world.address(400), Some(Ipv4Addr::new(10, 201, 0, 44)));
    assert_eq!(
        State::decode(&world.state.encode()).expect("read"),
        world.state
    );
}

#[test]
fn an_address_is_nobodys_for_an_hour_after_its_service() {
    let mut world = World::with_claims(&[]);
    world.add(true, 200).outcome.expect("added");
    let was = world.address(200);
    world.remove(200);
    assert_eq!(world.address(200), None);
    world.add(true, 201).outcome.expect("added");
    assert_ne!(world.address(201), was);
    world.wait(HOUR_AND_MORE);
    assert!(world.state.has_free_addresses(world.state.time_ms));
    world.ok(Kind::PruneClaims(v1::PruneClaims {}));
    assert!(!world.state.has_free_addresses(world.state.time_ms));
    world.add(true, 202).outcome.expect("added");
    assert_eq!(world.address(202), was);
}

#[test]
fn a_pool_that_is_empty_says_so_and_what_is_over_is_had_without_pruning() {
    let mut world = World::with_claims(&[]);
    world.ok(pool("10.77.0.0/27"));
    world.add(false, 300).outcome.expect("the only block");
    world.ok(Kind::EnsureEnvironment(v1::EnsureEnvironment {
        workspace: id_bytes(WORKSPACE.as_u128()),
        project: Some(
            (&Project {
                id: PROJECT,
                workspace: WORKSPACE,
                name: "shop".into(),
            })
                .into(),
        ),
        environment: Some(
            (&Environment {
                id: EnvironmentId::from_u128(900),
                project: PROJECT,
                name: "third".into(),
            })
                .into(),
        ),
    }));
    let third = Service {
        environment: EnvironmentId::from_u128(900),
        ..service_in(true, 301, "third", &[])
    };
    let refused = world
        .apply(put_service(&third, 0))
        .outcome
        .expect_err("full");
    assert_eq!(refused.code, Code::TooLarge);
    assert!(refused.hint.is_some(), "{refused}");
    assert!(world.state.service(third.id).is_none());
    world.remove(300);
    world.wait(HOUR_AND_MORE);
    world.ok(put_service(&third, 0));
    assert_eq!(world.address(301), Some(Ipv4Addr::new(10, 77, 0, 1)));
}

#[test]
fn names_have_what_is_healthy_of_their_environment_alone() {
    let (mut world, allocation) = World::with_live_release();
    world.observe(allocation, Seen::Healthy);
    let names = world.state.names_of(ENVIRONMENT);
    let name = &world.service().name.clone();
    let backends = &names.services[name].backends;
    assert_eq!(backends.len(), 1, "{names:?}");
    assert_eq!(
        (backends[0].node, backends[0].allocation),
        (NODE, allocation)
    );
    assert_eq!(world.state.environments_on(NODE), [ENVIRONMENT].into());
    let other = world
        .state
        .names_of(EnvironmentId::from_u128(OTHER_ENVIRONMENT));
    assert!(other.services.is_empty());
    let applied = world.apply(observe(NODE, allocation, Seen::Unhealthy));
    assert!(applied.changes.contains(&crate::Change::Names(ENVIRONMENT)));
    let names = world.state.names_of(ENVIRONMENT);
    assert!(names.services[name].backends.is_empty());
}

#[test]
fn callers_are_nodes_with_private_networks_and_what_they_wait_for_has_an_index() {
    let (mut world, allocation) = World::with_live_release();
    world.observe(allocation, Seen::Healthy);
    assert!(world.state.callers_in(ENVIRONMENT).is_empty());
    let facts = skep_model::node::Facts {
        private_network: true,
        ..world.state.node(NODE).expect("it").facts.clone()
    };
    world.ok(Kind::UpdateNode(v1::UpdateNode {
        node: id_bytes(NODE.as_u128()),
        facts: Some((&facts).into()),
    }));
    assert_eq!(world.state.callers_in(ENVIRONMENT), [NODE].into());
    let elsewhere = EnvironmentId::from_u128(OTHER_ENVIRONMENT);
    assert!(world.state.callers_in(elsewhere).is_empty());
    assert_eq!(world.state.withdrawn_in(ENVIRONMENT), 0);
    world.desire(allocation, Desired::Drain);
    let index = world.state.withdrawn_in(ENVIRONMENT);
    assert_eq!(index, world.index);
    assert_eq!(world.state.withdrawn_in(elsewhere), 0);
    // Nobody waits for what is stopped.
    world.desire(allocation, Desired::Stop);
    assert_eq!(world.state.withdrawn_in(ENVIRONMENT), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_two_services_share_an_address_and_no_two_environments_a_block(
        steps in proptest::collection::vec((any::<bool>(), 0_u128..40, any::<bool>()), 1..80),
    ) {
        let mut world = World::with_claims(&[]);
        let mut had = std::collections::BTreeMap::new();
        for (own, number, is_removal) in steps {
            let id = 200 + number * 2 + u128::from(own);
            let is_there = world.state.service(ServiceId::from_u128(id)).is_some();
            match (is_removal, is_there) {
                (true, true) => {
                    world.remove(id);
                    had.remove(&id);
                }
                (false, false) => {
                    world.add(own, id).outcome.expect("added");
                    had.insert(id, world.address(id));
                }
                _ => world.wait(GRACE_MS / 4),
            }
            for (id, address) in &had {
                prop_assert_eq!(&world.address(*id), address);
            }
            let live: Vec<_> = had.values().flatten().collect();
            let distinct: BTreeSet<_> = live.iter().collect();
            prop_assert_eq!(distinct.len(), had.len());
            let mut owners = std::collections::BTreeMap::new();
            for held in world.state.private_addresses() {
                let block = u32::from(held.address) / BLOCK;
                let owner = owners.entry(block).or_insert(held.environment);
                prop_assert_eq!(*owner, held.environment);
            }
        }
        let read = State::decode(&world.state.encode()).expect("read");
        prop_assert_eq!(read, world.state);
    }
}
