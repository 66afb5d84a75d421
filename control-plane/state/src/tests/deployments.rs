//! Deployments from queued to their end.

use super::*;

fn id(number: u128) -> DeploymentId {
    DeploymentId::from_u128(number)
}

#[test]
fn a_live_deployment_serves_and_the_next_supersedes_it() {
    let (mut world, first) = World::with_live_release();
    assert_eq!(
        world.service().live,
        Some(Target {
            release: 1,
            deployment: id(50)
        })
    );
    assert_eq!(world.state.route_table().routes[0].backends.len(), 1);
    let revision = world.state.routes_revision();
    world.deploy(id(51), 2, AllocationId::from_u128(101));
    assert_eq!(world.deployment(50).status, Status::Superseded);
    assert_eq!(
        world.service().live,
        Some(Target {
            release: 2,
            deployment: id(51)
        })
    );
    assert!(world.state.routes_revision() > revision);
    world.desire(first, Desired::Drain);
    let table = world.state.route_table();
    assert_eq!(
        table.routes[0].backends.len(),
        1,
        "a draining allocation is out of the routes"
    );
    assert_eq!(table.revision, world.index);
}

#[test]
fn a_rollback_marks_what_it_leaves() {
    let (mut world, _) = World::with_live_release();
    world.deploy(id(51), 2, AllocationId::from_u128(101));
    world.ok(create_from(
        id(52),
        None,
        Trigger::Rollback,
        Origin::Release { number: 1 },
    ));
    world.ok(start_rollout(&world.state, id(52), 1));
    world.ok(finish(&world.state, id(52), Status::Live));
    assert_eq!(world.deployment(51).status, Status::RolledBack);
    assert_eq!(world.service().live.expect("live").release, 1);
    assert_eq!(
        world.service().last_release,
        2,
        "a rollback makes no release"
    );
}

#[test]
fn a_failed_rollout_leaves_the_live_one_alone() {
    let (mut world, _) = World::with_live_release();
    world.ok(create(id(51), None));
    world.ok(start_rollout(&world.state, id(51), 2));
    world.ok(finish(&world.state, id(51), Status::Failed));
    assert_eq!(world.service().rollout, None);
    assert_eq!(
        world.service().target(),
        Some(Target {
            release: 1,
            deployment: id(50)
        })
    );
    assert_eq!(world.deployment(50).status, Status::Live);
}

#[test]
fn a_newer_deployment_takes_over_an_active_one() {
    let mut world = World::with_service();
    world.ok(create(id(50), None));
    world.ok(start_rollout(&world.state, id(50), 1));
    world.ok(create(id(51), None));
    assert_eq!(world.deployment(50).status, Status::Superseded);
    assert_eq!(world.service().rollout, None);
    let late = start_rollout(&world.state, id(50), 2);
    assert_eq!(world.refused(late), Code::Conflict);
}

#[test]
fn the_same_delivery_makes_one_deployment() {
    let mut world = World::with_service();
    let first = world.ok(create(id(50), Some("github/1")));
    assert_eq!(
        first,
        Reply::Deployment {
            deployment: id(50),
            replayed: false
        }
    );
    let second = world.ok(create(id(51), Some("github/1")));
    assert_eq!(
        second,
        Reply::Deployment {
            deployment: id(50),
            replayed: true
        }
    );
    assert!(world.state.deployment(id(51)).is_none());
}

#[test]
fn plans_on_an_old_state_are_refused() {
    let mut world = World::with_service();
    world.ok(create(id(50), None));
    let stale_rollout = start_rollout(&world.state, id(50), 1);
    world.ok(put_service(&service(), 1));
    assert_eq!(world.refused(stale_rollout), Code::Conflict);
    world.ok(start_rollout(&world.state, id(50), 1));
    let target = Target {
        release: 1,
        deployment: id(50),
    };
    let plan = start(&world.state, AllocationId::from_u128(100), target);
    let twin = start(&world.state, AllocationId::from_u128(101), target);
    world.ok(plan);
    assert_eq!(
        world.refused(twin),
        Code::Conflict,
        "two plans from one state: the second loses"
    );
}

#[test]
fn a_release_that_is_not_kept_cannot_be_deployed() {
    let mut world = World::with_service();
    let kind = create_from(
        id(50),
        None,
        Trigger::Rollback,
        Origin::Release { number: 3 },
    );
    assert_eq!(world.refused(kind), Code::Invalid);
}

#[test]
fn old_releases_and_deployments_are_forgotten_but_what_runs_is_kept() {
    let (mut world, _) = World::with_live_release();
    for n in 2..=60_u64 {
        world.ok(create(id(100 + u128::from(n)), None));
        world.ok(start_rollout(&world.state, id(100 + u128::from(n)), n));
        world.ok(finish(
            &world.state,
            id(100 + u128::from(n)),
            Status::Failed,
        ));
    }
    let kept: Vec<u64> = world
        .state
        .releases_of(SERVICE)
        .map(|release| release.number)
        .collect();
    assert!(
        kept.contains(&1) && kept.contains(&60) && kept.len() <= 22,
        "{kept:?}"
    );
    assert!(world.state.deployments_of(SERVICE).count() <= 32);
    assert_eq!(world.deployment(50).status, Status::Live);
}

#[test]
fn a_plan_that_is_refused_half_way_leaves_nothing() {
    let (mut world, _) = World::with_live_release();
    let target = |release| Target {
        release,
        deployment: DeploymentId::from_u128(50),
    };
    let one = |id, release| {
        let Kind::ApplyPlan(plan) =
            start(&world.state, AllocationId::from_u128(id), target(release))
        else {
            unreachable!("a start is a plan");
        };
        plan.starts
    };
    let plan = v1::ApplyPlan {
        starts: [one(200, 1), one(201, 9)].concat(),
        ..v1::ApplyPlan::default()
    };
    assert_eq!(world.refused(Kind::ApplyPlan(plan)), Code::NotFound);
}
