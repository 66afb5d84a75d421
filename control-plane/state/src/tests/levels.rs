//! Formats and feature levels: what older versions wrote is read, what newer ones write stops us, and
//! nothing of a level is obeyed below it.

use super::servers::{join_server, level, server, update};
use super::*;

/// Written by version 1: a log, each command behind its length, and the state after it.
const V1_COMMANDS: &[u8] = include_bytes!("golden/v1.commands");
const V1_SNAPSHOT: &[u8] = include_bytes!("golden/v1.snapshot");

fn golden(mut bytes: &[u8]) -> World {
    let mut world = World::default();
    while let Some((size, rest)) = bytes.split_first_chunk::<4>() {
        let (one, rest) = rest.split_at(u32::from_be_bytes(*size) as usize);
        let applied = world.raw(one.to_vec());
        applied.outcome.expect("accepted then, accepted now");
        bytes = rest;
    }
    world
}

/// A cluster as version 1 left it.
pub(super) fn version_1() -> World {
    golden(V1_COMMANDS)
}

#[test]
fn a_log_of_version_1_gives_the_bytes_that_version_1_got() {
    let world = golden(V1_COMMANDS);
    assert_eq!(world.state.feature_level(), 1);
    assert_eq!(world.state.encode(), V1_SNAPSHOT);
    let read = State::decode(V1_SNAPSHOT).expect("decodes");
    assert_eq!(read, world.state);
}

#[test]
fn a_cluster_of_level_1_refuses_what_is_newer_and_rises_by_itself() {
    let mut world = golden(V1_COMMANDS);
    let before = world.state.clone();
    let problem = world
        .apply(update(&server(1, "one")))
        .outcome
        .expect_err("level 2");
    assert!(problem.message.contains("feature level 2"), "{problem}");
    let newer_fields = [
        super::quarantine::report(NODE, &[]),
        Kind::SetNodeStatus(v1::SetNodeStatus {
            node: id_bytes(NODE.as_u128()),
            status: 3,
            witnesses: vec![id_bytes(8)],
        }),
        Kind::PutToken(v1::PutToken {
            token: Some(v1::JoinToken {
                id: id_bytes(3),
                role: 1,
                ..v1::JoinToken::default()
            }),
        }),
    ];
    for kind in newer_fields {
        assert_eq!(
            world.apply(kind).outcome.expect_err("level 2").code,
            Code::Conflict
        );
    }
    // Version 1 does not move its clock for these either.
    assert_eq!(world.state.time_ms(), before.time_ms());
    world.state.index = before.index;
    assert_eq!(world.state, before);
    world.ok(level(2));
    world.ok(update(&server(1, "one")));
    let founder = world.state.server_named("one").expect("registered");
    assert_eq!((founder.member, world.state.next_member()), (1, 2));
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
}

#[test]
fn below_its_level_a_key_means_nothing() {
    let mut world = golden(V1_COMMANDS);
    let key = crate::Key::Own {
        key: [1; 16],
        since: 0,
    };
    let bytes = crate::with_key(command(1, create(DeploymentId::from_u128(90), None)), key);
    assert_eq!(world.raw(bytes.clone()).repeat, crate::Repeat::First);
    let again = world.raw(bytes);
    assert_eq!(
        again.outcome.expect_err("there is one").code,
        Code::Conflict
    );
}

#[test]
fn a_level_waits_for_the_last_server() {
    let mut world = golden(V1_COMMANDS);
    world.ok(level(2));
    world.ok(update(&server(1, "one")));
    world.token(500, skep_model::server::Role::Server, 9);
    world.ok(join_server(&server(2, "two"), false));
    let next = crate::feature_level() + 1;
    let problem = world.state.check_level(next).expect_err("nobody can");
    assert!(problem.message.contains("one, two"), "{problem}");
    assert_eq!(world.state.check_level(crate::feature_level()), Ok(()));
}

#[test]
fn what_needs_a_higher_level_is_refused_before_it_is_proposed_and_names_who_is_older() {
    let mut world = golden(V1_COMMANDS);
    let rename = update(&server(1, "one"));
    let problem = world.state.check_command(&rename).expect_err("level 2");
    assert_eq!(problem.code, Code::Conflict);
    assert!(problem.message.contains("feature level 2"), "{problem}");
    // What founds and what raises is judged where it is applied.
    assert_eq!(world.state.check_command(&level(2)), Ok(()));
    world.ok(level(2));
    assert_eq!(world.state.check_command(&rename), Ok(()));
    world.ok(rename);
    world.token(500, skep_model::server::Role::Server, 9);
    world.ok(join_server(&server(2, "two"), false));
    let next = crate::feature_level() + 1;
    let text = world.state.below("set node metadata", next).message;
    let one = server(1, "one").version;
    assert!(
        text.contains(&format!("level {next}")) && text.contains("level 2"),
        "{text}"
    );
    assert!(
        text.contains(&format!("one ({one}), two ({one}) run an older version")),
        "{text}"
    );
}

#[test]
fn a_command_of_a_newer_version_stops_the_server() {
    let mut world = World::with_service();
    let bytes = prost::Message::encode_to_vec(&v1::Command {
        version: crate::format() + 1,
        time_ms: u64::MAX,
        ..v1::Command::default()
    });
    let before = world.state.time_ms();
    let applied = world.raw(bytes);
    assert!(applied.is_newer);
    let text = applied.outcome.expect_err("newer").message;
    assert!(text.contains("start the newer version"), "{text}");
    assert_eq!(world.state.time_ms(), before);
}

#[test]
fn commands_carry_the_level_that_they_need() {
    let version = |kind| {
        let message: v1::Command = prost::Message::decode(&*command(1, kind)).expect("decodes");
        message.version
    };
    assert_eq!(version(create(DeploymentId::from_u128(1), None)), 1);
    assert_eq!(
        version(observe(NODE, AllocationId::from_u128(1), Seen::Running)),
        1
    );
    assert_eq!(version(super::quarantine::report(NODE, &[])), 2);
    assert_eq!(version(update(&server(1, "one"))), 2);
    assert_eq!(version(level(7)), 7);
    let admin = v1::SetNodeAdmin::default();
    assert_eq!(version(Kind::SetNodeAdmin(admin)), 3);
    let put = |spec: v1::ServiceSpec| {
        let service = v1::Service {
            spec: Some(spec),
            ..v1::Service::default()
        };
        Kind::PutService(v1::PutService {
            service: Some(service),
            expected_generation: 0,
        })
    };
    assert_eq!(version(put(v1::ServiceSpec::default())), 1);
    let placed = v1::ServiceSpec {
        placement: Some(v1::Placement::default()),
        ..v1::ServiceSpec::default()
    };
    assert_eq!(version(put(placed)), 3);
}

/// Writes this version's sample, once it is released: `cargo test -p skep-state sample -- --ignored`.
#[test]
#[ignore = "writes into the repository"]
#[expect(clippy::disallowed_methods, reason = "a tool, not a decision")]
fn write_a_sample_of_this_version() {
    let world = super::laws::busy();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/golden");
    let mut log = Vec::new();
    for one in &world.log {
        log.extend((one.len() as u32).to_be_bytes());
        log.extend(one);
    }
    let path = |what| format!("{folder}/v{}.{what}", crate::format());
    std::fs::write(path("commands"), log).expect("written");
    std::fs::write(path("snapshot"), world.state.encode()).expect("written");
}
