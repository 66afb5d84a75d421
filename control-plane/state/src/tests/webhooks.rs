//! Webhooks of repositories.

use skep_model::id::HookId;
use skep_model::variable::Sealed;
use skep_model::webhook::{Hook, MAX_HOOKS};

use super::*;

fn put(id: u128, repository: &str, secret: u8) -> Kind {
    let hook = Hook {
        id: HookId::from_u128(id),
        workspace: WORKSPACE,
        repository: repository.into(),
        secret: Sealed(vec![secret]),
        changed_ms: 0,
    };
    Kind::PutHook(v1::PutHook {
        hook: Some((&hook).into()),
    })
}

#[test]
fn a_webhook_keeps_its_id_while_secrets_change() {
    let mut world = World::with_service();
    world.ok(put(70, "forge.test/team/shop", 1));
    world.ok(put(71, "forge.test/team/shop", 2));
    let hook = world.state.hook_of(WORKSPACE, "forge.test/team/shop");
    let hook = hook.expect("it is there").clone();
    assert_eq!((hook.id.as_u128(), &hook.secret.0), (70, &vec![2]));
    assert_eq!(hook.changed_ms, world.state.time_ms());
    assert_eq!(world.state.hooks().count(), 1);
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    assert_eq!(
        world.refused(put(70, "forge.test/team/other", 1)),
        Code::Conflict
    );
    assert_eq!(world.refused(put(72, "", 1)), Code::Invalid);
    let remove = Kind::RemoveHook(v1::RemoveHook { id: id_bytes(70) });
    world.ok(remove.clone());
    assert_eq!(world.refused(remove), Code::NotFound);
    assert!(world.state.hook(HookId::from_u128(70)).is_none());
}

#[test]
fn there_is_a_most() {
    let mut world = World::with_service();
    for number in 0..MAX_HOOKS {
        world.ok(put(
            100 + number as u128,
            &format!("forge.test/team/r{number}"),
            1,
        ));
    }
    assert_eq!(
        world.refused(put(1, "forge.test/team/more", 1)),
        Code::TooLarge
    );
    world.ok(put(1, "forge.test/team/r1", 2));
}
