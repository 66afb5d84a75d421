//! What a node measures is known to the leader, whichever server has its session, and to the next leader
//! after it; a node speaks of what is its own, and servers that do not lead take nothing.

use std::time::Duration;

use skep_control_plane::samples::MAX_WINDOW;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::servers_client::ServersClient;
use tonic::Code;

use crate::node::Node;
use crate::world::{PATIENCE, World};

/// Nothing tells of a sample that has come.
const LOOK: Duration = Duration::from_millis(50);

/// Half a core.
fn reading(at_ms: u64) -> Up {
    Up::Samples(v1::Samples {
        life: 1,
        at_ms,
        node: Some(v1::NodeReading {
            cpu_us: Some(at_ms * 500),
            memory_bytes: Some(77),
        }),
        // Nobody knows it: left out, and counted.
        allocations: vec![v1::AllocationReading {
            allocation: id_bytes(5),
            cpu_us: Some(1),
            ..Default::default()
        }],
        extras: Vec::new(),
        ingress: None,
    })
}

/// Until `member` knows half a core of the node.
async fn known(world: &World, member: u64, id: skep_model::id::NodeId) {
    let samples = &world.servers[&member].samples;
    let look = async {
        while samples.of_node(id, MAX_WINDOW).and_then(|it| it.cpu_millis) != Some(500) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("known");
    let sample = samples.of_node(id, MAX_WINDOW).expect("known");
    assert_eq!(sample.memory_bytes, Some(77));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_of_a_follower_reach_the_leader_and_the_next_one() {
    let mut world = World::start().await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    let id = world.add_node(follower, 7).await;
    let node = Node::connect(&world, id, follower).await;
    // Words that come within one report are one to the leader: its first is where it begins.
    let feed = tokio::spawn(async move {
        for at in 1..600 {
            node.say(reading(at * 2_000)).await;
            tokio::time::sleep(2 * LOOK).await;
        }
    });
    known(&world, leader, id).await;
    let own = &world.servers[&follower].samples;
    assert_eq!(own.of_node(id, MAX_WINDOW), None, "it does not lead");
    assert!(own.metrics().refused > 0, "{:?}", own.metrics());
    world.stop_server(leader).await;
    known(&world, world.leader().await, id).await;
    feed.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_servers_may_report_and_only_to_the_leader() {
    let world = World::start().await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    let id = world.add_node(leader, 7).await;
    let report = || tokio_stream::once(v1::SampleReport::default());
    let mut as_node = ServersClient::new(world.dial(&world.as_node(id), leader));
    let refused = as_node.samples(report()).await.expect_err("a node");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let own = world.as_server(leader);
    let mut to_follower = ServersClient::new(world.dial(&own, follower));
    let refused = to_follower.samples(report()).await.expect_err("a follower");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}
