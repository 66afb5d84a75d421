//! What the agent's message of a table means. Pure.

use std::collections::{BTreeSet, HashMap};

use skep_ingress::{Backend, Place, Route, Table, TcpRoute};
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::route::Part;
use skep_proto::convert::{door_in, id_bits, rules_in};
use skep_proto::v1::{NodeBackend, NodeEndpoint, NodePeer, NodeRoute, NodeTable, NodeTcpRoute};

use super::files::Opened;
use super::mesh::Local;
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
    pub(super) local: HashMap<AllocationId, Local>,
    pub(super) networks: Vec<private::Network>,
}

/// `opened`: the bundles that it names. What is of another one is left out.
pub(super) fn understand(message: &NodeTable, opened: &Opened) -> Result<Understood, Error> {
    let all = message.routes.iter().chain(&message.ruled);
    let routes = all.map(|it| route(it, opened));
    let routes = routes.collect::<Result<_, _>>()?;
    let peer = |peer: &NodePeer| {
        let node = NodeId::from_u128(id_bits("node", &peer.node)?);
        Ok::<_, Error>((node, peer.address.clone()))
    };
    let endpoint = |endpoint: &NodeEndpoint| {
        let allocation = AllocationId::from_u128(id_bits("allocation", &endpoint.allocation)?);
        if !endpoint.files.is_empty() {
            let bundle = opened.get(&endpoint.files).cloned();
            return Ok(bundle.map(|bundle| (allocation, Local::Files(bundle))));
        }
        let ip = endpoint.ip.parse().map_err(|_| Error::Endpoint {
            ip: endpoint.ip.clone(),
        })?;
        Ok::<_, Error>(Some((allocation, Local::At(ip))))
    };
    Ok(Understood {
        networks: private::understand(&message.networks, opened)?,
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
            .filter_map(|it| endpoint(it).transpose())
            .collect::<Result<_, _>>()?,
    })
}

fn tcp_route(message: &NodeTcpRoute) -> Result<TcpRoute, Error> {
    // Files are asked for by requests: there is nothing that connections could lead to.
    let no_files = Opened::new();
    Ok(TcpRoute {
        door: door_in(message.door.clone())?,
        proxy_protocol: message.proxy_protocol,
        service: ServiceId::from_u128(id_bits("service", &message.service)?),
        name: message.name.clone(),
        backends: backends(&message.name, &message.backends, &no_files)?,
    })
}

fn backends(route: &str, messages: &[NodeBackend], opened: &Opened) -> Result<Vec<Backend>, Error> {
    let backend = |backend: &NodeBackend| {
        let allocation = AllocationId::from_u128(id_bits("allocation", &backend.allocation)?);
        if !backend.files.is_empty() {
            let bundle = opened.get(&backend.files).cloned();
            let place = bundle.map(Place::Files);
            return Ok(place.map(|place| Backend { allocation, place }));
        }
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
        Ok(Some(Backend { allocation, place }))
    };
    let understood = messages.iter().filter_map(|it| backend(it).transpose());
    understood.collect()
}

/// Where files of a service lie on this node, no other node is asked for what it has of that service: each of
/// `parts` is one, and what is of no part.
fn nearest(backends: Vec<Backend>, parts: &[Part]) -> Vec<Backend> {
    let part_of = |it: &Backend| {
        let mut parts = parts.iter();
        parts.position(|part| part.allocations.contains(&it.allocation))
    };
    let files = |it: &&Backend| matches!(it.place, Place::Files(_));
    let here: BTreeSet<_> = backends.iter().filter(files).map(part_of).collect();
    let is_far = |it: &Backend| matches!(it.place, Place::There { .. });
    let mut backends = backends;
    backends.retain(|it| !is_far(it) || !here.contains(&part_of(it)));
    backends
}

fn route(message: &NodeRoute, opened: &Opened) -> Result<Route, Error> {
    let parts = message.parts.iter().cloned().map(TryInto::try_into);
    let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
    let backends = backends(&message.name, &message.backends, opened)?;
    let tried = message.tried.iter().cloned().map(TryInto::try_into);
    Ok(Route {
        host: message.host.clone(),
        path_prefix: message.path_prefix.clone(),
        service: ServiceId::from_u128(id_bits("service", &message.service)?),
        name: message.name.clone(),
        backends: nearest(backends, &parts),
        sleeps: message.sleeps,
        rules: rules_in(message.rules.clone())?,
        parts,
        tried: tried.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use skep_ingress::files::Bundles;
    use skep_proto::convert::id_bytes;
    use skep_proto::v1::RoutePart;

    use super::*;

    fn at(allocation: u128, address: &str, files: &str) -> NodeBackend {
        let (node, port) = match address.is_empty() && files.is_empty() {
            true => (id_bytes(2), 80),
            false => (Vec::new(), 0),
        };
        NodeBackend {
            allocation: id_bytes(allocation),
            address: address.into(),
            node,
            port,
            files: files.into(),
        }
    }

    fn part(service: u128, allocations: &[u128]) -> RoutePart {
        RoutePart {
            service: id_bytes(service),
            name: format!("s{service}"),
            weight: 1,
            allocations: allocations.iter().map(|it| id_bytes(*it)).collect(),
        }
    }

    #[test]
    fn what_lies_here_is_not_asked_for_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        crate::testing::unpack(folder.path(), &[]);
        let name = folder.path().display().to_string();
        let bundle = Bundles::default().open(folder.path());
        let opened = [(name.clone(), bundle.expect("a bundle"))].into();
        let [files, gone] = [&*name, "/gone"].map(|folder| at(1, "", folder));
        let (old, app) = (at(2, "", &name), at(3, "127.0.0.1:80", ""));
        let (far, farther) = (at(4, "", ""), at(5, "", ""));
        let split = [part(1, &[1, 4]), part(2, &[5])];
        for (backends, parts, expected) in [
            (vec![&files, &far, &farther], &[][..], vec![1]),
            (vec![&files, &old, &app, &far], &[], vec![1, 2, 3]),
            (vec![&app, &far], &[], vec![3, 4]),
            (vec![&gone, &far], &[], vec![4]),
            (vec![&gone], &[], vec![]),
            (vec![&files, &far, &farther], &split, vec![1, 5]),
        ] {
            let message = NodeRoute {
                service: id_bytes(9),
                backends: backends.into_iter().cloned().collect(),
                parts: parts.to_vec(),
                ..NodeRoute::default()
            };
            let route = route(&message, &opened).expect("read");
            let kept = route.backends.iter().map(|it| it.allocation.as_u128());
            assert_eq!(kept.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn connections_do_not_lead_to_files_and_other_nodes_reach_them() {
        let folder = tempfile::tempdir().expect("a folder");
        crate::testing::unpack(folder.path(), &[]);
        let name = folder.path().display().to_string();
        let endpoint = |allocation, files: &str| NodeEndpoint {
            allocation: id_bytes(allocation),
            ip: String::new(),
            files: files.into(),
        };
        let message = NodeTable {
            tcp: vec![NodeTcpRoute {
                door: Some((&skep_model::tcp::Door::Entry(15_000)).into()),
                service: id_bytes(9),
                backends: vec![at(1, "", &name), at(3, "127.0.0.1:80", "")],
                ..NodeTcpRoute::default()
            }],
            endpoints: vec![endpoint(1, &name), endpoint(2, "/gone")],
            ..NodeTable::default()
        };
        let opened = super::super::files::open(&Bundles::default(), &message);
        let understood = understand(&message, &opened).expect("read");
        assert_eq!(understood.table.tcp[0].backends.len(), 1);
        let local: Vec<_> = understood.local.keys().map(|it| it.as_u128()).collect();
        assert_eq!(local, [1]);
    }
}
