//! Gates: who waits, whose place is taken when, and what is said of it.

use skep_model::gate::{Freeze, Window};
use skep_model::settings::Scope;

use super::*;

fn id(number: u128) -> DeploymentId {
    DeploymentId::from_u128(number)
}

fn scope(change: v1::SetScope) -> Kind {
    Kind::SetScope(v1::SetScope {
        scope: Some(Scope::Environment(ENVIRONMENT).into()),
        ..change
    })
}

fn approval(is_asked_for: bool) -> Kind {
    scope(v1::SetScope {
        approval: Some(is_asked_for),
        ..Default::default()
    })
}

fn freeze(name: &str, until_ms: u64) -> Kind {
    let freeze = Freeze {
        name: name.into(),
        window: Window::Once {
            from_ms: 1,
            until_ms,
        },
        reason: String::new(),
    };
    scope(v1::SetScope {
        put_freeze: Some((&freeze).into()),
        ..Default::default()
    })
}

fn pass(world: &World, number: u128) -> Kind {
    Kind::PassGate(v1::PassGate {
        deployment: id_bytes(number),
        expected_generation: world.deployment(number).generation,
        step: "open".into(),
    })
}

fn approve(world: &World, number: u128, despite_freeze: bool) -> Kind {
    Kind::ApproveDeployment(v1::ApproveDeployment {
        deployment: id_bytes(number),
        expected_generation: world.deployment(number).generation,
        despite_freeze,
    })
}

fn pin(reason: Option<&str>) -> Kind {
    Kind::PinService(v1::PinService {
        service: id_bytes(SERVICE.as_u128()),
        pin: reason.map(|reason| v1::Pin {
            reason: reason.into(),
            since_ms: 0,
        }),
    })
}

fn is_held(world: &World, number: u128) -> bool {
    world.deployment(number).held.is_some()
}

#[test]
fn what_waits_takes_nobodys_place_until_it_is_through() {
    let mut world = World::with_service();
    world.ok(create(id(50), None));
    world.ok(start_rollout(&world.state, id(50), 1));
    world.ok(approval(true));
    world.ok(create(id(51), None));
    assert_eq!(world.deployment(50).status, Status::Deploying);
    assert!(is_held(&world, 51));
    // A newer one that waits takes the place of the older one that waits.
    world.ok(create(id(52), None));
    assert_eq!(world.deployment(51).status, Status::Superseded);
    assert_eq!(world.deployment(50).status, Status::Deploying);
    assert_eq!(
        world.refused(start_rollout(&world.state, id(52), 2)),
        Code::Conflict
    );
    world.ok(approve(&world, 52, false));
    assert!(is_held(&world, 52), "the leader lets it through");
    world.ok(pass(&world, 52));
    assert_eq!(world.deployment(50).status, Status::Superseded);
    assert!(world.deployment(52).may_begin());
    assert_eq!(world.refused(pass(&world, 52)), Code::Conflict);
    assert_eq!(world.refused(approve(&world, 52, false)), Code::Conflict);
    world.ok(start_rollout(&world.state, id(52), 2));
    world.ok(finish(&world.state, id(52), Status::Live));
}

#[test]
fn what_brings_nothing_new_is_not_held() {
    let (mut world, _) = World::with_live_release();
    world.deploy(id(51), 2, AllocationId::from_u128(101));
    world.ok(pin(Some("it is good")));
    world.ok(create(id(52), None));
    assert!(is_held(&world, 52));
    let origin = || Origin::Release { number: 2 };
    world.ok(create_from(id(53), None, Trigger::Restart, origin()));
    assert!(!is_held(&world, 53));
    assert_eq!(
        world.deployment(52).status,
        Status::Queued,
        "a restart says nothing of what is to come"
    );
    world.ok(create_from(id(54), None, Trigger::Redeploy, origin()));
    assert!(is_held(&world, 54), "today's configuration is new");
    assert_eq!(world.deployment(53).status, Status::Queued);
    let origin = Origin::Release { number: 1 };
    world.ok(create_from(id(55), None, Trigger::Rollback, origin));
    assert!(!is_held(&world, 55));
    for older in [53, 54] {
        assert_eq!(world.deployment(older).status, Status::Superseded);
    }
}

#[test]
fn a_stopped_service_is_started_by_what_is_through() {
    let (mut world, _) = World::with_live_release();
    let mut stopped = world.service().clone();
    stopped.stopped = true;
    world.ok(put_service(&stopped, world.service().generation));
    world.ok(freeze("all", 10_000_000));
    world.ok(create(id(51), None));
    assert!(world.service().stopped, "it only waits");
    world.ok(pass(&world, 51));
    assert!(!world.service().stopped);
}

#[test]
fn a_yes_stays_and_says_what_it_said() {
    let mut world = World::with_service();
    world.ok(approval(true));
    world.ok(create(id(50), None));
    let wait = |world: &World| {
        Kind::AwaitApproval(v1::AwaitApproval {
            deployment: id_bytes(50),
            expected_generation: world.deployment(50).generation,
            problem: None,
            step: "waiting".into(),
        })
    };
    world.ok(wait(&world));
    assert_eq!(world.deployment(50).status, Status::AwaitingApproval);
    assert_eq!(world.refused(wait(&world)), Code::Conflict);
    world.ok(approve(&world, 50, true));
    let at = world.deployment(50).held.expect("held");
    world.ok(approve(&world, 50, false));
    assert_eq!(world.deployment(50).held, Some(at), "no word is lost");
    assert!(at.despite_freeze && at.approved_ms.is_some());
    world.ok(pass(&world, 50));
    assert_eq!(world.deployment(50).status, Status::AwaitingApproval);
    world.ok(start_rollout(&world.state, id(50), 1));
}

#[test]
fn freezes_are_named_and_bounded() {
    let mut world = World::with_service();
    world.ok(freeze("a", 100));
    world.ok(freeze("a", 200));
    let all = world.state.gates_of(ENVIRONMENT).freezes;
    assert_eq!(all.len(), 1, "in place of the one of its name");
    assert_eq!(world.refused(freeze("b", 1)), Code::Invalid);
    let thaw = |name: &str| {
        scope(v1::SetScope {
            remove_freeze: name.into(),
            ..Default::default()
        })
    };
    assert_eq!(world.refused(thaw("b")), Code::NotFound);
    world.ok(thaw("a"));
    assert!(world.state.gates_of(ENVIRONMENT).is_empty());
    assert_eq!(world.state.scopes().count(), 0);
    for number in 0..50 {
        world.ok(freeze(&format!("f{number}"), 100));
    }
    assert_eq!(world.refused(freeze("more", 100)), Code::Invalid);
}

#[test]
fn a_workspace_holds_every_environment_but_previews() {
    let mut world = World::with_service();
    world.ok(Kind::SetScope(v1::SetScope {
        scope: Some(Scope::Workspace(WORKSPACE).into()),
        approval: Some(true),
        ..Default::default()
    }));
    world.ok(freeze("a", 100));
    let gates = world.state.gates_of(ENVIRONMENT);
    assert!(gates.approval && gates.freezes.len() == 1);
    world.ok(previews::rules(3));
    world.ok(Kind::MakePreview(previews::make(
        previews::PREVIEW,
        7,
        "delivery",
    )));
    assert!(world.state.gates_of(previews::PREVIEW).is_empty());
    let made = world.state.deployments();
    let of_preview = |it: &&std::sync::Arc<Deployment>| it.service != SERVICE;
    let made: Vec<_> = made.filter(of_preview).collect();
    assert!(!made.is_empty() && made.iter().all(|it| it.held.is_none()));
}

#[test]
fn a_forge_that_tells_is_remembered_for_those_that_wait() {
    let mut world = World::with_service();
    world.ok(create(id(49), None));
    world.ok(approval(true));
    world.ok(create(id(50), None));
    let hear = Kind::HearChecks(v1::HearChecks {
        deployments: [49, 50, 51].map(id_bytes).to_vec(),
    });
    world.ok(hear);
    assert_eq!(world.deployment(50).held.map(|it| it.heard), Some(1));
    assert_eq!(world.deployment(49).held, None);
}
