//! Settings: what is said, taken back, inherited and refused.

use skep_model::placement::PoolPolicy;
use skep_model::settings::{Pool, Quota, Scope};
use skep_proto::v1::set_scope::Relaxed;

use super::*;

const WHOLE: Scope = Scope::Workspace(WORKSPACE);
const PART: Scope = Scope::Environment(ENVIRONMENT);

fn set(scope: Scope, quota: Option<Quota>, relaxed: Option<Relaxed>) -> Kind {
    Kind::SetScope(v1::SetScope {
        scope: Some(scope.into()),
        quota: quota.as_ref().map(Into::into),
        relaxed,
        ..Default::default()
    })
}

fn put(pool: &Pool) -> Kind {
    Kind::PutPool(v1::PutPool {
        pool: Some(pool.into()),
    })
}

fn pool(name: &str) -> Pool {
    Pool {
        name: name.into(),
        policy: PoolPolicy {
            cpu_percent: 200,
            strategy: Some(skep_model::placement::Strategy::Spread),
            builds: skep_model::placement::Builds::Only,
            ..PoolPolicy::default()
        },
        meta: BTreeMap::from([("tier".into(), "pro".into())]),
    }
}

#[test]
fn what_is_said_of_a_scope_is_kept_part_by_part() {
    let mut world = World::with_service();
    let quota = Quota {
        memory_bytes: Some(1 << 30),
        ..Quota::default()
    };
    let first = set(WHOLE, Some(quota), None);
    let applied = world.apply(first.clone());
    assert_eq!(applied.changes, [crate::Change::Settings]);
    assert_eq!(world.apply(first).changes, [], "as it is already");
    world.ok(set(WHOLE, None, Some(Relaxed::Said(true))));
    let settings = world.state.settings_of(WHOLE);
    assert_eq!((settings.quota, settings.relaxed), (quota, Some(true)));
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    assert_eq!(world.state.relaxed_by(world.service()), Some(WHOLE));
    world.ok(set(PART, None, Some(Relaxed::Said(false))));
    assert_eq!(world.state.relaxed_by(world.service()), None);
    world.ok(set(PART, None, Some(Relaxed::Inherited(true))));
    assert_eq!(world.state.relaxed_by(world.service()), Some(WHOLE));
    assert_eq!(
        world.state.scopes().count(),
        1,
        "nothing said, nothing kept"
    );
    let gone = Scope::Environment(EnvironmentId::from_u128(99));
    assert_eq!(world.refused(set(gone, None, None)), Code::NotFound);
    for scope in [WHOLE, PART] {
        let ids: Vec<_> = world.state.services_in(scope).map(|one| one.id).collect();
        assert_eq!(ids, [SERVICE]);
    }
    assert_eq!(world.state.scope_name(WHOLE), "workspace `default`");
    assert_eq!(
        world.state.scope_name(PART),
        "environment `shop/production`"
    );
}

#[test]
fn a_pool_is_put_as_a_whole_and_taken_away() {
    let mut world = World::with_service();
    world.ok(put(&pool("web")));
    let applied = world.apply(put(&pool("web")));
    assert_eq!(applied.changes, []);
    assert_eq!(
        world.state.pool("web").map(|one| (**one).clone()),
        Some(pool("web"))
    );
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    assert_eq!(world.refused(put(&pool("A B"))), Code::Invalid);
    let remove = Kind::RemovePool(v1::RemovePool { name: "web".into() });
    assert_eq!(
        world.apply(remove.clone()).changes,
        [crate::Change::Settings]
    );
    assert_eq!(world.refused(remove), Code::NotFound);
    for number in 0..skep_model::settings::MAX_POOLS {
        world.ok(put(&pool(&format!("p{number}"))));
    }
    assert_eq!(world.refused(put(&pool("more"))), Code::TooLarge);
    world.ok(put(&Pool {
        meta: BTreeMap::new(),
        ..pool("p0")
    }));
}

#[test]
fn below_their_level_there_are_no_settings() {
    let mut world = super::levels::version_1();
    for kind in [
        set(WHOLE, None, None),
        put(&pool("web")),
        Kind::RemovePool(v1::RemovePool::default()),
    ] {
        let problem = world.apply(kind).outcome.expect_err("level 3");
        assert!(problem.message.contains("feature level 3"), "{problem}");
    }
}
