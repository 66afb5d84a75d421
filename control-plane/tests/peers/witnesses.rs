//! Nodes at different servers testify for each other, and only what they say hastens a judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skep_model::id::NodeId;
use skep_model::node::NodeStatus;
use skep_model::probe::Reach;
use skep_proto::convert::{id_bits, reaches};
use skep_proto::v1;
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::to_agent::Kind as Down;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::node::Node;
use crate::world::{MEMBERS, PATIENCE, World, facts};

/// What the nodes of a test find at each other, and who has shown itself to whom.
#[derive(Default)]
struct Land {
    found: Mutex<BTreeMap<NodeId, Reach>>,
    shown: Mutex<BTreeSet<(NodeId, NodeId)>>,
    news: Notify,
}

impl Land {
    fn look(&self, from: NodeId, target: &v1::ProbeTarget) -> Reach {
        let node = NodeId::from_u128(id_bits("node", &target.node).expect("a node"));
        if target.identify {
            self.shown.lock().insert((from, node));
            self.news.notify_one();
            return Reach::Itself;
        }
        let found = self.found.lock().get(&node).copied();
        found.unwrap_or(Reach::Answered)
    }

    async fn all_know_each_other(&self, nodes: usize) {
        let known = async {
            while self.shown.lock().len() < nodes * (nodes - 1) {
                self.news.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.expect("visits");
    }
}

/// An agent that speaks and knocks; aborting it breaks its session.
async fn agent(world: &World, land: &Arc<Land>, id: NodeId, member: u64) -> JoinHandle<()> {
    let mut node = Node::connect(world, id, member).await;
    let mut facts = facts();
    facts.image_address = Some(format!("node-{id}:7074"));
    let hello = v1::Hello {
        facts: Some((&facts).into()),
        ..Default::default()
    };
    node.say(Up::Hello(hello)).await;
    let land = land.clone();
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = beat.tick() => node.say(Up::Heartbeat(v1::Heartbeat::default())).await,
                heard = node.hear() => {
                    let Ok(kind) = heard else { return };
                    if let Down::Probe(probe) = kind {
                        let found: Vec<Reach> =
                            probe.targets.iter().map(|target| land.look(id, target)).collect();
                        let (request, found) = (probe.request, reaches(&found));
                        node.say(Up::Probed(v1::Probed { request, found })).await;
                    }
                }
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_at_other_servers_testify_and_a_broken_stream_alone_does_not() {
    let world = World::start().await;
    let leader = world.leader().await;
    let land = Arc::new(Land::default());
    let mut agents = Vec::new();
    for (member, number) in MEMBERS.into_iter().zip(7..) {
        let id = world.add_node(member, number).await;
        agents.push((id, member, agent(&world, &land, id, member).await));
    }
    let nodes: Vec<NodeId> = agents.iter().map(|(id, ..)| *id).collect();
    let all_ready = {
        let nodes = nodes.clone();
        move |view: &skep_state::State| {
            let is_ready = |id| view.node(id).unwrap().status == NodeStatus::Ready;
            nodes.iter().all(|id| is_ready(*id))
        }
    };
    world.until(leader, "ready", &all_ready).await;
    land.all_know_each_other(nodes.len()).await;

    // Its stream breaks, and those who had reached it find silence.
    let (first, member, dying) = agents.remove(0);
    land.found.lock().insert(first, Reach::Silent);
    dying.abort();
    let is_lost = |view: &skep_state::State| view.node(first).unwrap().status == NodeStatus::Lost;
    world.until(leader, "lost", is_lost).await;
    let witnesses = world
        .store(leader)
        .view()
        .node(first)
        .unwrap()
        .witnesses
        .clone();
    let witnesses: BTreeSet<NodeId> = witnesses.into_iter().collect();
    assert_eq!(witnesses, nodes[1..].iter().copied().collect());

    // It is back: nothing is held against it.
    let again = agent(&world, &land, first, member).await;
    world.until(leader, "back", &all_ready).await;
    assert_eq!(
        world.store(leader).view().node(first).unwrap().witnesses,
        []
    );

    // Its stream breaks, and its machine answers: its silence is waited for, and nobody testifies.
    land.found.lock().insert(first, Reach::Answered);
    again.abort();
    world.until(leader, "lost", is_lost).await;
    assert_eq!(
        world.store(leader).view().node(first).unwrap().witnesses,
        []
    );
}
