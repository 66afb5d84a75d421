//! Forge connections: made, changed, settled, removed; and what must not be taken down.

use skep_model::forge::{Access, Connection, Kept, Kind as ForgeKind, Told};
use skep_model::notify::Standing;
use skep_model::variable::Sealed;

use super::*;

const HOST: &str = "git.example.com";

pub(super) fn connection(token: u8) -> Connection {
    Connection {
        workspace: WORKSPACE,
        host: HOST.into(),
        kind: ForgeKind::Gitea,
        api_url: "https://git.example.com/api/v1".into(),
        access: Access::Token(Sealed(vec![token])),
        ca_pem: None,
        made_ms: 0,
        changed_ms: 0,
        is_refused: false,
        resume_ms: 0,
        problem: None,
        asked_ms: 0,
    }
}

pub(super) fn put(connection: &Connection) -> Kind {
    Kind::PutForge(v1::PutForge {
        connection: Some(connection.into()),
    })
}

fn settle(changed_ms: u64, before_ms: u64, at_ms: u64) -> v1::SettleForge {
    let told = Told {
        status: Status::Queued,
        standing: Standing::Pending { next_ms: 9_000 },
        attempts: 1,
        since_ms: at_ms,
        at_ms,
    };
    v1::SettleForge {
        workspace: id_bytes(WORKSPACE.as_u128()),
        host: HOST.into(),
        expected_changed_ms: changed_ms,
        deployment: id_bytes(DeploymentId::from_u128(50).as_u128()),
        expected_at_ms: before_ms,
        told: Some((&told).into()),
        is_refused: true,
        resume_ms: 0,
        problem: Some("401 Unauthorized".into()),
    }
}

const DEPLOYMENT: DeploymentId = DeploymentId::from_u128(50);

#[test]
fn a_connection_is_made_changed_and_removed_with_what_is_kept_of_it() {
    let mut world = World::with_service();
    assert_eq!(
        world.apply(put(&connection(1))).changes,
        [crate::Change::Forges]
    );
    let first = world.state.forge(WORKSPACE, HOST).expect("made").clone();
    assert_eq!(first.made_ms, world.state.time_ms());
    world.ok(create(DEPLOYMENT, None));
    world.ok(Kind::SettleForge(settle(first.changed_ms, 0, 7_000)));
    let settled = world.state.forge(WORKSPACE, HOST).expect("there").clone();
    assert!(settled.is_refused);
    assert_eq!(settled.problem.as_deref(), Some("401 Unauthorized"));
    assert_eq!(settled.asked_ms, 7_000);
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);

    // A new token: what became of the old one is forgotten, since when it is is not.
    world.ok(put(&connection(2)));
    let changed = world.state.forge(WORKSPACE, HOST).expect("there").clone();
    assert_eq!(
        (changed.access.clone(), changed.made_ms),
        (Access::Token(Sealed(vec![2])), first.made_ms)
    );
    assert!(!changed.is_refused && changed.problem.is_none());

    let mut odd = connection(1);
    odd.access = Access::Token(Sealed(Vec::new()));
    assert_eq!(world.refused(put(&odd)), Code::Internal);
    odd = connection(1);
    odd.host = "Git.example.com".into();
    assert_eq!(world.refused(put(&odd)), Code::Invalid);
    let remove = Kind::RemoveForge(v1::RemoveForge {
        workspace: id_bytes(WORKSPACE.as_u128()),
        host: HOST.into(),
    });
    world.ok(remove.clone());
    assert_eq!(world.refused(remove), Code::NotFound);
}

#[test]
fn what_came_of_a_request_is_taken_down_once_and_changes_nothing_else() {
    let mut world = World::with_service();
    world.ok(put(&connection(1)));
    let changed_ms = world.state.time_ms();
    world.ok(create(DEPLOYMENT, None));
    let before = world.deployment(50).clone();
    world.ok(Kind::SettleForge(settle(changed_ms, 0, 7_000)));
    let after = world.deployment(50).clone();
    assert_eq!(after.generation, before.generation);
    assert_eq!(after.told.as_ref().map(|told| told.at_ms), Some(7_000));
    assert_eq!(
        Deployment {
            told: None,
            ..after
        },
        before
    );

    // Of a leader that was overtaken; of an older token; of nothing that is there.
    let again = Kind::SettleForge(settle(changed_ms, 0, 8_000));
    assert_eq!(world.refused(again), Code::Conflict);
    let older = Kind::SettleForge(settle(changed_ms + 1, 7_000, 8_000));
    assert_eq!(world.refused(older), Code::Conflict);
    let mut gone = settle(changed_ms, 7_000, 8_000);
    gone.deployment = id_bytes(51);
    assert_eq!(world.refused(Kind::SettleForge(gone)), Code::NotFound);
    world.ok(Kind::SettleForge(settle(changed_ms, 7_000, 8_000)));
}

#[test]
fn what_github_shows_of_a_deployment_is_taken_down_once_beside_what_was_told() {
    let mut world = World::with_service();
    world.ok(put(&connection(1)));
    let changed_ms = world.state.time_ms();
    world.ok(create(DEPLOYMENT, None));
    let before = world.deployment(50).clone();
    let kept = Kept {
        id: Some(7),
        digest: 1,
        standing: Standing::Delivered,
        attempts: 1,
        since_ms: 7_000,
        at_ms: 7_000,
        problem: None,
    };
    let settle = |before_ms: u64, changed_ms: u64| {
        Kind::SettleShown(v1::SettleShown {
            workspace: id_bytes(WORKSPACE.as_u128()),
            host: HOST.into(),
            expected_changed_ms: changed_ms,
            deployment: id_bytes(DEPLOYMENT.as_u128()),
            expected_at_ms: before_ms,
            shown: Some((&kept).into()),
            is_refused: false,
            resume_ms: 0,
        })
    };
    world.ok(settle(0, changed_ms));
    let after = world.deployment(50).clone();
    let wanted = Deployment {
        shown: Some(kept.clone()),
        ..before
    };
    assert_eq!(after, wanted, "nothing else");
    assert_eq!(world.refused(settle(0, changed_ms)), Code::Conflict);
    assert_eq!(world.refused(settle(7_000, changed_ms + 1)), Code::Conflict);
    let read = State::decode(&world.state.encode()).expect("a snapshot");
    assert_eq!(read, world.state);
}
