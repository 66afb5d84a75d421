//! The leader's care for copies of guests: each is made when its pool's schedule asks for it, one at a time for each provider,
//! and what is too many goes once there is a newer one. What there is says the storage itself; nothing is written down
//! beside it, so that a new leader goes on by what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skep_model::guest_pool::{GuestPool, PoolGuest};
use skep_model::id::GuestId;
use skep_model::pool::{Backups, Phase};
use skep_model::schedule::Schedule;
use skep_pools::{Driver, due, surplus};
use skep_state::State;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::guests::clients::{Clients, Hosts};
use crate::history::AuditEntry;
use crate::store::now_ms;

/// Longest time between two looks: how late a schedule is followed that was just changed.
const PERIOD: Duration = Duration::from_secs(30);
/// The shortest.
const SHORTEST: Duration = Duration::from_millis(200);
/// After a copy that could not be made: a storage that is full, or away, is not stormed. Doubled up to [`LONGEST_MS`].
const FIRST_MS: u64 = 10 * 60 * 1_000;
/// After many.
const LONGEST_MS: u64 = 6 * 60 * 60 * 1_000;

/// When a guest is looked at next.
#[derive(Debug, Clone, Default)]
struct Plan {
    /// What that follows from: another schedule is another plan.
    wanted: Option<Backups>,
    at_ms: u64,
    failures: u32,
}

/// What came of a look at a guest's copies.
enum Outcome {
    /// The next one is due then, ms since 1970; none: never.
    Next(Option<u64>),
    Failed,
}

/// One guest, to be looked at.
struct Look {
    parts: Parts,
    client: Arc<Hosts>,
    pool: Arc<GuestPool>,
    one: PoolGuest,
    wanted: Backups,
    schedule: Schedule,
}

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut clients = Clients::default();
    let mut plans: BTreeMap<GuestId, Plan> = BTreeMap::new();
    let mut looks: JoinSet<(String, GuestId, Outcome)> = JoinSet::new();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    loop {
        let view = parts.store.view();
        clients.retain(|name| view.provider(name).is_some());
        plans.retain(|id, _| view.guest(*id).is_some());
        for look in first_due(parts, &view, &mut plans, (&mut clients, &busy)) {
            let provider = look.pool.provider.clone();
            busy.insert(provider.clone());
            looks.spawn(async move {
                let id = look.one.guest.id;
                (provider, id, look.run().await)
            });
        }
        tokio::select! {
            Some(ended) = looks.join_next(), if !looks.is_empty() => match ended {
                Ok((provider, id, outcome)) => {
                    busy.remove(&provider);
                    plans.entry(id).or_default().take(&outcome, now_ms());
                }
                // Which one is not known: nobody is kept waiting for it.
                Err(error) => {
                    tracing::error!(%error, "a copy of a guest panicked");
                    busy.clear();
                    looks.abort_all();
                }
            },
            () = sleep(pause(&plans, &busy, now_ms())) => {}
            () = token.cancelled() => return,
        }
    }
}

/// How long nothing has to be looked at.
fn pause(plans: &BTreeMap<GuestId, Plan>, busy: &BTreeSet<String>, now_ms: u64) -> Duration {
    let next_ms = plans.values().map(|plan| plan.at_ms).min();
    match next_ms {
        // What is under way wakes us.
        Some(at_ms) if busy.is_empty() => {
            let left = Duration::from_millis(at_ms.saturating_sub(now_ms));
            left.clamp(SHORTEST, PERIOD)
        }
        _ => PERIOD,
    }
}

/// The guest of each provider that has waited longest, where nothing of that provider runs.
fn first_due(
    parts: &Parts,
    view: &State,
    plans: &mut BTreeMap<GuestId, Plan>,
    (clients, busy): (&mut Clients, &BTreeSet<String>),
) -> Vec<Look> {
    let now = now_ms();
    let mut first: BTreeMap<String, (u64, Look)> = BTreeMap::new();
    for (pool, one, wanted) in copied(view) {
        let plan = plans.entry(one.guest.id).or_default();
        if plan.wanted.as_ref() != Some(wanted) {
            *plan = Plan {
                wanted: Some(wanted.clone()),
                ..Plan::default()
            };
        }
        let is_first = first
            .get(&pool.provider)
            .is_none_or(|(at_ms, _)| plan.at_ms < *at_ms);
        if plan.at_ms > now || busy.contains(&pool.provider) || !is_first {
            continue;
        }
        let Some(provider) = view.provider(&pool.provider) else {
            continue;
        };
        let made = clients.of(provider, &parts.secrets);
        match (made, wanted.schedule()) {
            (Ok(client), Ok(schedule)) => {
                let look = Look {
                    parts: parts.clone(),
                    client,
                    pool: Arc::clone(pool),
                    one: one.clone(),
                    wanted: wanted.clone(),
                    schedule,
                };
                first.insert(pool.provider.clone(), (plan.at_ms, look));
            }
            (Err(problem), _) | (_, Err(problem)) => {
                tracing::warn!(pool = pool.name, %problem, "guests cannot be copied");
                plan.take(&Outcome::Failed, now);
            }
        }
    }
    first.into_values().map(|(_, look)| look).collect()
}

/// Guests that are to be copied: those that are there, and are to stay as they are.
fn copied(view: &State) -> impl Iterator<Item = (&Arc<GuestPool>, &PoolGuest, &Backups)> {
    let is_still = |one: &&Arc<PoolGuest>| {
        let guest = &one.guest;
        guest.phase == Phase::Ready && guest.restoring.is_none() && guest.resizing.is_none()
    };
    view.guests().filter(is_still).filter_map(|one| {
        let pool = view.guest_pool(&one.pool)?;
        Some((pool, &**one, pool.backups.as_ref()?))
    })
}

impl Plan {
    fn take(&mut self, outcome: &Outcome, now_ms: u64) {
        match outcome {
            Outcome::Next(at_ms) => {
                self.failures = 0;
                self.at_ms = at_ms.unwrap_or(u64::MAX);
            }
            Outcome::Failed => {
                let pause = FIRST_MS.saturating_mul(2_u64.saturating_pow(self.failures));
                self.failures = self.failures.saturating_add(1);
                self.at_ms = now_ms.saturating_add(pause.min(LONGEST_MS));
            }
        }
    }
}

impl Look {
    async fn run(self) -> Outcome {
        match self.look().await {
            Ok(next_ms) => Outcome::Next(next_ms),
            Err(error) => {
                let guest = self.one.guest.name();
                tracing::warn!(guest, pool = self.pool.name, %error, "a guest is not copied");
                self.tell("guest_backup_failed", error.to_string());
                Outcome::Failed
            }
        }
    }

    /// Makes a copy where one is due, and removes what is too many then. When the next one is due.
    async fn look(&self) -> Result<Option<u64>, skep_proxmox::Error> {
        let driver = Driver {
            client: &*self.client,
            recipe: &self.pool.recipe,
        };
        let (guest, storage) = (&self.one.guest, &self.wanted.storage);
        let since_ms = self.one.planned_ms.max(self.wanted.since_ms);
        // Looked for again in a minute: it moves, or somebody else works at it.
        let later = Ok(Some(now_ms() + 60_000));
        let Some(archives) = driver.archives(guest, storage).await? else {
            return later;
        };
        let next_ms = due(&self.schedule, since_ms, &archives);
        if next_ms.is_none_or(|at_ms| at_ms > now_ms()) {
            return Ok(next_ms);
        }
        if !driver.back_up(guest, &self.wanted).await? {
            return later;
        }
        let archives = driver.archives(guest, storage).await?.unwrap_or_default();
        let newest = archives.first().map_or("", |it| it.volid.as_str());
        tracing::info!(guest = guest.name(), archive = newest, "a guest was copied");
        self.tell("guest_backed_up", newest.to_owned());
        for old in surplus(&archives, self.keep()) {
            driver.remove_archive(guest, storage, old).await?;
            tracing::info!(
                guest = guest.name(),
                archive = old.volid,
                "an old copy was removed"
            );
        }
        Ok(due(&self.schedule, since_ms, &archives))
    }

    /// How many are kept, by what is said now: a copy takes hours, and who has said meanwhile that more are kept, or that
    /// none is made any more, loses none.
    fn keep(&self) -> u32 {
        let view = self.parts.store.view();
        let backups = view
            .guest_pool(&self.pool.name)
            .and_then(|pool| pool.backups.as_ref());
        backups.map_or(u32::MAX, |it| it.keep)
    }

    fn tell(&self, action: &str, outcome: String) {
        self.parts.history.audit(AuditEntry {
            at_ms: now_ms(),
            principal: "the leader".to_owned(),
            action: action.to_owned(),
            resource: format!("node-pools/{}/{}", self.pool.name, self.one.guest.name()),
            outcome,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_that_refuses_is_asked_ever_less_until_a_copy_is_made() {
        let mut plan = Plan::default();
        let pause = |plan: &mut Plan| {
            plan.take(&Outcome::Failed, 0);
            plan.at_ms / 60_000
        };
        let pauses: Vec<u64> = (0..8).map(|_| pause(&mut plan)).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 360, 360]);
        plan.take(&Outcome::Next(Some(7)), 0);
        assert_eq!((plan.at_ms, pause(&mut plan)), (7, 10));
    }
}
