//! What is at one server and wanted at another: logs and uploads.

use bytes::Bytes;
use skep_control_plane::agents::relay::Ask;
use skep_model::id::{AllocationId, UploadId};
use skep_model::problem::Code;
use skep_proto::v1;
use skep_proto::v1::to_agent::Kind as Down;

use crate::node::Node;
use crate::world::{PATIENCE, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_through_the_server_that_has_the_node() {
    let world = World::start().await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    let id = world.add_node(follower, 7).await;
    let ask = Ask {
        allocation: AllocationId::from_u128(5),
        node: id,
        follow: true,
        tail: 3,
        after_ns: 0,
        until_ns: 0,
        grep: "".into(),
    };
    let relay = &world.servers[&leader].relay;
    let away = relay
        .open(ask.clone())
        .err()
        .expect("it is connected nowhere");
    assert_eq!(away.code, Code::Unavailable);
    let mut node = Node::connect(&world, id, follower).await;
    let fleet = &world.servers[&leader].fleet;
    let mut changed = fleet.changed();
    while fleet.place_of(id).is_none() {
        changed.changed().await.unwrap();
    }
    let mut lines = relay.open(ask).unwrap();
    let request = node.hear_of(|kind| match kind {
        Down::LogRequest(request) => Some(request),
        _ => None,
    });
    let request = request.await;
    assert!(request.follow && request.tail == 3);
    let chunk = v1::LogChunk {
        request: request.request,
        allocation: request.allocation,
        lines: vec![v1::LogLine {
            at_ns: 1,
            stderr: false,
            text: "hello".into(),
            lost: None,
        }],
        problem: None,
    };
    let chunks = tokio_stream::StreamExt::chain(tokio_stream::once(chunk), tokio_stream::pending());
    let mut client = node.client.clone();
    let sending = tokio::spawn(async move { client.send_logs(chunks).await });
    let got = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap();
    assert_eq!(got.expect("a line").lines[0].text, "hello");
    // A reader who goes away is told to the node, across both servers.
    drop(lines);
    let canceled = node.hear_of(|kind| match kind {
        Down::LogCancel(cancel) => Some(cancel.request),
        _ => None,
    });
    assert_eq!(canceled.await, request.request);
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_found_at_whichever_server_has_its_client() {
    let world = World::start().await;
    for (at, wanted_at, client_first) in [(1, 2, true), (3, 1, false)] {
        let upload = UploadId::from_u128(at);
        let parts = [Bytes::from_static(b"a"), Bytes::from(vec![b'x'; 300_000])];
        let body = parts.clone().map(Ok::<_, std::io::Error>);
        let offered = world.servers[&u64::try_from(at).unwrap()].uploads.clone();
        let offer = async move {
            let body = futures_util::stream::iter(body);
            offered.offer(upload, body).await
        };
        let taken = world.servers[&wanted_at].uploads.clone();
        let take = async move {
            let mut chunks = taken.take(upload).await?;
            let mut all = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                all.extend_from_slice(&chunk?);
            }
            Ok::<_, skep_model::problem::Problem>(all)
        };
        let pause = tokio::time::sleep(std::time::Duration::from_millis(100));
        let (offered, taken) = if client_first {
            let offer = tokio::spawn(offer);
            pause.await;
            (offer, tokio::spawn(take))
        } else {
            let take = tokio::spawn(take);
            pause.await;
            (tokio::spawn(offer), take)
        };
        let whole = tokio::time::timeout(PATIENCE, taken).await;
        let whole = whole.expect("in time").unwrap().unwrap();
        assert_eq!(whole, parts.concat());
        offered.await.unwrap().expect("the client is told");
        // Nothing is stored: what was taken once is gone, and that is known everywhere.
        let again = world.servers[&wanted_at].uploads.take(upload).await;
        assert_eq!(again.unwrap_err().code, Code::SourceFailed);
    }
}
