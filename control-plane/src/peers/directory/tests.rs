use super::*;
use futures_util::FutureExt as _;
use skep_model::id::{TokenId, WorkspaceId};
use skep_model::server::{JoinToken, Role};
use skep_model::tenancy::Workspace;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::command;

/// A cluster of server 1, and a token for more.
fn founded() -> State {
    let mut state = State::default();
    let workspace = Workspace {
        id: WorkspaceId::from_u128(1),
        name: "default".into(),
    };
    let init = v1::InitCluster {
        cluster: id_bytes(1),
        base_domain: "localhost".into(),
        workspace: Some((&workspace).into()),
        server: Some((&server(1)).into()),
        ..Default::default()
    };
    apply(&mut state, Kind::InitCluster(init));
    let token = JoinToken {
        id: TokenId::from_u128(1),
        secret_hash: vec![1],
        expires_ms: u64::MAX,
        uses_left: 9,
        role: Role::Server,
        note: String::new(),
        created_ms: 0,
    };
    let token = Some((&token).into());
    apply(&mut state, Kind::PutToken(v1::PutToken { token }));
    state
}

fn server(number: u128) -> Server {
    Server {
        id: ServerId::from_u128(number),
        member: 1,
        name: format!("server-{number}"),
        cluster_address: format!("10.0.0.{number}:7443"),
        api_address: format!("10.0.0.{number}:8443"),
        version: "0.1.0".into(),
        feature_level: skep_state::feature_level(),
        joined_ms: 0,
    }
}

fn join(state: &mut State, number: u128) {
    let join = v1::JoinServer {
        token: id_bytes(1),
        secret_hash: vec![1],
        server: Some((&server(number)).into()),
        rebuild: false,
    };
    apply(state, Kind::JoinServer(join));
}

fn apply(state: &mut State, kind: Kind) {
    let index = state.index() + 1;
    let applied = state.apply(index, &command(1, kind));
    applied.outcome.expect("accepted");
}

fn contact(member: u64, address: &str) -> Contact {
    Contact {
        member,
        server: ServerId::from_u128(member.into()),
        address: address.to_owned(),
        standing: Standing::Server,
    }
}

fn addresses(directory: &Directory) -> Vec<String> {
    let contacts = directory.watch();
    let contacts = contacts.borrow();
    contacts.values().map(|c| c.address.clone()).collect()
}

#[test]
fn what_was_told_at_joining_counts_until_the_state_knows_this_server() {
    let directory = Directory::new(2, [contact(1, "told:1"), contact(2, "told:2")]);
    directory.update(&State::default(), false, &BTreeSet::new());
    assert_eq!(addresses(&directory), ["told:1", "told:2"]);
    let mut state = founded();
    directory.update(&state, false, &BTreeSet::new());
    assert_eq!(addresses(&directory), ["told:1", "told:2"]);
    join(&mut state, 2);
    directory.update(&state, true, &BTreeSet::new());
    assert_eq!(addresses(&directory), ["10.0.0.1:7443", "10.0.0.2:7443"]);
    assert_eq!(directory.others(), [contact(1, "10.0.0.1:7443")]);
}

#[test]
fn a_removed_server_is_spoken_to_until_the_group_is_without_it() {
    let mut state = founded();
    join(&mut state, 2);
    let directory = Directory::new(1, []);
    let group = BTreeSet::from([1, 2]);
    directory.update(&state, true, &group);
    let contact = directory.get(2).expect("it has joined");
    assert!(directory.until_dropped(&contact).now_or_never().is_none());
    let remove = v1::RemoveServer {
        server: id_bytes(2),
    };
    apply(&mut state, Kind::RemoveServer(remove));
    directory.update(&state, true, &group);
    let leaving = directory.get(2).expect("the group still counts on it");
    assert_eq!(leaving.standing, Standing::Leaving);
    assert!(directory.until_dropped(&contact).now_or_never().is_some());
    assert!(directory.until_removed(&contact).now_or_never().is_none());
    assert!(directory.until_changed(&contact).now_or_never().is_none());
    assert_eq!(directory.of_server(ServerId::from_u128(2)), None);
    directory.update(&state, true, &BTreeSet::from([1]));
    assert_eq!(directory.get(2), None);
    assert!(directory.until_removed(&contact).now_or_never().is_some());
}

#[test]
fn a_server_from_beyond_what_is_known_stays_until_the_state_has_caught_up() {
    let mut state = founded();
    let directory = Directory::new(1, []);
    directory.update(&state, true, &BTreeSet::from([1]));
    assert!(is_beyond(&state, 2) && !is_beyond(&state, 1));
    directory.host(contact(2, "guest:2"));
    directory.update(&state, true, &BTreeSet::from([1]));
    assert_eq!(addresses(&directory), ["10.0.0.1:7443", "guest:2"]);
    join(&mut state, 2);
    directory.update(&state, true, &BTreeSet::from([1]));
    assert_eq!(addresses(&directory), ["10.0.0.1:7443", "10.0.0.2:7443"]);
    // One that was never let in for good is forgotten as soon as its number is another's.
    directory.host(contact(3, "guest:3"));
    join(&mut state, 4);
    directory.update(&state, true, &BTreeSet::from([1]));
    assert_eq!(
        directory.get(3).map(|c| c.server),
        Some(ServerId::from_u128(4))
    );
}
