//! The cluster: nodes, status, the audit trail.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::node::{Node, NodeStatus};
use skep_model::pool::Phase;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State as View;
use std::sync::Arc;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::tokens::cluster;
use super::types::{
    AdminRequest, AdminState, AuditView, CertificateCounts, HistoryView, MetaRequest, MetaView,
    NodeCounts, NodeView, NodesView, StatusView,
};
use super::{App, Here, views};
use crate::guests::keeps_volumes;
use crate::pki::ca_fingerprint;
use crate::store::now_ms;

/// Audit entries shown where the caller does not say.
const AUDIT_DEFAULT: u32 = 100;
/// How long a drain may take where the caller does not say: what cannot move by then is stopped.
const DRAIN_MS: u64 = 3_600_000;
/// Longest drain: a forgotten one should end some day.
const DRAIN_MAX_MS: u64 = 30 * 86_400_000;
/// Most audit entries in one answer.
const AUDIT_MAX: u32 = 1_000;

/// The name or id of a node.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NodeKey {
    /// Its name or id.
    pub(super) node: String,
}

/// How much of the audit trail.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditRange {
    /// Entries: 1 to 1,000; 100 where it is left out.
    limit: Option<u32>,
}

pub(super) fn find_node(view: &View, key: &str) -> Result<Arc<Node>, Problem> {
    let by_id = || view.node(key.parse().ok()?);
    view.node_named(key).or_else(by_id).cloned().ok_or_else(|| {
        let shown: String = key.chars().take(60).collect();
        let message = format!("there is no node `{}`", shown.escape_debug());
        Problem::new(Code::NotFound, message)
            .at("node")
            .hint("`skep node ls` lists the nodes")
    })
}

/// Lists the nodes.
#[utoipa::path(get, path = "/v1/nodes", tag = "cluster", operation_id = "list_nodes",
    responses((status = 200, body = NodesView)))]
pub(super) async fn list(Here(app): Here) -> Json<NodesView> {
    Json(NodesView {
        nodes: views::nodes(&app.store.view()),
    })
}

/// What may be lost with a node.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    /// Also the volumes of services that there are: they begin anew elsewhere, with empty ones.
    #[serde(default)]
    lose_volumes: bool,
}

/// Removes a node that is not connected; its allocations are replaced elsewhere. Refused while it has
/// volumes of services that there are, unless they may be lost.
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "cluster", params(NodeKey, RemoveQuery),
    operation_id = "remove_node", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<NodeKey>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, Failure> {
    let make = |view: &View| {
        let node = find_node(view, &key.node)?;
        if !query.lose_volumes {
            keeps_volumes(view, &node)?;
        }
        if let Some(one) = view
            .guest_of(node.id)
            .filter(|it| it.guest.phase < Phase::Gone)
        {
            let text = format!(
                "node `{}` runs in a guest of the pool `{}`",
                node.name, one.pool
            );
            return Err(Problem::new(Code::Conflict, text).at("node").hint(
                "`skep node remove` drains it and removes it with its guest (POST .../retire)",
            ));
        }
        Ok(Kind::RemoveNode(v1::RemoveNode {
            node: id_bytes(node.id.as_u128()),
        }))
    };
    app.store.change(make).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets and removes keys of a node's metadata: what placement can ask for.
#[utoipa::path(put, path = "/v1/nodes/{node}/meta", tag = "cluster", params(NodeKey),
    operation_id = "set_node_meta", request_body = MetaRequest,
    responses((status = 200, body = MetaView)))]
pub(super) async fn put_meta(
    Here(app): Here,
    Path(key): Path<NodeKey>,
    Body(request): Body<MetaRequest>,
) -> Result<Json<MetaView>, Failure> {
    let node = find_node(&app.store.view(), &key.node)?.id;
    let command = v1::SetNodeMeta {
        node: id_bytes(node.as_u128()),
        set: request.set,
        unset: request.unset,
    };
    app.store.propose(Kind::SetNodeMeta(command)).await?;
    let view = app.store.view();
    let meta = view.node(node).map(|node| node.all_meta());
    Ok(Json(MetaView {
        meta: meta.unwrap_or_default(),
    }))
}

/// Cordons a node, drains it, or takes it back.
#[utoipa::path(put, path = "/v1/nodes/{node}/admin", tag = "cluster", params(NodeKey),
    operation_id = "set_node_admin", request_body = AdminRequest,
    responses((status = 200, body = NodeView)))]
pub(super) async fn put_admin(
    Here(app): Here,
    Path(key): Path<NodeKey>,
    Body(request): Body<AdminRequest>,
) -> Result<Json<NodeView>, Failure> {
    let drain_deadline_ms = match (request.state, request.deadline_ms) {
        (AdminState::Draining, given) => Some(now_ms() + drain_span(given)?),
        (_, Some(_)) => {
            let text = "only what is drained has a deadline";
            return Err(Problem::invalid("deadline_ms", text)
                .hint("leave it out, or say `draining`")
                .into());
        }
        _ => None,
    };
    let node = find_node(&app.store.view(), &key.node)?.id;
    let command = v1::SetNodeAdmin {
        node: id_bytes(node.as_u128()),
        cordoned: request.state != AdminState::Eligible,
        drain_deadline_ms,
    };
    app.store.propose(Kind::SetNodeAdmin(command)).await?;
    let view = app.store.view();
    let node = view
        .node(node)
        .ok_or_else(|| Problem::new(Code::NotFound, "the node was removed meanwhile").at("node"))?;
    Ok(Json(views::node(&view, node)))
}

pub(super) fn drain_span(given: Option<u64>) -> Result<u64, Problem> {
    let span = given.unwrap_or(DRAIN_MS);
    if span > DRAIN_MAX_MS {
        let text = format!("{span} ms is too long");
        return Err(Problem::invalid("deadline_ms", text).hint("0 to 2592000000 (30 days)"));
    }
    Ok(span)
}

/// The cluster as this server sees it.
#[utoipa::path(get, path = "/v1/status", tag = "cluster", operation_id = "get_status",
    responses((status = 200, body = StatusView)))]
pub(super) async fn status(Here(app): Here) -> Result<Json<StatusView>, Failure> {
    Ok(Json(status_view(&app)?))
}

fn status_view(app: &App) -> Result<StatusView, Problem> {
    let view = app.store.view();
    let cluster = cluster(&view)?;
    let leadership = *app.store.consensus().leadership().borrow();
    let history = app.history.health();
    let ready = view
        .nodes()
        .filter(|node| node.status == NodeStatus::Ready)
        .count();
    let connected = view
        .nodes()
        .filter(|node| app.fleet.place_of(node.id).is_some())
        .count();
    let counted = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(StatusView {
        cluster: cluster.id,
        version: crate::version().to_owned(),
        is_leader: leadership.is_leader,
        leader: leadership.leader,
        term: leadership.term,
        index: view.index(),
        nodes: NodeCounts {
            total: counted(view.nodes().count()),
            ready: counted(ready),
            connected: counted(connected),
        },
        services: counted(view.services().count()),
        active_deployments: counted(
            view.active_deployments()
                .filter(|deployment| deployment.held.is_none())
                .count(),
        ),
        base_domain: cluster.base_domain.clone(),
        ingress_port: views::ingress_port(&view),
        ca_fingerprint: ca_fingerprint(&cluster)?.to_string(),
        history: HistoryView {
            ok: history.is_ok,
            failures: history.failures,
            dropped: history.dropped,
        },
        certificates: certificate_counts(&view),
    })
}

pub(super) fn certificate_counts(view: &View) -> CertificateCounts {
    let now_ms = now_ms();
    let mut counts = CertificateCounts::default();
    for it in view.certificates() {
        counts.held += u32::from(it.material.is_some());
        counts.failing += u32::from(it.failures > 0);
        counts.ending += u32::from(it.is_ending(now_ms));
    }
    counts
}

/// The newest changes that were asked for, by whom, and how they went.
#[utoipa::path(get, path = "/v1/audit", tag = "cluster", params(AuditRange),
    operation_id = "list_audit", responses((status = 200, body = AuditView)))]
pub(super) async fn audit(
    Here(app): Here,
    Query(range): Query<AuditRange>,
) -> Result<Json<AuditView>, Failure> {
    let limit = range.limit.unwrap_or(AUDIT_DEFAULT).clamp(1, AUDIT_MAX);
    let entries = app.history.audit_entries(limit).await;
    let entries = entries.map_err(|error| unavailable(&error))?;
    Ok(Json(AuditView { entries }))
}

/// A history that does not answer, as a problem.
pub(super) fn unavailable(error: &crate::history::Error) -> Problem {
    Problem::new(Code::Unavailable, error.to_string())
        .hint("the cluster works on without its history; the server's log says what is wrong")
}
