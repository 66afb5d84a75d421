//! Private networks, and whether nodes reach one another, as clients see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who has which private address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// From where new blocks are given.
    pub pool: String,
    /// Blocks that the pool has.
    pub blocks: u32,
    /// Blocks that environments have, of whichever pool.
    pub blocks_used: u32,
    /// Those that have addresses, by name.
    pub environments: Vec<PrivateEnvironmentView>,
}

/// The private network of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrivateEnvironmentView {
    /// `project/environment`.
    pub environment: String,
    /// Its networks of 32 addresses.
    pub blocks: Vec<String>,
    /// What is known by name there, by name.
    pub services: Vec<PrivateServiceView>,
    /// Addresses of services that are gone: nobody's for an hour.
    pub resting: u32,
}

/// A service, as others of its environment reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrivateServiceView {
    /// Its name in the environment.
    pub service: String,
    /// The name that containers ask for.
    pub name: String,
    /// The address that it leads to.
    pub address: String,
    /// Allocations that answer there.
    pub healthy: u32,
    /// Where they run, by name.
    pub nodes: Vec<String>,
}

/// Another pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivatePoolRequest {
    /// A private network of 10 to 27 bits: `10.201.0.0/16`.
    pub pool: String,
}

/// The pool that holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrivatePoolView {
    /// From where new blocks are given.
    pub pool: String,
    /// Nodes that were not heard, by name: something of theirs may be in the way.
    pub unheard: Vec<String>,
}

/// Whether nodes reach one another, and how the private network is on each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct NetworkCheckView {
    /// Nothing is wrong.
    pub ok: bool,
    /// From where private addresses are given.
    pub pool: String,
    /// All nodes, by name.
    pub nodes: Vec<NetworkNodeView>,
    /// Pairs that were tried, each direction for itself.
    pub checked: u32,
    /// Those of them that failed, by name.
    pub failing: Vec<NetworkPairView>,
    /// What is wrong with a node by itself, by name.
    pub problems: Vec<NetworkProblemView>,
}

/// A node among others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkNodeView {
    /// Its name.
    pub node: String,
    /// Whether it is in session with a server: then it reaches the servers.
    pub connected: bool,
    /// Whether it said what it found.
    pub answered: bool,
    /// Where its data plane takes other nodes' traffic; none: it does not.
    pub address: Option<String>,
    /// From where its bridges get their networks; none: its agent was not told to have private networks.
    pub private_pool: Option<String>,
    /// Environments that have a bridge there.
    pub bridges: u32,
}

/// A node that does not reach another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkPairView {
    /// Name of the node that tried.
    pub from: String,
    /// Name of the node that was not reached.
    pub to: String,
    /// What was dialed.
    pub address: String,
    /// What was found there.
    pub found: String,
    /// The same as a sentence.
    pub text: String,
    /// What to do.
    pub fix: String,
}

/// Something that is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkProblemView {
    /// Its name.
    pub node: String,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub fix: String,
    /// What shares addresses with the pool, where that is it.
    pub overlap: Option<OverlapView>,
}

/// A network of a node that shares addresses with the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverlapView {
    /// What it is.
    pub what: String,
    /// Its addresses.
    pub network: String,
}
