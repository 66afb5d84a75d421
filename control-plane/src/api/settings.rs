//! Settings of workspaces, environments and pools: show and change. What they mean for what runs, the
//! scheduler says.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::problem::{Code, Problem};
use skep_model::settings::{Pool, Quota, Scope, ScopeSettings};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::set_scope::Relaxed;
use skep_state::State as View;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path};
use super::types::{PoolRequest, PoolsView, QuotaView, QuotasView, RelaxedRequest, UsedView};
use super::{App, Here, find};
use crate::placement::allowance;

/// The name of a workspace.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct WorkspaceKey {
    /// Its name.
    pub(super) workspace: String,
}

/// The names that lead to an environment.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct EnvironmentKey {
    /// Name of the project.
    pub(super) project: String,
    /// Name of the environment.
    pub(super) environment: String,
}

/// The name of a pool.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PoolKey {
    /// Its name; `default`: what holds for nodes whose pool has no policy of its own.
    pool: String,
}

/// Lists the workspaces and those environments of which something is said: what they may have, and have.
#[utoipa::path(get, path = "/v1/quotas", tag = "cluster", operation_id = "list_quotas",
    responses((status = 200, body = QuotasView)))]
pub(super) async fn quotas(Here(app): Here) -> Json<QuotasView> {
    let view = app.store.view();
    let workspaces = view.workspaces().map(|one| Scope::Workspace(one.id));
    let environments = view
        .scopes()
        .map(|(scope, _)| scope)
        .filter(|scope| matches!(scope, Scope::Environment(_)));
    let mut quotas: Vec<QuotaView> = workspaces
        .chain(environments)
        .map(|scope| shown(&view, scope))
        .collect();
    quotas.sort_by(|a, b| {
        let key = |one: &QuotaView| {
            (
                one.workspace.clone(),
                one.project.clone(),
                one.environment.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    Json(QuotasView { quotas })
}

/// Says what the services of an environment may request together; what is left out has no limit.
#[utoipa::path(put, path = "/v1/projects/{project}/environments/{environment}/quota",
    tag = "cluster", params(EnvironmentKey), operation_id = "set_environment_quota",
    request_body = Quota, responses((status = 200, body = QuotaView)))]
pub(super) async fn put_quota(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Body(quota): Body<Quota>,
) -> Result<Json<QuotaView>, Failure> {
    let scope = environment(&app, &key)?;
    set(&app, scope, Some(quota), None).await
}

/// Says what the services of a workspace may request together; what is left out has no limit.
#[utoipa::path(put, path = "/v1/workspaces/{workspace}/quota", tag = "cluster",
    params(WorkspaceKey), operation_id = "set_workspace_quota", request_body = Quota,
    responses((status = 200, body = QuotaView)))]
pub(super) async fn put_workspace_quota(
    Here(app): Here,
    Path(key): Path<WorkspaceKey>,
    Body(quota): Body<Quota>,
) -> Result<Json<QuotaView>, Failure> {
    let scope = workspace(&app, &key)?;
    set(&app, scope, Some(quota), None).await
}

/// Says whether constraints of an environment's services on node metadata are preferences.
#[utoipa::path(put, path = "/v1/projects/{project}/environments/{environment}/relaxed",
    tag = "cluster", params(EnvironmentKey), operation_id = "set_environment_relaxed",
    request_body = RelaxedRequest, responses((status = 200, body = QuotaView)))]
pub(super) async fn put_relaxed(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Body(request): Body<RelaxedRequest>,
) -> Result<Json<QuotaView>, Failure> {
    let scope = environment(&app, &key)?;
    set(&app, scope, None, Some(request)).await
}

/// Says the same for every environment of a workspace that does not say it.
#[utoipa::path(put, path = "/v1/workspaces/{workspace}/relaxed", tag = "cluster",
    params(WorkspaceKey), operation_id = "set_workspace_relaxed", request_body = RelaxedRequest,
    responses((status = 200, body = QuotaView)))]
pub(super) async fn put_workspace_relaxed(
    Here(app): Here,
    Path(key): Path<WorkspaceKey>,
    Body(request): Body<RelaxedRequest>,
) -> Result<Json<QuotaView>, Failure> {
    let scope = workspace(&app, &key)?;
    set(&app, scope, None, Some(request)).await
}

pub(super) fn environment(app: &App, key: &EnvironmentKey) -> Result<Scope, Problem> {
    let view = app.store.view();
    find::environment(&view, &key.project, &key.environment).map(Scope::Environment)
}

pub(super) fn workspace(app: &App, key: &WorkspaceKey) -> Result<Scope, Problem> {
    find::workspace_named(&app.store.view(), &key.workspace).map(Scope::Workspace)
}

async fn set(
    app: &App,
    scope: Scope,
    quota: Option<Quota>,
    relaxed: Option<RelaxedRequest>,
) -> Result<Json<QuotaView>, Failure> {
    let relaxed = relaxed.map(|request| match request.relaxed {
        None => Relaxed::Inherited(true),
        Some(relaxed) => Relaxed::Said(relaxed),
    });
    let command = v1::SetScope {
        scope: Some(scope.into()),
        quota: quota.as_ref().map(Into::into),
        relaxed,
        ..v1::SetScope::default()
    };
    app.store.propose(Kind::SetScope(command)).await?;
    Ok(Json(shown(&app.store.view(), scope)))
}

fn shown(view: &View, scope: Scope) -> QuotaView {
    let allowance = allowance(view, scope);
    let ScopeSettings { quota, relaxed, .. } = view.settings_of(scope);
    let (workspace, below) = match scope {
        Scope::Workspace(id) => (Some(id), None),
        Scope::Environment(id) => {
            let environment = view.environment(id);
            let project = environment.and_then(|one| view.project(one.project));
            let names = project.zip(environment);
            (
                project.map(|project| project.workspace),
                names.map(|(project, one)| (project.name.clone(), one.name.clone())),
            )
        }
    };
    let workspace = workspace.and_then(|id| view.workspace(id));
    let (project, environment) = below.unzip();
    QuotaView {
        workspace: workspace.map_or_else(String::new, |one| one.name.clone()),
        project,
        environment,
        quota,
        used: UsedView {
            cpu_millis: allowance.used.cpu_millis,
            memory_bytes: allowance.used.memory_bytes,
            disk_bytes: allowance.used.disk_bytes,
            allocations: allowance.allocations,
        },
        relaxed,
    }
}

/// Lists the pools that have a policy.
#[utoipa::path(get, path = "/v1/pools", tag = "cluster", operation_id = "list_pools",
    responses((status = 200, body = PoolsView)))]
pub(super) async fn pools(Here(app): Here) -> Json<PoolsView> {
    let view = app.store.view();
    let pools = view.pools().map(|pool| (**pool).clone()).collect();
    Json(PoolsView { pools })
}

/// Says how the nodes of a pool are filled and what they have in common; what is left out is as by
/// default. What runs stays where it is.
#[utoipa::path(put, path = "/v1/pools/{pool}", tag = "cluster", params(PoolKey),
    operation_id = "put_pool", request_body = PoolRequest,
    responses((status = 200, body = Pool)))]
pub(super) async fn put_pool(
    Here(app): Here,
    Path(key): Path<PoolKey>,
    Body(request): Body<PoolRequest>,
) -> Result<Json<Pool>, Failure> {
    let pool = Pool {
        name: key.pool,
        policy: request.policy,
        meta: request.meta,
    };
    pool.check()?;
    let command = v1::PutPool {
        pool: Some((&pool).into()),
    };
    app.store.propose(Kind::PutPool(command)).await?;
    let view = app.store.view();
    let stored = view.pool(&pool.name).map(|pool| (**pool).clone());
    let gone = || Problem::new(Code::NotFound, "the pool was removed meanwhile").at("pool");
    Ok(Json(stored.ok_or_else(gone)?))
}

/// Takes a pool's policy away: its nodes are filled as by default again.
#[utoipa::path(delete, path = "/v1/pools/{pool}", tag = "cluster", params(PoolKey),
    operation_id = "remove_pool", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove_pool(
    Here(app): Here,
    Path(key): Path<PoolKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::RemovePool { name: key.pool };
    app.store.propose(Kind::RemovePool(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}
