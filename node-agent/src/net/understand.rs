//! What the agent's message of a table means. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use skep_ingress::{Backend, Place, Route, Table, TcpRoute};
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_proto::convert::{door_in, id_bits, rules_in};
use skep_proto::v1::{NodeBackend, NodeEndpoint, NodePeer, NodeRoute, NodeTable, NodeTcpRoute};

use super::private;

/// A table that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// A field of a message.
    #[error("the table cannot be read")]
    Message(#[from] skep_proto::convert::Error),
    /// An address.
    #[error("route {route}: `{address}` is not ip:port")]
    Address {
        /// Name of the route.
        route: String,
        /// What was given.
        address: String,
    },
    /// A container's address.
    #[error("`{ip}` is not the address of a container")]
    Endpoint {
        /// What was given.
        ip: String,
    },
}

/// What a message means.
pub(super) struct Understood {
    pub(super) table: Table,
    pub(super) peers: HashMap<NodeId, String>,
    pub(super) local: HashMap<AllocationId, IpAddr>,
    pub(super) networks: Vec<private::Network>,
}

pub(super) fn understand(message: &NodeTable) -> Result<Understood, Error> {
    let all = message.routes.iter().chain(&message.ruled);
    let routes = all.map(route).collect::<Result<_, _>>()?;
    let peer = |peer: &NodePeer| {
        let node = NodeId::from_u128(id_bits("node", &peer.node)?);
        Ok::<_, Error>((node, peer.address.clone()))
    };
    let endpoint = |endpoint: &NodeEndpoint| {
        let allocation = AllocationId::from_u128(id_bits("allocation", &endpoint.allocation)?);
        let ip = endpoint.ip.parse().map_err(|_| Error::Endpoint {
            ip: endpoint.ip.clone(),
        })?;
        Ok::<_, Error>((allocation, ip))
    };
    Ok(Understood {
        networks: private::understand(&message.networks)?,
        table: Table {
            revision: message.sequence,
            routes,
            tcp: message
                .tcp
                .iter()
                .map(tcp_route)
                .collect::<Result<_, _>>()?,
        },
        peers: message.peers.iter().map(peer).collect::<Result<_, _>>()?,
        local: message
            .endpoints
            .iter()
            .map(endpoint)
            .collect::<Result<_, _>>()?,
    })
}

fn tcp_route(message: &NodeTcpRoute) -> Result<TcpRoute, Error> {
    Ok(TcpRoute {
        door: door_in(message.door.clone())?,
        proxy_protocol: message.proxy_protocol,
        service: ServiceId::from_u128(id_bits("service", &message.service)?),
        name: message.name.clone(),
        backends: backends(&message.name, &message.backends)?,
    })
}

fn backends(route: &str, messages: &[NodeBackend]) -> Result<Vec<Backend>, Error> {
    let backend = |backend: &NodeBackend| {
        let refused = || Error::Address {
            route: route.to_owned(),
            address: backend.address.clone(),
        };
        let place = match backend.address.is_empty() {
            false => Place::Here(backend.address.parse().map_err(|_| refused())?),
            true => Place::There {
                node: NodeId::from_u128(id_bits("node", &backend.node)?),
                port: u16::try_from(backend.port).map_err(|_| refused())?,
            },
        };
        let allocation = AllocationId::from_u128(id_bits("allocation", &backend.allocation)?);
        Ok(Backend { allocation, place })
    };
    messages.iter().map(backend).collect()
}

fn route(message: &NodeRoute) -> Result<Route, Error> {
    Ok(Route {
        host: message.host.clone(),
        path_prefix: message.path_prefix.clone(),
        service: ServiceId::from_u128(id_bits("service", &message.service)?),
        name: message.name.clone(),
        backends: backends(&message.name, &message.backends)?,
        sleeps: message.sleeps,
        rules: rules_in(message.rules.clone())?,
        parts: message
            .parts
            .iter()
            .cloned()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?,
    })
}
