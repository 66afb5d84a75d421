//! What each gate says, in which order, and when it is open.

use skep_model::gate::{Freeze, Held, Window};
use skep_model::pushes::WaitForCi;
use skep_model::settings::Scope;

use super::*;
use crate::checks::Seen as Checked;

const ENVIRONMENT: EnvironmentId = EnvironmentId::from_u128(9);
const HOUR: u64 = 3_600_000;

fn commit() -> Origin {
    Origin::Git {
        repository: "https://forge.test/team/shop".into(),
        branch: "main".into(),
        commit: Some("c".repeat(40)),
        directory: String::new(),
    }
}

impl World {
    /// With everything that can hold a deployment up, and the deployment made anew.
    fn held(trigger: Trigger, gates: &[&str], held: Option<Held>) -> Self {
        let mut world = Self::new(commit()).with_node();
        let mut service = world.service().clone();
        for gate in gates {
            match *gate {
                "checks" => service.spec.pushes.wait_for_ci = Some(WaitForCi { deadline_ms: HOUR }),
                "approval" => world.scope(v1::SetScope {
                    approval: Some(true),
                    ..Default::default()
                }),
                "freeze" => {
                    let freeze = Freeze {
                        name: "night".into(),
                        window: Window::Once {
                            from_ms: 0,
                            until_ms: 8 * HOUR,
                        },
                        reason: "rest".into(),
                    };
                    world.scope(v1::SetScope {
                        put_freeze: Some((&freeze).into()),
                        ..Default::default()
                    });
                }
                _ => {}
            }
        }
        let generation = service.generation;
        world.apply(Kind::PutService(v1::PutService {
            service: Some((&service).into()),
            expected_generation: generation,
        }));
        if gates.contains(&"pin") {
            world.apply(Kind::PinService(v1::PinService {
                service: id_bytes(SERVICE.as_u128()),
                pin: Some(v1::Pin::default()),
            }));
        }
        let deployment = Deployment {
            id: DeploymentId::from_u128(4),
            trigger,
            held,
            ..world.deployment().clone()
        };
        world.apply(Kind::CreateDeployment(v1::CreateDeployment {
            deployment: Some((&deployment).into()),
            delivery: None,
        }));
        world
    }

    fn scope(&mut self, change: v1::SetScope) {
        self.apply(Kind::SetScope(v1::SetScope {
            scope: Some(Scope::Environment(ENVIRONMENT).into()),
            ..change
        }));
    }

    fn see(mut self, seen: Option<Checked>) -> Self {
        let seen = seen.map(|seen| (DeploymentId::from_u128(4), seen));
        self.checks = seen.into_iter().collect();
        self
    }

    /// In some words.
    fn says(&self) -> String {
        let secrets = Secrets::new(SealingKey::generate());
        let deployment = self.state.deployment(DeploymentId::from_u128(4));
        let inputs = Inputs {
            view: &self.state,
            secrets: &secrets,
            refusals: &self.refusals,
            converged: &self.converged,
            checks: &self.checks,
            is_published: true,
            now_ms: self.now_ms,
        };
        match decide(&inputs, deployment.expect("there")) {
            Next::Build(_) => "build".into(),
            Next::Pass => "pass".into(),
            Next::Await(why) => format!("await {}", why.message),
            Next::Note(why) => format!("note {}", why.message),
            Next::Fail(why, _) => format!("fail {}", why.message),
            other => format!("{other:?}"),
        }
    }
}

#[test]
fn the_gates_in_a_table() {
    let yes = |despite_freeze| {
        Some(Held {
            approved_ms: Some(1),
            despite_freeze,
            heard: 0,
        })
    };
    let green = || Some(Checked::Green);
    let pending = || Some(Checked::Pending("`build` has not ended".into()));
    let red = || Some(Checked::Red("`build`".into()));
    type Case<'a> = (
        Trigger,
        &'a [&'a str],
        Option<Held>,
        Option<Checked>,
        &'a str,
    );
    let all: &[&str] = &["pin", "checks", "approval", "freeze"];
    let cases: [Case<'_>; 15] = [
        (Trigger::Webhook, &[], None, None, "build"),
        (Trigger::Rollback, all, None, None, "build"),
        (Trigger::Restart, all, None, None, "build"),
        (
            Trigger::Webhook,
            all,
            yes(true),
            green(),
            "note the service is pinned to what is live",
        ),
        (
            Trigger::Webhook,
            &["checks", "approval"],
            None,
            None,
            "note waits for the checks of its commit: the forge is asked",
        ),
        (
            Trigger::Webhook,
            &["checks", "approval"],
            None,
            pending(),
            "note waits for the checks of its commit: `build` has not ended",
        ),
        (
            Trigger::Poll,
            &["checks", "approval"],
            yes(false),
            red(),
            "fail the checks of its commit failed: `build`",
        ),
        (
            Trigger::Webhook,
            &["checks", "approval"],
            None,
            green(),
            "await what is new in `e` has to be approved",
        ),
        // A person who deploys by hand has looked.
        (Trigger::Api, &["checks"], None, red(), "build"),
        (
            Trigger::Api,
            &["approval"],
            None,
            None,
            "await what is new in `e` has to be approved",
        ),
        (Trigger::Promote, &["approval"], yes(false), None, "pass"),
        (
            Trigger::Api,
            &["approval", "freeze"],
            yes(false),
            None,
            "note frozen until 1970-01-01 08:00:00 UTC (`night`: rest)",
        ),
        (
            Trigger::Api,
            &["approval", "freeze"],
            yes(true),
            None,
            "pass",
        ),
        (
            Trigger::Redeploy,
            &["freeze"],
            None,
            None,
            "note frozen until 1970-01-01 08:00:00 UTC (`night`: rest)",
        ),
        (Trigger::Poll, &["checks"], None, green(), "pass"),
    ];
    for (trigger, gates, held, seen, wanted) in cases {
        let world = World::held(trigger, gates, held).see(seen);
        assert_eq!(world.says(), wanted, "{trigger:?} at {gates:?}");
    }
}

#[test]
fn time_opens_a_freeze_and_ends_the_wait_for_checks() {
    let mut world = World::held(Trigger::Api, &["freeze"], None);
    world.now_ms = 8 * HOUR - 1;
    assert!(world.says().starts_with("note frozen"), "{}", world.says());
    world.now_ms = 8 * HOUR;
    assert_eq!(world.says(), "pass");
    let pending = Checked::Pending("no check has reported".into());
    let mut world = World::held(Trigger::Webhook, &["checks"], None).see(Some(pending));
    world.now_ms = 1_000 + HOUR;
    assert_eq!(
        world.says(),
        "fail gave up: waits for the checks of its commit: no check has reported"
    );
    // A leader that has just begun to ask does not know what was green before.
    for seen in [None, Some(Checked::Unknown("no check has reported".into()))] {
        world = world.see(seen);
        assert!(
            world.says().starts_with("note waits for the checks"),
            "{}",
            world.says()
        );
    }
}

#[test]
fn what_was_said_is_not_said_again() {
    let mut world = World::held(Trigger::Api, &["freeze"], None);
    let id = DeploymentId::from_u128(4);
    let deployment = world.state.deployment(id).expect("there").clone();
    let secrets = Secrets::new(SealingKey::generate());
    let decide_on = |world: &World, deployment: &Deployment| {
        let inputs = Inputs {
            view: &world.state,
            secrets: &secrets,
            refusals: &world.refusals,
            converged: &world.converged,
            checks: &world.checks,
            is_published: true,
            now_ms: world.now_ms,
        };
        decide(&inputs, deployment)
    };
    let Next::Note(why) = decide_on(&world, &deployment) else {
        panic!("it is said");
    };
    world.apply(Kind::NoteDeployment(v1::NoteDeployment {
        deployment: id_bytes(4),
        expected_generation: deployment.generation,
        problem: Some((&why).into()),
        step: "waiting".into(),
    }));
    let deployment = world.state.deployment(id).expect("there").clone();
    assert_eq!(
        decide_on(&world, &deployment),
        Next::Wait {
            until_ms: Some(8 * HOUR)
        }
    );
}

#[test]
fn a_build_does_not_begin_for_what_waits() {
    let world = World::held(Trigger::Webhook, &["freeze"], None);
    let due = crate::deploy::queue::due(&world.state);
    assert!(
        due.iter().all(|(id, _)| *id == DEPLOYMENT),
        "the one that was made before the freeze: {due:?}"
    );
}
