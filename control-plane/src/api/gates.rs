//! What holds deployments up: said, shown, and answered. When a gate is open, the leader decides.

use axum::Json;
use axum::http::StatusCode;
use skep_model::gate::Freeze;
use skep_model::problem::{Code, Problem};
use skep_model::settings::{Scope, ScopeSettings};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State as View;

use super::deployments::{DeploymentKey, shown as deployment};
use super::error::Failure;
use super::extract::{Body, Path};
use super::find::{self, ServiceKey};
use super::settings::{EnvironmentKey, WorkspaceKey, environment, workspace};
use super::types::{
    ApproveRequest, DeploymentView, FrozenView, GatesRequest, GatesView, PinRequest, ServiceView,
};
use super::{App, Here, views};
use crate::store::now_ms;

/// Shows what holds deployments of an environment up.
#[utoipa::path(get, path = "/v1/projects/{project}/environments/{environment}/gates",
    tag = "deployments", params(EnvironmentKey), operation_id = "get_environment_gates",
    responses((status = 200, body = GatesView)))]
pub(super) async fn get(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
) -> Result<Json<GatesView>, Failure> {
    let scope = environment(&app, &key)?;
    Ok(Json(shown(&app.store.view(), scope)))
}

/// Changes what holds deployments of an environment up.
#[utoipa::path(patch, path = "/v1/projects/{project}/environments/{environment}/gates",
    tag = "deployments", params(EnvironmentKey), operation_id = "set_environment_gates",
    request_body = GatesRequest, responses((status = 200, body = GatesView)))]
pub(super) async fn patch(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Body(request): Body<GatesRequest>,
) -> Result<Json<GatesView>, Failure> {
    let scope = environment(&app, &key)?;
    set(&app, scope, request).await
}

/// Shows what holds deployments of every environment of a workspace up.
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/gates", tag = "deployments",
    params(WorkspaceKey), operation_id = "get_workspace_gates",
    responses((status = 200, body = GatesView)))]
pub(super) async fn get_workspace(
    Here(app): Here,
    Path(key): Path<WorkspaceKey>,
) -> Result<Json<GatesView>, Failure> {
    let scope = workspace(&app, &key)?;
    Ok(Json(shown(&app.store.view(), scope)))
}

/// Changes what holds deployments of every environment of a workspace up.
#[utoipa::path(patch, path = "/v1/workspaces/{workspace}/gates", tag = "deployments",
    params(WorkspaceKey), operation_id = "set_workspace_gates", request_body = GatesRequest,
    responses((status = 200, body = GatesView)))]
pub(super) async fn patch_workspace(
    Here(app): Here,
    Path(key): Path<WorkspaceKey>,
    Body(request): Body<GatesRequest>,
) -> Result<Json<GatesView>, Failure> {
    let scope = workspace(&app, &key)?;
    set(&app, scope, request).await
}

async fn set(app: &App, scope: Scope, request: GatesRequest) -> Result<Json<GatesView>, Failure> {
    request.put_freeze.as_ref().map_or(Ok(()), Freeze::check)?;
    let command = v1::SetScope {
        scope: Some(scope.into()),
        approval: request.approval,
        put_freeze: request.put_freeze.as_ref().map(Into::into),
        remove_freeze: request.remove_freeze.unwrap_or_default(),
        ..v1::SetScope::default()
    };
    app.store.propose(Kind::SetScope(command)).await?;
    Ok(Json(shown(&app.store.view(), scope)))
}

fn shown(view: &View, scope: Scope) -> GatesView {
    let ScopeSettings { gates: own, .. } = view.settings_of(scope);
    let environment = match scope {
        Scope::Environment(id) => view.environment(id),
        Scope::Workspace(_) => None,
    };
    let project = environment.and_then(|one| view.project(one.project));
    let id = match scope {
        Scope::Workspace(id) => Some(id),
        Scope::Environment(_) => project.map(|project| project.workspace),
    };
    let workspace = id.and_then(|id| view.workspace(id));
    let all = match scope {
        Scope::Environment(id) => view.gates_of(id),
        Scope::Workspace(_) => own.clone(),
    };
    let frozen = all.frozen(now_ms()).map(|(freeze, until_ms)| FrozenView {
        name: freeze.name.clone(),
        until_ms,
    });
    let held = view.services_in(scope).flat_map(|service| {
        let all = view.deployments_of(service.id);
        all.filter(|it| it.held.is_some() && it.status.is_active())
    });
    let mut held: Vec<DeploymentView> = held.map(|it| views::deployment(view, it)).collect();
    held.sort_by_key(|it| (it.created_ms, it.id));
    GatesView {
        workspace: workspace.map_or_else(String::new, |one| one.name.clone()),
        project: project.map(|one| one.name.clone()),
        environment: environment.map(|one| one.name.clone()),
        own,
        workspace_gates: match (scope, id) {
            (Scope::Environment(_), Some(id)) => view.settings_of(Scope::Workspace(id)).gates,
            _ => Default::default(),
        },
        frozen,
        held,
    }
}

/// Says yes to a deployment that waits for that.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/approve", tag = "deployments",
    params(DeploymentKey), operation_id = "approve_deployment", request_body = ApproveRequest,
    responses((status = 200, body = DeploymentView)))]
pub(super) async fn approve(
    Here(app): Here,
    Path(key): Path<DeploymentKey>,
    Body(request): Body<ApproveRequest>,
) -> Result<Json<DeploymentView>, Failure> {
    app.store
        .change(|view| {
            let deployment = find::deployment(view, key.deployment)?;
            if deployment.held.is_none() || !deployment.status.is_active() {
                let status = deployment.status.as_str();
                let text = format!("the deployment is {status}, and waits for nobody's yes");
                return Err(Problem::new(Code::Conflict, text));
            }
            Ok(Kind::ApproveDeployment(v1::ApproveDeployment {
                deployment: id_bytes(deployment.id.as_u128()),
                expected_generation: deployment.generation,
                despite_freeze: request.despite_freeze,
            }))
        })
        .await?;
    Ok(Json(deployment(&app, key.deployment)?))
}

/// Keeps a service as it is: what is new waits. What is live may be restarted, and gone back from.
#[utoipa::path(put,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/pin",
    tag = "deployments", params(ServiceKey), operation_id = "pin_service",
    request_body = PinRequest, responses((status = 200, body = ServiceView)))]
pub(super) async fn pin(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Body(request): Body<PinRequest>,
) -> Result<Json<ServiceView>, Failure> {
    let pin = v1::Pin {
        reason: request.reason,
        since_ms: 0,
    };
    set_pin(&app, &key, Some(pin)).await
}

/// Takes that back: what waits goes on.
#[utoipa::path(delete,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/pin",
    tag = "deployments", params(ServiceKey), operation_id = "unpin_service",
    responses((status = 200, body = ServiceView)))]
pub(super) async fn unpin(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<(StatusCode, Json<ServiceView>), Failure> {
    Ok((StatusCode::OK, set_pin(&app, &key, None).await?))
}

async fn set_pin(
    app: &App,
    key: &ServiceKey,
    pin: Option<v1::Pin>,
) -> Result<Json<ServiceView>, Failure> {
    app.store
        .change(|view| {
            let service = find::service(view, key)?;
            Ok(Kind::PinService(v1::PinService {
                service: id_bytes(service.id.as_u128()),
                pin: pin.clone(),
            }))
        })
        .await?;
    let view = app.store.view();
    let service = find::service(&view, key)?;
    Ok(Json(views::service(&view, &service)))
}
