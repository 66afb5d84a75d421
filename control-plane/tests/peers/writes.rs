//! Any server takes a write, from within and from operators.

use skep_control_plane::consensus::MAX_COMMAND_BYTES;
use skep_model::node::NodeStatus;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::control_client::ControlClient;
use skep_proto::v1::write_request::Kind as Write;
use tokio_stream::StreamExt as _;

use crate::world::{PATIENCE, World, set_meta};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_writes_and_shows_them_at_once() {
    let world = World::start().await;
    let follower = world.follower().await;
    let node = world.add_node(follower, 7).await;
    let view = world.store(follower).view();
    let joined = view.node(node).expect("one's own write is seen at once");
    assert_eq!(joined.status, NodeStatus::Lost);

    // A refusal comes back as what it is.
    let twice = Kind::SetNodeMeta(set_meta(node, "Not A Key", "x"));
    let refused = world.store(follower).propose(twice).await.unwrap_err();
    assert_eq!(refused.code, skep_model::problem::Code::Invalid);
    let huge = Kind::SetNodeMeta(set_meta(node, "k", &"x".repeat(MAX_COMMAND_BYTES)));
    let refused = world.store(follower).propose(huge).await.unwrap_err();
    assert!(!refused.code.is_retryable(), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_when_the_leader_dies_and_each_happens_once() {
    let mut world = World::start().await;
    let leader = world.leader().await;
    let follower = world.follower().await;
    let node = world.add_node(follower, 7).await;
    let store = world.store(follower).clone();
    let writer = tokio::spawn(async move {
        for number in 0..200 {
            let value = number.to_string();
            let write = Kind::SetNodeMeta(set_meta(node, "count", &value));
            store.propose(write).await.unwrap();
            let view = store.view();
            assert_eq!(view.node(node).unwrap().meta["count"], value);
        }
        store.view().node(node).unwrap().generation
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    world.stop_server(leader).await;
    let written = tokio::time::timeout(PATIENCE, writer).await;
    let generation = written.expect("in time").unwrap();
    // Joining and each write raise it by one: no write was obeyed twice.
    let rest = world.leader().await;
    let once = world.store(rest).read().await.unwrap();
    assert_eq!(once.node(node).unwrap().generation, generation);
    assert_eq!(once.node(node).unwrap().meta["count"], "199");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_writes_many_over_one_stream_at_any_server() {
    let world = World::start().await;
    let node = world.add_node(world.leader().await, 7).await;
    let operator = world.as_operator();
    for member in [world.leader().await, world.follower().await] {
        let mut client = ControlClient::new(world.dial(&operator, member));
        let write = move |id: u64| v1::WriteRequest {
            id,
            key: Vec::new(),
            kind: Some(Write::SetNodeMeta(set_meta(
                node,
                &format!("k{}", id % 50),
                "v",
            ))),
        };
        let one = client.write(write(9)).await.unwrap().into_inner();
        assert!(one.id == 9 && one.index > 0 && one.problem.is_none());
        let requests = tokio_stream::iter((0..3_000).map(write));
        let replies = client.write_many(requests).await.unwrap().into_inner();
        let all = tokio::time::timeout(PATIENCE, replies.collect::<Vec<_>>());
        let mut ids = std::collections::BTreeSet::new();
        let mut indexes = std::collections::BTreeSet::new();
        for reply in all.await.expect("in time") {
            let reply = reply.unwrap();
            assert_eq!(reply.problem, None);
            ids.insert(reply.id);
            indexes.insert(reply.index);
        }
        assert_eq!(
            (ids.len(), indexes.len()),
            (3_000, 3_000),
            "each is a command of its own"
        );
        let empty = v1::WriteRequest::default();
        let reply = client.write(empty).await.unwrap().into_inner();
        assert!(reply.problem.is_some() && reply.index == 0);
    }
}
