//! Routes whose requests several services share.

use skep_model::route::Route;
use skep_model::routing::{RouteSpec, Split};

use super::claims::sibling;
use super::*;

const NEXT: ServiceId = ServiceId::from_u128(60);
const OLD_ONE: AllocationId = AllocationId::from_u128(100);
const NEW_ONE: AllocationId = AllocationId::from_u128(101);

/// The same command about the other service.
fn of_next(state: &State, mut kind: Kind) -> Kind {
    let id = id_bytes(NEXT.as_u128());
    match &mut kind {
        Kind::CreateDeployment(it) => it.deployment.as_mut().expect("one").service = id,
        Kind::StartRollout(it) => {
            it.release.as_mut().expect("one").service = id;
            it.expected_service_generation = state.service(NEXT).expect("it").generation;
        }
        Kind::ApplyPlan(it) => it.starts[0].service = id,
        other => panic!("{other:?}"),
    }
    kind
}

fn with_split(shares: &[(&str, u32)]) -> ServiceSpec {
    let share = |(service, weight): &(&str, u32)| Split {
        service: (*service).into(),
        weight: *weight,
    };
    ServiceSpec {
        routes: vec![RouteSpec {
            host: Some("a.com".into()),
            split: shares.iter().map(share).collect(),
            ..RouteSpec::default()
        }],
        ..ServiceSpec::default()
    }
}

impl World {
    fn split(&mut self, shares: &[(&str, u32)]) {
        let next = Service {
            spec: with_split(shares),
            ..self.service().clone()
        };
        self.ok(put_service(&next, next.generation));
    }

    fn at_a_com(&self) -> Route {
        let routes = self.state.route_table().routes;
        let mut at = routes.into_iter().filter(|route| route.host == "a.com");
        at.next().expect("routed")
    }

    /// Weight and allocations of each part.
    fn shares(&self) -> Vec<(u32, Vec<AllocationId>)> {
        let parts = self.at_a_com().parts.into_iter();
        parts.map(|part| (part.weight, part.allocations)).collect()
    }

    /// Release 1 of the other service, with an allocation that is not healthy yet.
    fn begin_next(&mut self) -> DeploymentId {
        let id = DeploymentId::from_u128(51);
        self.ok(of_next(&self.state, create(id, None)));
        // The service's number of releases is the first one's, too.
        let rollout = Kind::StartRollout(v1::StartRollout {
            deployment: id_bytes(id.as_u128()),
            expected_generation: self.state.deployment(id).expect("it").generation,
            release: Some((&release(1, id)).into()),
            number: 1,
            spec: None,
            expected_service_generation: 0,
            step: "rolling out".into(),
        });
        self.ok(of_next(&self.state, rollout));
        let target = Target {
            release: 1,
            deployment: id,
        };
        self.ok(of_next(&self.state, start(&self.state, NEW_ONE, target)));
        id
    }
}

#[test]
fn a_part_is_there_while_it_has_something_healthy() {
    let (mut world, _) = World::with_live_release();
    world.split(&[("web", 90), ("web-next", 10), ("nobody", 5)]);
    assert_eq!(
        world.shares(),
        [(90, vec![OLD_ONE])],
        "the others are not there"
    );
    world.ok(put_service(&sibling(60, "web-next", &[]), 0));
    let deployment = world.begin_next();
    assert_eq!(world.shares().len(), 1, "it is not healthy yet");
    let revision = world.state.routes_revision();
    world.observe(NEW_ONE, Seen::Healthy);
    world.ok(finish(&world.state, deployment, Status::Live));
    let both = [(90, vec![OLD_ONE]), (10, vec![NEW_ONE])];
    assert_eq!(world.shares(), both);
    let route = world.at_a_com();
    assert_eq!((route.backends.len(), route.sleeps), (2, false));
    assert_eq!(route.service, SERVICE, "the host is its owner's");
    assert_eq!(route.parts[1].name, "web-next-production-shop");
    assert!(world.state.routes_revision() > revision, "nodes are told");

    let revision = world.state.routes_revision();
    world.observe(NEW_ONE, Seen::Unhealthy);
    assert_eq!(world.shares().len(), 1);
    assert!(world.state.routes_revision() > revision);
    world.observe(NEW_ONE, Seen::Healthy);
    world.desire(NEW_ONE, Desired::Drain);
    assert_eq!(world.shares().len(), 1, "what drains is out of it");
    // Its own generated name is as ever.
    let routes = world.state.route_table().routes;
    assert!(
        routes
            .iter()
            .all(|route| route.host == "a.com" || route.parts.is_empty())
    );
}

#[test]
fn a_weight_of_nothing_and_a_service_that_goes_leave_the_route() {
    let (mut world, _) = World::with_live_release();
    world.ok(put_service(&sibling(60, "web-next", &[]), 0));
    let deployment = world.begin_next();
    world.observe(NEW_ONE, Seen::Healthy);
    world.ok(finish(&world.state, deployment, Status::Live));
    world.split(&[("web", 0), ("web-next", 10)]);
    assert_eq!(world.shares(), [(10, vec![NEW_ONE])]);
    let mut next = (**world.state.service(NEXT).expect("it")).clone();
    next.removing = true;
    let revision = world.state.routes_revision();
    world.ok(put_service(&next, next.generation));
    let route = world.at_a_com();
    assert_eq!((route.parts.len(), route.backends.len()), (0, 0));
    assert!(!route.sleeps && world.state.routes_revision() > revision);
}

#[test]
fn a_split_of_services_that_sleep_waits_for_them() {
    let (mut world, allocation) = World::with_live_release();
    world.split(&[("web", 1)]);
    let mut service = world.service().clone();
    service.spec.autoscale = Some(skep_model::autoscale::Autoscale {
        scale_to_zero: Some(Default::default()),
        ..Default::default()
    });
    world.ok(put_service(&service, service.generation));
    assert!(!world.at_a_com().sleeps, "it has a backend");
    world.desire(allocation, Desired::Stop);
    let route = world.at_a_com();
    assert!(route.sleeps);
    assert_eq!((route.backends.len(), route.parts.len()), (0, 1));
}
