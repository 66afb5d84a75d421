//! Logins at registries.

use skep_model::problem::Code;
use skep_model::registry::{MAX_REGISTRIES, RegistryLogin};
use skep_model::variable::Sealed;
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use super::World;
use crate::{Change, State};

fn put(host: &str, user: &str) -> Kind {
    let login = RegistryLogin {
        host: host.into(),
        user: user.into(),
        password: Sealed(vec![1, 2, 3]),
        changed_ms: 0,
    };
    Kind::PutRegistry(v1::PutRegistry {
        login: Some((&login).into()),
    })
}

#[test]
fn a_login_is_replaced_kept_and_taken_away() {
    let mut world = World::with_service();
    assert_eq!(
        world.apply(put("ghcr.io", "a")).changes,
        [Change::Registries]
    );
    world.ok(put("ghcr.io", "b"));
    let login = world.state.registry("ghcr.io").expect("it is there");
    assert_eq!(
        (&*login.user, login.changed_ms),
        ("b", world.state.time_ms())
    );
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    assert_eq!(world.refused(put("https://x", "a")), Code::Invalid);
    let remove = Kind::RemoveRegistry(v1::RemoveRegistry {
        host: "ghcr.io".into(),
    });
    world.ok(remove.clone());
    assert_eq!(world.refused(remove), Code::NotFound);
    for number in 0..MAX_REGISTRIES {
        world.ok(put(&format!("r{number}"), "a"));
    }
    assert_eq!(world.refused(put("more", "a")), Code::TooLarge);
}
