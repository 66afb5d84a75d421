//! The leader's care for forges: tells them what they do not know of deployments, one request at a time to each, and
//! proposes what came of it. Killed in between, the next leader tells the same again: a status under the same name is the
//! same status. A forge that is away holds up nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skep_forge::api::Verdict;
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::forges::{Key, News, news, report, request, settlement, site, verdict};
use crate::outgoing::{Allowed, Outgoing, Reply};
use crate::store::now_ms;

/// Longest sleep: what a missed change costs.
const PERIOD: Duration = Duration::from_secs(60);
/// Pause after an outcome that the cluster did not take: the forge would be told again at once.
const RETRY: Duration = Duration::from_secs(2);

/// What is to be done now.
#[derive(Debug, Default)]
struct Due {
    /// To be told, one of each connection.
    tell: BTreeMap<Key, News>,
    /// When the next one is due; none: none is.
    wake_ms: Option<u64>,
}

/// Runs for as long as this server leads; requests under way are dropped with it. As many as there are connections,
/// which are bounded.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let allowed = Allowed::new(&parts.notify_allow);
    let outgoing = Arc::new(Outgoing::new(allowed.clone()));
    let mut running = JoinSet::new();
    let mut busy: BTreeMap<Id, Key> = BTreeMap::new();
    let mut open = all(&parts.store.view());
    loop {
        let view = parts.store.view();
        let due = plan(&view, &mut open, (&busy.values().collect(), now_ms()));
        if !due.tell.is_empty() {
            allowed.learn(&view);
        }
        for (key, news) in due.tell {
            let work = running.spawn(work(parts.clone(), Arc::clone(&outgoing), news));
            busy.insert(work.id(), key);
        }
        let pause = due.wake_ms.map_or(PERIOD, |at_ms| {
            Duration::from_millis(at_ms.saturating_sub(now_ms()).max(1)).min(PERIOD)
        });
        tokio::select! {
            Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "telling a forge panicked");
                        sleep(RETRY).await;
                        error.id()
                    }
                };
                busy.remove(&id);
            }
            batch = changes.recv() => match batch {
                Ok(batch) if batch.is_reset => open = all(&parts.store.view()),
                Ok(batch) => follow(&parts.store.view(), &batch.changes, &mut open),
                Err(RecvError::Lagged(_)) => open = all(&parts.store.view()),
                Err(RecvError::Closed) => std::future::pending().await,
            },
            () = sleep(pause) => {}
            () = token.cancelled() => return,
        }
    }
}

/// Every service; none where nobody is told anything.
fn all(view: &State) -> BTreeSet<ServiceId> {
    match view.forges().next() {
        Some(_) => view.services().map(|service| service.id).collect(),
        None => BTreeSet::new(),
    }
}

/// Marks the services of which there may be something new.
fn follow(view: &State, changes: &[Change], open: &mut BTreeSet<ServiceId>) {
    if view.forges().next().is_none() {
        return;
    }
    for change in changes {
        match change {
            Change::Deployment(id) => open.extend(view.deployment(*id).map(|it| it.service)),
            // It may be told of from now on.
            Change::Service(id) => {
                open.insert(*id);
            }
            Change::Forges => *open = all(view),
            _ => {}
        }
    }
}

/// The next one of each connection that no request is under way to. Services of which nothing is to be told are not
/// looked at again until something changes.
fn plan(
    view: &State,
    open: &mut BTreeSet<ServiceId>,
    (busy, now_ms): (&BTreeSet<&Key>, u64),
) -> Due {
    let mut due = Due::default();
    open.retain(|service| {
        let all = news(view, *service);
        let is_open = !all.is_empty();
        for one in all {
            let key = one.key();
            if busy.contains(&key) {
                // The end of the one under way wakes.
                continue;
            }
            if one.at_ms > now_ms {
                due.wake_ms = Some(due.wake_ms.map_or(one.at_ms, |old| old.min(one.at_ms)));
                continue;
            }
            let order = |news: &News| (news.at_ms, news.deployment.id);
            let is_first = due.tell.get(&key).is_none_or(|it| order(&one) < order(it));
            if is_first {
                due.tell.insert(key, one);
            }
        }
        is_open
    });
    due
}

/// Tells of one and proposes what came of it.
async fn work(parts: Parts, outgoing: Arc<Outgoing>, news: News) {
    let outcome = ask(&parts, &outgoing, &news).await;
    let now = now_ms();
    let verdict = verdict(&news.connection, &outcome, now);
    log(&news, &verdict);
    match parts.store.propose(settlement(&news, verdict, now)).await {
        Ok(_) => {}
        Err(problem) if matches!(problem.code, Code::Conflict | Code::NotFound) => {
            tracing::debug!(%problem, "what a forge was told was settled or dropped meanwhile");
        }
        Err(problem) => {
            tracing::warn!(%problem, "what a forge was told was not taken down: it is told again");
            sleep(RETRY).await;
        }
    }
}

async fn ask(parts: &Parts, outgoing: &Outgoing, news: &News) -> Result<Reply, String> {
    let said = |problem: Problem| problem.to_string();
    let token = parts.secrets.open_forge(&news.connection).map_err(said)?;
    let report = report(&parts.store.view(), &news.deployment);
    let report = report.ok_or("the service is gone")?;
    let asked = request(site(&news.connection, &token).status(&report))?;
    let ca_pem = news.connection.ca_pem.as_deref();
    outgoing.send(asked, ca_pem).await
}

fn log(news: &News, verdict: &Verdict) {
    let (host, deployment) = (&news.connection.host, news.deployment.id);
    match verdict {
        Verdict::Taken => tracing::debug!(host, %deployment, "a forge was told"),
        Verdict::Again(why) | Verdict::Later { why, .. } => {
            tracing::info!(host, %deployment, why, "a forge was not told: it is told again");
        }
        Verdict::Never(why) => {
            tracing::warn!(host, %deployment, why, "a forge cannot be told");
        }
        Verdict::Unknown(why) => {
            tracing::warn!(
                host,
                why,
                "a forge does not know its token: it is told nothing"
            );
        }
    }
}
