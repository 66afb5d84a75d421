//! The leader's care for pools that scale themselves: looks whenever something may have changed what waits or runs, and
//! writes one decision down at a time. What it remembers is lost with leadership, which only delays.

use std::sync::Arc;
use std::time::Duration;

use skep_model::problem::Code;
use skep_state::{Change, State};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::consensus::Batch;
use crate::guests::sizing::{Decision, Memory, decide, scaling};
use crate::history::AuditEntry;
use crate::placement::cluster_of;
use crate::store::now_ms;

/// Between two looks: changes come in crowds, and each look sees them all.
const LEAST: Duration = Duration::from_millis(300);
/// Of the time, at most this part is spent looking: a look costs what the cluster has.
const SHARE: u32 = 5;
/// Longest sleep while nothing changes: how late it is seen that a node is not needed, or that a guest does not come.
const PERIOD: Duration = Duration::from_secs(15);
/// Shortest, for pools whose nodes go soon.
const SHORTEST: Duration = Duration::from_secs(1);
/// As whom its changes are in the audit trail.
const PRINCIPAL: &str = "autoscaler";

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let mut memory = Memory::default();
    loop {
        // What came until now is in the view.
        changes = changes.resubscribe();
        let began = Instant::now();
        let view = parts.store.view();
        let period = period(&view);
        if period.is_some() {
            memory = look(parts, view, memory).await;
        }
        let rest_until = began + LEAST.max(began.elapsed() * SHARE);
        let wake_at = began + period.unwrap_or(PERIOD);
        tokio::select! {
            () = follow(&mut changes) => {}
            () = sleep_until(wake_at) => {}
            () = token.cancelled() => return,
        }
        tokio::select! {
            () = sleep_until(rest_until) => {}
            () = token.cancelled() => return,
        }
    }
}

/// How long nothing is looked at while nothing changes; none: no pool scales itself.
fn period(view: &State) -> Option<Duration> {
    let idle_ms = scaling(view)
        .filter_map(|it| it.size.auto)
        .map(|it| it.idle_ms);
    let least = Duration::from_millis(idle_ms.min()?);
    Some((least / 4).clamp(SHORTEST, PERIOD))
}

/// One decision, and what is remembered after it.
async fn look(parts: &Parts, view: State, mut memory: Memory) -> Memory {
    let now_ms = now_ms().max(view.time_ms());
    // Looks at every node for all that waits: not on a thread that others wait for.
    let looking = tokio::task::spawn_blocking(move || {
        let decision = decide(&view, cluster_of(&view), &mut memory, now_ms);
        (decision, memory)
    });
    let (decision, memory) = match looking.await {
        Ok(looked) => looked,
        Err(error) => {
            tracing::error!(%error, "sizing pools panicked");
            return Memory::default();
        }
    };
    if let Some(decision) = decision {
        carry_out(parts, decision).await;
    }
    memory
}

async fn carry_out(parts: &Parts, decision: Decision) {
    let Decision { pool, reason, kind } = decision;
    match parts.store.propose(kind).await {
        Ok(_) => {
            tracing::info!(pool, reason, "a pool was scaled");
            parts.history.audit(AuditEntry {
                at_ms: now_ms(),
                principal: PRINCIPAL.to_owned(),
                action: "scale_node_pool".to_owned(),
                resource: format!("node-pools/{pool}"),
                outcome: reason,
            });
        }
        // The state has moved on: its change wakes us.
        Err(problem) if matches!(problem.code, Code::Conflict | Code::NotFound) => {
            tracing::debug!(pool, %problem, "a pool was not scaled: looked at again");
        }
        Err(problem) => tracing::warn!(pool, %problem, "a pool was not scaled: it is tried again"),
    }
}

/// Returns with the next change that may concern what waits, or where it may be.
async fn follow(changes: &mut Receiver<Arc<Batch<Change>>>) {
    loop {
        match changes.recv().await {
            Ok(batch) if batch.is_reset || batch.changes.iter().any(concerns) => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn concerns(change: &Change) -> bool {
    matches!(
        change,
        Change::Guests
            | Change::Node(_)
            | Change::Allocation { .. }
            | Change::Service(_)
            | Change::Job { .. }
            | Change::Deployment(_)
            | Change::Settings
    )
}
