//! Rollouts in phases: who serves in each, what people may want when, and what a newer deployment makes
//! of them.

use skep_model::rollout::{CanaryStep, Control, Phase, Policy, Progress, Strategy};

use super::*;

const NEW: DeploymentId = DeploymentId::from_u128(51);
const NEW_ONE: AllocationId = AllocationId::from_u128(101);

/// Release 1 is live, release 2 is rolled out by this policy and has a healthy allocation.
fn trying(policy: Policy) -> World {
    let (mut world, _) = World::with_live_release();
    let mut changed = world.service().clone();
    changed.spec.rollout = policy;
    world.ok(put_service(&changed, changed.generation));
    world.ok(create(NEW, None));
    world.ok(start_rollout(&world.state, NEW, 2));
    let target = Target {
        release: 2,
        deployment: NEW,
    };
    world.ok(start(&world.state, NEW_ONE, target));
    world.observe(NEW_ONE, Seen::Healthy);
    world
}

fn blue_green() -> Policy {
    Policy {
        strategy: Strategy::BlueGreen,
        keep_ms: 500,
        ..Policy::default()
    }
}

fn canary() -> Policy {
    let step = |percent| CanaryStep {
        percent,
        pause_ms: None,
    };
    Policy {
        strategy: Strategy::Canary,
        steps: vec![step(10), step(50)],
        ..Policy::default()
    }
}

fn control(control: Control) -> v1::ControlRollout {
    v1::ControlRollout {
        service: id_bytes(SERVICE.as_u128()),
        deployment: id_bytes(NEW.as_u128()),
        control: enum_number(&Control::ALL, &control),
        full: false,
        by: "admin".into(),
    }
}

fn advance(world: &World, phase: Phase) -> v1::AdvanceRollout {
    let progress = Progress {
        phase,
        ..Progress::default()
    };
    v1::AdvanceRollout {
        service: id_bytes(SERVICE.as_u128()),
        expected_generation: world.service().generation,
        progress: Some((&progress).into()),
        step: "goes on".into(),
    }
}

impl World {
    fn serving(&self) -> Vec<u128> {
        let table = self.state.route_table();
        let backends = table.routes[0].backends.iter();
        backends.map(|one| one.allocation.as_u128()).collect()
    }

    fn wants(&mut self, one: Control) {
        self.ok(Kind::ControlRollout(control(one)));
    }

    fn phase(&self) -> Phase {
        self.service().progress.phase
    }
}

#[test]
fn all_traffic_moves_in_one_revision_and_comes_back_in_one() {
    let mut world = trying(blue_green());
    assert_eq!(world.phase(), Phase::Trial);
    assert_eq!(world.serving(), [100], "on trial it does not serve");
    let kept = Phase::Kept { until_ms: 99_000 };
    let message = advance(&world, kept);
    let applied = world.apply(Kind::AdvanceRollout(message.clone()));
    assert!(applied.changes.contains(&crate::Change::Routes));
    assert_eq!(world.serving(), [101]);
    assert_eq!(world.state.routes_revision(), world.index);
    assert_eq!(
        world.refused(Kind::AdvanceRollout(message)),
        Code::Conflict,
        "on an older service"
    );
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    world.wants(Control::Abort);
    assert_eq!(world.serving(), [100], "the other is still running");
    assert_eq!(world.service().target(), world.service().live);
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    let ended = world.deployment(51);
    assert_eq!(ended.status, Status::Canceled);
    assert_eq!(
        ended.problem.as_ref().expect("why").message,
        "aborted by admin"
    );
}

#[test]
fn what_was_never_let_in_ends_without_a_request() {
    let mut world = trying(blue_green());
    world.wants(Control::Abort);
    assert_eq!(world.serving(), [100], "it was on trial");

    let mut world = trying(blue_green());
    world.ok(Kind::AdvanceRollout(advance(
        &world,
        Phase::Kept { until_ms: 99_000 },
    )));
    world.ok(finish(&world.state, NEW, Status::Live));
    assert_eq!(world.serving(), [101], "the old one was kept");
    // The next rollout begins as any.
    world.ok(create(DeploymentId::from_u128(52), None));
    let mut changed = world.service().clone();
    changed.spec.rollout = Policy::default();
    world.ok(put_service(&changed, changed.generation));
    world.ok(start_rollout(&world.state, DeploymentId::from_u128(52), 3));
    assert_eq!(world.phase(), Phase::Rolling);
}

#[test]
fn a_promotion_moves_traffic_to_a_whole_release_only() {
    let mut world = trying(blue_green());
    world.observe(NEW_ONE, Seen::Unhealthy);
    let promote = Kind::ControlRollout(control(Control::Promote));
    assert_eq!(world.refused(promote.clone()), Code::Conflict);
    world.observe(NEW_ONE, Seen::Healthy);
    world.ok(promote.clone());
    let now_ms = world.state.time_ms();
    let until_ms = now_ms + 500;
    assert_eq!(world.phase(), Phase::Kept { until_ms });
    // Once more: the old release is let go now.
    world.ok(promote);
    let until_ms = world.state.time_ms();
    assert_eq!(world.phase(), Phase::Kept { until_ms });
    world.ok(finish(&world.state, NEW, Status::Live));
    assert_eq!(world.service().live.expect("live").release, 2);
    assert_eq!(world.serving(), [101]);
}

#[test]
fn a_canary_is_promoted_step_by_step_or_in_full() {
    let mut world = trying(canary());
    assert_eq!(world.serving(), [100, 101], "both serve");
    world.wants(Control::Promote);
    assert_eq!(world.phase(), Phase::Canary { step: 1 });
    world.wants(Control::Promote);
    assert_eq!(world.phase(), Phase::Rolling);
    let again = Kind::ControlRollout(control(Control::Promote));
    assert_eq!(world.refused(again), Code::Conflict, "it waits for nobody");

    let mut world = trying(canary());
    let full = v1::ControlRollout {
        full: true,
        ..control(Control::Promote)
    };
    world.ok(Kind::ControlRollout(full));
    assert_eq!(world.phase(), Phase::Rolling);
}

#[test]
fn what_is_paused_goes_no_further_until_it_is_resumed() {
    let mut world = trying(canary());
    world.wants(Control::Pause);
    let generation = world.service().generation;
    world.wants(Control::Pause);
    assert_eq!(world.service().generation, generation, "it is already");
    let message = advance(&world, Phase::Rolling);
    assert_eq!(world.refused(Kind::AdvanceRollout(message)), Code::Conflict);
    let promote = Kind::ControlRollout(control(Control::Promote));
    assert_eq!(world.refused(promote), Code::Conflict);
    world.wants(Control::Resume);
    let progress = world.service().progress;
    assert_eq!(progress.since_ms, world.state.time_ms());
    assert!(!progress.paused && progress.phase == Phase::Canary { step: 0 });
    let steps = &world.deployment(51).steps;
    let last: Vec<_> = steps.iter().rev().take(2).map(|it| &*it.text).collect();
    assert_eq!(last, ["resumed by admin", "paused by admin"]);
}

#[test]
fn only_what_is_rolled_out_is_controlled() {
    let (mut world, _) = World::with_live_release();
    let pause = Kind::ControlRollout(control(Control::Pause));
    assert_eq!(world.refused(pause), Code::Conflict, "nothing is");
    let mut world = trying(canary());
    let of_another = v1::ControlRollout {
        deployment: id_bytes(50),
        ..control(Control::Abort)
    };
    assert_eq!(
        world.refused(Kind::ControlRollout(of_another)),
        Code::Conflict
    );
    let mut changed = world.service().clone();
    changed.spec.rollout = Policy::default();
    changed.spec.run.mode = skep_model::run::Mode::System;
    world.ok(put_service(&changed, changed.generation));
    let pause = Kind::ControlRollout(control(Control::Pause));
    assert_eq!(world.refused(pause), Code::Conflict, "one on every node");
}

#[test]
fn a_newer_deployment_makes_live_what_has_taken_over_and_drops_what_is_tried() {
    let mut world = trying(blue_green());
    let kept = advance(&world, Phase::Kept { until_ms: 99_000 });
    world.ok(Kind::AdvanceRollout(kept));
    world.ok(create(DeploymentId::from_u128(52), None));
    assert_eq!(world.deployment(51).status, Status::Live);
    assert_eq!(world.deployment(50).status, Status::Superseded);
    assert_eq!(world.service().live.expect("live").deployment, NEW);

    let mut world = trying(blue_green());
    world.ok(create(DeploymentId::from_u128(52), None));
    assert_eq!(world.deployment(51).status, Status::Superseded);
    assert_eq!(world.service().live.expect("live").release, 1);
}

#[test]
fn what_is_first_has_nothing_to_be_tried_beside() {
    let mut world = World::with_service();
    let mut changed = world.service().clone();
    changed.spec.rollout = blue_green();
    world.ok(put_service(&changed, changed.generation));
    world.ok(create(NEW, None));
    world.ok(start_rollout(&world.state, NEW, 1));
    assert_eq!(world.service().progress, Progress::default());
}

#[test]
fn below_their_level_there_are_no_phases() {
    let mut world = super::levels::version_1();
    let with = |change: fn(&mut ServiceSpec)| {
        let mut changed = service();
        change(&mut changed.spec);
        put_service(&changed, 0)
    };
    for kind in [
        with(|spec| spec.rollout.max_unavailable = 1),
        with(|spec| spec.update.max_surge = 0),
        Kind::ControlRollout(control(Control::Abort)),
        Kind::AdvanceRollout(v1::AdvanceRollout::default()),
    ] {
        let problem = world.apply(kind).outcome.expect_err("level 3");
        assert!(problem.message.contains("feature level 3"), "{problem}");
    }
}

#[test]
fn a_node_hands_out_the_files_of_one_release_alone() {
    for bundle in [false, true] {
        let (mut world, _) = World::with_live_release();
        world.ok(create(NEW, None));
        let Kind::StartRollout(mut message) = start_rollout(&world.state, NEW, 2) else {
            panic!("a rollout")
        };
        let release = message.release.as_mut().expect("a new one");
        release.image.as_mut().expect("an image").bundle = bundle;
        world.ok(Kind::StartRollout(message));
        let target = Target {
            release: 2,
            deployment: NEW,
        };
        world.ok(start(&world.state, NEW_ONE, target));
        assert_eq!(world.serving(), [100], "it is not there yet");
        world.observe(NEW_ONE, Seen::Healthy);
        let expected: &[u128] = if bundle { &[101] } else { &[100, 101] };
        assert_eq!(world.serving(), expected);
    }
}
