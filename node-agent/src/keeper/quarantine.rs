//! What runs although the cluster does not know it: kept as its last assignment says, out of the
//! routes and unobserved, until somebody adopts or dismisses it, or it ends by itself.

use std::collections::BTreeMap;

use skep_model::assignment::Assignment;
use skep_model::id::AllocationId;
use skep_model::quarantine::{MAX_PER_NODE, Quarantined};
use skep_proto::v1;

use super::Keeper;
use crate::ledger::Change;

/// What an allocation is kept by: its assignment, or the one it had before quarantine.
pub(super) fn kept_by<'a>(
    assignments: &'a BTreeMap<AllocationId, Assignment>,
    quarantine: &'a BTreeMap<AllocationId, Assignment>,
    id: AllocationId,
) -> Option<&'a Assignment> {
    assignments.get(&id).or_else(|| quarantine.get(&id))
}

impl Keeper {
    /// Whether an allocation was begun and has not ended for good.
    pub(super) fn runs(&self, id: AllocationId) -> bool {
        self.entries.get(&id).is_some_and(|entry| {
            let is_begun = entry.local.attempt > 0 || !entry.containers.is_empty();
            is_begun && entry.local.verdict.is_none()
        })
    }

    pub(super) fn put_in_quarantine(&mut self, assignment: Assignment) {
        let id = assignment.allocation;
        if self.quarantine.insert(id, assignment).is_some() {
            return;
        }
        tracing::warn!(
            allocation = %id,
            "runs, and the cluster does not know it: in quarantine until it is adopted or dismissed"
        );
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        // Should it be adopted, its state is news again.
        let said = entry.said.take().map(|said| said.state);
        self.parts.metrics.state(said, None);
    }

    /// Lists what is in quarantine to the server.
    pub(super) fn tell_quarantine(&self) {
        let listed = self.quarantine.values().take(MAX_PER_NODE);
        let listed = listed.map(|assignment| {
            v1::Quarantined::from(&Quarantined {
                node: self.parts.node,
                allocation: assignment.allocation,
                service: assignment.service,
                service_label: assignment.service_label.clone(),
                target: assignment.target,
                since_ms: 0,
            })
        });
        self.parts.outbox.set_quarantine(listed.collect());
    }

    /// Forgets what was in quarantine and has ended; true: it was and has.
    pub(super) async fn leave_quarantine(&mut self, id: AllocationId) -> bool {
        let is_over = self.entries.get(&id).is_some_and(|entry| {
            entry.local.verdict.is_some() && entry.work.is_none() && entry.containers.is_empty()
        });
        if !is_over || !self.listed || self.quarantine.remove(&id).is_none() {
            return false;
        }
        tracing::info!(allocation = %id, "ended, and in quarantine no more");
        let change = Change::Unquarantine(id);
        self.parts.writer.write_soon(vec![change]).await;
        self.forget(id).await;
        self.tell_quarantine();
        true
    }
}
