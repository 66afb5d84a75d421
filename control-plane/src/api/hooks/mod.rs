//! Webhooks: a signed delivery of a forge becomes a deployment, once. Public, because the signature
//! over the raw bytes is the proof; nothing of a body is looked at before it holds. What a delivery
//! says is `skep-forge`'s, what it means for a service `crate::hooks`'.

mod changes;
mod delivery;
mod github;
mod repository;
mod stacks;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use skep_forge::{Refusal, signing_key};
use skep_identity::random;
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Path, Query};
use super::find::{self, ServiceKey};
use super::services::modify;
use super::types::{HookReply, WebhookView};
use super::{App, Here};
use delivery::{Meant, answer, believed, is_forced, refused};

pub use delivery::MAX_HOOK_BYTES;
// By their own names: what documents them is beside them.
pub(super) use github::*;
pub(super) use repository::*;

/// Bytes of a webhook secret.
const SECRET_BYTES: usize = 32;
/// The service that a webhook belongs to.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct HookKey {
    /// Id of the service.
    #[param(value_type = String)]
    service: ServiceId,
}

/// How a delivery is to be taken.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HookQuery {
    /// `1`: deployed though it was taken before; needs the administrator's token, too.
    #[serde(default)]
    force: Option<String>,
}

/// Takes a delivery of Forgejo, Gitea, Gogs, GitHub, GitLab, Bitbucket or a script: by its headers it is known
/// whose it is, and by its signature or token that it is meant. A push of the service's branch makes a
/// deployment; the same delivery again, or another of the same commit, answers with that one.
#[utoipa::path(post, path = "/v1/hooks/{service}", tag = "webhooks", params(HookKey, HookQuery),
    operation_id = "receive_hook",
    request_body(content = serde_json::Value, content_type = "application/json"),
    responses((status = 200, body = HookReply, description = "Nothing to do, or done before"),
        (status = 202, body = HookReply, description = "A deployment was made")))]
pub(super) async fn receive(
    Here(app): Here,
    Path(key): Path<HookKey>,
    Query(query): Query<HookQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<HookReply>), Failure> {
    let known = app.store.view().service(key.service).cloned();
    // A replica that is behind has not heard of a service that was made a moment ago elsewhere.
    let service = match known {
        Some(service) => Some(service),
        None => app.store.read().await?.service(key.service).cloned(),
    };
    let service = service.ok_or_else(|| {
        Problem::new(Code::NotFound, "there is no such webhook")
            .hint("`skep webhook show` prints the URL of a service's webhook")
    })?;
    let secret = secret_of(&app, &service)?;
    let resource = format!("hooks/{}", service.id);
    let meant = Meant {
        is_forced: is_forced(&app, &query, &headers, &resource)?,
        is_shared: false,
        services: std::slice::from_ref(&service),
    };
    let delivery = believed(&app, &headers, body, secret).await?;
    Ok(answer(&app, &resource, meant, &delivery).await?)
}

fn secret_of(app: &App, service: &Service) -> Result<String, Problem> {
    let sealed = service.webhook_secret.as_ref();
    let sealed = sealed.ok_or_else(|| refused(Refusal::NoSecret.to_string()))?;
    app.secrets.open_webhook(service.id, sealed)
}

fn shown(service: &Service, secret: Option<String>) -> WebhookView {
    WebhookView {
        path: format!("/v1/hooks/{}", service.id),
        has_secret: service.webhook_secret.is_some(),
        signing_key: secret.as_deref().and_then(signing_key),
        secret,
    }
}

/// Shows where a service's webhook is. Its secret is never shown again.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/webhook",
    tag = "webhooks", params(ServiceKey), operation_id = "get_webhook",
    responses((status = 200, body = WebhookView)))]
pub(super) async fn show(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<Json<WebhookView>, Failure> {
    let service = find::service(&app.store.view(), &key)?;
    Ok(Json(shown(&service, None)))
}

/// Makes a new secret for a service's webhook and shows it once; an older one is void at once.
#[utoipa::path(post,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/webhook",
    tag = "webhooks", params(ServiceKey), operation_id = "rotate_webhook",
    responses((status = 200, body = WebhookView)))]
pub(super) async fn rotate(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<Json<WebhookView>, Failure> {
    let secret = random::hex(SECRET_BYTES);
    modify(&app, &key, |service| {
        service.webhook_secret = Some(app.secrets.seal_webhook(service.id, &secret));
        Ok(true)
    })
    .await?;
    let service = find::service(&app.store.view(), &key)?;
    Ok(Json(shown(&service, Some(secret))))
}
