//! Which images are still to be pushed to their workspace's registry, by which node, and what an answer means for one.
//! Pure: a view and a time in, questions and commands out. Whoever asks is `reconcile::pushing`.

use std::sync::Arc;

use skep_model::deployment::{BuildOutcome, Deployment, Status};
use skep_model::id::{DeploymentId, NodeId, ServiceId};
use skep_model::image_push::{Push, PushRegistry, REQUIRED_WAIT_MS};
use skep_model::node::NodeStatus;
use skep_model::notify::pause_ms;
use skep_model::problem::{Code, Problem};
use skep_model::registry::{Ask, Found, RegistryAccess, Wanted};
use skep_model::service::{Image, Service};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

/// Longest pause before an image is tried again: a registry that is back has it some minutes later.
const LONGEST_PAUSE_MS: u64 = 5 * 60_000;

/// An image that is to be pushed.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Where to.
    pub(crate) registry: Arc<PushRegistry>,
    /// Whose image it is.
    pub(crate) deployment: Arc<Deployment>,
    digest: String,
    repository: String,
    tag: String,
    /// Nodes that have it, the one that built it first.
    nodes: Vec<NodeId>,
    /// When.
    pub(crate) at_ms: u64,
}

impl Work {
    /// As people name it at the registry.
    pub(crate) fn reference(&self) -> String {
        format!("{}/{}:{}", self.registry.host, self.repository, self.tag)
    }

    /// Which node does it now: another one each time. None: no node that has the image can be asked.
    pub(crate) fn node(&self) -> Option<NodeId> {
        let attempts = self
            .deployment
            .push
            .as_ref()
            .map_or(0, |push| push.attempts);
        let count = self.nodes.len().max(1);
        self.nodes.get(attempts as usize % count).copied()
    }

    /// What that node is asked.
    pub(crate) fn ask(&self, access: RegistryAccess) -> Ask {
        Ask {
            host: self.registry.host.clone(),
            repository: self.repository.clone(),
            access: Some(access),
            wanted: Wanted::Push {
                digest: self.digest.clone(),
                tag: self.tag.clone(),
            },
        }
    }
}

/// What is to be pushed of a service: the image that serves, and the one that is on its way. What something newer
/// has taken the place of is let go.
pub(crate) fn work(view: &State, service: ServiceId) -> Vec<Work> {
    let Some(service) = view.service(service) else {
        return Vec::new();
    };
    let workspace = view.workspace_of(service.environment);
    let registry = workspace.and_then(|it| view.push_registry(it));
    let Some(registry) = registry.filter(|_| !service.removing) else {
        return Vec::new();
    };
    let all = view.deployments_of(service.id);
    all.filter_map(|deployment| of_deployment(view, service, (registry, deployment)))
        .collect()
}

fn of_deployment(
    view: &State,
    service: &Service,
    (registry, deployment): (&Arc<PushRegistry>, &Arc<Deployment>),
) -> Option<Work> {
    let (image, tag) = image(view, deployment)?;
    let path = view.path_of(service)?;
    let repository = registry.repository(&path.workspace, &path.project, &path.service);
    let mut work = Work {
        registry: Arc::clone(registry),
        deployment: Arc::clone(deployment),
        digest: image.digest.clone(),
        repository,
        tag,
        nodes: Vec::new(),
        at_ms: 0,
    };
    let there = format!("{}/{}@{}", registry.host, work.repository, work.digest);
    if image.pushed.as_ref() == Some(&there) {
        return None;
    }
    work.at_ms = registry.due_ms(deployment, &work.reference())?;
    work.nodes = holders(view, service.id, &image);
    Some(work)
}

/// The image of a deployment that nodes have, and its tag: the commit, else the deployment that made it.
fn image(view: &State, deployment: &Deployment) -> Option<(Image, String)> {
    let tag = |commit: Option<&str>, made_by: DeploymentId| {
        commit.map_or_else(|| made_by.to_string(), str::to_owned)
    };
    if let Some(number) = deployment.release {
        let release = view.release(deployment.service, number)?;
        let image = Some(&release.image).filter(|image| image.shared)?;
        let tag = tag(release.commit.as_deref(), release.deployment);
        return Some((image.clone(), tag));
    }
    let image = deployment.made()?;
    let outcome = deployment.build.as_ref()?.outcome.as_ref();
    let commit = match outcome {
        Some(BuildOutcome::Built(built)) => built.commit.as_deref(),
        _ => None,
    };
    Some((image.clone(), tag(commit, deployment.id)))
}

/// The nodes that have an image, as far as is known, and that can be asked.
fn holders(view: &State, service: ServiceId, image: &Image) -> Vec<NodeId> {
    let runs = view.allocations_of(service).filter(|other| {
        let theirs = view.release(other.service, other.target.release);
        other.is_routable() && theirs.is_some_and(|it| it.image.digest == image.digest)
    });
    let mut nodes: Vec<NodeId> = image.node.into_iter().collect();
    for node in runs.map(|allocation| allocation.node) {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    let is_there = |id: &NodeId| {
        let node = view.node(*id);
        node.is_some_and(|node| node.status != NodeStatus::Lost)
    };
    nodes.retain(is_there);
    nodes
}

/// What is taken down of an attempt. No answer is one, too.
pub(crate) fn settlement(work: &Work, found: Option<Found>, now_ms: u64) -> Kind {
    let found = found.unwrap_or_else(|| {
        let text = "the node that has the image did not answer";
        Err(Problem::new(Code::Unavailable, text).hint("`skep node ls` shows the nodes"))
    });
    let reference = work.reference();
    let (digest, problem) = match found {
        Ok(digest) if digest == work.digest => (Some(digest), None),
        Ok(digest) => (None, Some(wrong_digest(&digest, &work.digest))),
        Err(problem) => (None, Some(problem)),
    };
    let before = work.deployment.push.as_ref();
    let same = before.filter(|push| push.reference == reference);
    let attempts = same.map_or(0, |push| push.attempts).saturating_add(1);
    let pause = pause_ms(&work.deployment.id.to_string(), attempts).min(LONGEST_PAUSE_MS);
    let push = Push {
        reference,
        digest,
        problem,
        attempts,
        at_ms: now_ms,
        next_ms: now_ms.saturating_add(pause),
    };
    Kind::SettlePush(v1::SettlePush {
        deployment: id_bytes(work.deployment.id.as_u128()),
        expected_at_ms: before.map_or(0, |push| push.at_ms),
        expected_changed_ms: work.registry.changed_ms,
        push: Some((&push).into()),
    })
}

fn wrong_digest(found: &str, wanted: &str) -> Problem {
    let text = format!("the registry has {found} where {wanted} was pushed");
    Problem::new(Code::ImageFailed, text)
        .hint("the registry, or something before it, changes images: nothing is pulled from there")
}

/// What stands before a rollout of a built image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It is to be pushed first; the line of its timeline.
    Begin(String),
    /// Until it is there, or until this cluster time (ms).
    Wait(u64),
    /// It was waited for long enough.
    Fail(Problem),
}

/// Whether a built image waits for its registry; none: it is rolled out.
pub(crate) fn gate(
    view: &State,
    service: &Service,
    deployment: &Deployment,
    now_ms: u64,
) -> Option<Gate> {
    let workspace = view.workspace_of(service.environment)?;
    let registry = view.push_registry(workspace).filter(|it| it.required)?;
    deployment.made()?;
    let push = deployment.push.as_ref();
    let is_there = push.is_some_and(|it| it.digest.is_some() && registry.is_at(&it.reference));
    if is_there {
        return None;
    }
    if deployment.status == Status::Building {
        let step = format!("pushing to {}, which has to have it", registry.host);
        return Some(Gate::Begin(step));
    }
    let deadline_ms = deployment.status_ms.saturating_add(REQUIRED_WAIT_MS);
    if now_ms < deadline_ms {
        return Some(Gate::Wait(deadline_ms));
    }
    let why = push.and_then(|push| push.problem.clone());
    Some(Gate::Fail(why.unwrap_or_else(|| {
        let text = format!("the image was not pushed to {} in time", registry.host);
        Problem::new(Code::Timeout, text)
            .hint("can the nodes reach it? `skep registry push-to` without `--required` goes on without it")
    })))
}

/// Deployments that wait for their registry.
pub(crate) fn waiting(view: &State) -> Vec<DeploymentId> {
    let active = view.active_deployments();
    active
        .filter(|deployment| deployment.status == Status::Pushing)
        .map(|deployment| deployment.id)
        .collect()
}
