//! The node's part of the route table: the server's table with this node's addresses in it, handed
//! to the data plane. Decides nothing about traffic: a backend is in it when the server wants it
//! and it is healthy here.

mod book;
mod certify;
mod introduce;
mod lease;
mod private;
mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use skep_model::id::{AllocationId, NodeId};
use skep_model::route::{Backend, RoutePeer};
use skep_proto::convert::{id_bytes, rules_out};
use skep_proto::v1;

pub(crate) use certify::Certificates;
pub(crate) use introduce::introduce;
pub(crate) use lease::tell_lease;
pub(crate) use publish::Publisher;

use crate::ledger::Routes;
use crate::network::Bridges;

/// Which of the cluster's tables: revisions begin anew with each incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Version {
    /// Of the cluster.
    pub(crate) incarnation: u64,
    /// Of its table.
    pub(crate) revision: u64,
}

/// Where an allocation of this node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spot {
    /// Its container, without a port.
    At(IpAddr),
    /// Nowhere: the data plane hands out the files of this bundle's folder itself.
    Files(Arc<Path>),
}

impl Spot {
    /// The address; none: files.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::At(ip) => Some(*ip),
            Self::Files(_) => None,
        }
    }
}

/// A table to publish, its sequence apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    /// Of the cluster's table that it was made from.
    pub(crate) version: Version,
    /// The routes.
    pub(crate) routes: Vec<v1::NodeRoute>,
    /// Those of connections.
    pub(crate) tcp: Vec<v1::NodeTcpRoute>,
    /// How the other nodes with backends are reached.
    pub(crate) peers: Vec<v1::NodePeer>,
    /// What of this node is fit for traffic, also from other nodes, in the order of the ids.
    pub(crate) endpoints: Vec<v1::NodeEndpoint>,
    /// The private networks of the environments that have a bridge here.
    pub(crate) networks: Vec<v1::PrivateNetwork>,
}

impl Content {
    /// All but the version is equal.
    fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            version: _,
            routes,
            tcp,
            peers,
            endpoints,
            networks,
        } = self;
        (routes, tcp) == (&other.routes, &other.tcp)
            && (peers, endpoints, networks) == (&other.peers, &other.endpoints, &other.networks)
    }
}

/// `held` as `node` serves it: `local` tells where its allocations that are fit for traffic answer. What
/// runs here is judged by this node alone, what runs elsewhere as the server says; a node whose data plane
/// takes no traffic of others is left out.
pub(crate) fn resolve(
    held: &Routes,
    node: NodeId,
    (local, bridges): (&BTreeMap<AllocationId, Spot>, &Bridges),
) -> Content {
    let others = held.table.peers.iter().filter(|peer| peer.node != node);
    let reached: BTreeSet<NodeId> = others.clone().map(|peer| peer.node).collect();
    let resolve = |backend: &Backend| {
        let allocation = id_bytes(backend.allocation.as_u128());
        if backend.node == node {
            let (address, files) = match local.get(&backend.allocation)? {
                Spot::At(ip) => (
                    SocketAddr::new(*ip, backend.port).to_string(),
                    String::new(),
                ),
                Spot::Files(folder) => (String::new(), folder.display().to_string()),
            };
            return Some(v1::NodeBackend {
                allocation,
                address,
                files,
                ..v1::NodeBackend::default()
            });
        }
        reached.contains(&backend.node).then(|| v1::NodeBackend {
            allocation,
            address: String::new(),
            node: id_bytes(backend.node.as_u128()),
            port: u32::from(backend.port),
            files: String::new(),
        })
    };
    let endpoint = |(allocation, spot): (&AllocationId, &Spot)| {
        let (ip, files) = match spot {
            Spot::At(ip) => (ip.to_string(), String::new()),
            Spot::Files(folder) => (String::new(), folder.display().to_string()),
        };
        v1::NodeEndpoint {
            allocation: id_bytes(allocation.as_u128()),
            ip,
            files,
        }
    };
    let peer = |peer: &RoutePeer| v1::NodePeer {
        node: id_bytes(peer.node.as_u128()),
        address: peer.address.clone(),
    };
    let routes = held.table.routes.iter().map(|route| v1::NodeRoute {
        host: route.host.clone(),
        path_prefix: route.path_prefix.clone(),
        service: id_bytes(route.service.as_u128()),
        name: route.name.clone(),
        backends: route.backends.iter().filter_map(resolve).collect(),
        sleeps: route.sleeps,
        rules: rules_out(&route.rules),
        parts: route.parts.iter().map(Into::into).collect(),
        tried: route.tried.iter().map(Into::into).collect(),
    });
    let tcp = held.table.tcp.iter().map(|route| v1::NodeTcpRoute {
        door: Some((&route.door).into()),
        proxy_protocol: route.proxy_protocol,
        service: id_bytes(route.service.as_u128()),
        name: route.name.clone(),
        backends: route.backends.iter().filter_map(resolve).collect(),
    });
    let around = (node, local, &reached);
    let networks = bridges.iter().map(|(environment, bridge)| {
        let names = held.table.names.iter();
        let mut names = names.filter(|names| names.environment == *environment);
        private::network((*environment, bridge), names.next(), around)
    });
    Content {
        networks: networks.collect(),
        version: held.version(),
        routes: routes.collect(),
        tcp: tcp.collect(),
        peers: others.map(peer).collect(),
        endpoints: local.iter().map(endpoint).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use skep_model::id::ServiceId;
    use skep_model::route::{Route, RouteTable, TcpRoute};
    use skep_model::tcp::Door;

    use super::*;

    #[test]
    fn only_what_is_wanted_here_and_healthy_gets_in() {
        let [here, there, silent] = [1, 2, 3].map(NodeId::from_u128);
        let backend = |node, allocation| Backend {
            node,
            allocation: AllocationId::from_u128(allocation),
            port: 80,
        };
        let table = RouteTable {
            revision: 9,
            names: Vec::new(),
            tcp: vec![TcpRoute {
                door: Door::Entry(15_000),
                proxy_protocol: false,
                service: ServiceId::from_u128(3),
                name: "a".into(),
                backends: vec![backend(here, 10), backend(here, 11), backend(there, 12)],
            }],
            routes: vec![Route {
                host: "a.test".into(),
                path_prefix: "/".into(),
                service: ServiceId::from_u128(3),
                name: "a".into(),
                backends: vec![
                    backend(here, 10),
                    backend(here, 11),
                    backend(there, 12),
                    backend(silent, 14),
                ],
                sleeps: false,
                rules: None,
                parts: Vec::new(),
                tried: Vec::new(),
            }],
            peers: vec![RoutePeer {
                node: there,
                address: "10.0.0.2:7075".into(),
            }],
        };
        // 11 is not healthy; 13 is, and has no route.
        let address = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
        let held = Routes {
            incarnation: 2,
            table,
        };
        let healthy = [10, 13].map(|id| (AllocationId::from_u128(id), Spot::At(address)));
        let content = resolve(&held, here, (&healthy.into(), &Bridges::new()));
        let backends = &content.routes[0].backends;
        assert_eq!(
            (content.version.incarnation, content.version.revision),
            (2, 9)
        );
        let told: Vec<_> = backends
            .iter()
            .map(|it| (it.address.as_str(), it.port))
            .collect();
        assert_eq!(told, [("172.17.0.2:80", 0), ("", 80)]);
        assert_eq!(backends[1].node, id_bytes(there.as_u128()));
        assert_eq!(content.tcp[0].backends, content.routes[0].backends);
        assert_eq!(content.peers.len(), 1);
        assert_eq!(content.endpoints.len(), 2);
    }
}
