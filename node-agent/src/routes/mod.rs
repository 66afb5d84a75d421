//! The node's part of the route table: the server's table with this node's addresses in it, handed
//! to the data plane. Decides nothing about traffic: a backend is in it when the server wants it
//! and it is healthy here.

mod book;
mod publish;

use std::net::{IpAddr, SocketAddr};

use skep_model::id::{AllocationId, NodeId};
use skep_model::route::Backend;
use skep_proto::convert::{id_bytes, rules_out};
use skep_proto::v1;

pub(crate) use publish::Publisher;

use crate::ledger::Routes;

/// Which of the cluster's tables: revisions begin anew with each incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Version {
    /// Of the cluster.
    pub(crate) incarnation: u64,
    /// Of its table.
    pub(crate) revision: u64,
}

/// A table to publish, its sequence apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    /// Of the cluster's table that it was made from.
    pub(crate) version: Version,
    /// The routes.
    pub(crate) routes: Vec<v1::NodeRoute>,
}

/// `held` as `node` serves it: `local` gives the address of an allocation that is fit for traffic.
/// Backends of other nodes are left out: a node sends traffic to its own containers alone.
pub(crate) fn resolve(
    held: &Routes,
    node: NodeId,
    local: impl Fn(AllocationId) -> Option<IpAddr>,
) -> Content {
    let resolve = |backend: &Backend| {
        let address = local(backend.allocation).filter(|_| backend.node == node)?;
        Some(v1::NodeBackend {
            allocation: id_bytes(backend.allocation.as_u128()),
            address: SocketAddr::new(address, backend.port).to_string(),
        })
    };
    let routes = held.table.routes.iter().map(|route| v1::NodeRoute {
        host: route.host.clone(),
        path_prefix: route.path_prefix.clone(),
        service: id_bytes(route.service.as_u128()),
        name: route.name.clone(),
        backends: route.backends.iter().filter_map(resolve).collect(),
        sleeps: route.sleeps,
        rules: rules_out(&route.rules),
    });
    Content {
        version: held.version(),
        routes: routes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use skep_model::id::ServiceId;
    use skep_model::route::{Route, RouteTable};

    use super::*;

    #[test]
    fn only_what_is_wanted_here_and_healthy_gets_in() {
        let (here, there) = (NodeId::from_u128(1), NodeId::from_u128(2));
        let backend = |node, allocation| Backend {
            node,
            allocation: AllocationId::from_u128(allocation),
            port: 80,
        };
        let table = RouteTable {
            revision: 9,
            routes: vec![Route {
                host: "a.test".into(),
                path_prefix: "/".into(),
                service: ServiceId::from_u128(3),
                name: "a".into(),
                backends: vec![backend(here, 10), backend(here, 11), backend(there, 12)],
                sleeps: false,
                rules: None,
            }],
        };
        // 11 is not healthy; 13 is, but nobody wants it.
        let healthy = [10, 12, 13].map(AllocationId::from_u128);
        let address = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
        let held = Routes {
            incarnation: 2,
            table,
        };
        let content = resolve(&held, here, |id| healthy.contains(&id).then_some(address));
        let backends = &content.routes[0].backends;
        assert_eq!(
            (content.version.incarnation, content.version.revision),
            (2, 9)
        );
        assert_eq!(backends.len(), 1);
        assert_eq!(backends[0].address, "172.17.0.2:80");
    }
}
