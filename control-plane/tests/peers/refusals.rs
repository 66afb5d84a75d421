//! Who may not speak: other roles, strangers, servers and nodes that were removed, also on streams
//! that they have open.

use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::control_client::ControlClient;
use skep_proto::v1::servers_client::ServersClient;
use tonic::Code;

use crate::node::Node;
use crate::world::{PATIENCE, World, server_id};

fn report(from: u64) -> v1::PresenceReport {
    v1::PresenceReport {
        full: true,
        nodes: Vec::new(),
        from,
    }
}

/// The code of a call that must not be let in.
async fn refused<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Code {
    let answer = tokio::time::timeout(PATIENCE, call).await;
    let status = answer.expect("it was let in").err();
    status.expect("it was let in").code()
}

/// Stays open.
fn endless<T: Send + 'static>(first: T) -> impl tokio_stream::Stream<Item = T> + Send + 'static {
    use tokio_stream::StreamExt as _;
    tokio_stream::once(first).chain(tokio_stream::pending())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_roles_and_other_names_are_refused() {
    let world = World::start().await;
    let id = world.add_node(world.leader().await, 7).await;
    let raft = |from| v1::RaftMessages {
        from,
        messages: Vec::new(),
    };
    for own in [world.as_node(id), world.as_operator()] {
        let mut client = ServersClient::new(world.dial(&own, 1));
        assert_eq!(
            refused(client.messages(endless(raft(2)))).await,
            Code::Unauthenticated
        );
        assert_eq!(
            refused(client.presence(endless(report(2)))).await,
            Code::Unauthenticated
        );
        let offer = v1::SnapshotOffer::default();
        assert_eq!(
            refused(client.offer_snapshot(offer)).await,
            Code::Unauthenticated
        );
        let history = v1::FetchHistoryRequest::default();
        assert_eq!(
            refused(client.fetch_history(history)).await,
            Code::Unauthenticated
        );
        let events = v1::FetchEventsRequest::default();
        assert_eq!(
            refused(client.fetch_events(events)).await,
            Code::Unauthenticated
        );
    }
    // A server speaks of itself only, and a server that nobody knows of not at all.
    let mut other = ServersClient::new(world.dial(&world.as_server(2), 1));
    assert_eq!(
        refused(other.messages(endless(raft(3)))).await,
        Code::PermissionDenied
    );
    let mut unknown = ServersClient::new(world.dial(&world.as_server(9), 1));
    assert_eq!(
        refused(unknown.messages(endless(raft(9)))).await,
        Code::PermissionDenied
    );
    let propose = endless(v1::ProposeRequest::default());
    assert_eq!(
        refused(unknown.propose(propose)).await,
        Code::PermissionDenied
    );
    let history = v1::FetchHistoryRequest::default();
    assert_eq!(
        refused(unknown.fetch_history(history)).await,
        Code::PermissionDenied
    );
    for own in [world.as_node(id), world.as_server(2)] {
        let mut client = ControlClient::new(world.dial(&own, 1));
        let write = v1::WriteRequest::default();
        assert_eq!(refused(client.write(write)).await, Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_server_is_cut_off_and_stays_out() {
    let world = World::start().await;
    let (leader, removed) = (world.leader().await, world.follower().await);
    let mut client = ServersClient::new(world.dial(&world.as_server(removed), leader));
    let mut proposals = client
        .propose(endless(v1::ProposeRequest {
            id: 5,
            command: vec![],
        }))
        .await
        .unwrap()
        .into_inner();
    let first = proposals.message().await.unwrap().unwrap();
    assert_eq!(first.id, 5, "the stream works");
    let remove = v1::RemoveServer {
        server: id_bytes(server_id(removed).as_u128()),
    };
    let store = world.store(leader);
    store.propose(Kind::RemoveServer(remove)).await.unwrap();
    let cut = tokio::time::timeout(PATIENCE, proposals.message()).await;
    let cut = cut.expect("at once").unwrap_err();
    assert_eq!(cut.code(), Code::PermissionDenied);
    let presence = client.presence(endless(report(removed)));
    assert_eq!(refused(presence).await, Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_cut_off_at_a_follower_too() {
    let world = World::start().await;
    let follower = world.follower().await;
    let id = world.add_node(follower, 7).await;
    // Not ready yet, and hence removable at once.
    let mut node = Node::connect(&world, id, follower).await;
    let broken = v1::ObservedSet {
        sequence: 2,
        runtime_ok: false,
        ..Default::default()
    };
    node.say(v1::from_agent::Kind::Observed(broken)).await;
    let leader = world.leader().await;
    let is_down = |view: &skep_state::State| {
        view.node(id).unwrap().status == skep_model::node::NodeStatus::RuntimeDown
    };
    world.until(leader, "down", is_down).await;
    let remove = v1::RemoveNode {
        node: id_bytes(id.as_u128()),
    };
    let store = world.store(leader);
    store.propose(Kind::RemoveNode(remove)).await.unwrap();
    let status = loop {
        if let Err(status) = node.hear().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    let upload = v1::FetchUploadRequest {
        upload: id_bytes(1),
    };
    let refused = node.client.fetch_upload(upload).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
