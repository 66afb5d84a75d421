//! Servers, feature levels, the CA, the incarnation.

use skep_model::id::ServerId;
use skep_model::server::{JoinToken, MAX_SERVERS, Role, Server};

use super::*;
use crate::Change;

pub(crate) fn server(id: u128, name: &str) -> Server {
    Server {
        id: ServerId::from_u128(id),
        member: 77,
        name: name.into(),
        cluster_address: format!("{name}.lan:7071"),
        api_address: format!("{name}.lan:7070"),
        version: "1.0.0".into(),
        feature_level: crate::feature_level(),
        joined_ms: 0,
    }
}

pub(crate) fn join_server(server: &Server, rebuild: bool) -> Kind {
    Kind::JoinServer(v1::JoinServer {
        token: id_bytes(500),
        secret_hash: vec![5],
        server: Some(server.into()),
        rebuild,
    })
}

pub(crate) fn update(server: &Server) -> Kind {
    Kind::UpdateServer(v1::UpdateServer {
        server: Some(server.into()),
    })
}

pub(crate) fn remove(id: u128) -> Kind {
    Kind::RemoveServer(v1::RemoveServer {
        server: id_bytes(id),
    })
}

pub(crate) fn level(level: u32) -> Kind {
    Kind::SetFeatureLevel(v1::SetFeatureLevel { level })
}

impl World {
    /// A cluster founded by server 1, with a token for more.
    pub(crate) fn with_servers() -> Self {
        let mut world = Self::with_service();
        world.ok(update(&server(1, "one")));
        world.token(500, Role::Server, 100);
        world
    }

    pub(crate) fn token(&mut self, id: u128, role: Role, uses_left: u32) {
        let token = JoinToken {
            id: TokenId::from_u128(id),
            secret_hash: vec![5],
            expires_ms: u64::MAX,
            uses_left,
            role,
            note: "of a test".into(),
            created_ms: 9,
        };
        self.ok(Kind::PutToken(v1::PutToken {
            token: Some((&token).into()),
        }));
    }

    fn members(&self) -> Vec<(u64, &str)> {
        let all = self.state.servers();
        all.map(|s| (s.member, s.name.as_str())).collect()
    }
}

#[test]
fn every_server_gets_a_member_id_of_its_own_for_ever() {
    let mut world = World::with_servers();
    assert_eq!(world.members(), [(1, "one")]);
    assert_eq!(
        world.ok(join_server(&server(2, "two"), false)),
        Reply::Member(2)
    );
    assert_eq!(
        world.ok(join_server(&server(3, "three"), false)),
        Reply::Member(3)
    );
    world.ok(remove(3));
    assert_eq!(
        world.ok(join_server(&server(4, "three"), false)),
        Reply::Member(4)
    );
    assert_eq!(
        world.ok(join_server(&server(2, "two"), true)),
        Reply::Member(5)
    );
    assert_eq!(world.members(), [(1, "one"), (5, "two"), (4, "three")]);
    let by_member = |m| world.state.server_by_member(m).map(|s| s.id.as_u128());
    assert_eq!((by_member(2), by_member(5)), (None, Some(2)));
    assert_eq!(world.state.next_member(), 6);
}

#[test]
fn a_server_that_joins_wrongly_is_refused_and_the_token_not_spent() {
    let mut world = World::with_servers();
    let two = server(2, "two");
    let refused =
        |world: &mut World, server: &Server, rebuild| world.refused(join_server(server, rebuild));
    assert_eq!(refused(&mut world, &two, true), Code::NotFound);
    assert_eq!(
        refused(&mut world, &server(2, "one"), false),
        Code::Conflict
    );
    assert_eq!(refused(&mut world, &server(1, "x"), false), Code::Conflict);
    let old = Server {
        feature_level: 1,
        ..two.clone()
    };
    assert_eq!(refused(&mut world, &old, false), Code::Conflict);
    let nowhere = Server {
        cluster_address: "two".into(),
        ..two.clone()
    };
    assert_eq!(refused(&mut world, &nowhere, false), Code::Invalid);
    let token = world.state.token(TokenId::from_u128(500)).expect("there");
    assert_eq!(token.uses_left, 100);
    world.ok(join_server(&two, false));
    for id in 3..=MAX_SERVERS as u128 {
        world.ok(join_server(&server(id, &format!("s{id}")), false));
    }
    assert_eq!(
        refused(&mut world, &server(99, "more"), false),
        Code::Conflict
    );
    world.ok(join_server(&two, true));
}

#[test]
fn a_token_is_bound_to_its_role() {
    let mut world = World::with_servers();
    let as_node = join(TokenId::from_u128(500), vec![5], NodeId::from_u128(8), "n8");
    assert_eq!(world.refused(as_node.clone()), Code::Forbidden);
    world.token(501, Role::Node, 1);
    let as_server = Kind::JoinServer(v1::JoinServer {
        token: id_bytes(501),
        secret_hash: vec![5],
        server: Some((&server(2, "two")).into()),
        rebuild: false,
    });
    assert_eq!(world.refused(as_server), Code::Forbidden);
    let revoke = || {
        Kind::RemoveToken(v1::RemoveToken {
            token: id_bytes(500),
        })
    };
    let created = world
        .state
        .token(TokenId::from_u128(500))
        .map(|t| t.created_ms);
    assert!(created > Some(9), "the cluster's time, not the caller's");
    world.ok(revoke());
    assert_eq!(world.refused(revoke()), Code::NotFound);
    assert_eq!(world.refused(as_node), Code::Unauthenticated);
    assert_eq!(world.state.tokens().count(), 1);
}

#[test]
fn an_update_never_moves_a_member_and_says_what_changed_once() {
    let mut world = World::with_servers();
    world.ok(join_server(&server(2, "two"), false));
    let moved = Server {
        cluster_address: "10.0.0.2:1".into(),
        ..server(2, "two")
    };
    let first = world.apply(update(&moved));
    assert_eq!(first.changes, [Change::Server(moved.id)]);
    assert_eq!(world.apply(update(&moved)).changes, []);
    let known = world.state.server(moved.id).expect("there");
    assert_eq!((known.member, &*known.cluster_address), (2, "10.0.0.2:1"));
    assert_eq!(world.refused(update(&server(9, "nine"))), Code::NotFound);
    assert_eq!(world.refused(update(&server(2, "one"))), Code::Conflict);
    world.ok(remove(1));
    assert_eq!(world.refused(remove(2)), Code::Conflict, "the last one");
}

#[test]
fn the_level_rises_when_every_server_can_and_never_falls() {
    let mut world = World::with_servers();
    assert_eq!(world.state.feature_level(), crate::feature_level());
    world.ok(level(crate::feature_level()));
    assert_eq!(world.refused(level(1)), Code::Conflict);
    let newer = level(crate::feature_level() + 1);
    let applied = world.apply(newer);
    assert!(applied.is_newer && applied.outcome.is_err());
}

#[test]
fn the_ca_is_replaced_in_three_steps() {
    use v1::rotate_ca::Step;
    let mut world = World::with_servers();
    let step = |step| Kind::RotateCa(v1::RotateCa { step: Some(step) });
    let begin = || {
        step(Step::Begin(v1::Ca {
            cert_pem: "new\n".into(),
            sealed_key: vec![2],
        }))
    };
    let ca = |world: &World| {
        let cluster = world.state.cluster().expect("cluster");
        (cluster.ca_cert_pem.clone(), cluster.trusted_ca_pem())
    };
    let pair = |signs: &str, trusted: &str| (signs.to_owned(), trusted.to_owned());
    assert_eq!(world.refused(step(Step::Activate(true))), Code::Conflict);
    assert_eq!(world.refused(step(Step::Finish(true))), Code::Conflict);
    world.ok(begin());
    assert_eq!(ca(&world), pair("old\n", "new\nold\n"));
    assert_eq!(world.refused(begin()), Code::Conflict);
    assert_eq!(world.refused(step(Step::Finish(true))), Code::Conflict);
    world.ok(step(Step::Activate(true)));
    assert_eq!(ca(&world), pair("new\n", "new\nold\n"));
    assert_eq!(world.refused(step(Step::Activate(true))), Code::Conflict);
    world.ok(step(Step::Finish(true)));
    assert_eq!(ca(&world), pair("new\n", "new\n"));
    let cluster = world.state.cluster().expect("cluster");
    assert_eq!(cluster.sealed_ca_key.0, [2]);
}

#[test]
fn a_new_incarnation_knows_one_server() {
    let mut world = World::with_servers();
    world.ok(join_server(&server(2, "two"), false));
    world.ok(join_server(&server(3, "three"), false));
    let raise = |incarnation, member| {
        let survivor = Server {
            member,
            ..server(2, "two")
        };
        Kind::RaiseIncarnation(v1::RaiseIncarnation {
            incarnation,
            server: Some((&survivor).into()),
        })
    };
    assert_eq!(world.refused(raise(1, 2)), Code::Conflict);
    world.ok(raise(2, 2));
    assert_eq!(world.refused(raise(2, 2)), Code::Conflict);
    assert_eq!(world.members(), [(2, "two")]);
    assert_eq!(world.state.next_member(), 4, "ids of the lost stay used");
    world.ok(raise(1_700_000_000, 8));
    assert_eq!(world.state.next_member(), 9);
}
