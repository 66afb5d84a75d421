//! The route table, derived from the state: healthy allocations that are wanted running, of releases
//! that serve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::id::NodeId;
use skep_model::route::{Backend, Route, RoutePeer, RouteTable, TcpRoute};
use skep_model::routing::RouteSpec;
use skep_model::service::Service;

use crate::state::State;

/// Host and path without a trailing `/`.
type Place = (String, String);

impl State {
    /// The whole table at this state's revision, sorted by host and path.
    pub fn route_table(&self) -> RouteTable {
        let mut routes: Vec<Route> = self
            .services
            .values()
            .filter(|service| {
                service.spec.is_routed() && !service.removing && service.target().is_some()
            })
            .flat_map(|service| self.routes_of(service))
            .collect();
        routes.sort_by(|a, b| (&a.host, &a.path_prefix).cmp(&(&b.host, &b.path_prefix)));
        let tcp = self.tcp_routes();
        let peers = self.peers_of(&routes, &tcp);
        RouteTable {
            revision: self.routes_revision,
            routes,
            tcp,
            peers,
            // Each node's own.
            names: Vec::new(),
        }
    }

    /// How the data planes of the nodes with backends are reached.
    fn peers_of(&self, routes: &[Route], tcp: &[TcpRoute]) -> Vec<RoutePeer> {
        let backends = routes.iter().flat_map(|route| &route.backends);
        let backends = backends.chain(tcp.iter().flat_map(|route| &route.backends));
        let nodes: BTreeSet<NodeId> = backends.map(|backend| backend.node).collect();
        let peers = nodes.into_iter().filter_map(|node| self.peer_of(node));
        peers.collect()
    }

    /// How a node's data plane is reached by those of others.
    pub(crate) fn peer_of(&self, node: NodeId) -> Option<RoutePeer> {
        let address = self.node(node)?.facts.mesh_address.clone()?;
        Some(RoutePeer { node, address })
    }

    fn routes_of(&self, service: &Service) -> Vec<Route> {
        let backends: Vec<Backend> = self
            .allocations_of(service.id)
            .filter(|allocation| allocation.is_routable() && service.serves(allocation.target))
            .filter_map(|allocation| {
                let port = self.release(service.id, allocation.target.release)?.port?;
                Some(Backend {
                    node: allocation.node,
                    allocation: allocation.id,
                    port,
                })
            })
            .collect();
        let autoscale = service.spec.autoscale.as_ref();
        // Once there is a backend anywhere, a node that has none of its own has nothing to wait for.
        let sleeps = backends.is_empty()
            && !service.stopped
            && autoscale.is_some_and(|it| it.scale_to_zero.is_some());
        let name = self.label_of(service);
        let route = |((host, prefix), rules): (Place, Option<Arc<RouteSpec>>)| Route {
            host,
            path_prefix: if prefix.is_empty() {
                "/".to_owned()
            } else {
                prefix
            },
            service: service.id,
            name: name.clone(),
            backends: backends.clone(),
            sleeps,
            rules,
        };
        self.places_of(service).into_iter().map(route).collect()
    }

    /// Where a service answers: its generated name and `domains` with all their paths, then its routes,
    /// which may say more of the same places.
    fn places_of(&self, service: &Service) -> BTreeMap<Place, Option<Arc<RouteSpec>>> {
        let generated = self.host_of(service);
        let whole = std::iter::once(&generated).chain(&service.spec.domains);
        let mut places: BTreeMap<_, _> = whole
            .map(|host| ((host.clone(), String::new()), None))
            .collect();
        for route in &service.spec.routes {
            let host = route.host.clone().unwrap_or_else(|| generated.clone());
            let rules = (!route.is_plain()).then(|| Arc::new(route.clone()));
            places.insert((host, route.prefix().to_owned()), rules);
        }
        places
    }
}
