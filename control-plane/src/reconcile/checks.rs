//! The leader's care for commits whose checks are waited for: asks their forges, one at a time each, and writes what they say
//! where the gates look. Nothing of it is in the state: a new leader asks anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skep_forge::api::{About, Checks, Part, Site, Verdict};
use skep_model::id::DeploymentId;
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::checks::{Answer, Board, Seen, Wanted, Watched, wanted};
use crate::forges::{Key, verdict};
use crate::outgoing::{Allowed, Outgoing};
use crate::store::now_ms;

/// Longest sleep: what a missed change costs.
const PERIOD: Duration = Duration::from_secs(60);

/// What is read of an answer: a hundred check runs of many words each.
const MAX_ANSWER: usize = 4 << 20;

/// What is waited for.
#[derive(Debug, Default)]
struct Waiting {
    watched: BTreeMap<DeploymentId, Watched>,
    /// Whom to ask for each.
    wanted: BTreeMap<DeploymentId, Wanted>,
    /// Those for whom nobody can be asked, and why.
    without: BTreeMap<DeploymentId, String>,
}

/// Runs for as long as this server leads; requests under way are dropped with it.
pub(super) async fn run(parts: &Parts, board: &Board, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let allowed = Allowed::new(&parts.notify_allow);
    let outgoing = Arc::new(Outgoing::new(allowed.clone()));
    let mut waiting = Waiting::default();
    let mut running = JoinSet::new();
    let mut busy: BTreeMap<Id, Key> = BTreeMap::new();
    waiting.follow(&parts.store.view(), now_ms());
    loop {
        board.put(waiting.seen(now_ms()));
        let taken = busy.values().collect();
        for (id, wanted) in waiting.due(&taken, now_ms()) {
            allowed.learn(&parts.store.view());
            let key = key(&wanted);
            let work = ask_all(parts.clone(), Arc::clone(&outgoing), wanted);
            let work = running.spawn(async move { (id, work.await) });
            busy.insert(work.id(), key);
        }
        let pause = waiting.next_ms(&busy.values().collect());
        let pause = pause.map_or(PERIOD, |at_ms| {
            Duration::from_millis(at_ms.saturating_sub(now_ms()).max(1)).min(PERIOD)
        });
        tokio::select! {
            Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                let task = match ended {
                    Ok((task, (id, answer))) => {
                        waiting.learn(id, &answer, now_ms());
                        task
                    }
                    Err(error) => {
                        tracing::error!(%error, "asking a forge for checks panicked");
                        error.id()
                    }
                };
                busy.remove(&task);
            }
            batch = changes.recv() => match batch {
                Ok(batch) => {
                    let concerns = |change: &Change| matches!(
                        change,
                        Change::Deployment(_) | Change::Service(_) | Change::Forges
                    );
                    if batch.is_reset || batch.changes.iter().any(concerns) {
                        waiting.follow(&parts.store.view(), now_ms());
                    }
                }
                Err(RecvError::Lagged(_)) => waiting.follow(&parts.store.view(), now_ms()),
                Err(RecvError::Closed) => std::future::pending().await,
            },
            () = sleep(pause) => {}
            () = token.cancelled() => return,
        }
    }
}

fn key(wanted: &Wanted) -> Key {
    (wanted.connection.workspace, wanted.connection.host.clone())
}

impl Waiting {
    /// Who waits now, by the state.
    fn follow(&mut self, view: &State, now_ms: u64) {
        self.wanted.clear();
        self.without.clear();
        for deployment in view.active_deployments() {
            let (Some(held), Some(found)) = (deployment.held, wanted(view, deployment)) else {
                continue;
            };
            let watched = self.watched.entry(deployment.id);
            let watched = watched.or_insert_with(|| Watched::new(now_ms, held.heard));
            watched.hear(held.heard, now_ms);
            match found {
                Ok(wanted) => {
                    self.wanted.insert(deployment.id, wanted);
                }
                Err(why) => {
                    self.without.insert(deployment.id, why);
                }
            }
        }
        let (wanted, without) = (&self.wanted, &self.without);
        self.watched
            .retain(|id, _| wanted.contains_key(id) || without.contains_key(id));
    }

    fn seen(&self, now_ms: u64) -> BTreeMap<DeploymentId, Seen> {
        let all = self.watched.iter();
        all.map(|(id, watched)| match self.without.get(id) {
            Some(why) => (*id, Seen::Pending(why.clone())),
            None => (*id, watched.told(now_ms)),
        })
        .collect()
    }

    fn learn(&mut self, id: DeploymentId, answer: &Answer, now_ms: u64) {
        if let Some(watched) = self.watched.get_mut(&id) {
            watched.learn(answer, now_ms);
            tracing::debug!(deployment = %id, seen = ?watched.seen, "checks were looked at");
        }
    }

    /// The next one of each connection that no request is under way to. What is decided is not asked again.
    fn due(&self, busy: &BTreeSet<&Key>, now_ms: u64) -> Vec<(DeploymentId, Wanted)> {
        let mut taken = BTreeSet::new();
        let mut due = Vec::new();
        for (next_ms, id, wanted) in self.open(busy) {
            if next_ms <= now_ms && taken.insert(key(wanted)) {
                due.push((id, wanted.clone()));
            }
        }
        due
    }

    fn next_ms(&self, busy: &BTreeSet<&Key>) -> Option<u64> {
        self.open(busy).first().map(|(next_ms, ..)| *next_ms)
    }

    /// Who is to be asked for, soonest first.
    fn open(&self, busy: &BTreeSet<&Key>) -> Vec<(u64, DeploymentId, &Wanted)> {
        let is_open = |id: &DeploymentId| {
            let watched = self.watched.get(id)?;
            matches!(watched.seen, Seen::Pending(_)).then_some(watched.next_ms)
        };
        let all = self.wanted.iter();
        let free = all.filter(|(_, wanted)| !busy.contains(&key(wanted)));
        let mut open: Vec<_> = free
            .filter_map(|(id, wanted)| Some((is_open(id)?, *id, wanted)))
            .collect();
        open.sort_by_key(|(next_ms, id, _)| (*next_ms, *id));
        open
    }
}

/// Asks for all parts of a commit's checks.
async fn ask_all(parts: Parts, outgoing: Arc<Outgoing>, wanted: Wanted) -> Answer {
    let kind = wanted.connection.kind;
    let mut checks = Checks::default();
    for part in Part::of(kind) {
        match ask(&parts, &outgoing, &wanted, *part).await {
            Ok(Some(body)) if checks.add(kind, *part, &body).is_some() => {}
            Ok(Some(_)) => {
                let text = "the forge's answer is not what its manual says";
                return Answer::Nothing(text.to_owned(), None);
            }
            Ok(None) => {}
            Err((why, pause_ms)) => return Answer::Nothing(why, pause_ms),
        }
    }
    Answer::Told(checks)
}

/// None: the forge has nothing of that kind.
async fn ask(
    parts: &Parts,
    outgoing: &Outgoing,
    wanted: &Wanted,
    part: Part,
) -> Result<Option<bytes::Bytes>, (String, Option<u64>)> {
    let connection = &wanted.connection;
    let (repository, at) = (&wanted.repository, (&*wanted.commit, &*wanted.branch));
    let asked = |site: &Site<'_>| site.checks(part, repository, at);
    let of = (repository.as_str(), MAX_ANSWER);
    let view = parts.store.view();
    let tokens = &parts.tokens;
    let outcome = tokens.ask(outgoing, (&view, connection), of, asked).await;
    match verdict(connection, About::Status, (&outcome, now_ms())) {
        Verdict::Taken => Ok(outcome.ok().map(|reply| reply.body)),
        Verdict::Later { pause_ms, why } => Err((why, Some(pause_ms))),
        Verdict::Again(why) | Verdict::Unknown(why) => Err((why, None)),
        // A branch that is gone, or that the token may not see, asks for nothing by name.
        Verdict::Never(_) if part == Part::Required => Ok(None),
        Verdict::Never(_) => {
            let status = outcome.map_or_else(|why| why, |reply| reply.status.to_string());
            let host = &connection.host;
            let text = format!(
                "{host} says {status}: may the token read the checks of this repository, and is the commit there?"
            );
            Err((text, None))
        }
    }
}
