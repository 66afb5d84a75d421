//! What comes down from the server: written down, then acted on.

use skep_model::id::{AllocationId, DeploymentId};
use skep_model::route::RouteTable;

use super::Keeper;
use super::diff::{Held, diff};
use crate::ledger::{Change, Routes};
use crate::session::{DesiredChange, Down};

impl Keeper {
    pub(super) async fn take_down(&mut self, down: Down) {
        match down {
            Down::Desired { change, stored } => {
                let held = Held {
                    generation: self.generation,
                    assignments: &self.assignments,
                    quarantine: &self.quarantine,
                    orders: &self.orders,
                    runs: &|id| self.runs(id),
                };
                let (changes, touched) = diff(&held, &change);
                let written = self.parts.writer.write(changes.clone()).await;
                // Dropped only when the session is over: it will ask again.
                let _ = stored.send(written.is_ok());
                if written.is_ok() {
                    self.take_desired(&change, changes, touched).await;
                    // Not before: what it says now may be that another one has taken over.
                    self.take_contact(true).await;
                }
            }
            Down::Routes(incarnation, table) => self.take_routes(incarnation, table).await,
            Down::Ended => self.take_contact(false).await,
            Down::Fenced(dropped) => self.drop_everything(dropped).await,
        }
    }

    async fn take_desired(
        &mut self,
        change: &DesiredChange,
        changes: Vec<Change>,
        mut touched: Vec<AllocationId>,
    ) {
        let first = self.generation.is_none();
        self.generation = Some(change.set.generation);
        let mut fresh = Vec::new();
        for change in changes {
            match change {
                Change::Assign(assignment) => {
                    let entry = self.entries.entry(assignment.allocation).or_default();
                    entry.leaves = None;
                    self.assignments.insert(assignment.allocation, *assignment);
                }
                Change::Unassign(id) => {
                    let had = self.assignments.remove(&id);
                    self.leave(id, had.as_ref());
                    self.parts.outbox.forget(id);
                }
                Change::Quarantine(assignment) => self.put_in_quarantine(*assignment),
                Change::Unquarantine(id) => {
                    self.quarantine.remove(&id);
                }
                Change::Order(order) => {
                    fresh.push(order.deployment);
                    self.orders.insert(order.deployment, *order);
                }
                Change::Unorder(id) => {
                    self.orders.remove(&id);
                    self.outcomes.remove(&id);
                    self.parts.builds.end(id);
                    self.parts.outbox.forget_build(id);
                }
                _ => {}
            }
        }
        self.tell_quarantine();
        self.tell_images();
        self.start_builds(fresh);
        if first {
            // Only now is it known that what nobody assigned does not belong here.
            touched = self.entries.keys().copied().collect();
        }
        for id in touched {
            self.touch(id).await;
        }
    }

    /// What runs here keeps its image, and its environment's bridge.
    pub(super) fn tell_images(&self) {
        let all = self.assignments.values().chain(self.quarantine.values());
        self.parts
            .images
            .use_only(all.clone().map(|assignment| &assignment.image));
        let environments = all.filter_map(|assignment| assignment.network);
        self.parts
            .executor
            .networks
            .use_only(environments.collect());
    }

    /// Begins what of `orders` has no outcome yet; before Docker is there, none.
    pub(super) fn start_builds(&mut self, orders: Vec<DeploymentId>) {
        if !self.listed {
            return;
        }
        for id in orders {
            let order = self
                .orders
                .get(&id)
                .filter(|_| !self.outcomes.contains_key(&id));
            if let Some(order) = order {
                self.parts.builds.start(order.clone(), &self.shutdown);
            }
        }
    }

    async fn take_routes(&mut self, incarnation: u64, table: RouteTable) {
        let held = self.routes.as_ref();
        let held = held.map(|routes| (routes.incarnation, routes.table.revision));
        if held.is_some_and(|held| (incarnation, table.revision) < held) {
            tracing::warn!(revision = table.revision, "an older route table is refused");
            return;
        }
        let routes = Routes { incarnation, table };
        if self.routes.as_ref() == Some(&routes) {
            return;
        }
        let change = Change::Routes(Box::new(routes.clone()));
        self.routes = Some(routes);
        self.traffic_changed = true;
        // Served first: after a crash the data plane still has it, and the server sends it again.
        self.publish_traffic();
        self.parts.writer.write_soon(vec![change]).await;
    }
}
