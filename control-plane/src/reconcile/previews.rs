//! The leader's care for previews: those whose time is over end, and environments of which nothing is left are
//! forgotten. Removing the services is everybody's work, as of any other.

use std::time::Duration;

use skep_model::preview::Why;
use skep_model::problem::Code;
use skep_model::settings::Scope;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, now_ms};

/// Longest sleep: a missed change is noticed within it.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// Pause after a proposal that was not accepted.
const RETRY: Duration = Duration::from_secs(1);
/// Most that end or are forgotten in one round.
const MAX_STEPS: usize = 50;

/// Runs for as long as this server leads.
pub(super) async fn run(store: &Store, token: &CancellationToken) {
    let mut changes = store.consensus().changes();
    loop {
        let plan = plan(&store.view(), now_ms());
        let mut sleep = plan.next_ms.map_or(MAX_SLEEP, |at_ms| {
            Duration::from_millis(at_ms.saturating_sub(now_ms()).max(1)).min(MAX_SLEEP)
        });
        for step in plan.steps {
            match store.propose(step).await {
                Ok(_) => {}
                // It was put off, or pushed to: the next look knows.
                Err(problem) if problem.code == Code::Conflict => sleep = sleep.min(RETRY),
                Err(problem) => {
                    tracing::warn!(%problem, "a preview goes on: its end was not accepted");
                    sleep = sleep.min(RETRY);
                }
            }
        }
        let is_over = tokio::time::sleep(sleep);
        tokio::pin!(is_over);
        loop {
            tokio::select! {
                batch = changes.recv() => match batch {
                    Ok(batch) if !batch.changes.iter().any(concerns) => continue,
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                },
                () = &mut is_over => break,
                () = token.cancelled() => return,
            }
        }
    }
}

/// Whether a preview may have come, ended, or lost its last service.
fn concerns(change: &Change) -> bool {
    matches!(change, Change::Settings | Change::ServiceDropped(_))
}

/// What is to be done now, and when time alone changes that.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    steps: Vec<Kind>,
    next_ms: Option<u64>,
}

fn plan(view: &State, now_ms: u64) -> Plan {
    let mut plan = Plan::default();
    for preview in view.previews() {
        let environment = id_bytes(preview.environment.as_u128());
        let scope = Scope::Environment(preview.environment);
        let step = match preview.ended {
            None if preview.expires_ms > now_ms => {
                let next_ms = plan.next_ms.unwrap_or(u64::MAX);
                plan.next_ms = Some(next_ms.min(preview.expires_ms));
                continue;
            }
            None => Kind::EndPreview(v1::EndPreview {
                environment,
                why: enum_number(&Why::ALL, &Why::Expired),
                // A push meanwhile puts it off.
                expected_expires_ms: Some(preview.expires_ms),
                ..v1::EndPreview::default()
            }),
            Some(_) if view.environment(preview.environment).is_none() => continue,
            Some(_) if view.services_in(scope).next().is_some() => continue,
            Some(_) => Kind::ForgetPreview(v1::ForgetPreview { environment }),
        };
        plan.steps.push(step);
    }
    if plan.steps.len() > MAX_STEPS {
        plan.steps.truncate(MAX_STEPS);
        plan.next_ms = Some(now_ms);
    }
    plan
}

#[cfg(test)]
mod tests;
