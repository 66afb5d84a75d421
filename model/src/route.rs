//! The route table as the control plane writes it: names (node, allocation, port), never
//! host:port. Each node resolves its own part.

use std::sync::Arc;

use crate::id::{AllocationId, DeploymentId, NodeId, ServiceId};
use crate::network;
use crate::routing::RouteSpec;
use crate::tcp::Door;

/// Every route of the cluster at one index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// Index of the last command that changed it.
    pub revision: u64,
    /// Sorted by host and path.
    pub routes: Vec<Route>,
    /// Of connections, sorted by where they come in.
    pub tcp: Vec<TcpRoute>,
    /// Where the data planes of the nodes that have a backend are reached by those of other nodes, by
    /// node; one that is missing is not reached.
    pub peers: Vec<RoutePeer>,
    /// What is known by name on this node: of the environments that have containers there, and of no
    /// others.
    pub names: Vec<network::Names>,
}

/// A node's data plane, as other nodes dial it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePeer {
    /// Whose.
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// host/path -> service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Exact, or `*.` and a domain.
    pub host: String,
    /// `/` or a prefix on a segment boundary.
    pub path_prefix: String,
    /// Whose.
    pub service: ServiceId,
    /// Stable name of the service for metrics: `service-environment-project`.
    pub name: String,
    /// Where requests may go, of all parts; none: the service is there but nothing is healthy.
    pub backends: Vec<Backend>,
    /// It scales to zero: a request that finds no backend waits for one, and so asks for it.
    pub sleeps: bool,
    /// What is done to requests on their way, where its service says that; its host and path are those
    /// above.
    pub rules: Option<Arc<RouteSpec>>,
    /// Services that share its requests, where it is split; empty: all are the service's own.
    pub parts: Vec<Part>,
    /// Releases that are tried on some of the backends.
    pub tried: Vec<Tried>,
}

/// A release that serves beside the live one: its requests are counted apart from the service's others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Whose.
    pub service: ServiceId,
    /// Which deployment brings it.
    pub deployment: DeploymentId,
    /// Those of the route's backends that run it.
    pub allocations: Vec<AllocationId>,
}

/// What one service gets of a route's requests. Its backends are among the route's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Whose.
    pub service: ServiceId,
    /// Stable name of the service: `service-environment-project`.
    pub name: String,
    /// Of the sum of those parts that have a backend; never 0.
    pub weight: u32,
    /// Those of the route's backends that are this service's.
    pub allocations: Vec<AllocationId>,
}

/// Connections -> service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// Where they come in.
    pub door: Door,
    /// Each is led in by a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whose.
    pub service: ServiceId,
    /// Stable name of the service: `service-environment-project`.
    pub name: String,
    /// Where they may go.
    pub backends: Vec<Backend>,
}

/// One allocation that may get traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Where it runs.
    pub node: NodeId,
    /// Which.
    pub allocation: AllocationId,
    /// The port it listens on.
    pub port: u16,
}
