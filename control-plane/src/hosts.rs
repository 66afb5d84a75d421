//! Physical hosts as failure domains: which nodes are on one, which services would end with it, and what draining it
//! would move. Decides from a view; proposes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use skep_model::allocation::{Allocation, Desired};
use skep_model::id::{AllocationId, NodeId};
use skep_model::maintenance::{Cause, Maintenance};
use skep_model::node::{Admin, HOST, Node};
use skep_model::service::Service;
use skep_pools::Overcommit;
use skep_proto::convert::enum_number;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proxmox::calls::cluster;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::Ask;
use skep_scheduler::place::place;
use skep_state::State;

use crate::placement::{cluster_of, surroundings};

/// How long emptying a host may take where nobody says: what is left then is stopped.
pub const DRAIN_MS: u64 = 3_600_000;

/// The nodes that say that they are on a host, by id.
pub fn nodes_on<'a>(view: &'a State, host: &str) -> impl Iterator<Item = &'a Arc<Node>> {
    let host = host.to_owned();
    view.nodes()
        .filter(move |node| node.meta(HOST) == Some(&*host))
}

/// Replicas of a service that are meant to run and have not ended.
fn replicas<'a>(view: &'a State, service: &Service) -> impl Iterator<Item = &'a Allocation> {
    let all = view.allocations_of(service.id).map(|one| &**one);
    all.filter(|one| one.job.is_none() && one.is_live() && one.desired == Desired::Run)
}

/// Services that have every replica on a host, by what they are called.
pub fn all_on(view: &State, host: &str) -> Vec<String> {
    let nodes: BTreeSet<NodeId> = nodes_on(view, host).map(|node| node.id).collect();
    let found = view.services().filter(|service| {
        let mut there = replicas(view, service).peekable();
        let has_some = there.peek().is_some();
        has_some && !service.spec.is_system() && there.all(|one| nodes.contains(&one.node))
    });
    let mut found: Vec<String> = found.map(|service| view.label_of(service)).collect();
    found.sort();
    found
}

/// One replica that would move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub allocation: AllocationId,
    /// What its service is called.
    pub service: String,
    /// Where it is.
    pub from: NodeId,
    /// Where it would go; or why no other node takes it.
    pub to: Result<NodeId, String>,
}

/// What draining a host would do, if every replacement becomes healthy: each goes when another one is. Jobs run out
/// their time, and what runs on every node ends with its node.
pub fn foreseen(view: &State, host: &str) -> Vec<Step> {
    let mut cluster = cluster_of(view);
    let mut leaving = BTreeSet::new();
    for node in nodes_on(view, host) {
        leaving.insert(node.id);
        cluster.put_node(&Node {
            // What it offers counts no more; when it has to be empty decides nothing here.
            admin: Admin::Draining { deadline_ms: 0 },
            ..(**node).clone()
        });
    }
    let mut draft = Draft::new(&cluster);
    let mut steps = Vec::new();
    let services = view.services().filter(|service| !service.spec.is_system());
    for service in services {
        let all: Vec<&Allocation> = replicas(view, service).collect();
        let (going, staying): (Vec<&Allocation>, Vec<&Allocation>) =
            all.into_iter().partition(|one| leaving.contains(&one.node));
        let mut staying: Vec<NodeId> = staying.iter().map(|one| one.node).collect();
        for one in going {
            let Some(release) = view.release(service.id, one.target.release) else {
                continue;
            };
            let ask = Ask {
                staying: Some(staying.clone()),
                ..Ask::of(release, &surroundings(view, service))
            };
            let to = place(&draft, &ask).map(|choice| choice.node);
            if let Ok(node) = to {
                draft.start(node, &ask);
                staying.push(node);
            }
            steps.push(Step {
                allocation: one.id,
                service: view.label_of(service),
                from: one.node,
                to: to.map_err(|refusal| format!("{refusal}; {}", refusal.hint)),
            });
        }
    }
    steps
}

/// Whether what a provider says of a host means that it is under maintenance.
fn is_maintained(host: &cluster::Host) -> bool {
    host.ha_state.as_deref() == Some("maintenance")
}

/// What follows from what providers say of their hosts: a host that went under maintenance is drained, one that came
/// back is given back. What operators have said of a host is theirs to end.
pub(crate) fn said(view: &State, hosts: &[cluster::Host], now_ms: u64) -> Vec<Kind> {
    let due = hosts.iter().filter_map(|host| {
        let known = view.maintenance(&host.node);
        match (is_maintained(host), known) {
            (true, None) if nodes_on(view, &host.node).next().is_some() => {
                Some(Kind::SetHostMaintenance(v1::SetHostMaintenance {
                    host: host.node.clone(),
                    cause: enum_number(&Cause::ALL, &Cause::Provider),
                    deadline_ms: now_ms + DRAIN_MS,
                }))
            }
            // A host that is away says nothing of its maintenance.
            (false, Some(known)) if known.cause == Cause::Provider && host.is_online() => {
                Some(Kind::EndHostMaintenance(v1::EndHostMaintenance {
                    host: host.node.clone(),
                }))
            }
            _ => None,
        }
    });
    due.collect()
}

/// What follows from where nodes are by now: hosts under maintenance whose nodes are others than are drained.
pub(crate) fn strayed(view: &State) -> impl Iterator<Item = Kind> + '_ {
    let strayed = view.maintenances().filter(|it| view.has_strayed(it));
    strayed.map(|it: &Arc<Maintenance>| {
        Kind::FollowHostMaintenance(v1::FollowHostMaintenance {
            host: it.host.clone(),
        })
    })
}

/// Hosts that have promised more memory than they have, by provider and host: as the leader saw them last. Nobody
/// else knows of any.
#[derive(Debug, Clone, Default)]
pub struct Promises(Arc<Mutex<BTreeMap<(String, String), Overcommit>>>);

/// What has begun or ended between two looks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// It has promised more than it has.
    Begun(Overcommit),
    /// It has not any more, or is away.
    Ended(String),
}

impl Promises {
    /// All of them, with their providers.
    pub fn all(&self) -> Vec<(String, Overcommit)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = known.iter();
        all.map(|((provider, _), it)| (provider.clone(), it.clone()))
            .collect()
    }

    /// Nothing is known any more: somebody else leads.
    pub(crate) fn forget(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
    }

    /// Of these providers alone: the others are asked no more.
    pub(crate) fn keep(&self, is_asked: impl Fn(&str) -> bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(provider, _), _| is_asked(provider));
    }

    /// What a provider's hosts have promised now; answers what is to be told, each once.
    pub(crate) fn note(&self, provider: &str, now: Vec<Overcommit>) -> Vec<Alarm> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alarms = Vec::new();
        known.retain(|(of, host), _| {
            let is_over = of != provider || now.iter().any(|it| it.host == *host);
            if !is_over {
                alarms.push(Alarm::Ended(host.clone()));
            }
            is_over
        });
        for it in now {
            let key = (provider.to_owned(), it.host.clone());
            if known.insert(key, it.clone()).is_none() {
                alarms.push(Alarm::Begun(it));
            }
        }
        alarms
    }
}

#[cfg(test)]
mod tests;
