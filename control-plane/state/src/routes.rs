//! The route table, derived from the state: healthy allocations that are wanted running, of releases
//! that serve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::allocation::Allocation;
use skep_model::id::NodeId;
use skep_model::route::{Backend, Part, Route, RoutePeer, RouteTable, TcpRoute, Tried};
use skep_model::routing::{RouteSpec, Split};
use skep_model::service::Service;

use crate::state::State;

/// Host and path without a trailing `/`.
type Place = (String, String);

/// Who gets the requests of a route.
#[derive(Clone)]
struct Takers {
    backends: Vec<Backend>,
    sleeps: bool,
    parts: Vec<Part>,
    tried: Vec<Tried>,
}

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
        let backends = self.backends_of(service);
        let own = Takers {
            // Once there is a backend anywhere, a node that has none of its own has nothing to wait for.
            sleeps: backends.is_empty() && wakes(service),
            tried: self.tried_of(service, &backends).into_iter().collect(),
            backends,
            parts: Vec::new(),
        };
        let name = self.label_of(service);
        let route = |((host, prefix), rules): (Place, Option<Arc<RouteSpec>>)| {
            let split = rules.as_ref().map(|rules| &*rules.split);
            let takers = match split.filter(|split| !split.is_empty()) {
                Some(split) => self.takers_of(service, split),
                None => own.clone(),
            };
            Route {
                host,
                path_prefix: if prefix.is_empty() {
                    "/".to_owned()
                } else {
                    prefix
                },
                service: service.id,
                name: name.clone(),
                backends: takers.backends,
                sleeps: takers.sleeps,
                rules,
                parts: takers.parts,
                tried: takers.tried,
            }
        };
        self.places_of(service).into_iter().map(route).collect()
    }

    /// Allocations of a service that may get requests.
    fn backends_of(&self, service: &Service) -> Vec<Backend> {
        let allocations = self.allocations_of(service.id);
        let taking = allocations.filter(|it| it.is_routable() && service.serves(it.target));
        let taking: Vec<_> = taking.collect();
        let changed = self.changed_nodes(service, &taking);
        let backend = |allocation: &&Arc<Allocation>| {
            let port = self.release(service.id, allocation.target.release)?.port?;
            Some(Backend {
                node: allocation.node,
                allocation: allocation.id,
                port,
            })
        };
        let is_newest = |allocation: &&&Arc<Allocation>| {
            !changed.contains(&allocation.node) || Some(allocation.target) == service.target()
        };
        taking
            .iter()
            .filter(is_newest)
            .copied()
            .filter_map(|it| backend(&it))
            .collect()
    }

    /// The release of a canary, while it is compared with the live one.
    fn tried_of(&self, service: &Service, backends: &[Backend]) -> Option<Tried> {
        let target = service.compared()?;
        let is_its = |backend: &&Backend| {
            let allocation = self.allocation(backend.allocation);
            allocation.is_some_and(|it| it.target == target)
        };
        let allocations = backends.iter().filter(is_its).map(|it| it.allocation);
        Some(Tried {
            service: service.id,
            deployment: target.deployment,
            allocations: allocations.collect(),
        })
    }

    /// Nodes that hand out the files of the new release already: never those of two at once, or a page of one
    /// would ask for what only the other one has.
    fn changed_nodes(&self, service: &Service, taking: &[&Arc<Allocation>]) -> BTreeSet<NodeId> {
        let target = service.target();
        let release = target.and_then(|target| self.release(service.id, target.release));
        if !release.is_some_and(|release| release.image.bundle) {
            return BTreeSet::new();
        }
        let new = taking.iter().filter(|it| Some(it.target) == target);
        new.map(|it| it.node).collect()
    }

    /// Of the services that share a route those that have a backend, or would have one if they were woken.
    /// One that is not there is no fault of the route: its share is the others'.
    fn takers_of(&self, owner: &Service, split: &[Split]) -> Takers {
        let mut takers = Takers {
            backends: Vec::new(),
            sleeps: false,
            parts: Vec::new(),
            tried: Vec::new(),
        };
        for share in split.iter().filter(|share| share.weight > 0) {
            let named = self.service_named(owner.environment, &share.service);
            let Some(service) = named.filter(|it| it.spec.is_routed() && !it.removing) else {
                continue;
            };
            let backends = self.backends_of(service);
            if backends.is_empty() && !wakes(service) {
                continue;
            }
            takers.parts.push(Part {
                service: service.id,
                name: self.label_of(service),
                weight: share.weight,
                allocations: backends.iter().map(|it| it.allocation).collect(),
            });
            takers.tried.extend(self.tried_of(service, &backends));
            takers.backends.extend(backends);
        }
        takers.sleeps = takers.backends.is_empty() && !takers.parts.is_empty();
        takers
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

/// Whether requests bring back a service that has no allocations.
fn wakes(service: &Service) -> bool {
    let autoscale = service.spec.autoscale.as_ref();
    !service.stopped && autoscale.is_some_and(|it| it.scale_to_zero.is_some())
}
