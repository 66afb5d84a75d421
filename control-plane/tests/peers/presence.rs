//! A node at any server is known to all of them, and outlives any one's leadership.

use std::time::Duration;

use skep_control_plane::agents::fleet::{LOST_AFTER, Place};
use skep_model::assignment::Generation;
use skep_model::node::NodeStatus;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::to_agent::Kind as Down;

use crate::node::Node;
use crate::world::{MEMBERS, PATIENCE, World, server_id, set_meta};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_a_follower_is_judged_by_the_leader() {
    let world = World::start().await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    let id = world.add_node(follower, 7).await;
    let mut node = Node::connect(&world, id, follower).await;
    let is = |status| move |view: &skep_state::State| view.node(id).unwrap().status == status;
    world.until(leader, "ready", is(NodeStatus::Ready)).await;
    for member in MEMBERS {
        let expected = if member == follower {
            Place::Here
        } else {
            Place::At(server_id(follower))
        };
        let fleet = &world.servers[&member].fleet;
        let mut changed = fleet.changed();
        let told = async {
            while fleet.place_of(id) != Some(expected) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("told");
    }
    let servers = node.hear_of(|kind| match kind {
        Down::Servers(servers) => Some(servers),
        _ => None,
    });
    let servers = servers.await;
    assert_eq!(servers.addresses.len(), 3);
    assert!(servers.ca_pem.contains("CERTIFICATE"));

    let broken = v1::ObservedSet {
        sequence: 2,
        runtime_ok: false,
        ..Default::default()
    };
    node.say(Up::Observed(broken)).await;
    world
        .until(leader, "down", is(NodeStatus::RuntimeDown))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_leader_closes_no_stream_and_loses_no_node() {
    let mut world = World::start().await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    let id = world.add_node(follower, 7).await;
    let mut node = Node::connect(&world, id, follower).await;
    let is_ready = |view: &skep_state::State| view.node(id).unwrap().status == NodeStatus::Ready;
    world.until(follower, "ready", is_ready).await;
    world.stop_server(leader).await;
    // Said while nobody leads: it waits, and the session goes on.
    let facts = v1::Facts {
        hostname: "renamed".into(),
        ..(&crate::world::facts()).into()
    };
    let hello = v1::Hello {
        facts: Some(facts),
        held: None,
        ..Default::default()
    };
    node.say(Up::Hello(hello)).await;
    let is_renamed = move |view: &skep_state::State| {
        let node = view.node(id).unwrap();
        assert_eq!(node.status, NodeStatus::Ready, "never lost meanwhile");
        node.facts.hostname == "renamed"
    };
    world.until(follower, "renamed", is_renamed).await;
    let beat = async {
        loop {
            node.say(Up::Heartbeat(v1::Heartbeat::default())).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let watch = world.until(follower, "long enough", {
        let begun = std::time::Instant::now();
        move |view| is_renamed(view) && begun.elapsed() > LOST_AFTER + Duration::from_secs(2)
    });
    let writes = async {
        loop {
            let write = Kind::SetNodeMeta(set_meta(id, "tick", "x"));
            world.store(follower).propose(write).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = beat => {}
        () = writes => {}
        () = watch => {}
    }
    let next = tokio::time::timeout(Duration::from_millis(10), async {
        loop {
            node.hear().await.expect("the session goes on");
        }
    });
    assert!(next.await.is_err(), "the stream is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_tells_a_node_nothing_old() {
    let world = World::start().await;
    let follower = world.follower().await;
    let id = world.add_node(follower, 7).await;
    let view = world.store(follower).read().await.unwrap();
    let held = Generation {
        incarnation: view.cluster().unwrap().incarnation,
        number: view.index() + 20,
    };
    let mut node = Node::connect_holding(&world, id, follower, Some(held)).await;
    let told = async {
        let desired = node.hear_of(|kind| match kind {
            Down::Desired(desired) => desired.set,
            _ => None,
        });
        Generation::from(desired.await.generation.unwrap())
    };
    let advance = async {
        for number in 0..40 {
            let write = Kind::SetNodeMeta(set_meta(id, "count", &number.to_string()));
            world.store(follower).propose(write).await.unwrap();
        }
    };
    let (generation, ()) = tokio::join!(told, advance);
    assert!(generation >= held, "{generation:?} is older than {held:?}");
}
