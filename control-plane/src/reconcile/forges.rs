//! The leader's care for forges: tells them what they do not know of deployments and previews, one request at a time to
//! each, and proposes what came of it. Killed in between, the next leader tells the same again: a status under the same
//! name is the same status, and a comment is looked for before one is made. A forge that is away holds up nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skep_forge::api::{About, Left, Request, Showing, Site, Talk, Verdict};
use skep_model::deployment::Deployment;
use skep_model::id::{EnvironmentId, ServiceId};
use skep_model::problem::Code;
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::forges::{
    Key, News, Of, ToShow, Wanted, comment_news, comment_settlement, news, report, settlement,
    shown_news, shown_settlement, verdict,
};
use crate::outgoing::{Allowed, Outgoing, Reply};
use crate::store::now_ms;

/// Longest sleep: what a missed change costs.
const PERIOD: Duration = Duration::from_secs(60);
/// Pause after an outcome that the cluster did not take: the forge would be told again at once.
const RETRY: Duration = Duration::from_secs(2);

/// What is read of a list of comments: Gitea gives all of a pull request at once.
const MAX_LIST: usize = 8 << 20;

/// Something that there may be news of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Service(ServiceId),
    Preview(EnvironmentId),
}

impl Subject {
    fn news(self, view: &State) -> Vec<News> {
        match self {
            Self::Service(service) => {
                let mut all = news(view, service);
                all.extend(shown_news(view, service));
                all
            }
            Self::Preview(preview) => comment_news(view, preview).into_iter().collect(),
        }
    }
}

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

/// Everything; nothing where nobody is told anything.
fn all(view: &State) -> BTreeSet<Subject> {
    if view.forges().next().is_none() {
        return BTreeSet::new();
    }
    let services = view.services().map(|service| Subject::Service(service.id));
    services.chain(previews(view)).collect()
}

fn previews(view: &State) -> impl Iterator<Item = Subject> {
    let previews = view.previews();
    previews.map(|preview| Subject::Preview(preview.environment))
}

/// Marks that of which there may be something new.
fn follow(view: &State, changes: &[Change], open: &mut BTreeSet<Subject>) {
    if view.forges().next().is_none() {
        return;
    }
    for change in changes {
        let service = match change {
            Change::Deployment(id) => view.deployment(*id).map(|it| it.service),
            // It may be told of from now on.
            Change::Service(id) => Some(*id),
            Change::Forges => {
                *open = all(view);
                None
            }
            Change::Preview(id) => {
                open.insert(Subject::Preview(*id));
                None
            }
            // Services may answer elsewhere by now.
            Change::Settings | Change::Cluster | Change::Node(_) => {
                open.extend(previews(view));
                None
            }
            _ => None,
        };
        if let Some(service) = service {
            open.insert(Subject::Service(service));
            let service = view.service(service);
            let preview = service.and_then(|service| view.preview_around(service));
            open.extend(preview.map(|preview| Subject::Preview(preview.environment)));
        }
    }
}

/// The next one of each connection that no request is under way to. What there is nothing to be told of is not looked at
/// again until something changes.
fn plan(view: &State, open: &mut BTreeSet<Subject>, (busy, now_ms): (&BTreeSet<&Key>, u64)) -> Due {
    let mut due = Due::default();
    open.retain(|subject| {
        let all = subject.news(view);
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
            let known = due.tell.get(&key);
            let is_first = known.is_none_or(|it| one.order() < it.order());
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
    let connection = &news.connection;
    let settled = match &news.of {
        Of::Deployment(deployment) => {
            let verdict = status(&parts, &outgoing, (&news, deployment)).await;
            log(&news, &verdict);
            settlement(connection, deployment, (verdict, now_ms()))
        }
        Of::Shown(to_show) => {
            let left = show(&parts, &outgoing, (&news, to_show)).await;
            log(&news, &left.verdict);
            shown_settlement(connection, to_show, (left, now_ms()))
        }
        Of::Preview(wanted) => {
            let left = comment(&parts, &outgoing, (&news, wanted)).await;
            log(&news, &left.verdict);
            comment_settlement(connection, wanted, (left, now_ms()))
        }
    };
    match parts.store.propose(settled).await {
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

/// Shows a commit how its deployment stands.
async fn status(
    parts: &Parts,
    outgoing: &Outgoing,
    (news, deployment): (&News, &Deployment),
) -> Verdict {
    let connection = &news.connection;
    let ask = async {
        let view = parts.store.view();
        let report = report(&view, deployment).ok_or("the service is gone")?;
        let of = (report.repository.as_str(), MAX_LIST);
        let asked = |site: &Site<'_>| site.status(&report);
        let tokens = &parts.tokens;
        tokens.ask(outgoing, (&view, connection), of, asked).await
    };
    let outcome = ask.await;
    verdict(connection, About::Status, (&outcome, now_ms()))
}

/// Shows a pull request how its preview stands: one request after the other, until its one comment says so.
async fn comment(parts: &Parts, outgoing: &Outgoing, (news, wanted): (&News, &Wanted)) -> Left {
    let connection = &news.connection;
    let mut talk = Talk::new(connection.kind, &wanted.notice, (wanted.id, wanted.makes));
    loop {
        let asked = |site: &Site<'_>| talk.request(site);
        let of = wanted.notice.repository.as_str();
        let (verdict, reply) = ask(parts, outgoing, (news, About::Comment, of), asked).await;
        let body = reply.as_ref().map_or(&[] as &[u8], |reply| &reply.body);
        let status = reply.as_ref().map(|reply| reply.status);
        if let Some(left) = talk.heard(status, verdict, body) {
            return left;
        }
    }
}

/// Shows in which environment a deployment is, where the forge is GitHub.
async fn show(parts: &Parts, outgoing: &Outgoing, (news, to_show): (&News, &ToShow)) -> Left {
    let mut showing = Showing::new(&to_show.shown, to_show.id);
    loop {
        let asked = |site: &Site<'_>| showing.request(site);
        let of = to_show.shown.repository.as_str();
        let (verdict, reply) = ask(parts, outgoing, (news, About::Deployment, of), asked).await;
        let body = reply.as_ref().map_or(&[] as &[u8], |reply| &reply.body);
        let status = reply.as_ref().map(|reply| reply.status);
        if let Some(left) = showing.heard(status, verdict, body) {
            return left;
        }
    }
}

/// Makes one request of several, and says what came of it.
async fn ask(
    parts: &Parts,
    outgoing: &Outgoing,
    (news, about, repository): (&News, About, &str),
    asked: impl Fn(&Site<'_>) -> Option<Request>,
) -> (Verdict, Option<Reply>) {
    let connection = &news.connection;
    let view = parts.store.view();
    let of = (repository, MAX_LIST);
    let tokens = &parts.tokens;
    let outcome = tokens.ask(outgoing, (&view, connection), of, asked).await;
    let verdict = verdict(connection, about, (&outcome, now_ms()));
    (verdict, outcome.ok())
}

fn log(news: &News, verdict: &Verdict) {
    let (host, of) = (&news.connection.host, news.subject());
    match verdict {
        Verdict::Taken => tracing::debug!(host, of, "a forge was told"),
        Verdict::Again(why) | Verdict::Later { why, .. } => {
            tracing::info!(host, of, why, "a forge was not told: it is told again");
        }
        Verdict::Never(why) => {
            tracing::warn!(host, of, why, "a forge cannot be told");
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

#[cfg(test)]
mod tests;
