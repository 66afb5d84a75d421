//! What an autoscaler decides is checked, remembered, and bounded by the specification in force.

use skep_model::autoscale::{Autoscale, ScaleToZero};
use skep_model::service::MAX_SCALINGS;

use super::*;

fn scaled(autoscale: Option<Autoscale>) -> World {
    let (mut world, _) = World::with_live_release();
    set(&mut world, autoscale);
    world
}

fn set(world: &mut World, autoscale: Option<Autoscale>) {
    let mut service = world.service().clone();
    service.spec.autoscale = autoscale;
    world.ok(put_service(&service, service.generation));
}

fn bounds(min: u32, max: u32) -> Option<Autoscale> {
    Some(Autoscale {
        min,
        max,
        ..Autoscale::default()
    })
}

fn scale(world: &World, replicas: u32, reason: &str) -> Kind {
    Kind::ScaleService(v1::ScaleService {
        service: id_bytes(SERVICE.as_u128()),
        expected_generation: world.service().generation,
        replicas,
        reason: reason.into(),
    })
}

#[test]
fn a_decision_is_in_force_and_remembered_and_the_oldest_are_forgotten() {
    let mut world = scaled(bounds(2, 9));
    assert_eq!(
        world.service().wanted(),
        2,
        "its own replicas, within the bounds"
    );
    let command = scale(&world, 5, "request rate 500/s");
    world.ok(command);
    let service = world.service();
    assert_eq!((service.wanted(), service.spec.replicas), (5, 1));
    let changes = &service.scaling.as_ref().expect("decided").changes;
    assert_eq!((changes[0].from, changes[0].to), (2, 5));
    for step in 0..MAX_SCALINGS as u32 {
        let command = scale(&world, 2 + step % 2, "again");
        world.ok(command);
    }
    let changes = &world.service().scaling.as_ref().expect("decided").changes;
    assert_eq!(changes.len(), MAX_SCALINGS);
    assert_eq!(changes[0].reason, "again");
}

#[test]
fn what_does_not_hold_any_more_is_refused() {
    let mut world = scaled(bounds(2, 9));
    let late = scale(&world, 5, "");
    let command = scale(&world, 4, "");
    world.ok(command);
    assert_eq!(world.refused(late), Code::Conflict);
    let beyond = scale(&world, 10, "");
    assert_eq!(world.refused(beyond), Code::Invalid);
    let asleep = scale(&world, 0, "");
    assert_eq!(world.refused(asleep), Code::Invalid);
    let long = scale(&world, 3, &"x".repeat(600));
    assert_eq!(world.refused(long), Code::Invalid);
    set(&mut world, None);
    let without = scale(&world, 3, "");
    assert_eq!(world.refused(without), Code::Conflict);
}

#[test]
fn another_specification_bounds_what_was_decided_and_none_forgets_it() {
    let mut world = scaled(bounds(1, 9));
    let command = scale(&world, 8, "");
    world.ok(command);
    set(&mut world, bounds(1, 4));
    assert_eq!(world.service().wanted(), 4);
    set(&mut world, None);
    assert_eq!(
        (world.service().wanted(), &world.service().scaling),
        (1, &None)
    );
    let zero = Autoscale {
        scale_to_zero: Some(ScaleToZero::default()),
        ..Autoscale::default()
    };
    set(&mut world, Some(zero.clone()));
    let command = scale(&world, 0, "idle");
    world.ok(command);
    assert_eq!(world.service().wanted(), 0);
    set(&mut world, Some(zero));
    assert_eq!(world.service().wanted(), 0, "it sleeps on");
    set(&mut world, bounds(1, 4));
    assert_eq!(world.service().wanted(), 1, "it may not any more");
}

#[test]
fn what_is_deployed_is_tried_also_where_it_sleeps() {
    let mut world = scaled(Some(Autoscale {
        scale_to_zero: Some(ScaleToZero::default()),
        ..Autoscale::default()
    }));
    let command = scale(&world, 0, "idle");
    world.ok(command);
    let id = DeploymentId::from_u128(51);
    world.ok(create(id, None));
    world.ok(start_rollout(&world.state, id, 2));
    assert_eq!(world.service().wanted(), 1, "one of the new release");
    world.ok(finish(&world.state, id, Status::Failed));
    assert_eq!(world.service().wanted(), 0, "asleep again");
}
