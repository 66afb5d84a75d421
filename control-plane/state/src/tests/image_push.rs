//! Push registries, and what is taken down of images there.

use skep_model::image_push::{PullLogin, Push, PushRegistry};
use skep_model::problem::Problem;
use skep_model::variable::Sealed;

use super::*;
use crate::Change;

const DEPLOYMENT: DeploymentId = DeploymentId::from_u128(50);
const DIGEST: &str = "sha256:1";

fn registry(host: &str) -> PushRegistry {
    PushRegistry {
        workspace: WORKSPACE,
        host: host.into(),
        prefix: "team".into(),
        user: "ci".into(),
        password: Sealed(vec![1]),
        pull: Some(PullLogin {
            user: "reader".into(),
            password: Sealed(vec![2]),
        }),
        bucket: None,
        required: false,
        made_ms: 0,
        changed_ms: 0,
    }
}

fn put(registry: &PushRegistry) -> Kind {
    Kind::PutPushRegistry(v1::PutPushRegistry {
        registry: Some(registry.into()),
    })
}

fn settle(world: &World, before_ms: u64, (digest, at_ms): (Option<&str>, u64)) -> v1::SettlePush {
    let problem = digest
        .is_none()
        .then(|| Problem::invalid("host", "it is away"));
    let push = Push {
        reference: "r:5000/team/default/shop/web:abc".into(),
        digest: digest.map(str::to_owned),
        problem,
        attempts: 1,
        at_ms,
        next_ms: 0,
    };
    let known = world.state.push_registry(WORKSPACE);
    v1::SettlePush {
        deployment: id_bytes(DEPLOYMENT.as_u128()),
        expected_at_ms: before_ms,
        expected_changed_ms: known.map_or(0, |it| it.changed_ms),
        push: Some((&push).into()),
    }
}

#[test]
fn a_workspace_has_one_push_registry_which_is_changed_kept_and_taken_away() {
    let mut world = World::with_service();
    assert_eq!(
        world.apply(put(&registry("r:5000"))).changes,
        [Change::PushRegistries]
    );
    let first = world.state.push_registry(WORKSPACE).expect("made").clone();
    assert_eq!(first.made_ms, world.state.time_ms());
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    world.ok(put(&registry("other.example")));
    let second = world.state.push_registry(WORKSPACE).expect("there").clone();
    assert_eq!(
        (&*second.host, second.made_ms),
        ("other.example", first.made_ms)
    );
    assert!(second.changed_ms > first.changed_ms);
    assert_eq!(world.state.push_registries().count(), 1);

    assert_eq!(world.refused(put(&registry("https://r"))), Code::Invalid);
    let mut odd = registry("r");
    odd.prefix = "Team/".into();
    assert_eq!(world.refused(put(&odd)), Code::Invalid);
    odd = registry("r");
    odd.workspace = WorkspaceId::from_u128(99);
    assert_eq!(world.refused(put(&odd)), Code::NotFound);
    let remove = Kind::RemovePushRegistry(v1::RemovePushRegistry {
        workspace: id_bytes(WORKSPACE.as_u128()),
    });
    world.ok(remove.clone());
    assert_eq!(world.refused(remove), Code::NotFound);
}

#[test]
fn what_came_of_a_push_is_taken_down_once_and_changes_no_generation() {
    let mut world = World::with_service();
    world.ok(put(&registry("r:5000")));
    world.ok(create(DEPLOYMENT, None));
    let before = world.deployment(50).clone();
    world.ok(Kind::SettlePush(settle(&world, 0, (None, 7_000))));
    let after = world.deployment(50).clone();
    assert_eq!(after.generation, before.generation);
    let last = &after.steps.last().expect("told").text;
    assert!(
        last.contains("not pushed") && last.contains("it is away"),
        "{last}"
    );
    // The same trouble is not told again.
    world.ok(Kind::SettlePush(settle(&world, 7_000, (None, 8_000))));
    assert_eq!(world.deployment(50).steps.len(), after.steps.len());

    // Of a leader that was overtaken, or with a login that is another by now.
    let late = settle(&world, 7_000, (None, 9_000));
    assert_eq!(world.refused(Kind::SettlePush(late)), Code::Conflict);
    let with_old = settle(&world, 8_000, (Some(DIGEST), 9_000));
    world.ok(put(&registry("r:5000")));
    assert_eq!(world.refused(Kind::SettlePush(with_old)), Code::Conflict);
}

#[test]
fn a_release_says_where_its_image_is_once_it_is_there() {
    let (mut world, _) = World::with_live_release();
    world.ok(put(&registry("r:5000")));
    let number = world.deployment(50).release.expect("it has one");
    let release = world.state.release(SERVICE, number).expect("kept");
    let digest = release.image.digest.clone();
    assert_eq!(release.image.pushed, None);
    world.ok(Kind::SettlePush(settle(
        &world,
        0,
        (Some("sha256:other"), 7_000),
    )));
    let release = world.state.release(SERVICE, number).expect("kept");
    assert_eq!(release.image.pushed, None, "another image");
    world.ok(Kind::SettlePush(settle(
        &world,
        7_000,
        (Some(&digest), 8_000),
    )));
    let release = world.state.release(SERVICE, number).expect("kept");
    let pushed = format!("r:5000/team/default/shop/web@{digest}");
    assert_eq!(release.image.pushed, Some(pushed));
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
}

#[test]
fn only_a_build_that_made_an_image_waits_for_its_registry() {
    let mut world = World::with_service();
    world.ok(create(DEPLOYMENT, None));
    let begin = |world: &World| {
        Kind::BeginPush(v1::BeginPush {
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            expected_generation: world.deployment(50).generation,
            step: "pushing".into(),
        })
    };
    let command = begin(&world);
    assert_eq!(world.refused(command), Code::Conflict, "nothing is built");
}
