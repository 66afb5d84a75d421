//! What others need to know at each change: where traffic may go, and where the logs are.

use std::sync::Arc;

use skep_model::id::AllocationId;

use super::Keeper;
use super::quarantine::kept_by;
use crate::logs::{Container, Place};
use crate::plan::Phase;
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
        let entries = self.entries.iter();
        let local = entries.filter_map(|(id, entry)| Some((*id, entry.spot.clone()?)));
        let bridges = self.parts.runtime.bridges().borrow().clone();
        let local = local.collect();
        let content = routes::resolve(routes, self.parts.node, (&local, &bridges));
        self.traffic_changed = false;
        self.parts.wanted.send_if_modified(|wanted| {
            let same = wanted.as_deref() == Some(&content);
            if !same {
                *wanted = Some(Arc::new(content));
            }
            !same
        });
    }

    /// Tells readers of logs which containers an allocation has, and which of them have ended.
    pub(super) fn publish_places(&self, id: AllocationId) {
        let containers = self.entries.get(&id).map(|entry| &entry.containers);
        // A bundle writes no log.
        let containers = containers.into_iter().flatten();
        let containers = containers.filter(|seen| !seen.is_bundle());
        let containers = containers.map(|seen| Container {
            id: seen.id.clone(),
            is_over: matches!(seen.phase, Phase::Exited(_) | Phase::Ended),
        });
        let assignment = kept_by(&self.assignments, &self.quarantine, id);
        let now = Place {
            names: assignment.map(|of| of.names.clone()).unwrap_or_default(),
            containers: containers.collect(),
        };
        self.parts.places.send_if_modified(|places| {
            let is_none = now.containers.is_empty();
            if is_none {
                return places.remove(&id).is_some();
            }
            if places.get(&id) == Some(&now) {
                return false;
            }
            places.insert(id, now);
            true
        });
    }
}
