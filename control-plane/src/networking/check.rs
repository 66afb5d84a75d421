//! Whether nodes reach one another: every connected node is asked at once to dial all others, and what it
//! finds becomes sentences that say what to open.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use skep_model::id::NodeId;
use skep_model::network::Pool;
use skep_model::network_check::{Ask, Dialed, Door, Found, MAX_DOORS, NodeNetwork};
use skep_model::node::Node;
use skep_state::State as View;
use tokio::time::{Instant, timeout_at};

use crate::agents::fleet::Fleet;
use crate::agents::relay::Relay;
use crate::api::types::{
    NetworkCheckView, NetworkNodeView, NetworkPairView, NetworkProblemView, OverlapView,
};

/// Nodes that dial at a time: each of them is a client of all others.
const AT_A_TIME: usize = 32;
/// All of it: a handler has a minute.
const LIMIT: Duration = Duration::from_secs(45);

/// What nodes answered; those that did not are not in it.
pub(crate) type Answers = BTreeMap<NodeId, Heard>;

/// What one node found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Heard {
    /// At which others.
    pub(crate) dialed: BTreeMap<NodeId, Dialed>,
    /// How its own part of the private network is.
    pub(crate) own: NodeNetwork,
}

/// What a node is asked: all doors but its own, in as many questions as they need. One without doors is
/// asked about itself. Pure.
fn questions(view: &View, node: NodeId, pool: Pool) -> Vec<Ask> {
    let others = view.nodes().filter(|other| other.id != node);
    let doors: Vec<Door> = others.filter_map(|other| door(other)).collect();
    if doors.is_empty() {
        return vec![Ask { doors, pool }];
    }
    let parts = doors.chunks(MAX_DOORS);
    let ask = |part: &[Door]| Ask {
        doors: part.to_vec(),
        pool,
    };
    parts.map(ask).collect()
}

fn door(node: &Node) -> Option<Door> {
    let address = node.facts.mesh_address.clone()?;
    Some(Door {
        node: node.id,
        address,
    })
}

/// Asks every connected node; whoever does not answer in time is left out.
pub(crate) async fn ask_all(view: &View, pool: Pool, (relay, fleet): (&Relay, &Fleet)) -> Answers {
    let until = Instant::now() + LIMIT;
    let connected = view.nodes().map(|node| node.id);
    let connected = connected.filter(|node| fleet.place_of(*node).is_some());
    let asked: Vec<_> = connected
        .map(|node| {
            let asked = ask_one(relay, node, questions(view, node, pool));
            async move { Some((node, timeout_at(until, asked).await.ok()??)) }
        })
        .collect();
    let answers = stream::iter(asked).buffer_unordered(AT_A_TIME);
    let answers: Vec<Option<(NodeId, Heard)>> = answers.collect().await;
    answers.into_iter().flatten().collect()
}

async fn ask_one(relay: &Relay, node: NodeId, questions: Vec<Ask>) -> Option<Heard> {
    let mut heard = Heard::default();
    for ask in questions {
        let doors: Vec<NodeId> = ask.doors.iter().map(|door| door.node).collect();
        let Found { dialed, own } = relay.check_network(node, ask).await?;
        heard.dialed.extend(doors.into_iter().zip(dialed));
        heard.own = own;
    }
    Some(heard)
}

/// What was found, in words. Pure.
pub(crate) fn judge(
    view: &View,
    is_connected: impl Fn(NodeId) -> bool,
    answers: &Answers,
) -> NetworkCheckView {
    let mut found = NetworkCheckView {
        pool: view.private_pool().to_string(),
        ..NetworkCheckView::default()
    };
    let count = view.nodes().count();
    for node in view.nodes() {
        let heard = answers.get(&node.id);
        let it = NetworkNodeView {
            node: node.name.clone(),
            connected: is_connected(node.id),
            answered: heard.is_some(),
            address: node.facts.mesh_address.clone(),
            private_pool: heard.and_then(|it| it.own.pool).map(|it| it.to_string()),
            bridges: heard.map_or(0, |it| it.own.bridges),
        };
        found.problems.extend(of_node(view, (&it, count), heard));
        for (other, dialed) in heard.iter().flat_map(|it| &it.dialed) {
            found.checked += 1;
            let other = view.node(*other).filter(|_| *dialed != Dialed::Reached);
            found
                .failing
                .extend(other.and_then(|other| pair(node, other, *dialed)));
        }
        found.nodes.push(it);
    }
    found.nodes.sort_by(|a, b| a.node.cmp(&b.node));
    let key = |it: &NetworkPairView| (it.from.clone(), it.to.clone());
    found.failing.sort_by_key(key);
    found.problems.sort_by(|a, b| a.node.cmp(&b.node));
    found.ok = found.failing.is_empty() && found.problems.is_empty();
    found
}

/// One node does not reach another.
fn pair(from: &Node, to: &Node, dialed: Dialed) -> Option<NetworkPairView> {
    let address = to.facts.mesh_address.clone()?;
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    let (a, b) = (&from.name, &to.name);
    let open = format!("open TCP {port} from {a} to {b}");
    let fix = match dialed {
        Dialed::Reached => return None,
        Dialed::Refused => format!("see that `skep net` runs on {b}, and {open}"),
        Dialed::TimedOut => open,
        Dialed::NoRoute => format!("see that {a} has a route to {b}, and {open}"),
        Dialed::NoName => {
            format!("see that {a} can resolve the name, or give the agent of {b} an address")
        }
        Dialed::Mute => {
            format!("see the log of `skep net` on {b}: its agent has to tell it who it is")
        }
        Dialed::Stranger => format!("see that {address} leads to {b} and to no other machine"),
        Dialed::Untried => "check again; the agent's log says what it lacks".to_owned(),
    };
    Some(NetworkPairView {
        text: format!(
            "node {a} cannot reach {address} of node {b}: {}",
            dialed.word()
        ),
        from: a.clone(),
        to: b.clone(),
        address,
        found: dialed.word().to_owned(),
        fix,
    })
}

/// What is wrong with a node by itself.
fn of_node(
    view: &View,
    (node, count): (&NetworkNodeView, usize),
    heard: Option<&Heard>,
) -> Vec<NetworkProblemView> {
    let name = &node.node;
    let mut all = Vec::new();
    let mut say = |text: String, fix: &str, overlap: Option<OverlapView>| {
        all.push(NetworkProblemView {
            node: name.clone(),
            text,
            fix: fix.to_owned(),
            overlap,
        });
    };
    if !node.connected {
        let text = format!("node {name} is not connected: it was asked nothing");
        say(text, "`skep node ls` tells since when", None);
    } else if heard.is_none() {
        let text = format!("node {name} did not answer in time");
        let fix = "check again; an agent of an older version does not know the question";
        say(text, fix, None);
    }
    // With nobody beside it nobody is to reach it.
    if node.address.is_none() && count > 1 {
        let text = format!("node {name} says no address at which others reach its containers");
        say(
            text,
            "see that `skep net` runs there and has `--mesh-addr`",
            None,
        );
    }
    let Some(Heard { own, .. }) = heard else {
        return all;
    };
    if !own.trouble.is_empty() {
        let text = format!(
            "node {name} has no working private network: {}",
            own.trouble
        );
        say(text, "`skep node show` and the agent's log say more", None);
    }
    let pool = view.private_pool();
    for overlap in &own.overlaps {
        let (what, network) = (&overlap.what, &overlap.network);
        let text = format!("private addresses ({pool}) share {network} with {what} of node {name}");
        let fix = "choose another pool with `skep network pool set`, or another network there";
        let overlap = OverlapView {
            what: what.clone(),
            network: network.clone(),
        };
        say(text, fix, Some(overlap));
    }
    if let Some(bridges) = own.pool.filter(|bridges| bridges.overlaps(pool)) {
        let text = format!(
            "node {name} gives its bridges networks of {bridges}, which has addresses of {pool}"
        );
        say(
            text,
            "start its agent with another `--private-network`",
            None,
        );
    }
    all
}
