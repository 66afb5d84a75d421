//! Where the replacement of the cluster's CA stands, and who would be left behind by its next step.
//! Pure: looks at one view and at what is heard, and changes nothing.

use skep_identity::key_id::KeyId;
use skep_model::node::Node;
use skep_raft_core::Peer;
use skep_state::{Cluster, State};

use crate::agents::fleet::Fleet;
use crate::consensus::Group;

/// A step of the replacement that was done last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// One CA; nothing is being replaced.
    Steady,
    /// A new CA is trusted, the old one still signs.
    Begun,
    /// The new CA signs, the old one is still trusted.
    Activated,
}

impl Phase {
    /// Of this cluster.
    pub fn of(cluster: &Cluster) -> Self {
        match &cluster.other_ca {
            None => Self::Steady,
            Some(other) if other.is_older => Self::Activated,
            Some(_) => Self::Begun,
        }
    }
}

/// Somebody whom the next step would leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Its name.
    pub name: String,
    /// A server, else a node.
    pub is_server: bool,
    /// What is missing.
    pub why: String,
}

/// Whom the next step would leave behind: for the second one servers that have not heard of the new
/// CA, for the third one also nodes that are not known to hold a certificate of it. `group` is the
/// leader's: nobody else knows how far the servers are.
pub fn behind(view: &State, fleet: &Fleet, group: &Group) -> Vec<Behind> {
    let Some(cluster) = view.cluster() else {
        return Vec::new();
    };
    let phase = Phase::of(cluster);
    if phase == Phase::Steady {
        return Vec::new();
    }
    let mut behind: Vec<Behind> = view
        .servers()
        .filter(|server| group.leader != Some(server.member))
        .filter_map(|server| {
            let peer = group.peers.iter().find(|it| it.member == server.member);
            let why = of_server(peer, view.index())?;
            Some(Behind {
                name: server.name.clone(),
                is_server: true,
                why: why.to_owned(),
            })
        })
        .collect();
    if phase == Phase::Activated {
        let signing = KeyId::of_ca(&cluster.ca_cert_pem);
        behind.extend(view.nodes().filter_map(|node| {
            let why = of_node(node, fleet, signing)?;
            Some(Behind {
                name: node.name.clone(),
                is_server: false,
                why: why.to_owned(),
            })
        }));
    }
    behind
}

/// A server that holds the log up to the step renews its own certificate when it applies it.
fn of_server(peer: Option<&Peer>, index: u64) -> Option<&'static str> {
    match peer {
        None => Some("it is not in the group"),
        Some(peer) if !peer.is_active => Some("it does not answer"),
        Some(peer) if peer.matched < index => Some("its log is behind"),
        Some(_) => None,
    }
}

fn of_node(node: &Node, fleet: &Fleet, signing: Option<KeyId>) -> Option<&'static str> {
    if fleet.place_of(node.id).is_none() {
        return Some("it is not connected: afterwards it would have to join again");
    }
    match fleet.ca_of(node.id) {
        Some(held) if Some(held) == signing => None,
        Some(_) => Some("its certificate is of the old CA"),
        None => Some("it does not say which CA its certificate is of"),
    }
}
