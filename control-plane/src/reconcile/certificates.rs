//! The leader's care for certificates: orders those that are due, some at a time, proposes what came of it, forgets
//! those of hosts that nobody has. Killed in between, the next leader begins anew: a challenge ends by itself, and an
//! order that nobody asks for any more, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skep_model::certificate::{Due, Issuer, LocalCa, backoff_ms, is_local};
use skep_model::problem::Problem;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Change, State};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Parts, records};
use crate::acme::{Failure, Orders, issue_locally};
use crate::consensus::Batch;
use crate::store::now_ms;

/// Orders at the same time: issuers allow some in each second, and each holds a challenge or two.
const MAX_ORDERS: usize = 4;
/// Longest sleep: what a missed change costs.
const PERIOD: Duration = Duration::from_secs(60);
/// Pause after an outcome that the cluster did not take, before the host is looked at again.
const RETRY: Duration = Duration::from_secs(2);

/// Runs for as long as this server leads; orders under way are dropped with it.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let (store, fleet) = (parts.store.clone(), parts.fleet.clone());
    let (secrets, means) = (parts.secrets.clone(), parts.means.clone());
    let orders = Arc::new(Orders::new(store, fleet, secrets, means));
    tokio::join!(
        order(parts, &orders, token),
        records::run(parts, orders.records(), token)
    );
}

async fn order(parts: &Parts, orders: &Arc<Orders>, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let mut without_room = 0;
    let mut running = JoinSet::new();
    let mut busy: BTreeMap<Id, String> = BTreeMap::new();
    loop {
        let view = parts.store.view();
        let due = view.due_certificates(now_ms());
        for host in next(&due, &busy) {
            let by = By::of(&view, &host, orders);
            let work = running.spawn(work(parts.clone(), by, host.clone()));
            busy.insert(work.id(), host);
        }
        forget(parts, &due).await;
        if due.without_room != without_room {
            without_room = due.without_room;
            tracing::warn!(
                hosts = without_room,
                "hosts without a certificate: no more can be kept; upload a wildcard, or remove some"
            );
        }
        let pause = due.wake_ms.map_or(PERIOD, |at_ms| {
            Duration::from_millis(at_ms.saturating_sub(now_ms()).max(1)).min(PERIOD)
        });
        tokio::select! {
            Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "an order panicked");
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

/// Hosts to begin with now.
fn next(due: &Due, busy: &BTreeMap<Id, String>) -> Vec<String> {
    let busy: BTreeSet<&String> = busy.values().collect();
    let free = MAX_ORDERS.saturating_sub(busy.len());
    let waiting = due.order.iter().filter(|host| !busy.contains(host));
    waiting.take(free).cloned().collect()
}

/// Until something changed that may make a certificate due. For ever once the feed has ended.
pub(super) async fn concerned(changes: &mut Receiver<Arc<Batch<Change>>>) {
    let is_ours = |change: &Change| {
        matches!(
            change,
            Change::Certificates | Change::Routes | Change::Service(_) | Change::ServiceDropped(_)
        )
    };
    loop {
        match changes.recv().await {
            Ok(batch) if batch.is_reset || batch.changes.iter().any(is_ours) => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Who issues for a host.
enum By {
    Issuer(Arc<Orders>, Arc<Issuer>),
    LocalCa(Arc<LocalCa>),
    /// Whoever did is gone since it was due.
    Nobody,
}

impl By {
    fn of(view: &State, host: &str, orders: &Arc<Orders>) -> Self {
        match (is_local(host), view.issuer(), view.local_ca()) {
            (true, _, Some(ca)) => Self::LocalCa(Arc::clone(ca)),
            (false, Some(issuer), _) => Self::Issuer(Arc::clone(orders), Arc::clone(issuer)),
            _ => Self::Nobody,
        }
    }
}

/// Orders one and proposes what came of it.
async fn work(parts: Parts, by: By, host: String) {
    let ordered = match by {
        By::Issuer(orders, issuer) => orders.order(&issuer, &host).await,
        By::LocalCa(ca) => issue_locally(&parts.secrets, &ca, &host).map_err(Failure::now),
        By::Nobody => return,
    };
    parts.tally.count(ordered.is_ok());
    let proposed = match ordered {
        Ok(certificate) => {
            let ends_ms = certificate
                .material
                .as_ref()
                .map_or(0, |it| it.not_after_ms);
            tracing::info!(host, ends_ms, "a certificate was issued");
            let command = v1::PutCertificate {
                certificate: Some((&certificate).into()),
            };
            parts.store.propose(Kind::PutCertificate(command)).await
        }
        Err(failure) => {
            tracing::warn!(host, why = failure.why, "no certificate could be had");
            let view = parts.store.view();
            let before = view.certificate(&host).map_or(0, |it| it.failures);
            let pause_ms = backoff_ms(&host, before.saturating_add(1));
            let command = v1::NoteCertificate {
                name: host.clone(),
                problem: failure.why,
                next_ms: failure.not_before_ms.max(now_ms() + pause_ms),
            };
            parts.store.propose(Kind::NoteCertificate(command)).await
        }
    };
    if let Err(problem) = proposed {
        complain(&problem);
        sleep(RETRY).await;
    }
}

async fn forget(parts: &Parts, due: &Due) {
    for name in &due.forget {
        let command = v1::RemoveCertificate {
            name: name.clone(),
            only_issued: true,
        };
        match parts.store.propose(Kind::RemoveCertificate(command)).await {
            Ok(_) => tracing::info!(name, "a certificate was forgotten: nobody has its host"),
            Err(problem) => return complain(&problem),
        }
    }
}

fn complain(problem: &Problem) {
    tracing::warn!(%problem, "what became of a certificate was not taken down: trying again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_are_bounded_and_none_is_made_twice() {
        let order: Vec<String> = (0..9).map(|n| format!("{n}.example")).collect();
        let due = Due {
            order,
            ..Due::default()
        };
        let mut running = JoinSet::new();
        let mut busy = BTreeMap::new();
        assert_eq!(next(&due, &busy).len(), MAX_ORDERS);
        let mut begin = |host: &str| {
            busy.insert(running.spawn(async {}).id(), host.to_owned());
            next(&due, &busy)
        };
        assert_eq!(begin("1.example"), ["0.example", "2.example", "3.example"]);
        begin("5.example");
        begin("6.example");
        assert_eq!(begin("7.example"), [""; 0]);
    }
}
