//! What others need to know at each change: where traffic may go, and where the logs are.

use std::sync::Arc;

use skep_model::id::AllocationId;

use super::Keeper;
use crate::routes;

impl Keeper {
    /// Hands the routes on, where they changed; never before all containers are known.
    pub(super) fn publish_traffic(&mut self) {
        let Some(routes) = self
            .routes
            .as_ref()
            .filter(|_| self.traffic_changed && self.listed)
        else {
            return;
        };
        let local = |id: AllocationId| self.entries.get(&id).and_then(|entry| entry.address);
        let content = routes::resolve(routes, self.parts.node, local);
        self.traffic_changed = false;
        self.parts.wanted.send_if_modified(|wanted| {
            let same = wanted.as_deref() == Some(&content);
            if !same {
                *wanted = Some(Arc::new(content));
            }
            !same
        });
    }

    /// Tells readers of logs which containers an allocation has.
    pub(super) fn publish_places(&self, id: AllocationId) {
        let containers = self.entries.get(&id).map(|entry| &entry.containers);
        let now: Vec<String> = containers
            .into_iter()
            .flatten()
            .map(|seen| seen.id.clone())
            .collect();
        self.parts.places.send_if_modified(|places| {
            let before = places.get(&id).map_or(&[][..], Vec::as_slice);
            if before == now {
                return false;
            }
            if now.is_empty() {
                places.remove(&id);
            } else {
                places.insert(id, now);
            }
            true
        });
    }
}
