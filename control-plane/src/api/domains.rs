//! Whose hosts are, and what generated names end in: show, and change the latter. Hosts are claimed by
//! services' routes, never here.

use std::sync::Arc;

use axum::Json;
use skep_model::claim::Claim;
use skep_model::id::EnvironmentId;
use skep_model::service::Service;
use skep_model::settings::{Scope, check_base_domain};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State as View;

use super::error::Failure;
use super::extract::{Body, Path};
use super::settings::EnvironmentKey;
use super::types::{BaseDomainRequest, BaseDomainView, DomainRoute, DomainView, DomainsView};
use super::{Here, find};

/// Lists the hosts that projects have beside generated names: whose they are, who answers there, and
/// those that were given up and are not free yet.
#[utoipa::path(get, path = "/v1/domains", tag = "services", operation_id = "list_domains",
    responses((status = 200, body = DomainsView)))]
pub(super) async fn list(Here(app): Here) -> Json<DomainsView> {
    let view = app.store.view();
    let held = view.claims().filter(|claim| !claim.is_free(view.time_ms()));
    let domains = held.map(|claim| shown(&view, claim)).collect();
    Json(DomainsView { domains })
}

fn shown(view: &View, claim: &Claim) -> DomainView {
    let project = view.project(claim.project);
    let workspace = project.and_then(|project| view.workspace(project.workspace));
    let route = |(path, service): (&str, &Arc<Service>)| DomainRoute {
        path: path.to_owned(),
        environment: view
            .environment(service.environment)
            .map_or_else(String::new, |environment| environment.name.clone()),
        service: service.name.clone(),
    };
    DomainView {
        host: claim.host.clone(),
        workspace: workspace.map_or_else(String::new, |one| one.name.clone()),
        project: project.map_or_else(String::new, |one| one.name.clone()),
        routes: view.served_at(&claim.host).map(route).collect(),
        since_ms: claim.since_ms,
        released_ms: claim.released_ms,
        free_ms: claim.free_ms(),
    }
}

/// Says what the generated names of an environment's services end in. They answer at the new names at
/// once, and no longer at the old ones.
#[utoipa::path(put, path = "/v1/projects/{project}/environments/{environment}/base-domain",
    tag = "cluster", params(EnvironmentKey), operation_id = "set_base_domain",
    request_body = BaseDomainRequest, responses((status = 200, body = BaseDomainView)))]
pub(super) async fn put_base(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Body(request): Body<BaseDomainRequest>,
) -> Result<Json<BaseDomainView>, Failure> {
    if let Some(base) = &request.base_domain {
        check_base_domain(base)?;
    }
    let id = find::environment(&app.store.view(), &key.project, &key.environment)?;
    let command = v1::SetBaseDomain {
        environment: id_bytes(id.as_u128()),
        base_domain: request.base_domain,
    };
    app.store.propose(Kind::SetBaseDomain(command)).await?;
    Ok(Json(base(&app.store.view(), id, key)))
}

/// What the generated names of an environment's services end in.
#[utoipa::path(get, path = "/v1/projects/{project}/environments/{environment}/base-domain",
    tag = "cluster", params(EnvironmentKey), operation_id = "get_base_domain",
    responses((status = 200, body = BaseDomainView)))]
pub(super) async fn get_base(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
) -> Result<Json<BaseDomainView>, Failure> {
    let view = app.store.view();
    let id = find::environment(&view, &key.project, &key.environment)?;
    Ok(Json(base(&view, id, key)))
}

fn base(view: &View, id: EnvironmentId, key: EnvironmentKey) -> BaseDomainView {
    let own = view.settings_of(Scope::Environment(id)).base_domain;
    BaseDomainView {
        project: key.project,
        environment: key.environment,
        base_domain: view.base_domain_of(id).to_owned(),
        is_own: own.is_some(),
    }
}
