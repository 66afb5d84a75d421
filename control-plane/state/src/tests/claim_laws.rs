//! Laws of claims that hold after any sequence of commands.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use skep_model::claim::GRACE_MS;

use super::claims::{service_in, set_base};
use super::*;

const HOSTS: [&str; 6] = [
    "a.test",
    "*.a.test",
    "b.a.test",
    "s0-production-shop.localhost",
    "s1-production-blog.apps.test",
    "free.localhost",
];
const PATHS: [&str; 3] = ["/", "/x", "/x/y/"];

/// What somebody does.
#[derive(Debug, Clone)]
enum Step {
    /// One of four services, two of each project, with these hosts and paths.
    Put(u8, Vec<(usize, usize)>),
    Drop(u8),
    Wait(u64),
    Base(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let places = prop::collection::vec((0..HOSTS.len(), 0..PATHS.len()), 0..3);
    prop_oneof![
        6 => (0..4u8, places).prop_map(|(who, places)| Step::Put(who, places)),
        1 => (0..4u8).prop_map(Step::Drop),
        1 => prop_oneof![Just(1_000), Just(GRACE_MS)].prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Base),
    ]
}

fn take(world: &mut World, step: &Step) {
    let id = |who: u8| ServiceId::from_u128(600 + u128::from(who));
    match step {
        Step::Put(who, places) => {
            let places: BTreeSet<(&str, &str)> = places
                .iter()
                .map(|(host, path)| (HOSTS[*host], PATHS[*path]))
                .collect();
            let places: Vec<(&str, &str)> = places.into_iter().collect();
            let name = format!("s{who}");
            let wanted = service_in(who % 2 == 0, id(*who).as_u128(), &name, &places);
            let generation = world
                .state
                .service(id(*who))
                .map_or(0, |one| one.generation);
            let _ = world.apply(put_service(&wanted, generation));
        }
        Step::Drop(who) => {
            let Some(service) = world.state.service(id(*who)).cloned() else {
                return;
            };
            let removing = Service {
                removing: true,
                ..(*service).clone()
            };
            world.ok(put_service(&removing, service.generation));
            world.ok(Kind::DropService(v1::DropService {
                service: id_bytes(id(*who).as_u128()),
            }));
        }
        Step::Wait(ms) => {
            let then = world.state.time_ms() + ms;
            let tick = command(then, Kind::PruneClaims(v1::PruneClaims {}));
            world.raw(tick).outcome.expect("accepted");
        }
        Step::Base(own) => {
            let base = own.then_some("apps.test");
            let environment = EnvironmentId::from_u128(super::claims::OTHER_ENVIRONMENT);
            let _ = world.apply(set_base(environment, base));
        }
    }
}

fn check(state: &State) -> Result<(), TestCaseError> {
    let mut places = BTreeSet::new();
    let mut generated = BTreeSet::new();
    for service in state.services() {
        let own = state.host_of(service);
        prop_assert!(generated.insert(own.clone()), "{} is two services'", own);
        let project = state
            .environment(service.environment)
            .map(|one| one.project);
        for route in &service.spec.routes {
            let host = route.host.clone().expect("each has one");
            let place = (host.clone(), route.prefix().to_owned());
            prop_assert!(
                places.insert(place.clone()),
                "{:?} leads to two services",
                place
            );
            if host == own {
                continue;
            }
            let claim = state.claims().find(|claim| claim.host == host);
            let claim = claim.ok_or_else(|| TestCaseError::fail(format!("{host} is nobody's")))?;
            prop_assert_eq!(Some(claim.project), project, "{}", host);
            prop_assert_eq!(claim.released_ms, None, "{}", host);
        }
    }
    for claim in state.claims() {
        let has_route = places.iter().any(|(host, _)| *host == claim.host);
        prop_assert_eq!(claim.released_ms.is_none(), has_route, "{:?}", claim);
    }
    for (host, _) in &places {
        let twins = generated.iter().filter(|own| *own == host).count();
        let own = |one: &Arc<Service>| {
            state.host_of(one) == *host
                && one
                    .spec
                    .routes
                    .iter()
                    .any(|route| route.host.as_ref() == Some(host))
        };
        prop_assert!(
            twins == 0 || state.services().any(own),
            "{} is generated",
            host
        );
    }
    let read = State::decode(&state.encode()).expect("decodes");
    prop_assert_eq!(&read, state);
    Ok(())
}

proptest! {
    // A failure is kept as a named test, not as a seed beside the code.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_host_is_one_projects_and_a_place_one_services(steps in prop::collection::vec(any_step(), 1..25)) {
        let mut world = World::with_claims(&[]);
        for step in &steps {
            take(&mut world, step);
            check(&world.state)?;
        }
    }
}
