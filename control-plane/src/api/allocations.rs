//! Allocations, across services.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::Query;
use super::find::ServiceFilter;
use super::types::AllocationsView;
use super::{AppState, views};

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
}

/// Lists allocations, oldest first within a service.
#[utoipa::path(get, path = "/v1/allocations", tag = "services", params(AllocationFilter),
    operation_id = "list_allocations", responses((status = 200, body = AllocationsView)))]
pub(super) async fn list(
    State(app): AppState,
    Query(filter): Query<AllocationFilter>,
) -> Json<AllocationsView> {
    let AllocationFilter {
        project,
        environment,
        service,
        all,
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
    Json(AllocationsView { allocations })
}
