//! The leader's duty towards the group itself: that its members are the servers of the cluster, safely,
//! one change at a time; and that the feature level rises once every server understands the next one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_proto::LEVEL_SERVERS;
use skep_proto::v1::SetFeatureLevel;
use skep_proto::v1::command::Kind;
use skep_raft_core::members::{Plan, plan};
use skep_state::{Change, State};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use crate::consensus::{Batch, Group};
use crate::store::Store;

/// A learner that is fewer entries behind the newest is caught up: what is left arrives with the next
/// messages.
const CAUGHT_UP_ENTRIES: u64 = 256;
/// Longest sleep.
const LOOK: Duration = Duration::from_secs(5);
/// Pause after a change that could not be made.
const RETRY: Duration = Duration::from_millis(500);

/// Runs for as long as this server leads.
pub(super) async fn run(store: &Store, token: &CancellationToken) {
    let mut changes = store.consensus().changes();
    let mut group = store.consensus().group();
    let mut waiting = String::new();
    while !token.is_cancelled() {
        let now = group.borrow_and_update().clone();
        let view = store.view();
        raise_level(store, &view).await;
        let sleep = match next(&view, &now) {
            Plan::Nothing => LOOK,
            Plan::Wait(reason) => {
                if reason != waiting {
                    tracing::info!(%reason, "the group's membership waits");
                    waiting = reason;
                }
                LOOK
            }
            step => {
                waiting.clear();
                if make(store, step).await {
                    continue;
                }
                RETRY
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(sleep) => {}
            changed = group.changed() => if changed.is_err() { return },
            batch = changes.recv() => if matches!(batch, Err(RecvError::Closed)) { return },
        }
        drain(&mut changes);
    }
}

/// One look serves for all batches that came meanwhile.
fn drain(changes: &mut Receiver<Arc<Batch<Change>>>) {
    while !matches!(
        changes.try_recv(),
        Err(TryRecvError::Empty | TryRecvError::Closed)
    ) {}
}

/// The next step towards the wanted membership.
fn next(view: &State, group: &Group) -> Plan {
    let wanted: Vec<u64> = view.servers().map(|server| server.member).collect();
    let Some(leader) = group.leader.filter(|_| group.is_leader) else {
        return Plan::Nothing;
    };
    // A cluster that is older than the list of servers says nothing of its members.
    if wanted.is_empty() {
        return Plan::Nothing;
    }
    let caught_up: BTreeSet<u64> = group
        .peers
        .iter()
        .filter(|peer| peer.is_active && peer.matched + CAUGHT_UP_ENTRIES >= group.last_index)
        .map(|peer| peer.member)
        .chain([leader])
        .collect();
    plan(&wanted, leader, &group.members, &caught_up)
}

/// Makes a step; false: it was not made.
async fn make(store: &Store, step: Plan) -> bool {
    let made = match step {
        Plan::Nothing | Plan::Wait(_) => return true,
        Plan::Change(change) => {
            tracing::info!(?change, "changing the group's membership");
            store.consensus().change_members(change).await
        }
        Plan::TransferFirst { to } => store.consensus().transfer_leader(Some(to)).await,
    };
    match made {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "the group's membership could not be changed yet");
            false
        }
    }
}

/// The newest level that every server understands comes into force.
async fn raise_level(store: &Store, view: &State) {
    let Some(level) = level_to_raise(view) else {
        return;
    };
    let raised = store.propose(Kind::SetFeatureLevel(SetFeatureLevel { level }));
    match raised.await {
        Ok(_) => tracing::info!(level, "the cluster has a new feature level"),
        Err(problem) => tracing::warn!(%problem, "the feature level could not be raised"),
    }
}

fn level_to_raise(view: &State) -> Option<u32> {
    view.cluster()?;
    // Before the list of servers there was one server: this one.
    let levels = view.servers().map(|server| server.feature_level);
    let level = levels
        .min()
        .unwrap_or(LEVEL_SERVERS)
        .min(skep_state::feature_level());
    (level > view.feature_level()).then_some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_lead_plans_nothing() {
        let group = Group {
            leader: Some(1),
            ..Group::default()
        };
        assert!(matches!(next(&State::default(), &group), Plan::Nothing));
        assert_eq!(level_to_raise(&State::default()), None);
    }
}
