//! The server's numbers for Prometheus: to anybody on loopback, to others with a token.

mod certificates;
mod hosts;
mod notifications;

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use skep_identity::grpc::Peer;
use skep_model::allocation::State as Seen;
use skep_model::node::NodeStatus;
use skep_state::State as View;

use super::access::{Action, authenticate, authorize};
use super::error::Failure;
use super::{App, Here, MAX_STREAMS};

/// The server's metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses((status = 200, body = String)))]
pub(super) async fn metrics(Here(app): Here, request: Request) -> Result<Response, Failure> {
    let view = app.store.view();
    if !is_loopback(&request) {
        let principal = authenticate(&view, request.headers())?;
        authorize(principal, Action::ReadMetrics, "metrics")?;
    }
    let mut response = text(&app, &view).into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// Whether the caller is on this machine; one whose address is not known is not.
fn is_loopback(request: &Request) -> bool {
    let extensions = request.extensions();
    let by_tls = extensions.get::<Peer>().and_then(|peer| peer.address);
    let by_http = extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0);
    by_tls
        .or(by_http)
        .is_some_and(|address| address.ip().is_loopback())
}

/// Writes one metric after the other.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, label: (&str, &str), value: impl Display) {
        let (key, text) = label;
        let _ = writeln!(self.0, "{name}{{{key}=\"{text}\"}} {value}");
    }
}

fn text(app: &App, view: &View) -> String {
    let mut page = Page::default();
    page.head("skep_build_info", "gauge", "Version of this server.");
    page.labelled("skep_build_info", ("version", crate::version()), 1);
    raft(&mut page, app);
    peers(&mut page, app);
    cluster(&mut page, view);
    let history = app.history.health();
    page.one(
        "skep_history_up",
        "gauge",
        "The last write to the history went well.",
        u8::from(history.is_ok),
    );
    page.one(
        "skep_history_failures_total",
        "counter",
        "Writes to the history that failed.",
        history.failures,
    );
    page.one(
        "skep_history_dropped_total",
        "counter",
        "Rows that the history lost.",
        history.dropped,
    );
    page.one(
        "skep_history_copied_total",
        "counter",
        "Entries of audit and timelines copied from other servers' histories.",
        history.copied,
    );
    page.head(
        "skep_history_behind",
        "gauge",
        "Entries that another server's history has and this one has not, when it was last asked.",
    );
    for (server, entries) in app.history.behind() {
        let known = view.servers().find(|known| known.id == server);
        let name = known.map_or_else(|| server.to_string(), |known| known.name.clone());
        page.labelled("skep_history_behind", ("server", &name), entries);
    }
    page.one(
        "skep_agents_connected",
        "gauge",
        "Agents connected to this server.",
        app.fleet.connected(),
    );
    page.one(
        "skep_nodes_witnessed",
        "gauge",
        "Nodes whose death enough others could testify to; 0 where this server does not lead.",
        app.witnesses.witnessed(),
    );
    samples(&mut page, app);
    certificates::certificates(&mut page, view, &app.tally);
    notifications::notifications(&mut page, view);
    hosts::hosts(&mut page, view, &app.promises);
    let streams = MAX_STREAMS - app.streams.available_permits().min(MAX_STREAMS);
    page.one(
        "skep_api_streams",
        "gauge",
        "Log streams that are open.",
        streams,
    );
    page.one(
        "skep_api_streams_max",
        "gauge",
        "Log streams that may be open.",
        MAX_STREAMS,
    );
    page.0
}

/// How samples come through; what they say is asked for at `/v1/samples`: a number for each service and
/// allocation would be too many here.
fn samples(page: &mut Page, app: &App) {
    let numbers = app.samples.metrics();
    page.one(
        "skep_samples_dropped_total",
        "counter",
        "Readings of containers replaced by newer ones before the leader had them.",
        numbers.dropped,
    );
    page.one(
        "skep_samples_refused_total",
        "counter",
        "Readings of what the node has no say in, or of too many things.",
        numbers.refused,
    );
    page.one(
        "skep_samples_relay_lag_seconds",
        "gauge",
        "How long the oldest samples that the leader does not have yet have waited.",
        Duration::from_millis(numbers.lag_ms).as_secs_f64(),
    );
    page.one(
        "skep_samples_nodes",
        "gauge",
        "Nodes of which there are fresh samples here: all at the leader, else this server's.",
        numbers.nodes,
    );
}

fn raft(page: &mut Page, app: &App) {
    let numbers = app.store.consensus().metrics();
    let is_leader = app.store.consensus().leadership().borrow().is_leader;
    page.one(
        "skep_raft_is_leader",
        "gauge",
        "This server leads.",
        u8::from(is_leader),
    );
    page.one("skep_raft_term", "gauge", "Current term.", numbers.term);
    page.one(
        "skep_raft_applied_index",
        "gauge",
        "Index of the last applied entry.",
        numbers.applied_index,
    );
    page.one(
        "skep_raft_commit_index",
        "gauge",
        "Index of the last committed entry.",
        numbers.commit_index,
    );
    page.one(
        "skep_raft_log_entries",
        "gauge",
        "Entries held in memory.",
        numbers.log_entries,
    );
    page.one(
        "skep_raft_fsyncs_total",
        "counter",
        "Durable appends to the log.",
        numbers.fsyncs,
    );
    page.one(
        "skep_raft_proposals_total",
        "counter",
        "Proposals that got a place in the log.",
        numbers.proposals,
    );
    page.one(
        "skep_raft_snapshot_index",
        "gauge",
        "Index of the newest snapshot.",
        numbers.last_snapshot_index,
    );
    page.one(
        "skep_raft_snapshot_failures_total",
        "counter",
        "Snapshots that could not be written.",
        numbers.snapshot_failures,
    );
}

fn peers(page: &mut Page, app: &App) {
    let traffic = app.own.outbox.metrics();
    let counters = [
        (
            "skep_peer_messages_sent_total",
            "Raft messages handed to connections.",
            traffic.sent,
        ),
        (
            "skep_peer_messages_received_total",
            "Raft messages that came in.",
            traffic.received,
        ),
        (
            "skep_peer_messages_dropped_total",
            "Raft messages that their server did not take in time, or at all.",
            traffic.dropped,
        ),
        (
            "skep_peer_broken_streams_total",
            "Streams to other servers that broke.",
            traffic.broken_streams,
        ),
        (
            "skep_peer_snapshots_sent_total",
            "Snapshots that another server has taken in.",
            traffic.snapshots_sent,
        ),
        (
            "skep_peer_snapshots_failed_total",
            "Snapshots that could not be sent.",
            traffic.snapshots_failed,
        ),
    ];
    for (name, help, value) in counters {
        page.one(name, "counter", help, value);
    }
}

/// Pools that make their nodes.
fn node_pools(page: &mut Page, view: &View) {
    let name = "skep_node_pool_wanted";
    page.head(name, "gauge", "Nodes that a pool wants.");
    for pool in view.guest_pools() {
        page.labelled(name, ("pool", &pool.name), pool.size.wanted);
    }
    let name = "skep_node_pool_ready";
    page.head(
        name,
        "gauge",
        "Nodes that a pool has, those that leave not counted.",
    );
    for pool in view.guest_pools() {
        let guests = view.guests_of(&pool.name);
        let ready = guests.filter(|one| one.is_ready() && one.counts()).count();
        page.labelled(name, ("pool", &pool.name), ready);
    }
}

fn cluster(page: &mut Page, view: &View) {
    let mut nodes: BTreeMap<&str, u64> = ["ready", "runtime_down", "runtime_wedged", "lost"]
        .map(|word| (word, 0))
        .into();
    for node in view.nodes() {
        let word = match node.status {
            NodeStatus::Ready => "ready",
            NodeStatus::RuntimeDown => "runtime_down",
            NodeStatus::RuntimeWedged => "runtime_wedged",
            NodeStatus::Lost => "lost",
        };
        *nodes.entry(word).or_default() += 1;
    }
    page.head("skep_nodes", "gauge", "Nodes by status.");
    for (word, count) in nodes {
        page.labelled("skep_nodes", ("status", word), count);
    }
    node_pools(page, view);
    let mut allocations: BTreeMap<&str, u64> = Seen::ALL
        .iter()
        .filter(|state| !state.is_terminal())
        .map(|state| (state.as_str(), 0))
        .collect();
    for allocation in view.allocations().filter(|allocation| allocation.is_live()) {
        *allocations
            .entry(allocation.observed.state.as_str())
            .or_default() += 1;
    }
    page.head(
        "skep_allocations",
        "gauge",
        "Allocations that have not ended, by state.",
    );
    for (word, count) in allocations {
        page.labelled("skep_allocations", ("state", word), count);
    }
    page.one(
        "skep_services",
        "gauge",
        "Services.",
        view.services().count(),
    );
    page.one(
        "skep_deployments_active",
        "gauge",
        "Deployments on their way.",
        view.active_deployments().count(),
    );
}
