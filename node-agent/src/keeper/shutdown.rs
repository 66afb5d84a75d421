//! The end of the agent. Its containers run on, unless they are its own for good (`skep dev`).

use std::time::Duration;

use futures_util::StreamExt;
use skep_model::id::AllocationId;
use tokio::time::timeout;

use super::quarantine::kept_by;
use super::{Events, Keeper};
use crate::plan::ORPHAN_GRACE_MS;

/// Work under way may take this long to end: a start that Docker has begun is not left half known.
const WORK_TIMEOUT: Duration = Duration::from_secs(15);
/// Containers that are stopped at a time.
const STOPS_MAX: usize = 32;

impl Keeper {
    pub(super) async fn shut_down(mut self, mut events: Events) {
        // What another agent runs is not this one's to stop.
        if !self.parts.stop_on_exit || self.parts.seat.is_refused() {
            return;
        }
        for entry in self.entries.values_mut() {
            entry.probe = None;
            if let Some((_, cancel)) = &entry.work {
                cancel.cancel();
            }
        }
        // Whoever has something to tell must not wait for a keeper that is gone.
        events.done.close();
        let tasks = self.parts.executor.tasks.clone();
        tasks.close();
        if timeout(WORK_TIMEOUT, tasks.wait()).await.is_err() {
            tracing::warn!("some work with docker was still under way at the end");
        }
        let running = match self.parts.runtime.list().await {
            Ok(all) => all.into_iter().filter(|(_, seen)| seen.is_running()),
            Err(error) => {
                let why = crate::error_chain(&error);
                tracing::warn!(%why, "the containers could not be stopped");
                return;
            }
        };
        let stop = |id: AllocationId, container: String| {
            let grace_ms = kept_by(&self.assignments, &self.quarantine, id)
                .map_or(ORPHAN_GRACE_MS, |kept| kept.stop_grace_ms);
            let runtime = self.parts.runtime.clone();
            async move {
                let stopped = runtime
                    .stop(&container, Duration::from_millis(grace_ms))
                    .await;
                if let Err(error) = stopped {
                    let why = crate::error_chain(&error);
                    tracing::warn!(allocation = %id, %why, "could not be stopped");
                }
            }
        };
        // Bounded by each stop's own deadline.
        futures_util::stream::iter(running)
            .for_each_concurrent(STOPS_MAX, |(id, seen)| stop(id, seen.id))
            .await;
    }
}
