//! A node that was fenced has nothing: what it ran may run elsewhere by now. All of it is stopped and forgotten before the
//! agent speaks for the node again.

use skep_model::id::AllocationId;
use tokio::sync::oneshot;

use super::Keeper;
use crate::ledger::Change;

impl Keeper {
    /// Lets go of everything, what is in quarantine and builds among it. `dropped` is answered once no container is left.
    pub(super) async fn drop_everything(&mut self, dropped: oneshot::Sender<()>) {
        tracing::warn!("this node was fenced: everything that it runs is stopped");
        let unassigned = self.assignments.keys().copied().map(Change::Unassign);
        let released = self.quarantine.keys().copied().map(Change::Unquarantine);
        let unordered = self.orders.keys().copied().map(Change::Unorder);
        let changes: Vec<Change> = unassigned.chain(released).chain(unordered).collect();
        // Not on disk it is not done: the session tries again.
        if self.parts.writer.write(changes).await.is_err() {
            return;
        }
        self.dropping = Some(dropped);
        for id in std::mem::take(&mut self.assignments).into_keys() {
            self.parts.outbox.forget(id);
        }
        self.quarantine.clear();
        for id in std::mem::take(&mut self.orders).into_keys() {
            self.outcomes.remove(&id);
            self.parts.builds.end(id);
            self.parts.outbox.forget_build(id);
        }
        self.tell_quarantine();
        self.tell_images();
        let all: Vec<AllocationId> = self.entries.keys().copied().collect();
        for id in all {
            self.touch(id).await;
        }
    }

    /// Answers where nothing is left, of which Docker has to be asked.
    pub(super) fn tell_dropped(&mut self) {
        if !self.listed || !self.runtime_ok || !self.entries.is_empty() {
            return;
        }
        if let Some(dropped) = self.dropping.take() {
            tracing::info!("nothing is left of what ran before this node was fenced");
            // Fails only when the agent ends.
            let _ = dropped.send(());
        }
    }
}
