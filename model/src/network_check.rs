//! Whether nodes reach one another: what a server asks of an agent, and what the agent finds. Owns the
//! words; who asks whom, and what is to be done about it, is the server's.

use crate::id::NodeId;
use crate::network::Pool;

/// Most doors of one request: an agent tries them within the time that the server waits.
pub const MAX_DOORS: usize = 512;
/// Most networks in the way of a pool that a node names.
pub const MAX_OVERLAPS: usize = 16;

/// What a node is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whom to dial.
    pub doors: Vec<Door>,
    /// The cluster's pool of private addresses: what there is of it on the node is named.
    pub pool: Pool,
}

/// Where a data plane takes traffic of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Who is to be there.
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// What became of dialing a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialed {
    /// The node itself is there: it showed its certificate.
    Reached,
    /// The connection was refused.
    Refused,
    /// Nothing answers.
    TimedOut,
    /// The network says that there is no way there.
    NoRoute,
    /// The name is not known.
    NoName,
    /// A connection is taken, and nobody speaks.
    Mute,
    /// Somebody else is there.
    Stranger,
    /// There was no room or time to try, or this node's own network refused.
    Untried,
}

impl Dialed {
    /// Every one, in the order of the wire: append only.
    pub const ALL: [Self; 8] = [
        Self::Reached,
        Self::Refused,
        Self::TimedOut,
        Self::NoRoute,
        Self::NoName,
        Self::Mute,
        Self::Stranger,
        Self::Untried,
    ];

    /// As people read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Refused => "connection refused",
            Self::TimedOut => "timed out",
            Self::NoRoute => "no route",
            Self::NoName => "the name is not known",
            Self::Mute => "takes the connection and says nothing",
            Self::Stranger => "somebody else answers there",
            Self::Untried => "not tried",
        }
    }
}

/// What a node finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In the order of the doors.
    pub dialed: Vec<Dialed>,
    /// Its own part of the private network.
    pub own: NodeNetwork,
}

/// A node's part of the private network, as its agent sees it at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeNetwork {
    /// From where its bridges get their networks; none: it takes no part.
    pub pool: Option<Pool>,
    /// Why it does not work, though it is wanted; empty: it works.
    pub trouble: String,
    /// Environments that have a bridge there.
    pub bridges: u32,
    /// What is in the way of the cluster's pool; at most [`MAX_OVERLAPS`].
    pub overlaps: Vec<Overlap>,
}

/// A network of a node that shares addresses with a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// What it is: `route of eth0`.
    pub what: String,
    /// Its addresses: `10.201.4.0/24`.
    pub network: String,
}
