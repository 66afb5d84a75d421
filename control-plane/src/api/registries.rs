//! Logins at registries: list without their secrets, set, take away; and where the workspace's images are pushed.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::image_push::{PullLogin, PushRegistry};
use skep_model::problem::{Code, Problem};
use skep_model::registry::{RegistryLogin, RegistryShown, check_access, check_host};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path};
use super::types::{
    PushRegistryRequest, PushRegistryView, RegistriesView, RegistryRequest, WaitingPushView,
};
use super::{App, Here, find};
use crate::image_push;
use crate::secrets::PushUse;

/// The host of a registry.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RegistryKey {
    /// As references to images begin, with its port where it has one: `ghcr.io`.
    host: String,
}

/// Lists the registries at which the cluster's nodes log in.
#[utoipa::path(get, path = "/v1/registries", tag = "cluster", operation_id = "list_registries",
    responses((status = 200, body = RegistriesView)))]
pub(super) async fn list(Here(app): Here) -> Json<RegistriesView> {
    let view = app.store.view();
    let registries = view.registries().map(|login| (&**login).into()).collect();
    Json(RegistriesView { registries })
}

/// Says as whom the cluster's nodes pull from a registry. The password is sealed, and never shown.
#[utoipa::path(put, path = "/v1/registries/{host}", tag = "cluster", params(RegistryKey),
    operation_id = "put_registry", request_body = RegistryRequest,
    responses((status = 200, body = RegistryShown)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<RegistryKey>,
    Body(request): Body<RegistryRequest>,
) -> Result<Json<RegistryShown>, Failure> {
    check_host(&key.host)?;
    check_access(&request.user, &request.password)?;
    let login = RegistryLogin {
        password: app.secrets.seal_registry(&key.host, &request.password),
        host: key.host.clone(),
        user: request.user,
        // Set where it is obeyed.
        changed_ms: 0,
    };
    let command = v1::PutRegistry {
        login: Some((&login).into()),
    };
    app.store.propose(Kind::PutRegistry(command)).await?;
    let view = app.store.view();
    let stored = view.registry(&key.host).map(|login| (&**login).into());
    let gone = || Problem::new(Code::NotFound, "the login was removed meanwhile").at("host");
    Ok(Json(stored.ok_or_else(gone)?))
}

/// Takes a login away: nodes pull from that registry as anybody can.
#[utoipa::path(delete, path = "/v1/registries/{host}", tag = "cluster", params(RegistryKey),
    operation_id = "remove_registry", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<RegistryKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::RemoveRegistry { host: key.host };
    app.store.propose(Kind::RemoveRegistry(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows where the workspace's images are pushed, and what is not there yet.
#[utoipa::path(get, path = "/v1/push-registry", tag = "cluster",
    operation_id = "show_push_registry", responses((status = 200, body = PushRegistryView)))]
pub(super) async fn show_push(Here(app): Here) -> Result<Json<PushRegistryView>, Failure> {
    Ok(Json(push_shown(&app.store.view())?))
}

/// Says where the workspace's images are pushed from the next deployment on. Passwords are sealed, and never shown.
#[utoipa::path(put, path = "/v1/push-registry", tag = "cluster",
    operation_id = "put_push_registry", request_body = PushRegistryRequest,
    responses((status = 200, body = PushRegistryView)))]
pub(super) async fn put_push(
    Here(app): Here,
    Body(request): Body<PushRegistryRequest>,
) -> Result<Json<PushRegistryView>, Failure> {
    let registry = push_registry(&app, request)?;
    let command = v1::PutPushRegistry {
        registry: Some((&registry).into()),
    };
    app.store.propose(Kind::PutPushRegistry(command)).await?;
    Ok(Json(push_shown(&app.store.view())?))
}

fn push_registry(app: &App, request: PushRegistryRequest) -> Result<PushRegistry, Problem> {
    check_access(&request.user, &request.password)?;
    let host = request.host;
    let workspace = find::workspace(&app.store.view())?;
    let seal = |of: PushUse, text: &str| app.secrets.seal_push(of, (workspace, &host), text);
    let pull = match &request.pull {
        None => None,
        Some(login) => {
            check_access(&login.user, &login.password).map_err(|problem| problem.at("pull"))?;
            Some(PullLogin {
                user: login.user.clone(),
                password: seal(PushUse::Pull, &login.password),
            })
        }
    };
    let registry = PushRegistry {
        workspace,
        password: seal(PushUse::Push, &request.password),
        prefix: request.prefix,
        user: request.user,
        pull,
        bucket: request.bucket,
        required: request.required,
        // Set where it is obeyed.
        made_ms: 0,
        changed_ms: 0,
        host,
    };
    registry.check()?;
    Ok(registry)
}

/// Pushes the workspace's images nowhere from now on; what is at the registry stays there.
#[utoipa::path(delete, path = "/v1/push-registry", tag = "cluster",
    operation_id = "remove_push_registry",
    responses((status = 204, description = "Images are pushed nowhere")))]
pub(super) async fn remove_push(Here(app): Here) -> Result<StatusCode, Failure> {
    let workspace = find::workspace(&app.store.view())?;
    let command = v1::RemovePushRegistry {
        workspace: id_bytes(workspace.as_u128()),
    };
    app.store.propose(Kind::RemovePushRegistry(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn push_shown(view: &State) -> Result<PushRegistryView, Problem> {
    let workspace = find::workspace(view)?;
    let all = view.services().flat_map(|it| image_push::work(view, it.id));
    let waiting = all.filter(|work| work.registry.workspace == workspace);
    let waiting = waiting.map(|work| {
        let push = work.deployment.push.as_ref();
        let service = view.service(work.deployment.service);
        let path = service.and_then(|service| view.path_of(service));
        WaitingPushView {
            deployment: work.deployment.id,
            service: path.map_or_else(String::new, |path| {
                format!("{}/{}/{}", path.project, path.environment, path.service)
            }),
            reference: work.reference(),
            problem: push.and_then(|push| push.problem.clone()),
            attempts: push.map_or(0, |push| push.attempts),
        }
    });
    Ok(PushRegistryView {
        registry: view.push_registry(workspace).map(|it| (&**it).into()),
        waiting: waiting.collect(),
    })
}
