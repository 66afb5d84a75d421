//! Logins at registries: list without their secrets, set, take away.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::problem::{Code, Problem};
use skep_model::registry::{RegistryLogin, RegistryShown, check_access, check_host};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use utoipa::IntoParams;

use super::Here;
use super::error::Failure;
use super::extract::{Body, Path};
use super::types::{RegistriesView, RegistryRequest};

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
