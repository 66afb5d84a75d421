//! The scheduler's picture of the state: kept up from what changes by the leader's loop, made at once
//! for a question; and what of its quotas a service may have. Decides nothing.

use std::collections::BTreeMap;

use skep_model::allocation::{Desired, State as Observation};
use skep_model::id::{AllocationId, NodeId};
use skep_model::job::{Cause, Job, Status};
use skep_model::node::Node;
use skep_model::placement::Toward;
use skep_model::service::{Release, Service};
use skep_model::settings::{DEFAULT_POOL, Quota, Scope};
use skep_scheduler::cluster::Cluster;
use skep_scheduler::filter::Surroundings;
use skep_scheduler::quota::Allowance;
use skep_scheduler::room::{Needs, Room};
use skep_state::{Change, State};

use crate::rebalancing::heading;
use crate::store::now_ms;

/// Every node and live allocation of a view.
pub fn cluster_of(view: &State) -> Cluster {
    let mut cluster = Cluster::default();
    for pool in view.pools() {
        // The scheduler knows the policy of all others by no name.
        let name = Some(&*pool.name).filter(|name| *name != DEFAULT_POOL);
        cluster.put_policy(name.unwrap_or_default(), Some(pool.policy));
    }
    view.nodes()
        .for_each(|node| follow_node(&mut cluster, view, node.id));
    view.allocations()
        .for_each(|allocation| follow_allocation(&mut cluster, view, allocation.id));
    cluster
}

/// What changed of a view.
pub fn follow(cluster: &mut Cluster, view: &State, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Node(id) => follow_node(cluster, view, *id),
            Change::Allocation { allocation, .. } => {
                follow_allocation(cluster, view, *allocation);
            }
            _ => {}
        }
    }
}

/// A node that was made, changed or removed.
pub fn follow_node(cluster: &mut Cluster, view: &State, id: NodeId) {
    let Some(node) = view.node(id) else {
        return cluster.remove_node(id);
    };
    match common_meta(view, node) {
        Some(meta) => cluster.put_node(&Node {
            meta,
            ..(**node).clone()
        }),
        None => cluster.put_node(node),
    }
}

/// A node's metadata with what operators say of all nodes of its pool; none: they say nothing.
pub(crate) fn common_meta(view: &State, node: &Node) -> Option<BTreeMap<String, String>> {
    let pool = node.meta.get("pool").and_then(|name| view.pool(name));
    let pool = pool
        .or_else(|| view.pool(DEFAULT_POOL))
        .filter(|pool| !pool.meta.is_empty())?;
    let mut meta = pool.meta.clone();
    meta.extend(node.meta.clone());
    Some(meta)
}

/// An allocation that was made, changed or forgotten.
pub fn follow_allocation(cluster: &mut Cluster, view: &State, id: AllocationId) {
    let live = view
        .allocation(id)
        .filter(|allocation| allocation.is_live());
    let release = live.and_then(|a| view.release(a.service, a.target.release));
    match (live, release) {
        (Some(allocation), Some(release)) => {
            let (node, service) = (allocation.node, allocation.service);
            cluster.put_allocation(id, node, service, &Needs::of(release));
            cluster.set_leaving(id, allocation.desired != Desired::Run);
        }
        _ => cluster.remove_allocation(id),
    }
}

/// What a service's rules speak of and its release does not say.
pub fn surroundings(view: &State, service: &Service) -> Surroundings {
    let affinities = service.spec.placement.affinities.iter();
    let named = affinities.filter_map(|affinity| match &affinity.toward {
        Toward::Service { service, .. } => Some(service),
        Toward::Nodes(_) => None,
    });
    let found = named.filter_map(|name| {
        let friend = view.service_named(service.environment, name)?;
        Some((name.clone(), friend.id))
    });
    let data_on = data_on(view, service);
    Surroundings {
        workspace: view.path_of(service).map(|path| path.workspace),
        is_build: false,
        services: found.collect(),
        data_on,
        fencing_waits: data_on.and_then(|id| view.node(id)?.fencing.waits.clone()),
        moving: moving(view, service),
        relaxed: view.relaxed_by(service).is_some(),
        has_callers: !view.callers_in(service.environment).is_empty(),
        prepared: release_phase(view, service).is_some_and(|job| job.status == Status::Succeeded),
    }
}

/// The node that has the volumes of a service, where it has any. What is there decides; before the
/// agent has told of them, or where two nodes have some, the youngest allocation that may have written.
fn data_on(view: &State, service: &Service) -> Option<NodeId> {
    let release = service
        .target()
        .and_then(|it| view.release(service.id, it.release));
    let is_bound = |release: &std::sync::Arc<Release>| release.storage.is_pinned();
    if !service.spec.storage.is_pinned() && !release.is_some_and(is_bound) {
        return in_use_on(view, service);
    }
    let has_some = |node: &&std::sync::Arc<Node>| {
        let mut held = node.facts.volumes.iter();
        held.any(|held| held.service == service.id)
    };
    let holders: Vec<NodeId> = view.nodes().filter(has_some).map(|node| node.id).collect();
    if let [only] = holders[..] {
        return Some(only);
    }
    let may_have_written = view.allocations_of(service.id).filter(|allocation| {
        let ran = !matches!(
            allocation.observed.state,
            Observation::Failed | Observation::Stopped
        );
        let release = view.release(service.id, allocation.target.release);
        ran && release.is_some_and(is_bound)
            && (holders.is_empty() || holders.contains(&allocation.node))
    });
    let youngest = may_have_written.max_by_key(|allocation| (allocation.created_ms, allocation.id));
    youngest
        .map(|allocation| allocation.node)
        .or(holders.first().copied())
}

/// The node on which something of a service has data on shared storage in use, attempts of jobs among it. What is on a
/// lost node counts until that is known to be dead: it is lost itself then, and this ends.
fn in_use_on(view: &State, service: &Service) -> Option<NodeId> {
    let uses = view.allocations_of(service.id).filter(|allocation| {
        let release = view.release(service.id, allocation.target.release);
        allocation.is_live() && release.is_some_and(|it| it.storage.is_shared())
    });
    let youngest = uses.max_by_key(|allocation| (allocation.created_ms, allocation.id));
    youngest.map(|allocation| allocation.node)
}

/// The job that is the release phase of what is rolled out; none: there is none, or not yet.
pub fn release_phase<'a>(view: &'a State, service: &Service) -> Option<&'a Job> {
    let deployment = service.rollout?.deployment;
    let mut jobs = view.jobs_of(service.id).map(|job| &**job);
    jobs.find(|job| job.cause == Cause::Release(deployment))
}

/// What the environment and the workspace of a service may have, and have. Counts what is there only where
/// there is a quota.
pub fn quotas(view: &State, service: &Service) -> Vec<Allowance> {
    let limited = view
        .scopes_of(service)
        .into_iter()
        .filter(|scope| view.settings_of(*scope).quota != Quota::default());
    limited.map(|scope| allowance(view, scope)).collect()
}

/// A quota and what of it is used.
pub fn allowance(view: &State, scope: Scope) -> Allowance {
    let (mut used, mut allocations) = (Room::default(), 0);
    let services = view.services_in(scope);
    let live = services
        .flat_map(|service| view.allocations_of(service.id))
        .filter(|allocation| allocation.is_live());
    for allocation in live {
        allocations += 1;
        let release = view.release(allocation.service, allocation.target.release);
        if let Some(release) = release {
            used = used.plus(release.resources.into());
        }
    }
    Allowance {
        scope: view.scope_name(scope),
        quota: view.settings_of(scope).quota,
        used,
        allocations,
    }
}

/// Its allocations that are being moved, and where to; none while it has something else to do: a
/// rollout, or one that is missing, goes wherever there is room.
fn moving(view: &State, service: &Service) -> BTreeMap<AllocationId, NodeId> {
    let now_ms = now_ms().max(view.time_ms());
    let is_its = |id: &AllocationId| {
        view.allocation(*id)
            .is_some_and(|a| a.service == service.id)
    };
    let moving: BTreeMap<AllocationId, NodeId> =
        heading(view, now_ms).filter(|(id, _)| is_its(id)).collect();
    let running = view
        .allocations_of(service.id)
        .filter(|a| a.is_live() && a.desired == Desired::Run && a.job.is_none());
    let is_settled = service.rollout.is_none()
        && !moving.is_empty()
        && running.count() >= service.wanted() as usize;
    if is_settled { moving } else { BTreeMap::new() }
}
