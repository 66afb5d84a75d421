//! The replicated state as clients see it. Pure: no clock, no IO.

use std::sync::Arc;

use skep_model::allocation::{Allocation, Desired};
use skep_model::deployment::{BuildOutcome, Deployment, Origin};
use skep_model::node::{Node, unconfirmed};
use skep_model::pool::Guest;
use skep_model::problem::Problem;
use skep_model::quarantine::Quarantined;
use skep_model::service::{Release, Service};
use skep_model::spec::Source;
use skep_state::State;

use super::types::{
    AllocationCounts, AllocationView, DeploymentView, NodeView, QuarantinedView, ReleaseView,
    RestoringView, ServiceState, ServiceView, StackedView, stage,
};
pub(super) use crate::urls::{ingress_port, urls};

/// Names of a service's project and environment.
pub(super) fn owners(view: &State, service: &Service) -> (String, String) {
    view.path_of(service)
        .map_or_else(Default::default, |path| (path.project, path.environment))
}

pub(super) fn service(view: &State, service: &Service) -> ServiceView {
    let live = || {
        view.allocations_of(service.id)
            .filter(|allocation| allocation.is_live())
    };
    let allocations = AllocationCounts {
        wanted: wanted(view, service),
        live: count(live()),
        healthy: count(live().filter(|allocation| allocation.is_routable())),
    };
    let (project, environment) = owners(view, service);
    let newest = |is_held: bool| {
        let is_meant =
            |it: &&Arc<Deployment>| it.status.is_active() && it.held.is_some() == is_held;
        let found = view.deployments_of(service.id).rfind(is_meant);
        found.map(|deployment| deployment.id)
    };
    let deployment = newest(false);
    ServiceView {
        id: service.id,
        project,
        environment,
        name: service.name.clone(),
        state: state(service, &allocations, deployment.is_some()),
        urls: urls(view, service),
        spec: service.spec.clone(),
        live: service.live,
        rollout: service.rollout,
        last_release: service.last_release,
        deployment,
        held: newest(true),
        pinned: service.pinned.clone(),
        allocations,
        stopped: service.stopped,
        removing: service.removing,
        stack: stacked(view, service),
        waits: waits(view, service),
        source_problem: source_problem(view, service),
        // The leader alone knows.
        source_asked_ms: None,
        generation: service.generation,
        created_ms: service.created_ms,
    }
}

/// Why what ran on a lost node does not go on elsewhere.
fn waits(view: &State, service: &Service) -> Option<Problem> {
    let mut all = view.allocations_of(service.id);
    all.find_map(|allocation| unheard(view, allocation))
}

/// The same of one allocation; none: it does, or nothing is the matter.
fn unheard(view: &State, allocation: &Allocation) -> Option<Problem> {
    let node = view.node(allocation.node)?;
    let release = view.release(allocation.service, allocation.target.release)?;
    let is_waiting = allocation.is_live() && node.may_run_unheard() && release.storage.is_shared();
    let service = view.service(allocation.service).filter(|_| is_waiting)?;
    let waits = node.fencing.waits.as_deref();
    Some(unconfirmed(&service.name, &node.name, waits))
}

/// What its stack's file says of it.
fn stacked(view: &State, service: &Service) -> Option<StackedView> {
    let stack = view.stack_around(service)?;
    let member = stack.members.values().find(|it| it.service == service.id)?;
    Some(StackedView {
        file: stack.reading.as_ref().map(|it| it.file.clone()),
        repository: stack.settings.repository.clone(),
        says: member.said.iter().cloned().collect(),
    })
}

/// Of the repository or image that it comes from now.
fn source_problem(view: &State, service: &Service) -> Option<Problem> {
    let name = asked_source(service)?;
    let polled = view.polled(service.id)?;
    let is_its = polled.repository == *name;
    polled.problem.clone().filter(|_| is_its)
}

/// What is asked for what is new; none: nothing is.
pub(super) fn asked_source(service: &Service) -> Option<&String> {
    let pushes = &service.spec.pushes;
    let (name, is_asked) = match service.spec.source.as_ref()? {
        Source::Git { repository, .. } => (repository, pushes.poll_every_ms().is_some()),
        Source::Image { reference } => (reference, pushes.poll_ms.is_some_and(|ms| ms > 0)),
        // Whoever pushes says what is new.
        Source::Pushed { .. } => return None,
    };
    Some(name).filter(|_| is_asked)
}

/// Of a system service: as many as run on nodes.
fn wanted(view: &State, service: &Service) -> u32 {
    if !service.spec.is_system() || service.stopped || service.removing {
        return service.wanted();
    }
    let is_meant =
        |one: &&Arc<Allocation>| one.is_live() && one.desired == Desired::Run && one.job.is_none();
    count(view.allocations_of(service.id).filter(is_meant))
}

fn state(service: &Service, counts: &AllocationCounts, is_deploying: bool) -> ServiceState {
    if service.removing {
        ServiceState::Removing
    } else if service.stopped {
        ServiceState::Stopped
    } else if is_deploying {
        ServiceState::Deploying
    } else if service.live.is_none() {
        ServiceState::New
    } else if counts.healthy >= counts.wanted {
        ServiceState::Healthy
    } else if counts.healthy > 0 {
        ServiceState::Degraded
    } else {
        ServiceState::Down
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

pub(super) fn deployment(view: &State, deployment: &Deployment) -> DeploymentView {
    let service = view.service(deployment.service);
    let (project, environment) =
        service.map_or_else(Default::default, |service| owners(view, service));
    let build = deployment.build.as_ref();
    DeploymentView {
        id: deployment.id,
        service_id: deployment.service,
        project,
        environment,
        service: service.map_or_else(String::new, |service| service.name.clone()),
        trigger: deployment.trigger,
        origin: deployment.origin.clone(),
        status: deployment.status,
        ended: !deployment.status.is_active(),
        held: deployment.held.is_some(),
        problem: deployment.problem.clone(),
        node: build.map(|build| node_name(view, build.node)),
        commit: commit(deployment),
        release: deployment.release,
        urls: service.map_or_else(Vec::new, |service| urls(view, service)),
        steps: deployment.steps.clone(),
        created_ms: deployment.created_ms,
        status_ms: deployment.status_ms,
        push: deployment.push.as_ref().map(Into::into),
    }
}

/// The commit that was fetched, else the one that was asked for.
fn commit(deployment: &Deployment) -> Option<String> {
    let outcome = deployment
        .build
        .as_ref()
        .and_then(|build| build.outcome.as_ref());
    let fetched = match outcome {
        Some(BuildOutcome::Built(built)) => built.commit.clone(),
        _ => None,
    };
    fetched.or_else(|| match &deployment.origin {
        Origin::Git { commit, .. } => commit.clone(),
        Origin::Pushed { commit, .. } => Some(commit.clone()),
        _ => None,
    })
}

pub(super) fn node_name(view: &State, id: skep_model::id::NodeId) -> String {
    view.node(id)
        .map_or_else(|| id.to_string(), |node| node.name.clone())
}

pub(super) fn release(release: &Release, service: &Service) -> ReleaseView {
    ReleaseView {
        number: release.number,
        live: service
            .live
            .is_some_and(|live| live.release == release.number),
        deployment: release.deployment,
        image: release.image.clone(),
        kind: release.kind,
        port: release.port,
        command: release.command.clone(),
        variables: release.variables.keys().cloned().collect(),
        resources: release.resources,
        commit: release.commit.clone(),
        created_ms: release.created_ms,
    }
}

pub(super) fn allocation(view: &State, allocation: &Allocation) -> AllocationView {
    let service = view.service(allocation.service);
    let (project, environment) =
        service.map_or_else(Default::default, |service| owners(view, service));
    AllocationView {
        id: allocation.id,
        service_id: allocation.service,
        project,
        environment,
        service: service.map_or_else(String::new, |service| service.name.clone()),
        release: allocation.target.release,
        deployment: allocation.target.deployment,
        node_id: allocation.node,
        node: node_name(view, allocation.node),
        desired: allocation.desired,
        state: allocation.observed.state,
        restarts: allocation.observed.restarts,
        problem: (allocation.observed.problem.clone()).or_else(|| unheard(view, allocation)),
        job: allocation.job,
        exit_code: allocation.observed.exit_code,
        ports: allocation.observed.ports.clone(),
        log_tail: allocation.observed.log_tail.clone(),
        reason: allocation.reason.clone(),
        created_ms: allocation.created_ms,
        state_ms: allocation.observed_ms,
    }
}

pub(super) fn quarantined(view: &State, entry: &Quarantined) -> QuarantinedView {
    let service = view.service(entry.service);
    let release = view.release(entry.service, entry.target.release);
    QuarantinedView {
        id: entry.allocation,
        service: entry.service_label.clone(),
        service_id: entry.service,
        adoptable: service.is_some_and(|service| !service.removing) && release.is_some(),
        release: entry.target.release,
        deployment: entry.target.deployment,
        node_id: entry.node,
        node: node_name(view, entry.node),
        since_ms: entry.since_ms,
    }
}

pub(super) fn node(view: &State, node: &Node) -> NodeView {
    let live: Vec<_> = view
        .allocations_on(node.id)
        .filter(|allocation| allocation.is_live())
        .collect();
    let requests = || {
        live.iter()
            .filter_map(|allocation| view.release(allocation.service, allocation.target.release))
    };
    let guest = view.guest_of(node.id).map(|one| &one.guest);
    let resizing = guest.and_then(|it| it.resizing.as_ref());
    NodeView {
        id: node.id,
        name: node.name.clone(),
        status: node.status,
        status_ms: node.status_ms,
        joined_ms: node.joined_ms,
        facts: node.facts.clone(),
        allocations: count(live.iter()),
        cpu_millis_requested: requests().map(|r| u64::from(r.resources.cpu_millis)).sum(),
        memory_bytes_requested: requests().map(|r| r.resources.memory_bytes).sum(),
        meta: node.all_meta(),
        admin: node.admin,
        witnesses: (node.witnesses.iter())
            .map(|id| {
                view.node(*id)
                    .map_or_else(|| id.to_string(), |of| of.name.clone())
            })
            .collect(),
        incarnation: node.fencing.incarnation,
        fenced: node.fencing.fenced.clone(),
        fencing_waits: node.fencing.waits.clone(),
        own_size: guest.and_then(|it| it.size),
        resizing: resizing.map(|it| stage(it).to_owned()),
        restoring: guest.and_then(restoring),
    }
}

fn restoring(guest: &Guest) -> Option<RestoringView> {
    let restoring = guest.restoring.as_ref()?;
    Some(RestoringView {
        archive: restoring.archive.clone(),
        back: restoring.is_back,
        problem: guest.problem.clone(),
    })
}

/// All nodes, by name.
pub(super) fn nodes(view: &State) -> Vec<NodeView> {
    let mut nodes: Vec<_> = view
        .nodes()
        .map(Arc::as_ref)
        .map(|of| node(view, of))
        .collect();
    nodes.sort_by(|left, right| left.name.cmp(&right.name));
    nodes
}
