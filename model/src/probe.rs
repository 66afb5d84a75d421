//! What one node finds when it knocks at another: the words of the second path on which the death of a
//! machine is noticed.

use crate::id::NodeId;
use crate::node::MAX_ADDRESS;

/// Most targets of one request: a node is a witness for a few others.
pub const MAX_TARGETS: usize = 8;

/// Whom to knock at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Another node; none: the server that the knocking agent is in session with, which it knows the
    /// address of.
    pub node: Option<NodeId>,
    /// `host:port` at which the node's agent serves other nodes.
    pub address: String,
    /// One more port of the same host: its ingress.
    pub also_port: Option<u16>,
    /// Whether it is to show by its certificate that it is that node.
    pub identify: bool,
}

impl Target {
    /// Whether an agent should take it: its address is of a length that addresses have.
    pub fn is_sane(&self) -> bool {
        self.address.len() <= MAX_ADDRESS
    }
}

/// What was found at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The node itself: it showed its certificate.
    Itself,
    /// A machine that lives: its kernel took a connection, or refused one.
    Answered,
    /// Nothing: no answer in time, or word from the network that the host is not there.
    Silent,
    /// It could not be tried: a name that is not known, no route, no room.
    Unknown,
}

impl Reach {
    /// Every one, in the order of the wire: append only.
    pub const ALL: [Self; 4] = [Self::Itself, Self::Answered, Self::Silent, Self::Unknown];

    /// Whether whoever knocked was heard by somebody.
    pub fn is_heard(self) -> bool {
        matches!(self, Self::Itself | Self::Answered)
    }
}
