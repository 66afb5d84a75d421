//! The leader's care for lost nodes that a pool has made, where work with data on shared storage waits for them: their
//! provider ends them, and once it is known that they have ended that is written down. Nothing of what is in memory here is
//! needed by the next leader: it begins to count anew how long a host has been away, which only makes it later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::guest_pool::{GuestPool, PoolGuest};
use skep_model::id::NodeId;
use skep_model::node::{MAX_FENCED_WHY, Node};
use skep_model::problem::Code;
use skep_pools::{Away, Driver, Verdict};
use skep_proto::convert::{id_bytes, optional_id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proxmox::Https;
use skep_state::{Change, State};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::consensus::Batch;
use crate::guests::clients::{Clients, Hosts};
use crate::history::AuditEntry;
use crate::store::now_ms;

/// Between two looks at what is not known to be dead yet: well below [`skep_pools::LOOKS_APART_MS`].
const AGAIN: Duration = Duration::from_secs(5);
/// A provider that does not answer holds up the others no longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// A lost node that its provider is to end.
#[derive(Debug, Clone)]
struct Due {
    node: Arc<Node>,
    guest: PoolGuest,
    pool: Arc<GuestPool>,
}

impl Due {
    fn driver<'a>(&'a self, client: &'a Hosts) -> Driver<'a, Https> {
        Driver {
            client,
            recipe: &self.pool.recipe,
        }
    }
}

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    let mut clients = Clients::default();
    // By provider: since when its hosts are away, by a clock that nobody sets.
    let mut away: BTreeMap<String, Away> = BTreeMap::new();
    let began = Instant::now();
    // What is written down about one wakes us, and is no reason to ask again.
    let mut asked: BTreeMap<NodeId, Instant> = BTreeMap::new();
    loop {
        let view = parts.store.view();
        clients.retain(|name| view.provider(name).is_some());
        away.retain(|name, _| view.provider(name).is_some());
        let due = due(&view);
        asked.retain(|id, _| due.iter().any(|one| one.node.id == *id));
        for one in &due {
            let last = asked.get(&one.node.id);
            if last.is_some_and(|at| at.elapsed() < AGAIN) {
                continue;
            }
            let away = away.entry(one.pool.provider.clone()).or_default();
            let fenced = fence(parts, &mut clients, (one, away), began);
            let Some(()) = token.run_until_cancelled(fenced).await else {
                return;
            };
            asked.insert(one.node.id, Instant::now());
        }
        let again = asked.values().min().map(|at| *at + AGAIN);
        tokio::select! {
            () = follow(&mut changes) => {}
            () = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => {}
            () = token.cancelled() => return,
        }
    }
}

/// Returns with the next change that may make a node one to be ended.
async fn follow(changes: &mut Receiver<Arc<Batch<Change>>>) {
    let concerns = |change: &Change| matches!(change, Change::Node(_) | Change::Guests);
    loop {
        match changes.recv().await {
            Ok(batch) if batch.is_reset || batch.changes.iter().any(concerns) => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Nodes that are lost, that pools have made which may end them, and that something waits for.
fn due(view: &State) -> Vec<Due> {
    let guests = view.guests();
    let due = guests.filter_map(|guest| {
        let node = view.node(guest.node?)?;
        let pool = view.guest_pool(&guest.pool)?;
        let is_waited_for = view.shared_work_on(node.id).next().is_some();
        (pool.fences && node.may_run_unheard() && is_waited_for).then(|| Due {
            node: Arc::clone(node),
            guest: (**guest).clone(),
            pool: Arc::clone(pool),
        })
    });
    due.collect()
}

/// Has one ended, and writes down what is known then.
async fn fence(
    parts: &Parts,
    clients: &mut Clients,
    (one, away): (&Due, &mut Away),
    began: Instant,
) {
    let provider = &one.pool.provider;
    let verdict =
        match tokio::time::timeout(PATIENCE, ask(parts, clients, (one, away), began)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::NotYet {
                why: format!("the provider `{provider}` does not answer"),
            },
        };
    let node = &one.node;
    match verdict {
        Verdict::Dead { why, is_wanted } => {
            let why = format!("`{provider}`: {why}");
            let command = Kind::FenceNode(v1::FenceNode {
                node: id_bytes(node.id.as_u128()),
                // From before its guest was ended: an agent that has come since is of another life.
                expected_seat: optional_id_bytes(node.seat),
                by: provider.clone(),
                why: why.clone(),
            });
            match parts.store.propose(command).await {
                Ok(_) => {
                    tracing::info!(node = node.name, why, "a lost node is fenced");
                    parts.history.audit(told(node, &why));
                }
                // It is back, or a person was faster: its guest was stopped all the same.
                Err(problem) if problem.code == Code::Conflict => {
                    tracing::info!(node = node.name, %problem, "a lost node is not fenced");
                }
                // A person has removed it: its guest is not to run again.
                Err(problem) if problem.code == Code::NotFound => {
                    tracing::info!(node = node.name, %problem, "a lost node is no more");
                    return;
                }
                Err(problem) => {
                    tracing::warn!(node = node.name, %problem, "that a node is dead was not written down");
                    return;
                }
            }
            if is_wanted {
                start_again(parts, clients, one).await;
            }
        }
        Verdict::NotYet { why } => {
            tracing::info!(node = node.name, why, "a lost node is not known to be dead");
            note(parts, node.id, &why).await;
        }
    }
}

async fn ask(
    parts: &Parts,
    clients: &mut Clients,
    (one, away): (&Due, &mut Away),
    began: Instant,
) -> Verdict {
    let name = &one.pool.provider;
    let not_yet = |why: String| Verdict::NotYet {
        why: format!("the provider `{name}` does not say: {why}"),
    };
    let view = parts.store.view();
    let Some(provider) = view.provider(name) else {
        return not_yet("it is no more".to_owned());
    };
    if !provider.way.is_proxmox() {
        return Verdict::NotYet {
            why: format!(
                "the provider `{name}` is {}, which ends no machine of a lost node: make sure that it is off, then \
                 `skep node fence {} --confirm`",
                provider.way.kind().word(),
                one.node.name
            ),
        };
    }
    let client = match clients.of(provider, &parts.secrets) {
        Ok(client) => client,
        Err(problem) => return not_yet(problem.to_string()),
    };
    let since_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let driver = one.driver(&client);
    match driver.fence(&one.guest.guest, away, since_ms).await {
        Ok(verdict) => verdict,
        Err(error) => not_yet(error.to_string()),
    }
}

/// High availability was to have its guest run, and does so no more since it was stopped here.
async fn start_again(parts: &Parts, clients: &mut Clients, one: &Due) {
    let view = parts.store.view();
    let Some(provider) = view.provider(&one.pool.provider) else {
        return;
    };
    let started = match clients.of(provider, &parts.secrets) {
        Ok(client) => {
            let driver = one.driver(&client);
            let started = driver.start_again(&one.guest.guest);
            match tokio::time::timeout(PATIENCE, started).await {
                Ok(started) => started.map_err(|error| error.to_string()),
                Err(_) => Err("the provider does not answer".to_owned()),
            }
        }
        Err(problem) => Err(problem.to_string()),
    };
    let node = &one.node.name;
    match started {
        Ok(()) => tracing::info!(node, "the guest of a fenced node is started again"),
        Err(why) => tracing::warn!(node, why, "the guest of a fenced node stays stopped"),
    }
}

/// Where people look why something waits.
async fn note(parts: &Parts, id: NodeId, why: &str) {
    let why = &why[..why.floor_char_boundary(MAX_FENCED_WHY)];
    let view = parts.store.view();
    let is_said = |node: &Arc<Node>| node.fencing.waits.as_deref() == Some(why);
    if view.node(id).is_none_or(is_said) {
        return;
    }
    let command = Kind::NoteFencing(v1::NoteFencing {
        node: id_bytes(id.as_u128()),
        waits: why.to_owned(),
    });
    if let Err(problem) = parts.store.propose(command).await {
        tracing::debug!(node = %id, %problem, "why a node is not fenced was not written down");
    }
}

fn told(node: &Node, why: &str) -> AuditEntry {
    AuditEntry {
        at_ms: now_ms(),
        principal: "the leader".to_owned(),
        action: "node_fenced".to_owned(),
        resource: format!("nodes/{}", node.name),
        outcome: why.to_owned(),
    }
}
