//! The cluster: nodes, join tokens, status, the audit trail.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_identity::fingerprint::Fingerprint;
use skep_identity::random;
use skep_identity::token::JoinToken as TokenText;
use skep_model::id::TokenId;
use skep_model::node::{JoinToken, NodeStatus};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Cluster, State as View};
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::types::{
    AuditView, HistoryView, NodeCounts, NodesView, StatusView, TokenRequest, TokenView,
};
use super::{App, AppState, views};
use crate::store::now_ms;

/// Shortest and longest life of a join token, in seconds.
const TTL_S: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3_600;
/// Fewest and most nodes that a join token is good for.
const USES: std::ops::RangeInclusive<u32> = 1..=1_000;
/// Audit entries shown where the caller does not say.
const AUDIT_DEFAULT: u32 = 100;
/// Most audit entries in one answer.
const AUDIT_MAX: u32 = 1_000;

/// The name of a node.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NodeKey {
    /// Its name.
    node: String,
}

/// How much of the audit trail.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditRange {
    /// Entries: 1 to 1,000; 100 where it is left out.
    limit: Option<u32>,
}

fn cluster(view: &View) -> Result<Arc<Cluster>, Problem> {
    view.cluster().cloned().ok_or_else(|| {
        Problem::new(Code::Unavailable, "the cluster is not initialised yet").hint("try again")
    })
}

fn ca_fingerprint(cluster: &Cluster) -> Result<Fingerprint, Problem> {
    let der = CertificateDer::from_pem_slice(cluster.ca_cert_pem.as_bytes());
    der.map(|der| Fingerprint::of_der(&der)).map_err(|_| {
        Problem::new(
            Code::Internal,
            "the cluster's CA certificate cannot be read",
        )
    })
}

/// Lists the nodes.
#[utoipa::path(get, path = "/v1/nodes", tag = "cluster", operation_id = "list_nodes",
    responses((status = 200, body = NodesView)))]
pub(super) async fn list(State(app): AppState) -> Json<NodesView> {
    Json(NodesView {
        nodes: views::nodes(&app.store.view()),
    })
}

/// Removes a node that is not connected; its allocations are replaced elsewhere.
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "cluster", params(NodeKey),
    operation_id = "remove_node", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    State(app): AppState,
    Path(key): Path<NodeKey>,
) -> Result<StatusCode, Failure> {
    let make = |view: &View| {
        let node = view.node_named(&key.node).ok_or_else(|| {
            let shown: String = key.node.chars().take(60).collect();
            Problem::new(
                Code::NotFound,
                format!("there is no node `{}`", shown.escape_debug()),
            )
            .at("node")
            .hint("`skep node ls` lists the nodes")
        })?;
        Ok(Kind::RemoveNode(v1::RemoveNode {
            node: id_bytes(node.id.as_u128()),
        }))
    };
    app.store.change(make).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a join token.
#[utoipa::path(post, path = "/v1/tokens", tag = "cluster", operation_id = "create_token",
    request_body = TokenRequest, responses((status = 201, body = TokenView)))]
pub(super) async fn create_token(
    State(app): AppState,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<TokenView>), Failure> {
    if !TTL_S.contains(&request.ttl_s) {
        let hint = format!("{} to {} seconds", TTL_S.start(), TTL_S.end());
        return Err(Problem::invalid("ttl_s", "out of range").hint(hint).into());
    }
    if !USES.contains(&request.uses) {
        let hint = format!("{} to {}", USES.start(), USES.end());
        return Err(Problem::invalid("uses", "out of range").hint(hint).into());
    }
    let ca = ca_fingerprint(&*cluster(&app.store.view())?)?;
    let text = TokenText::generate(ca, TokenId::from_u128(random::new_id()));
    let token = JoinToken {
        id: text.id,
        secret_hash: text.secret_hash().to_vec(),
        expires_ms: now_ms() + request.ttl_s * 1_000,
        uses_left: request.uses,
    };
    app.store
        .propose(Kind::PutToken(v1::PutToken {
            token: Some((&token).into()),
        }))
        .await?;
    let view = TokenView {
        id: token.id,
        token: text.to_text().to_string(),
        expires_ms: token.expires_ms,
        uses: request.uses,
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// The cluster as this server sees it.
#[utoipa::path(get, path = "/v1/status", tag = "cluster", operation_id = "get_status",
    responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(app): AppState) -> Result<Json<StatusView>, Failure> {
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
    let counted = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(StatusView {
        cluster: cluster.id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        is_leader: leadership.is_leader,
        leader: leadership.leader,
        term: leadership.term,
        index: view.index(),
        nodes: NodeCounts {
            total: counted(view.nodes().count()),
            ready: counted(ready),
            connected: counted(app.fleet.connected()),
        },
        services: counted(view.services().count()),
        active_deployments: counted(view.active_deployments().count()),
        base_domain: cluster.base_domain.clone(),
        ingress_port: views::ingress_port(&view),
        ca_fingerprint: ca_fingerprint(&cluster)?.to_string(),
        history: HistoryView {
            ok: history.is_ok,
            failures: history.failures,
            dropped: history.dropped,
        },
    })
}

/// The newest changes that were asked for, by whom, and how they went.
#[utoipa::path(get, path = "/v1/audit", tag = "cluster", params(AuditRange),
    operation_id = "list_audit", responses((status = 200, body = AuditView)))]
pub(super) async fn audit(
    State(app): AppState,
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
