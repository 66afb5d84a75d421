//! The private network of each environment: which address a service has, and what others of its environment
//! know of it. Everything follows from the state and its time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use skep_model::allocation::Desired;
use skep_model::id::{EnvironmentId, NodeId, ServiceId};
use skep_model::network::{NameBackend, Named, Names, Pool, PrivateAddress, block_of, usable};
use skep_model::problem::{Code, Problem};
use skep_model::route::RoutePeer;
use skep_model::service::Service;
use skep_proto::LEVEL_SCHEDULING;

use crate::state::State;

impl State {
    /// Every address that is given or was until lately, in their order.
    pub fn private_addresses(&self) -> impl Iterator<Item = &Arc<PrivateAddress>> {
        self.addresses.values()
    }

    /// From where addresses are given.
    pub fn private_pool(&self) -> Pool {
        self.private_pool
    }

    /// The address of a service; none: the cluster's level knows of none, or there was none left.
    pub fn private_address(&self, service: ServiceId) -> Option<Ipv4Addr> {
        self.service_addresses
            .get(&service)
            .copied()
            .map(Ipv4Addr::from)
    }

    /// Whether the time of an address that was released is over, and it is to be forgotten.
    pub fn has_free_addresses(&self, now_ms: u64) -> bool {
        self.addresses.values().any(|held| held.is_free(now_ms))
    }

    /// The environments of which a node has containers.
    pub fn environments_on(&self, node: NodeId) -> BTreeSet<EnvironmentId> {
        let here = self.allocations_on(node).filter(|it| it.is_assigned());
        let services = here.filter_map(|it| self.service(it.service));
        services.map(|service| service.environment).collect()
    }

    /// What is known by name in an environment.
    pub fn names_of(&self, environment: EnvironmentId) -> Names {
        let named = self.named_in(environment).filter_map(|(name, id)| {
            let service = self.service(id).filter(|service| !service.removing)?;
            let address = self.private_address(id)?;
            let backends = self.name_backends(service);
            Some((name.clone(), Named { address, backends }))
        });
        Names {
            environment,
            services: named.collect(),
        }
    }

    /// Nodes from which services of an environment are reached by name: those with private networks that
    /// have containers of it.
    pub fn callers_in(&self, environment: EnvironmentId) -> BTreeSet<NodeId> {
        let services = self.named_in(environment);
        let allocations = services.flat_map(|(_, id)| self.allocations_of(id));
        let assigned = allocations.filter(|it| it.is_assigned());
        let nodes: BTreeSet<NodeId> = assigned.map(|it| it.node).collect();
        let is_caller = |node: &NodeId| {
            let node = self.node(*node);
            node.is_some_and(|node| node.facts.private_network)
        };
        nodes.into_iter().filter(is_caller).collect()
    }

    /// The index at which something of an environment was withdrawn last that waits for its callers; 0:
    /// nothing does. Tables of this index and later ones are without it.
    pub fn withdrawn_in(&self, environment: EnvironmentId) -> u64 {
        let services = self.named_in(environment);
        let allocations = services.flat_map(|(_, id)| self.allocations_of(id));
        let leaving = allocations.filter(|it| it.is_live() && it.desired == Desired::Drain);
        leaving.map(|it| it.desired_index).max().unwrap_or(0)
    }

    /// Services of an environment by name, those that are being removed included.
    fn named_in(&self, environment: EnvironmentId) -> impl Iterator<Item = (&String, ServiceId)> {
        let first = (environment, String::new());
        let services = self.names.services.range(first..);
        let services = services.take_while(move |((of, _), _)| *of == environment);
        services.map(|((_, name), id)| (name, *id))
    }

    /// How the data planes of the nodes are reached that are in `names`.
    pub fn peers_in<'a>(&self, names: impl Iterator<Item = &'a Names>) -> Vec<RoutePeer> {
        let named = names.flat_map(|names| names.services.values());
        let backends = named.flat_map(|named| &named.backends);
        let nodes: BTreeSet<NodeId> = backends.map(|backend| backend.node).collect();
        let peers = nodes.into_iter().filter_map(|node| self.peer_of(node));
        peers.collect()
    }

    /// As for routes: what is healthy, wanted and serves, of workers, too.
    fn name_backends(&self, service: &Service) -> Vec<NameBackend> {
        self.allocations_of(service.id)
            .filter(|allocation| allocation.is_routable() && service.serves(allocation.target))
            .map(|allocation| NameBackend {
                node: allocation.node,
                allocation: allocation.id,
            })
            .collect()
    }

    /// Gives a service the lowest address that is free among those of its environment, which gets another
    /// block where none is. One that has an address keeps it.
    ///
    /// # Errors
    /// None is left in the pool.
    pub(crate) fn give_address(&mut self, service: &Service) -> Result<(), Problem> {
        let is_known = self.service_addresses.contains_key(&service.id);
        if is_known || self.feature_level() < LEVEL_SCHEDULING {
            return Ok(());
        }
        let free = self.free_address(service.environment).or_else(|| {
            // What is over is had at once, whether or not somebody has pruned.
            self.prune_addresses();
            self.free_address(service.environment)
        });
        let Some(address) = free else {
            let text = format!(
                "the pool of private addresses {} has none left for another service",
                self.private_pool
            );
            return Err(Problem::new(Code::TooLarge, text).hint(
                "remove environments that are not used any more: an hour later their addresses are free",
            ));
        };
        self.put_address(PrivateAddress {
            address: Ipv4Addr::from(address),
            service: service.id,
            environment: service.environment,
            released_ms: None,
        });
        Ok(())
    }

    fn free_address(&self, environment: EnvironmentId) -> Option<u32> {
        let blocks = self.environment_blocks.range((environment, 0)..);
        let blocks = blocks.take_while(|(of, _)| *of == environment);
        let mut own = blocks.flat_map(|(_, block)| usable(*block));
        let found = own.find(|address| !self.addresses.contains_key(address));
        found.or_else(|| {
            let block = self
                .private_pool
                .free_block(|block| self.blocks.contains_key(&block))?;
            usable(block).next()
        })
    }

    /// The service is gone: its address is nobody's for a while.
    pub(crate) fn release_address(&mut self, service: ServiceId) {
        let address = self.service_addresses.remove(&service);
        let held = address.and_then(|address| self.addresses.get(&address).cloned());
        if let Some(held) = held {
            self.put_address(PrivateAddress {
                released_ms: Some(self.time_ms),
                ..(*held).clone()
            });
        }
    }

    /// With its indexes.
    pub(crate) fn put_address(&mut self, held: PrivateAddress) {
        let address = u32::from(held.address);
        let block = block_of(address);
        self.blocks.insert(block, held.environment);
        self.environment_blocks.insert((held.environment, block));
        if held.released_ms.is_none() {
            self.service_addresses.insert(held.service, address);
        }
        self.addresses.insert(address, Arc::new(held));
    }

    /// Forgets those whose time is over, and gives back the blocks of which nothing is left.
    pub(crate) fn prune_addresses(&mut self) {
        let now_ms = self.time_ms;
        let free = self
            .addresses
            .iter()
            .filter(|(_, held)| held.is_free(now_ms));
        let free: BTreeMap<u32, EnvironmentId> =
            free.map(|(at, held)| (*at, held.environment)).collect();
        for (address, environment) in free {
            self.addresses.remove(&address);
            let block = block_of(address);
            let mut rest = usable(block).filter(|it| self.addresses.contains_key(it));
            if rest.next().is_none() {
                self.blocks.remove(&block);
                self.environment_blocks.remove(&(environment, block));
            }
        }
    }

    /// Addresses for the services of a state that knew none, in the order of their ids. Those for which the
    /// pool has none go without a private name.
    pub(crate) fn derive_addresses(&mut self) {
        if self.feature_level() < LEVEL_SCHEDULING || !self.addresses.is_empty() {
            return;
        }
        let services: Vec<Arc<Service>> = self.services.values().cloned().collect();
        for service in services {
            if self.give_address(&service).is_err() {
                return;
            }
        }
    }
}
