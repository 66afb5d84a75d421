//! A node's part of the desired state, resolved so that its agent needs to ask nobody.

use std::collections::BTreeMap;

use skep_model::allocation::Allocation;
use skep_model::assignment::{
    Assignment, BuildOrder, BuildVariable, DesiredSet, Generation, ImagePeer, MAX_IMAGE_PEERS,
    Names,
};
use skep_model::deployment::{Deployment, Origin};
use skep_model::hooks::Hooks;
use skep_model::id::NodeId;
use skep_model::job::{Attempt, Cause, Job};
use skep_model::node::NodeStatus;
use skep_model::problem::Problem;
use skep_model::service::{Release, Service};
use skep_state::{Cluster, State};

use crate::secrets::Secrets;
use crate::urls;
use crate::variables::{Environment, private_host};

/// The generation that a view shows.
pub fn generation(cluster: &Cluster, view: &State) -> Generation {
    Generation {
        incarnation: cluster.incarnation,
        number: view.index(),
    }
}

/// Everything that `node` is to do. An allocation whose secrets cannot be opened is left as the
/// node has it: it is reported, and nothing is stopped for it.
pub fn desired_set(view: &State, cluster: &Cluster, node: NodeId, secrets: &Secrets) -> DesiredSet {
    let mut assignments = Vec::new();
    for allocation in view
        .allocations_on(node)
        .filter(|allocation| allocation.is_assigned())
    {
        match assignment(view, allocation, secrets) {
            Ok(Some(assignment)) => assignments.push(assignment),
            Ok(None) => {}
            Err(problem) => {
                tracing::error!(allocation = %allocation.id, %problem, "an allocation cannot be sent to its node");
            }
        }
    }
    DesiredSet {
        cluster: cluster.id,
        generation: generation(cluster, view),
        assignments,
        builds: build_orders(view, node, secrets),
    }
}

/// The builds that `node` is to do. One whose secrets cannot be opened is left out, and reported.
pub fn build_orders(view: &State, node: NodeId, secrets: &Secrets) -> Vec<BuildOrder> {
    let builds = view.builds_on(node);
    builds
        .filter_map(|deployment| {
            let order = build_order(view, deployment, secrets);
            order.unwrap_or_else(|problem| {
                tracing::error!(deployment = %deployment.id, %problem, "a build cannot be sent to its node");
                None
            })
        })
        .collect()
}

/// One allocation as its node is told of it; none when its service or release is gone.
///
/// # Errors
/// A variable that cannot be opened.
pub fn assignment(
    view: &State,
    allocation: &Allocation,
    secrets: &Secrets,
) -> Result<Option<Assignment>, Problem> {
    let service = view.service(allocation.service);
    let release = view.release(allocation.service, allocation.target.release);
    let (Some(service), Some(release)) = (service, release) else {
        return Ok(None);
    };
    let job = allocation.job.and_then(|id| view.job(id));
    let attempt = allocation.job.map(|id| Attempt {
        job: id,
        limit_ms: job.map_or(0, |job| limit_ms(job, allocation)),
    });
    let own_command = match job.map(|job| &job.cause) {
        Some(Cause::Request { command, .. }) if !command.is_empty() => Some(command),
        Some(Cause::Release(_)) => Some(&release.hooks.release),
        _ => None,
    };
    Ok(Some(Assignment {
        allocation: allocation.id,
        service: service.id,
        service_label: view.label_of(service),
        names: names(view, service),
        target: allocation.target,
        desired: allocation.desired,
        image: release.image.clone(),
        // Nobody asks a job whether it is fit for traffic.
        port: release.port.filter(|_| attempt.is_none()),
        environment: environment(view, service, release, allocation, secrets)?,
        command: own_command.unwrap_or(&release.command).clone(),
        resources: release.resources,
        health: release.health.clone(),
        restart: release.restart,
        stop_grace_ms: release.stop_grace_ms,
        stop_after_ms: release.stop_after_ms(attempt.is_some()),
        ports: release.placement.ports.clone(),
        dynamic_ports: release.placement.dynamic_ports,
        devices: release.placement.devices.clone(),
        storage: release.storage.clone(),
        container: release.container.clone(),
        hooks: Hooks {
            // The leader's to run.
            release: Vec::new(),
            ..release.hooks.clone()
        },
        image_peers: image_peers(view, release, allocation.node),
        network: view
            .private_address(service.id)
            .map(|_| service.environment),
        job: attempt,
        workspace: view.workspace_of(service.environment),
    }))
}

/// Which nodes have the image of a release for `to`: the one that built it, then those where it runs, the
/// same ones for every server that is asked.
fn image_peers(view: &State, release: &Release, to: NodeId) -> Vec<ImagePeer> {
    if !release.image.shared {
        return Vec::new();
    }
    let runs = view.allocations_of(release.service).filter(|other| {
        let theirs = view.release(other.service, other.target.release);
        other.is_routable() && theirs.is_some_and(|it| it.image.digest == release.image.digest)
    });
    let mut nodes: Vec<NodeId> = release.image.node.into_iter().collect();
    nodes.extend(runs.map(|other| other.node));
    let mut peers: Vec<ImagePeer> = Vec::new();
    for id in nodes {
        let is_known = id == to || peers.iter().any(|peer| peer.node == id);
        let node = view
            .node(id)
            .filter(|node| !is_known && node.status != NodeStatus::Lost);
        let address = node.and_then(|node| node.facts.image_address.clone());
        peers.extend(address.map(|address| ImagePeer { node: id, address }));
        if peers.len() == MAX_IMAGE_PEERS {
            break;
        }
    }
    peers
}

fn names(view: &State, service: &Service) -> Names {
    let path = view.path_of(service);
    path.map_or_else(Names::default, |path| Names {
        project: path.project.to_string(),
        environment: path.environment.to_string(),
        service: path.service.to_string(),
    })
}

/// What is left of a job's time when this attempt of it is made; at least a moment, since 0 is no
/// limit.
fn limit_ms(job: &Job, allocation: &Allocation) -> u64 {
    let spent = allocation.created_ms.saturating_sub(job.created_ms);
    match job.limits.deadline_ms {
        0 => 0,
        deadline_ms => deadline_ms.saturating_sub(spent).max(1),
    }
}

fn environment(
    view: &State,
    service: &Service,
    release: &Release,
    allocation: &Allocation,
    secrets: &Secrets,
) -> Result<Vec<(String, String)>, Problem> {
    let mut all = Vec::with_capacity(release.variables.len() + 12);
    let job = allocation.job.and_then(|id| view.job(id));
    let own = job.and_then(|job| match &job.cause {
        Cause::Request { variables, .. } => Some(variables),
        _ => None,
    });
    let mut variables: BTreeMap<_, _> = release.variables.iter().collect();
    variables.extend(own.into_iter().flatten());
    for (name, variable) in variables {
        all.push((
            name.clone(),
            secrets.open_variable(service.id, name, variable)?,
        ));
    }
    let mut set = |name: &str, value: String| all.push((name.to_owned(), value));
    if let Some(path) = view.path_of(service) {
        set("SKEP_PROJECT", path.project);
        set("SKEP_ENVIRONMENT", path.environment);
        set("SKEP_SERVICE", path.service);
    }
    set(
        "SKEP_DEPLOYMENT_ID",
        allocation.target.deployment.to_string(),
    );
    set("SKEP_RELEASE", release.number.to_string());
    set("SKEP_ALLOCATION_ID", allocation.id.to_string());
    if let Some(job) = allocation.job {
        set("SKEP_JOB_ID", job.to_string());
    }
    if let Some(commit) = &release.commit {
        set("SKEP_GIT_COMMIT", commit.clone());
    }
    if let Some(branch) = &release.branch {
        set("SKEP_GIT_BRANCH", branch.clone());
    }
    if let Some(url) = &release.public_url {
        set("SKEP_PUBLIC_URL", url.clone());
    }
    if let Some(host) = private_host(view, service) {
        set("SKEP_PRIVATE_HOST", host);
    }
    if let Some(port) = release.port {
        set("PORT", port.to_string());
        set("SKEP_PUBLIC_HOST", view.host_of(service));
    }
    Ok(all)
}

fn build_order(
    view: &State,
    deployment: &Deployment,
    secrets: &Secrets,
) -> Result<Option<BuildOrder>, Problem> {
    let Some(service) = view.service(deployment.service) else {
        return Ok(None);
    };
    // A redeploy of a release builds nothing; it never gets a build.
    if deployment.origin.is_release() {
        return Ok(None);
    }
    let spec = &service.spec;
    Ok(Some(BuildOrder {
        deployment: deployment.id,
        service: service.id,
        service_label: view.label_of(service),
        origin: deployment.origin.clone(),
        builder: spec.builder.clone(),
        dockerfile: spec.dockerfile.clone(),
        pull: spec.image.pull,
        timeout_ms: spec.build.timeout_ms,
        build: spec.build.clone(),
        nixpacks: spec.nixpacks.clone(),
        site: spec.site.clone(),
        fetch: spec.fetch.clone(),
        variables: match deployment.origin {
            Origin::Image { .. } => Vec::new(),
            _ => build_variables(view, service, secrets)?,
        },
        no_cache: deployment.no_cache,
        workspace: view.workspace_of(service.environment),
        ask_registry: asks_registry(view, deployment),
        arguments: build_arguments(view, service, deployment),
    }))
}

/// Whether a ready image is of a registry where some workspace keeps its own: that a node has it says nothing of who
/// may.
fn asks_registry(view: &State, deployment: &Deployment) -> bool {
    let Origin::Image { reference } = &deployment.origin else {
        return false;
    };
    let mut all = view.push_registries();
    all.any(|registry| registry.is_at(reference))
}

/// All of them: which ones a build declares, the app's own file says, and that is not fetched yet. The
/// node that builds makes what will run with them anyway.
fn build_variables(
    view: &State,
    service: &Service,
    secrets: &Secrets,
) -> Result<Vec<BuildVariable>, Problem> {
    let around = Environment::around(view, secrets, (service, None));
    // What refers to nothing fails the release, which says the way there.
    let resolved = around.resolve(service);
    let all = resolved.as_ref().unwrap_or(&service.variables).iter();
    all.map(|(name, variable)| {
        Ok(BuildVariable {
            name: name.clone(),
            value: secrets.open_variable(service.id, name, variable)?,
            secret: variable.secret,
        })
    })
    .collect()
}

/// What is known before there is a release; the commit the node finds out.
fn build_arguments(
    view: &State,
    service: &Service,
    deployment: &Deployment,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: String| all.insert(name.to_owned(), value);
    set("SKEP_DEPLOYMENT_ID", deployment.id.to_string());
    if let Some(path) = view.path_of(service) {
        set("SKEP_PROJECT", path.project);
        set("SKEP_ENVIRONMENT", path.environment);
        set("SKEP_SERVICE", path.service);
    }
    if let Origin::Git { branch, .. } | Origin::Pushed { branch, .. } = &deployment.origin {
        set("SKEP_GIT_BRANCH", branch.clone());
    }
    if let Some(url) = urls::urls(view, service).into_iter().next() {
        set("SKEP_PUBLIC_URL", url);
    }
    all
}
