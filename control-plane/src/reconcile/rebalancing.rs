//! The leader's rebalancing: at the pace that operators allow it begins moves apart, and moves that empty nodes, a few at
//! a time and only when the last ones are done. What a move is, the rollout knows.

use std::time::Duration;

use skep_model::rebalance::Mode;
use skep_state::State;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::rebalancing;
use crate::store::now_ms;

/// Between two looks: packing changes with deployments, not by the second.
const PERIOD: Duration = Duration::from_secs(10);
/// What the pace is counted over.
const MINUTE_MS: u64 = 60_000;

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = token.cancelled() => return,
        }
        let view = parts.store.view();
        let now_ms = now_ms().max(view.time_ms());
        let allowed = allowance(&view, now_ms);
        if allowed == 0 {
            continue;
        }
        // Looks at every node for every service: not on a thread that others wait for.
        let looking = tokio::task::spawn_blocking(move || {
            rebalancing::advise(&view, now_ms).due(&view, allowed)
        });
        let Ok(due) = looking.await else { continue };
        if due.is_empty() {
            continue;
        }
        if let Err(problem) = parts.store.propose(rebalancing::command(&due)).await {
            tracing::debug!(%problem, "moves were not accepted: looking again");
        }
    }
}

/// How many moves may begin now: none while some are not done.
fn allowance(view: &State, now_ms: u64) -> usize {
    let settings = view.rebalance();
    let is_busy = || rebalancing::heading(view, now_ms).next().is_some();
    if settings.mode != Mode::Auto || is_busy() {
        return 0;
    }
    let moves = settings.moves.values();
    let lately = moves.filter(|moving| now_ms < moving.at_ms.saturating_add(MINUTE_MS));
    (settings.moves_per_minute as usize).saturating_sub(lately.count())
}
