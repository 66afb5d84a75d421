//! Reading providers, pools that make their nodes, and guests.

use std::sync::Arc;

use skep_model::guest_pool::{GuestPool, PoolGuest};
use skep_model::id::{GuestId, NodeId};
use skep_model::pool::Departed;
use skep_model::provider::Provider;

use crate::state::State;

impl State {
    /// Every provider, by name.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }

    /// A provider by its name.
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }

    /// Every pool that makes nodes, by name.
    pub fn guest_pools(&self) -> impl Iterator<Item = &Arc<GuestPool>> {
        self.guest_pools.values()
    }

    /// A pool that makes nodes.
    pub fn guest_pool(&self, name: &str) -> Option<&Arc<GuestPool>> {
        self.guest_pools.get(name)
    }

    /// Every guest that is written down, in the order of their ids, which is that of time.
    pub fn guests(&self) -> impl Iterator<Item = &Arc<PoolGuest>> {
        self.guests.values()
    }

    /// A guest.
    pub fn guest(&self, id: GuestId) -> Option<&Arc<PoolGuest>> {
        self.guests.get(&id)
    }

    /// The guests of a pool.
    pub fn guests_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Arc<PoolGuest>> {
        self.guests.values().filter(move |one| one.pool == pool)
    }

    /// Guests of a pool that are there no more, in the order of their ids: those that are remembered.
    pub fn departed_of<'a>(
        &'a self,
        pool: &str,
    ) -> impl Iterator<Item = &'a Arc<Departed>> + use<'a> {
        let (first, last) = (GuestId::from_u128(0), GuestId::from_u128(u128::MAX));
        let keys = (pool.to_owned(), first)..=(pool.to_owned(), last);
        self.departed.range(keys).map(|(_, one)| one)
    }

    /// The guest that a node runs in, where a pool has made it.
    pub fn guest_of(&self, node: NodeId) -> Option<&Arc<PoolGuest>> {
        self.guests.values().find(|one| one.node == Some(node))
    }
}
