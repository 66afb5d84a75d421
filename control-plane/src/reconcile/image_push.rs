//! The leader's care for push registries: has nodes push what is not there yet, and proposes what came of it. Killed in
//! between, the next leader has the same pushed again: what is there already is not sent twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::id::{DeploymentId, NodeId, ServiceId};
use skep_model::problem::Code;
use skep_model::registry::Found;
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Parts;
pub(super) use crate::image_push::waiting;
use crate::image_push::{Work, settlement, work};
use crate::store::now_ms;

/// Longest sleep: what a missed change costs, and how late a node that came back is asked.
const PERIOD: Duration = Duration::from_secs(30);
/// Pause after an outcome that the cluster did not take: the node would be asked again at once.
const RETRY: Duration = Duration::from_secs(2);
/// Images on their way at a time, of all workspaces. Nodes take a few each.
const PUSHES_MAX: usize = 32;

/// What is to be done now.
#[derive(Debug, Default)]
struct Due {
    push: Vec<(NodeId, Work)>,
    /// When the next one is due; none: none is.
    wake_ms: Option<u64>,
}

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let mut running = JoinSet::new();
    let mut busy: BTreeMap<Id, DeploymentId> = BTreeMap::new();
    let mut open = all(&parts.store.view());
    loop {
        let view = parts.store.view();
        let under_way = busy.values().copied().collect();
        let due = plan(&view, &mut open, (&under_way, now_ms()));
        for (node, work) in due.push {
            let id = work.deployment.id;
            let task = running.spawn(push(parts.clone(), node, work));
            busy.insert(task.id(), id);
        }
        let pause = due.wake_ms.map_or(PERIOD, |at_ms| {
            Duration::from_millis(at_ms.saturating_sub(now_ms()).max(1)).min(PERIOD)
        });
        tokio::select! {
            Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "a push panicked");
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

/// Every service; none where nothing is pushed anywhere.
fn all(view: &State) -> BTreeSet<ServiceId> {
    match view.push_registries().next() {
        Some(_) => view.services().map(|service| service.id).collect(),
        None => BTreeSet::new(),
    }
}

/// Marks the services of which there may be something to push.
fn follow(view: &State, changes: &[Change], open: &mut BTreeSet<ServiceId>) {
    if view.push_registries().next().is_none() {
        return;
    }
    for change in changes {
        match change {
            Change::Deployment(id) => open.extend(view.deployment(*id).map(|it| it.service)),
            Change::PushRegistries => *open = all(view),
            _ => {}
        }
    }
}

/// What is due and not under way. Services of which nothing is to be pushed are not looked at again until
/// something changes.
fn plan(
    view: &State,
    open: &mut BTreeSet<ServiceId>,
    (busy, now_ms): (&BTreeSet<DeploymentId>, u64),
) -> Due {
    let mut due = Due::default();
    open.retain(|service| {
        let all = work(view, *service);
        let is_open = !all.is_empty();
        for one in all {
            if busy.contains(&one.deployment.id) || busy.len() + due.push.len() >= PUSHES_MAX {
                // The end of one under way wakes.
                continue;
            }
            if one.at_ms > now_ms {
                due.wake_ms = Some(due.wake_ms.map_or(one.at_ms, |old| old.min(one.at_ms)));
                continue;
            }
            // Nobody who has it can be asked: looked at again in a while.
            if let Some(node) = one.node() {
                due.push.push((node, one));
            }
        }
        is_open
    });
    due
}

/// Has one pushed and proposes what came of it.
async fn push(parts: Parts, node: NodeId, work: Work) {
    let found: Option<Found> = match parts.secrets.push_access(&work.registry) {
        Ok(access) => parts.relay.ask_registry(node, work.ask(access)).await,
        Err(problem) => Some(Err(problem)),
    };
    let (deployment, reference) = (work.deployment.id, work.reference());
    match &found {
        Some(Ok(_)) => tracing::info!(%deployment, reference, "an image was pushed"),
        Some(Err(problem)) => {
            tracing::warn!(%deployment, reference, %problem, "an image was not pushed: it is tried again");
        }
        None => {
            tracing::warn!(%deployment, %node, "a node did not push an image: it is tried again");
        }
    }
    let settled = settlement(&work, found, now_ms());
    match parts.store.propose(settled).await {
        Ok(_) => {}
        Err(problem) if matches!(problem.code, Code::Conflict | Code::NotFound) => {
            tracing::debug!(%problem, "a push was settled or dropped meanwhile");
        }
        Err(problem) => {
            tracing::warn!(%problem, "a push was not taken down: it is done again");
            sleep(RETRY).await;
        }
    }
}
