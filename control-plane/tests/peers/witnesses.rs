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

use crate::node::Node;
use crate::world::{MEMBERS, PATIENCE, World, facts};

/// What the nodes of a test find at each other, and who has shown itself to whom.
#[derive(Default)]
struct Land {
    found: Mutex<BTreeMap<NodeId, Reach>>,
    shown: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// Whose sessions are open and who say nothing.
    mute: Mutex<BTreeSet<NodeId>>,
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

/// An agent that speaks and knocks.
async fn agent(world: &World, land: &Arc<Land>, id: NodeId, member: u64) {
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
                _ = beat.tick() => {
                    let is_mute = land.mute.lock().contains(&id);
                    if !is_mute {
                        node.say(Up::Heartbeat(v1::Heartbeat::default())).await;
                    }
                }
                heard = node.hear() => {
                    let Ok(kind) = heard else { return };
                    let is_mute = land.mute.lock().contains(&id);
                    if let Down::Probe(probe) = kind && !is_mute {
                        let found: Vec<Reach> =
                            probe.targets.iter().map(|target| land.look(id, target)).collect();
                        let (request, found) = (probe.request, reaches(&found));
                        node.say(Up::Probed(v1::Probed { request, found })).await;
                    }
                }
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_at_other_servers_testify_and_whose_machine_answers_is_waited_for() {
    let world = World::start().await;
    let leader = world.leader().await;
    let land = Arc::new(Land::default());
    let mut nodes = Vec::new();
    for (member, number) in MEMBERS.into_iter().zip(7..) {
        let id = world.add_node(member, number).await;
        agent(&world, &land, id, member).await;
        nodes.push(id);
    }
    let first = nodes[0];
    let status = |view: &skep_state::State, id| view.node(id).unwrap().status;
    let are_ready = |view: &skep_state::State| {
        let is_ready = |id: &NodeId| status(view, *id) == NodeStatus::Ready;
        nodes.iter().all(is_ready)
    };
    let is_lost = |view: &skep_state::State| status(view, first) == NodeStatus::Lost;
    let witnesses = || {
        let view = world.store(leader).view();
        let found = view.node(first).unwrap().witnesses.iter().copied();
        found.collect::<BTreeSet<NodeId>>()
    };
    world.until(leader, "ready", are_ready).await;
    land.all_know_each_other(nodes.len()).await;

    // It is silent, and so is its machine.
    land.found.lock().insert(first, Reach::Silent);
    land.mute.lock().insert(first);
    world.until(leader, "lost", is_lost).await;
    assert_eq!(witnesses(), nodes[1..].iter().copied().collect());

    // It speaks again, in the same session: nothing is held against it.
    land.mute.lock().clear();
    world.until(leader, "back", are_ready).await;
    assert_eq!(witnesses(), BTreeSet::new());

    // It is silent, and its machine is not: that is waited for, and nobody testifies.
    land.found.lock().insert(first, Reach::Answered);
    land.mute.lock().insert(first);
    world.until(leader, "lost", is_lost).await;
    assert_eq!(witnesses(), BTreeSet::new());
}
