//! A command that comes again is obeyed once.

use super::*;
use crate::{Key, Repeat, with_key};

const DAY_MS: u64 = 24 * 3_600_000;

fn caller(key: u8, digest: u8) -> Key {
    Key::Caller {
        key: [key; 16],
        digest: [digest; 16],
    }
}

fn own(key: u128, since: u64) -> Key {
    let key = key.to_be_bytes();
    Key::Own { key, since }
}

fn environment(name: &str) -> Kind {
    let bits = 1_000 + u128::from(name.bytes().next().unwrap_or_default());
    let project = Project {
        id: ProjectId::from_u128(bits),
        workspace: WORKSPACE,
        name: name.into(),
    };
    Kind::EnsureEnvironment(v1::EnsureEnvironment {
        workspace: id_bytes(WORKSPACE.as_u128()),
        project: Some((&project).into()),
        environment: Some(
            (&Environment {
                id: EnvironmentId::from_u128(bits),
                project: PROJECT,
                name: name.into(),
            })
                .into(),
        ),
    })
}

impl World {
    fn keyed(&mut self, kind: Kind, key: Key) -> Applied {
        self.keyed_at(1_000 * (self.index + 1), kind, key)
    }

    fn keyed_at(&mut self, time_ms: u64, kind: Kind, key: Key) -> Applied {
        self.raw(with_key(command(time_ms, kind), key))
    }
}

#[test]
fn a_repeated_command_changes_nothing_and_gets_the_first_reply() {
    let mut world = World::with_service();
    let first = world.keyed(create(DeploymentId::from_u128(50), None), caller(1, 1));
    assert_eq!(first.repeat, Repeat::First);
    let again = world.keyed(create(DeploymentId::from_u128(51), None), caller(1, 1));
    assert_eq!(again.repeat, Repeat::Replayed);
    assert_eq!(again.outcome, first.outcome);
    assert_eq!(
        (again.changes, world.state.deployments().count()),
        (Vec::new(), 1)
    );
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert!(read == world.state);
}

#[test]
fn a_refusal_is_remembered_too() {
    let mut world = World::with_service();
    let refused = world.keyed(environment("Bad Name"), caller(1, 1));
    assert!(refused.outcome.is_err());
    let again = world.keyed(environment("good"), caller(1, 1));
    assert_eq!(
        (again.repeat, again.outcome),
        (Repeat::Replayed, refused.outcome)
    );
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert!(read == world.state);
}

#[test]
fn a_key_belongs_to_one_request() {
    let mut world = World::with_service();
    world
        .keyed(environment("a"), caller(1, 1))
        .outcome
        .expect("accepted");
    let problem = world
        .keyed(environment("b"), caller(1, 2))
        .outcome
        .expect_err("another request");
    assert_eq!(problem.code, Code::Conflict);
    assert!(problem.message.contains("another request"), "{problem}");
    assert!(world.state.project_named(WORKSPACE, "b").is_none());
}

#[test]
fn a_callers_key_ends_after_a_day_of_the_clusters_time() {
    let mut world = World::with_service();
    let start = world.state.time_ms() + 1;
    let repeat =
        |world: &mut World, at, key| world.keyed_at(at, environment("a"), caller(key, 1)).repeat;
    assert_eq!(repeat(&mut world, start, 1), Repeat::First);
    assert_eq!(repeat(&mut world, start + DAY_MS, 2), Repeat::First);
    assert_eq!(repeat(&mut world, start + DAY_MS, 1), Repeat::Replayed);
    assert_eq!(repeat(&mut world, start + DAY_MS + 1, 3), Repeat::First);
    assert_eq!(repeat(&mut world, start + DAY_MS + 1, 1), Repeat::First);
}

#[test]
fn a_servers_own_key_is_never_obeyed_twice_even_when_forgotten() {
    let mut world = World::with_service();
    let since = world.state.index();
    let first = world.keyed(environment("a"), own(1, since));
    assert_eq!(first.repeat, Repeat::First);
    assert_eq!(
        world.keyed(environment("a"), own(1, since)).repeat,
        Repeat::Replayed
    );
    world
        .keyed(environment("c"), caller(9, 9))
        .outcome
        .expect("accepted");
    for key in 2..=10_001 {
        world.keyed(environment("b"), own(key, world.state.index()));
    }
    let late = world.keyed(environment("a"), own(1, since));
    assert_eq!(late.repeat, Repeat::TooLate);
    assert!(late.outcome.is_err() && late.changes.is_empty());
    let fresh = world.keyed(environment("a"), own(20_000, world.state.index()));
    assert_eq!(fresh.repeat, Repeat::First);
    let caller = world.keyed(environment("c"), caller(9, 9));
    assert_eq!(caller.repeat, Repeat::Replayed, "a window of its own");
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert!(read == world.state);
}

#[test]
fn a_damaged_key_is_refused() {
    let mut world = World::with_service();
    let mut message: v1::Command =
        prost::Message::decode(&*command(1, environment("a"))).expect("decodes");
    message.key = vec![1, 2];
    let applied = world.raw(prost::Message::encode_to_vec(&message));
    assert_eq!(applied.outcome.expect_err("short").code, Code::Internal);
}
