//! The leader's care for pools that make their nodes: writes down what is to come and go, and has each guest driven a step
//! at a time. Nothing of what is in memory here is needed by the next leader: how far a guest has come is written down, and
//! what became of the step that was under way, its provider shows.

mod drive;
mod pace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_identity::random;
use skep_model::id::GuestId;
use skep_model::problem::Code;
use skep_model::provider::{Provider, Way};
use skep_state::Change;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::consensus::Batch;
use crate::guests::clients::Clients;
use crate::guests::plan;
use crate::store::now_ms;
use drive::{Outcome, Step, key_of};
use pace::Pace;

/// Longest sleep: what a missed change costs, and how late the end of a drain's time is seen.
const PERIOD: Duration = Duration::from_secs(10);
/// Steps under way at a time, of all providers.
const STEPS_MAX: usize = 16;
/// Programs of one provider that run at a time: one that hangs does not keep the guests of others waiting.
const PROGRAMS_MAX: usize = 4;

struct Desk {
    clients: Clients,
    paces: BTreeMap<GuestId, Pace>,
    /// Guests with a step under way.
    busy: BTreeMap<Id, Busy>,
}

/// A guest with a step under way.
struct Busy {
    guest: GuestId,
    provider: String,
    /// What must not run beside it.
    key: Option<String>,
}

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let mut steps: JoinSet<Outcome> = JoinSet::new();
    let mut desk = Desk {
        clients: Clients::default(),
        paces: BTreeMap::new(),
        busy: BTreeMap::new(),
    };
    loop {
        write_down(parts).await;
        let wake_at = desk.begin(parts, &mut steps);
        tokio::select! {
            Some(ended) = steps.join_next_with_id(), if !steps.is_empty() => match ended {
                Ok((id, outcome)) => {
                    if let Some(Busy { guest, .. }) = desk.busy.remove(&id) {
                        desk.paces.entry(guest).or_default().take(&outcome, Instant::now());
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a step of a guest panicked");
                    if let Some(Busy { guest, .. }) = desk.busy.remove(&error.id()) {
                        desk.paces.entry(guest).or_default().take(&Outcome::Failed, Instant::now());
                    }
                }
            },
            () = desk.follow(&mut changes) => {}
            () = sleep_until(wake_at) => {}
            () = token.cancelled() => return,
        }
    }
}

/// Writes down what pools lack, who leaves, and who is forgotten.
async fn write_down(parts: &Parts) {
    let view = parts.store.view();
    let id = || GuestId::from_u128(random::new_id());
    for kind in plan::due(&view, now_ms(), id) {
        let name = skep_state::name(&kind);
        match parts.store.propose(kind).await {
            Ok(_) => tracing::info!("{name}"),
            // The state has moved on: its change wakes us.
            Err(problem) if matches!(problem.code, Code::Conflict | Code::NotFound) => {
                tracing::debug!(%problem, "{name}");
            }
            Err(problem) => tracing::warn!(%problem, "{name}: it is tried again"),
        }
    }
}

impl Desk {
    /// Returns with the next change that concerns guests.
    async fn follow(&self, changes: &mut Receiver<Arc<Batch<Change>>>) {
        loop {
            match changes.recv().await {
                Ok(batch) if batch.is_reset || batch.changes.iter().any(concerns) => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Begins what is due; answers when nothing else wakes us.
    fn begin(&mut self, parts: &Parts, steps: &mut JoinSet<Outcome>) -> Instant {
        let (view, now) = (parts.store.view(), Instant::now());
        self.paces.retain(|id, _| view.guest(*id).is_some());
        self.clients.retain(|name| view.provider(name).is_some());
        let mut wake_at = now + PERIOD;
        for one in plan::driven(&view, now_ms()) {
            let id = one.guest.id;
            let is_busy = self.busy.values().any(|busy| busy.guest == id);
            if is_busy {
                // Its end wakes us.
                continue;
            }
            let due_at = self.paces.entry(id).or_default().due_at(one, now);
            if due_at > now {
                wake_at = wake_at.min(due_at);
                continue;
            }
            let Some(pool) = view.guest_pool(&one.pool).cloned() else {
                continue;
            };
            let Some(provider) = view.provider(&pool.provider) else {
                continue;
            };
            let key = key_of(&pool, one);
            let is_kept_out = key.is_some() && self.busy.values().any(|it| it.key == key);
            if is_kept_out || self.busy.len() >= STEPS_MAX || self.is_full(provider) {
                continue;
            }
            match self.clients.means(provider, &parts.secrets) {
                Ok(means) => {
                    let step = Step {
                        parts: parts.clone(),
                        means,
                        pool,
                        one: one.clone(),
                        is_told: self.paces.entry(id).or_default().is_told(now),
                    };
                    let task = steps.spawn(step.run());
                    let busy = Busy {
                        guest: id,
                        provider: provider.name.clone(),
                        key,
                    };
                    self.busy.insert(task.id(), busy);
                }
                Err(problem) => {
                    tracing::warn!(provider = provider.name, %problem, "a provider cannot be asked");
                    let pace = self.paces.entry(id).or_default();
                    pace.take(&Outcome::Failed, now);
                }
            }
        }
        wake_at
    }

    /// Whether as many programs of it run as may.
    fn is_full(&self, provider: &Provider) -> bool {
        let its = self.busy.values().filter(|it| it.provider == provider.name);
        matches!(provider.way, Way::Exec(_)) && its.count() >= PROGRAMS_MAX
    }
}

/// Whether guests may have to come, go, or go on.
fn concerns(change: &Change) -> bool {
    matches!(
        change,
        Change::Guests | Change::Node(_) | Change::Allocation { .. }
    )
}
