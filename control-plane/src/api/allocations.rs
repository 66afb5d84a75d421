//! Allocations, across services; and what is in quarantine.

use axum::Json;
use serde::Deserialize;
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Path, Query};
use super::find::ServiceFilter;
use super::types::{AllocationsView, QuarantinedView};
use super::{App, Here, views};

/// Which allocations.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct AllocationFilter {
    /// Name of a project.
    project: Option<String>,
    /// Name of an environment.
    environment: Option<String>,
    /// Name of a service.
    service: Option<String>,
    /// Those that have ended and are still remembered, too.
    all: bool,
    /// What is in quarantine, too, of all services: the cluster may not know theirs.
    quarantine: bool,
}

/// Lists allocations, oldest first within a service.
#[utoipa::path(get, path = "/v1/allocations", tag = "services", params(AllocationFilter),
    operation_id = "list_allocations", responses((status = 200, body = AllocationsView)))]
pub(super) async fn list(
    Here(app): Here,
    Query(filter): Query<AllocationFilter>,
) -> Json<AllocationsView> {
    let AllocationFilter {
        project,
        environment,
        service,
        all,
        quarantine,
    } = filter;
    let view = app.store.view();
    let services = ServiceFilter {
        project,
        environment,
        service,
    }
    .matching(&view);
    let allocations = services
        .iter()
        .flat_map(|service| view.allocations_of(service.id))
        .filter(|allocation| all || allocation.is_live())
        .map(|allocation| views::allocation(&view, allocation))
        .collect();
    let quarantined = view.quarantine();
    let quarantined = quarantined.map(|entry| views::quarantined(&view, entry));
    Json(AllocationsView {
        allocations,
        quarantine: quarantine.then(|| quarantined.collect()),
    })
}

/// The id of an allocation.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AllocationKey {
    /// Its id.
    #[param(value_type = String)]
    allocation: AllocationId,
}

/// Takes what is in quarantine into the cluster: it counts and is routed again. Its service and release
/// must exist.
#[utoipa::path(post, path = "/v1/allocations/{allocation}/adopt", tag = "services",
    params(AllocationKey), operation_id = "adopt_allocation",
    responses((status = 200, body = QuarantinedView)))]
pub(super) async fn adopt(
    Here(app): Here,
    Path(key): Path<AllocationKey>,
) -> Result<Json<QuarantinedView>, Failure> {
    settle(&app, key.allocation, true).await
}

/// Ends what is in quarantine: its node stops and removes it.
#[utoipa::path(post, path = "/v1/allocations/{allocation}/dismiss", tag = "services",
    params(AllocationKey), operation_id = "dismiss_allocation",
    responses((status = 200, body = QuarantinedView)))]
pub(super) async fn dismiss(
    Here(app): Here,
    Path(key): Path<AllocationKey>,
) -> Result<Json<QuarantinedView>, Failure> {
    settle(&app, key.allocation, false).await
}

async fn settle(
    app: &App,
    id: AllocationId,
    adopt: bool,
) -> Result<Json<QuarantinedView>, Failure> {
    let view = app.store.view();
    let entry = view.quarantine().find(|entry| entry.allocation == id);
    let entry = entry.ok_or_else(|| {
        Problem::new(Code::NotFound, format!("{id} is not in quarantine"))
            .at("allocation")
            .hint("`skep alloc ls --quarantine` lists what is")
    })?;
    let command = v1::SettleQuarantine {
        node: id_bytes(entry.node.as_u128()),
        allocation: id_bytes(id.as_u128()),
        adopt,
    };
    app.store.propose(Kind::SettleQuarantine(command)).await?;
    Ok(Json(views::quarantined(&view, entry)))
}
