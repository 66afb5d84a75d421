//! What Docker tells.

use std::collections::BTreeMap;

use skep_model::id::AllocationId;

use super::Keeper;
use crate::plan::Seen;
use crate::runtime::events::Told;
use crate::session::Condition;

impl Keeper {
    pub(super) async fn take_told(&mut self, told: Told) {
        match told {
            Told::All(all) => self.take_all(all).await,
            Told::Away { wedged } => {
                self.runtime_ok = false;
                self.parts.metrics.runtime(false);
                self.parts.outbox.set_runtime(Condition::away(wedged));
            }
            Told::Changed {
                allocation,
                container,
                oom,
            } => {
                let Some(entry) = self.entries.get_mut(&allocation) else {
                    return;
                };
                if oom {
                    entry.out_of_memory.push(container);
                    return;
                }
                entry.end(container);
                // Out of the routes at once: how it ended is found out after.
                self.say(allocation);
                self.publish_traffic();
                self.touch(allocation).await;
            }
        }
    }

    /// Everything that is there: at the start, and after Docker was away.
    async fn take_all(&mut self, mut all: Vec<(AllocationId, Seen)>) {
        all.extend(self.parts.executor.bundles.list());
        let mut listed: BTreeMap<AllocationId, Vec<Seen>> = BTreeMap::new();
        for (id, seen) in all {
            listed.entry(id).or_default().push(seen);
        }
        for id in listed.keys() {
            self.entries.entry(*id).or_default();
        }
        let first = !self.listed;
        self.listed = true;
        self.runtime_ok = true;
        let ids: Vec<AllocationId> = self.entries.keys().copied().collect();
        for id in &ids {
            let seen = listed.remove(id).unwrap_or_default();
            if let Some(entry) = self.entries.get_mut(id) {
                // Work under way tells what it leaves when it ends.
                if entry.work.is_none() {
                    entry.replace(seen);
                }
                entry.hold_until = None;
            }
        }
        self.leave_what_is_nobodys();
        for id in &ids {
            self.publish_places(*id);
            self.touch(*id).await;
        }
        self.parts.metrics.runtime(true);
        self.parts.outbox.set_ready();
        self.parts.outbox.set_runtime(Condition::Works);
        if first {
            // What is healthy goes on in the routes as if nothing had happened.
            self.traffic_changed = true;
            self.start_builds(self.orders.keys().copied().collect());
        }
    }
}
