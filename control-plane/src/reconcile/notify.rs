//! The leader's care for notifications: sends what is due, one at a time to each receiver, and proposes what came of it.
//! Killed in between, the next leader sends the same again, under the same id. A receiver that is away holds up
//! nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skep_model::id::ReceiverId;
use skep_model::notify::{Attempt, Notification};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::settle_notification::Then as Settled;
use skep_state::{Change, State};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::consensus::Batch;
use crate::notify::{Answer, Letter, Sender, Then, after, filled, payload, signature};
use crate::outgoing::Allowed;
use crate::store::now_ms;

/// Longest sleep: what a missed change costs.
const PERIOD: Duration = Duration::from_secs(60);
/// Pause after an outcome that the cluster did not take: the receiver would be told again at once.
const RETRY: Duration = Duration::from_secs(2);

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    /// To be sent.
    send: Vec<Arc<Notification>>,
    /// When the next one is due; none: none is.
    wake_ms: Option<u64>,
}

/// Runs for as long as this server leads; attempts under way are dropped with it. As many connections as there are
/// receivers, which are bounded.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let allowed = Allowed::new(&parts.notify_allow);
    let sender = Arc::new(Sender::new(allowed.clone()));
    let mut running = JoinSet::new();
    let mut busy: BTreeMap<Id, ReceiverId> = BTreeMap::new();
    loop {
        let view = parts.store.view();
        let due = plan(&view, &busy.values().copied().collect(), now_ms());
        if !due.send.is_empty() {
            allowed.learn(&view);
        }
        for notification in due.send {
            let receiver = notification.receiver;
            let work = running.spawn(work(parts.clone(), Arc::clone(&sender), notification));
            busy.insert(work.id(), receiver);
        }
        let pause = due.wake_ms.map_or(PERIOD, |at_ms| {
            Duration::from_millis(at_ms.saturating_sub(now_ms()).max(1)).min(PERIOD)
        });
        tokio::select! {
            Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "sending a notification panicked");
                        sleep(RETRY).await;
                        error.id()
                    }
                };
                busy.remove(&id);
            }
            () = concerned(&mut changes) => {}
            () = sleep(pause) => {}
            () = token.cancelled() => return,
        }
    }
}

/// The next notification of each receiver that is sent none just now.
fn plan(view: &State, busy: &BTreeSet<ReceiverId>, now_ms: u64) -> Due {
    let mut due = Due::default();
    for receiver in view.receivers().filter(|it| !it.is_off) {
        let next = view.next_notification(receiver.id);
        let Some(next) = next.filter(|_| !busy.contains(&receiver.id)) else {
            // The end of the one under way wakes.
            continue;
        };
        match next.next_ms() {
            Some(at_ms) if at_ms > now_ms => {
                due.wake_ms = Some(due.wake_ms.map_or(at_ms, |old| old.min(at_ms)));
            }
            Some(_) => due.send.push(Arc::clone(next)),
            None => {}
        }
    }
    due
}

/// Until something changed that may be told or heard. For ever once the feed has ended.
async fn concerned(changes: &mut Receiver<Arc<Batch<Change>>>) {
    loop {
        match changes.recv().await {
            Ok(batch) if batch.is_reset || batch.changes.contains(&Change::Notifications) => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Sends one and proposes what came of it.
async fn work(parts: Parts, sender: Arc<Sender>, notification: Arc<Notification>) {
    let view = parts.store.view();
    let answer = match letter(&parts, &view, &notification) {
        Ok(Some(letter)) => sender.send(letter).await,
        // Its receiver was removed meanwhile.
        Ok(None) => return,
        Err(problem) => Answer::silent(&problem.to_string()),
    };
    let now = now_ms();
    let then = after(&notification, &answer, now);
    log(&notification, &answer, then);
    let kind = settlement(&notification, answer, (then, now));
    match parts.store.propose(kind).await {
        Ok(_) => {}
        Err(problem) if matches!(problem.code, Code::Conflict | Code::NotFound) => {
            tracing::debug!(%problem, "a notification was settled or dropped meanwhile");
        }
        Err(problem) => {
            tracing::warn!(%problem, "what became of a notification was not taken down: it is sent again");
            sleep(RETRY).await;
        }
    }
}

fn letter(
    parts: &Parts,
    view: &State,
    notification: &Notification,
) -> Result<Option<Letter>, Problem> {
    let Some(receiver) = view.receiver(notification.receiver) else {
        return Ok(None);
    };
    let secret = parts.secrets.open_receiver(receiver)?;
    let own = parts.secrets.open_own(receiver)?;
    let (headers, body) = match own {
        None => (BTreeMap::new(), payload(view, notification)),
        Some(own) => (own.headers.clone(), filled(view, notification, &own)),
    };
    let at_s = now_ms() / 1_000;
    Ok(Some(Letter {
        url: receiver.url.clone(),
        id: notification.id.clone(),
        event: notification.event,
        at_s,
        signature: signature(&secret, (&notification.id, at_s), &body)?,
        headers,
        body,
    }))
}

/// Addresses may be secrets, so that none is written here.
fn log(notification: &Notification, answer: &Answer, then: Then) {
    let (id, receiver) = (&notification.id, notification.receiver);
    let why = answer.problem.as_deref().unwrap_or_default();
    match then {
        Then::Delivered => tracing::debug!(id, %receiver, "a notification has arrived"),
        Then::Retry { .. } => {
            tracing::info!(id, %receiver, why, "a notification has not arrived: it is sent again");
        }
        Then::GivenUp => tracing::warn!(id, %receiver, why, "a notification was given up"),
        Then::Gone => tracing::warn!(id, %receiver, why, "a receiver wants nothing: it is off"),
    }
}

fn settlement(notification: &Notification, answer: Answer, (then, now_ms): (Then, u64)) -> Kind {
    let settled = match then {
        Then::Delivered => Settled::Delivered(true),
        Then::Retry { next_ms } => Settled::NextMs(next_ms),
        Then::GivenUp | Then::Gone => Settled::GivenUp(true),
    };
    let attempt = Attempt {
        at_ms: now_ms,
        status: answer.status,
        problem: answer.problem,
    };
    Kind::SettleNotification(v1::SettleNotification {
        receiver: id_bytes(notification.receiver.as_u128()),
        number: notification.number,
        expected_attempts: notification.attempts,
        attempt: Some((&attempt).into()),
        then: Some(settled),
        is_gone: then == Then::Gone,
    })
}

#[cfg(test)]
mod tests {
    use skep_model::id::{ClusterId, ProjectId, WorkspaceId};
    use skep_model::notify::{Event, Receiver};
    use skep_model::tenancy::{Environment, Project, Workspace};
    use skep_model::variable::Sealed;
    use skep_proto::v1::ask_notification::What;
    use skep_state::command;

    use super::*;

    fn apply(state: &mut State, kind: Kind) {
        let applied = state.apply(state.index() + 1, &command(1_000, kind));
        applied.outcome.expect("accepted");
    }

    fn receiver(id: u128) -> ReceiverId {
        ReceiverId::from_u128(id)
    }

    /// A project with three receivers, each with two tests to be sent.
    fn three() -> State {
        let mut state = State::default();
        let workspace = Workspace {
            id: WorkspaceId::from_u128(1),
            name: "default".into(),
        };
        let project = Project {
            id: ProjectId::from_u128(2),
            workspace: workspace.id,
            name: "shop".into(),
        };
        let environment = Environment {
            id: skep_model::id::EnvironmentId::from_u128(3),
            project: project.id,
            name: "production".into(),
        };
        apply(
            &mut state,
            Kind::InitCluster(v1::InitCluster {
                cluster: id_bytes(ClusterId::from_u128(9).as_u128()),
                workspace: Some((&workspace).into()),
                ..v1::InitCluster::default()
            }),
        );
        apply(
            &mut state,
            Kind::EnsureEnvironment(v1::EnsureEnvironment {
                workspace: id_bytes(workspace.id.as_u128()),
                project: Some((&project).into()),
                environment: Some((&environment).into()),
            }),
        );
        for id in 10..13 {
            let one = Receiver {
                id: receiver(id),
                project: project.id,
                name: format!("r{id}"),
                url: "https://ci.example.com/".into(),
                events: vec![Event::Live],
                secret: Sealed(vec![1]),
                is_off: false,
                problem: None,
                told: 0,
                dropped: 0,
                changed_ms: 0,
                services: Vec::new(),
                own: None,
            };
            apply(
                &mut state,
                Kind::PutReceiver(v1::PutReceiver {
                    receiver: Some((&one).into()),
                    keeps_own: false,
                }),
            );
            for test in ["a", "b"] {
                apply(
                    &mut state,
                    Kind::AskNotification(v1::AskNotification {
                        receiver: id_bytes(id),
                        what: Some(What::Test(test.into())),
                    }),
                );
            }
        }
        state
    }

    fn settle(state: &mut State, id: u128, then: Then) {
        let next = state
            .next_notification(receiver(id))
            .expect("waits")
            .clone();
        apply(
            state,
            settlement(&next, Answer::silent("away"), (then, 1_000)),
        );
    }

    fn sent(due: &Due) -> Vec<(u128, &str)> {
        let all = due.send.iter();
        all.map(|it| (it.receiver.as_u128(), it.id.as_str()))
            .collect()
    }

    #[test]
    fn each_receiver_is_sent_one_at_a_time_and_none_waits_for_another() {
        let mut state = three();
        let nobody = BTreeSet::new();
        let due = plan(&state, &nobody, 1_000);
        assert_eq!(sent(&due), [(10, "a"), (11, "a"), (12, "a")]);
        let busy = BTreeSet::from([receiver(10)]);
        assert_eq!(sent(&plan(&state, &busy, 1_000)), [(11, "a"), (12, "a")]);
        // One is away: what it was not sent yet is tried, then its first one again.
        settle(&mut state, 10, Then::Retry { next_ms: 9_000 });
        settle(&mut state, 11, Then::Delivered);
        let due = plan(&state, &nobody, 1_000);
        assert_eq!(sent(&due), [(10, "b"), (11, "b"), (12, "a")]);
        settle(&mut state, 10, Then::Retry { next_ms: 8_000 });
        settle(&mut state, 11, Then::Delivered);
        settle(&mut state, 12, Then::Gone);
        let due = plan(&state, &nobody, 1_000);
        assert_eq!(
            (sent(&due), due.wake_ms),
            (Vec::new(), Some(8_000)),
            "12 is off"
        );
        assert_eq!(sent(&plan(&state, &nobody, 9_000)), [(10, "b")]);
    }
}
