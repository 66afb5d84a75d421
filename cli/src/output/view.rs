//! The API's views as tables for people.

use skep_control_plane::api::types::{
    AllocationView, DeploymentView, NodeView, ReleaseView, ServerView, ServiceState, ServiceView,
    StatusView, VariableView,
};
use skep_model::allocation::Desired;
use skep_model::deployment::Origin;
use skep_model::node::{Admin, NodeStatus};
use skep_model::spec::{ServiceType, Source};

use super::node;
use super::table::{facts, render};
use super::time::{age, bytes};

/// Longest reason in a table.
const REASON_MAX: usize = 80;
/// What stands where there is nothing.
const NONE: &str = "-";

/// Services, one a line.
pub(crate) fn services(views: &[ServiceView]) -> String {
    let row = |view: &ServiceView| {
        vec![
            view.project.clone(),
            view.environment.clone(),
            view.name.clone(),
            service_state(view.state).to_owned(),
            format!("{}/{}", view.allocations.healthy, view.allocations.wanted),
            view.live
                .map_or(NONE.to_owned(), |target| target.release.to_string()),
            view.urls
                .first()
                .cloned()
                .unwrap_or_else(|| NONE.to_owned()),
        ]
    };
    render(
        &[
            "PROJECT",
            "ENVIRONMENT",
            "SERVICE",
            "STATE",
            "HEALTHY",
            "RELEASE",
            "URL",
        ],
        views.iter().map(row).collect(),
        "no services yet: `skep up` in an app's folder makes one",
    )
}

/// One service in full.
pub(crate) fn service(view: &ServiceView, now_ms: u64) -> String {
    let release = |number: Option<u64>| number.map_or(NONE.to_owned(), |n| n.to_string());
    let spec = &view.spec;
    let counts = view.allocations;
    let mut rows = vec![
        (
            "service",
            format!("{}/{}/{}", view.project, view.environment, view.name),
        ),
        ("state", service_state(view.state).to_owned()),
        ("type", service_type(spec.kind).to_owned()),
        ("runs as", spec.run.mode.as_str().to_owned()),
        (
            "source",
            spec.source
                .as_ref()
                .map_or("uploaded folders".to_owned(), source),
        ),
        ("release", release(view.live.map(|it| it.release))),
        (
            "allocations",
            format!(
                "{} wanted, {} live, {} healthy",
                counts.wanted, counts.live, counts.healthy
            ),
        ),
        (
            "port",
            spec.port
                .map_or("the image's, else 8080".to_owned(), |port| port.to_string()),
        ),
        (
            "needs",
            format!(
                "{}m CPU, {}",
                spec.resources.cpu_millis,
                bytes(spec.resources.memory_bytes)
            ),
        ),
        ("age", age(now_ms, view.created_ms)),
    ];
    if let Some(rollout) = view.rollout {
        rows.push(("rolling out", format!("release {}", rollout.release)));
    }
    if let Some(stack) = &view.stack {
        let file = stack.file.as_deref().unwrap_or("a Compose file");
        let of = &stack.repository;
        let text = format!("{file} of {of}: what it says is in force again at its next push");
        rows.push(("stack", text));
    }
    if let Some(pin) = &view.pinned {
        let since = age(now_ms, pin.since_ms);
        let reason = match pin.reason.is_empty() {
            true => String::new(),
            false => format!(": {}", pin.reason),
        };
        rows.push(("pinned", format!("for {since}{reason}")));
    }
    if let Some(held) = view.held {
        let text = format!(
            "deployment {held}, at the gates: `skep deployments {}`",
            view.name
        );
        rows.push(("waits", text));
    }
    if let Some(problem) = &view.waits {
        rows.push(("waits for", problem.to_string()));
    }
    if let Some(problem) = &view.source_problem {
        let what = match &spec.source {
            Some(Source::Image { .. }) => "registry",
            _ => "repository",
        };
        rows.push((what, problem.to_string()));
    }
    if let Some(asked_ms) = view.source_asked_ms {
        rows.push(("asked", format!("{} ago", age(now_ms, asked_ms))));
    }
    rows.extend(view.urls.iter().map(|url| ("url", url.clone())));
    facts(&rows)
}

/// Allocations, one a line.
pub(crate) fn allocations(views: &[&AllocationView], now_ms: u64) -> String {
    let row = |view: &&AllocationView| {
        let why = view
            .problem
            .as_ref()
            .map_or(String::new(), |problem| cut(&problem.message));
        vec![
            view.id.short(),
            format!("{}/{}/{}", view.project, view.environment, view.service),
            view.release.to_string(),
            match view.desired {
                Desired::Run => view.state.as_str().to_owned(),
                Desired::Drain => format!("{} (draining)", view.state.as_str()),
                Desired::Stop => format!("{} (to stop)", view.state.as_str()),
            },
            at(&view.node, &view.ports),
            view.restarts.to_string(),
            age(now_ms, view.created_ms),
            why,
        ]
    };
    render(
        &[
            "ALLOCATION",
            "SERVICE",
            "RELEASE",
            "STATE",
            "NODE",
            "RESTARTS",
            "AGE",
            "REASON",
        ],
        views.iter().map(row).collect(),
        "nothing runs",
    )
}

/// A node, and the ports of it that reach the allocation.
fn at(node: &str, ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    match ports.is_empty() {
        true => node.to_owned(),
        false => format!("{node}:{}", ports.join(",")),
    }
}

/// Deployments, one a line.
pub(crate) fn deployments(views: &[DeploymentView], now_ms: u64) -> String {
    let row = |view: &DeploymentView| {
        vec![
            view.id.to_string(),
            view.status.as_str().to_owned(),
            view.release
                .map_or(NONE.to_owned(), |number| number.to_string()),
            origin(view),
            age(now_ms, view.created_ms),
            reason(view),
        ]
    };
    render(
        &["DEPLOYMENT", "STATUS", "RELEASE", "FROM", "AGE", "REASON"],
        views.iter().map(row).collect(),
        "never deployed",
    )
}

/// Deployments that wait, one a line.
pub(crate) fn waiting(views: &[DeploymentView], now_ms: u64) -> String {
    let row = |view: &DeploymentView| {
        let of = format!("{}/{}/{}", view.project, view.environment, view.service);
        let why = view.problem.as_ref();
        vec![
            of,
            view.id.to_string(),
            origin(view),
            age(now_ms, view.created_ms),
            why.map_or(String::new(), |problem| cut(&problem.message)),
        ]
    };
    render(
        &["SERVICE", "DEPLOYMENT", "FROM", "AGE", "WAITS FOR"],
        views.iter().map(row).collect(),
        "nothing waits",
    )
}

/// Why it is not live, else why its image is not where it should be, too.
fn reason(view: &DeploymentView) -> String {
    let unpushed = view.push.as_ref().filter(|push| push.digest.is_none());
    let unpushed = unpushed.and_then(|push| push.problem.as_ref());
    match (&view.problem, unpushed) {
        (Some(problem), _) => cut(&problem.message),
        (None, Some(problem)) => cut(&format!("not pushed: {}", problem.message)),
        (None, None) => String::new(),
    }
}

/// Releases, one a line.
pub(crate) fn releases(views: &[ReleaseView], now_ms: u64) -> String {
    let row = |view: &ReleaseView| {
        vec![
            view.number.to_string(),
            if view.live {
                "live".to_owned()
            } else {
                String::new()
            },
            view.image.reference.clone(),
            view.commit.as_deref().map_or(NONE.to_owned(), short_commit),
            age(now_ms, view.created_ms),
        ]
    };
    render(
        &["RELEASE", "", "IMAGE", "COMMIT", "AGE"],
        views.iter().map(row).collect(),
        "no releases yet",
    )
}

/// Servers of the control plane, one a line.
pub(crate) fn servers(views: &[ServerView]) -> String {
    render(
        &[
            "SERVER", "ROLE", "TERM", "APPLIED", "LAG", "DISK", "HEALTH", "VERSION", "API",
        ],
        views.iter().map(crate::commands::server::row).collect(),
        "no servers are known",
    )
}

/// Nodes, one a line.
pub(crate) fn nodes(views: &[NodeView], now_ms: u64) -> String {
    let row = |view: &NodeView| {
        let facts = &view.facts;
        vec![
            view.name.clone(),
            node_state(view),
            age(now_ms, view.status_ms),
            view.allocations.to_string(),
            format!("{}m of {}m", view.cpu_millis_requested, facts.cpu_millis),
            format!(
                "{} of {}",
                bytes(view.memory_bytes_requested),
                node::memory(facts)
            ),
            node::machine(facts),
            facts.docker_version.clone(),
            facts.agent_version.clone(),
        ]
    };
    render(
        &[
            "NODE",
            "STATUS",
            "SINCE",
            "ALLOCATIONS",
            "CPU",
            "MEMORY",
            "MACHINE",
            "DOCKER",
            "AGENT",
        ],
        views.iter().map(row).collect(),
        "no nodes yet: `skep token create` lets one join",
    )
}

/// The cluster in a few lines.
pub(crate) fn status(view: &StatusView) -> String {
    let nodes = view.nodes;
    let leader = match (view.is_leader, view.leader) {
        (true, _) => "this server leads".to_owned(),
        (false, Some(id)) => format!("server {id} leads"),
        (false, None) => "no leader just now".to_owned(),
    };
    let mut rows = vec![
        ("cluster", view.cluster.to_string()),
        ("server", format!("{} ({leader})", view.version)),
        ("nodes", format!("{} ready of {}", nodes.ready, nodes.total)),
        (
            "services",
            format!("{} ({} deploying)", view.services, view.active_deployments),
        ),
    ];
    if !view.history.ok {
        rows.push((
            "history",
            format!("broken: {} rows lost", view.history.dropped),
        ));
    }
    let certificates = view.certificates;
    if certificates.failing + certificates.ending > 0 {
        let (failing, ending) = (certificates.failing, certificates.ending);
        let text = format!("{failing} failing, {ending} near their end: skep certificates ls");
        rows.push(("certificates", text));
    }
    facts(&rows)
}

/// Variables, one a line; secrets stay hidden.
pub(crate) fn variables(views: &[VariableView]) -> String {
    if views.is_empty() {
        return "no variables".to_owned();
    }
    let line = |view: &VariableView| match &view.value {
        Some(value) => format!("{}={value}", view.name),
        None => format!("{}  (secret)", view.name),
    };
    views.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn origin(view: &DeploymentView) -> String {
    match &view.origin {
        Origin::Upload { .. } => "upload".to_owned(),
        Origin::Git { branch, commit, .. } => {
            let commit = view.commit.as_deref().or(commit.as_deref());
            commit.map_or(branch.clone(), |commit| {
                format!("{branch} {}", short_commit(commit))
            })
        }
        Origin::Pushed { branch, commit, .. } => format!("{branch} {}", short_commit(commit)),
        Origin::Image { reference } => cut(reference),
        Origin::Release { number } => format!("release {number}"),
        Origin::Promoted { number, .. } => format!("release {number} of elsewhere"),
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Git {
            repository,
            branch,
            directory,
        } if directory.is_empty() => {
            format!("{repository} ({branch})")
        }
        Source::Git {
            repository,
            branch,
            directory,
        } => {
            format!("{repository} ({branch}, folder {directory})")
        }
        Source::Pushed { branch, directory } if directory.is_empty() => {
            format!("pushed ({branch})")
        }
        Source::Pushed { branch, directory } => format!("pushed ({branch}, folder {directory})"),
        Source::Image { reference } => reference.clone(),
    }
}

fn short_commit(commit: &str) -> String {
    commit.chars().take(10).collect()
}

const fn service_state(state: ServiceState) -> &'static str {
    match state {
        ServiceState::New => "new",
        ServiceState::Deploying => "deploying",
        ServiceState::Healthy => "healthy",
        ServiceState::Degraded => "degraded",
        ServiceState::Down => "down",
        ServiceState::Stopped => "stopped",
        ServiceState::Removing => "removing",
    }
}

const fn service_type(kind: ServiceType) -> &'static str {
    match kind {
        ServiceType::Web => "web",
        ServiceType::Worker => "worker",
    }
}

/// Whether it can be relied on, and what operators want of it.
pub(super) fn node_state(view: &NodeView) -> String {
    let status = match view.fenced {
        Some(_) => "lost, fenced",
        None => node_status(view.status),
    };
    let admin = match view.admin {
        Admin::Eligible => "",
        Admin::Cordoned => ", cordoned",
        Admin::Draining { .. } => ", draining",
    };
    let restoring = match view.restoring.as_ref().map(|it| &it.problem) {
        None => "",
        Some(None) => ", becomes a copy",
        Some(Some(_)) => ", becomes a copy: does not get on",
    };
    format!("{status}{admin}{restoring}")
}

const fn node_status(status: NodeStatus) -> &'static str {
    match status {
        NodeStatus::Ready => "ready",
        NodeStatus::RuntimeDown => "runtime down",
        NodeStatus::RuntimeWedged => "runtime wedged",
        NodeStatus::Lost => "lost",
    }
}

/// The first line, not too long for a table.
pub(crate) fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_a_table() {
        assert_eq!(cut("short\nand more"), "short");
        let long = cut(&"é".repeat(REASON_MAX + 1));
        assert_eq!(long.chars().count(), REASON_MAX + 3);
    }

    #[test]
    fn secrets_are_never_printed() {
        let view = |name: &str, value: Option<&str>| VariableView {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            secret: value.is_none(),
        };
        let text = variables(&[view("A", Some("B=c")), view("KEY", None)]);
        assert_eq!(text, "A=B=c\nKEY  (secret)");
    }
}
