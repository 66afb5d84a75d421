//! Webhooks: a signed push from a forge becomes a deployment, once. Public, because the signature
//! over the raw bytes is the proof; nothing of a body is looked at before it holds.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use skep_identity::{digest, random};
use skep_model::deployment::{Origin, Trigger};
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::spec::Source;
use skep_state::Reply;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{self, Path};
use super::find::{self, ServiceKey};
use super::services::modify;
use super::types::{HookReply, WebhookView};
use super::{App, Here, deploy};
use crate::history::AuditEntry;
use crate::store::now_ms;

/// Largest delivery: GitHub's own limit.
pub const MAX_HOOK_BYTES: usize = 25 << 20;
/// Longest delivery id.
const MAX_DELIVERY_ID: usize = 200;
/// Bytes of a webhook secret.
const SECRET_BYTES: usize = 32;
const SIGNATURE: &str = "x-hub-signature-256";
const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";

/// The service that a webhook belongs to.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct HookKey {
    /// Id of the service.
    #[param(value_type = String)]
    service: ServiceId,
}

/// The part of a push that matters.
#[derive(Debug, Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    #[serde(default)]
    after: String,
    #[serde(default)]
    deleted: bool,
}

/// What a delivery asks for.
enum Wanted {
    Ignore(String),
    Deploy(Origin),
}

/// Takes a delivery in GitHub's format: `X-Hub-Signature-256` over the raw body, `X-GitHub-Event`,
/// `X-GitHub-Delivery`. A push to the service's branch makes a deployment; the same delivery again
/// answers with that one.
#[utoipa::path(post, path = "/v1/hooks/{service}", tag = "webhooks", params(HookKey),
    operation_id = "receive_hook",
    request_body(content = serde_json::Value, content_type = "application/json"),
    responses((status = 200, body = HookReply, description = "Nothing to do, or done before"),
        (status = 202, body = HookReply, description = "A deployment was made")))]
pub(super) async fn receive(
    Here(app): Here,
    Path(key): Path<HookKey>,
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
    let tag = signature(&headers)?;
    let place = Arc::clone(&app.hooks).try_acquire_owned();
    let _place = place.map_err(|_| Problem::new(Code::Busy, "too many deliveries at once"))?;
    let bytes = extract::read(body, MAX_HOOK_BYTES).await?;
    if !digest::hmac_sha256_verify(secret.as_bytes(), &bytes, &tag) {
        return Err(refused("the signature does not match the body").into());
    }
    let reply = match text(&headers, EVENT)? {
        "ping" => HookReply {
            pong: true,
            ..HookReply::default()
        },
        "push" => match judge(&service, &bytes)? {
            Wanted::Ignore(reason) => ignored(reason),
            Wanted::Deploy(origin) => {
                let reply = deploy_push(&app, service.id, origin, delivery(&headers)?).await;
                audit(&app, service.id, reply.as_ref().err());
                reply?
            }
        },
        other => ignored(format!("nothing is done about `{}`", shorten(other))),
    };
    let is_new = reply.deployment.is_some() && !reply.replayed;
    let status = if is_new {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(reply)))
}

fn refused(text: &str) -> Problem {
    Problem::new(Code::Unauthenticated, text)
        .hint("enter the secret that `skep webhook rotate` prints at the forge, and choose application/json")
}

fn secret_of(app: &App, service: &Service) -> Result<String, Problem> {
    let sealed = service.webhook_secret.as_ref();
    let sealed = sealed
        .ok_or_else(|| refused("this webhook has no secret yet: every delivery is refused"))?;
    app.secrets.open_webhook(service.id, sealed)
}

/// The signature that was sent. Forges without a secret send an empty one: that proves nothing.
fn signature(headers: &HeaderMap) -> Result<Vec<u8>, Problem> {
    let header = headers.get(SIGNATURE).ok_or_else(|| {
        refused("the delivery is not signed: the header X-Hub-Signature-256 is missing")
    })?;
    let digits = header
        .to_str()
        .ok()
        .and_then(|text| text.trim().strip_prefix("sha256="));
    let digits = digits.ok_or_else(|| refused("X-Hub-Signature-256 is not sha256=<hex>"))?;
    if digits.is_empty() {
        return Err(refused(
            "the signature is empty: the forge has no secret for this webhook",
        ));
    }
    let tag = hex::decode(digits).ok().filter(|tag| tag.len() == 32);
    tag.ok_or_else(|| refused("X-Hub-Signature-256 is not sha256= and 64 hex digits"))
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Problem> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty())
        .ok_or_else(|| {
            Problem::invalid(name, "the header is missing or not text").hint(
                "deliveries in GitHub's format are accepted: GitHub, Gitea and Forgejo send them",
            )
        })
}

fn delivery(headers: &HeaderMap) -> Result<&str, Problem> {
    let id = text(headers, DELIVERY)?;
    let is_sound = id.len() <= MAX_DELIVERY_ID && id.bytes().all(|b| b.is_ascii_graphic());
    if is_sound {
        return Ok(id);
    }
    Err(Problem::invalid(DELIVERY, "not a delivery id").hint("up to 200 printable characters"))
}

fn shorten(text: &str) -> String {
    text.chars()
        .take(60)
        .collect::<String>()
        .escape_debug()
        .to_string()
}

fn ignored(reason: String) -> HookReply {
    HookReply {
        ignored: Some(reason),
        ..HookReply::default()
    }
}

fn judge(service: &Service, body: &[u8]) -> Result<Wanted, Problem> {
    let push: Push = serde_json::from_slice(body).map_err(|error| {
        Problem::new(Code::Invalid, format!("the push cannot be read: {error}"))
            .hint("choose the content type application/json at the forge")
    })?;
    let Some(Source::Git {
        repository,
        branch,
        directory,
    }) = &service.spec.source
    else {
        return Ok(Wanted::Ignore("the service has no git source".to_owned()));
    };
    let Some(pushed) = push.reference.strip_prefix("refs/heads/") else {
        return Ok(Wanted::Ignore(format!(
            "`{}` is not a branch",
            shorten(&push.reference)
        )));
    };
    if pushed != branch {
        let reason = format!("the service deploys `{branch}`, not `{}`", shorten(pushed));
        return Ok(Wanted::Ignore(reason));
    }
    if push.deleted || (!push.after.is_empty() && push.after.bytes().all(|b| b == b'0')) {
        return Ok(Wanted::Ignore("the branch was deleted".to_owned()));
    }
    deploy::check_commit("after", &push.after)?;
    Ok(Wanted::Deploy(Origin::Git {
        repository: repository.clone(),
        branch: branch.clone(),
        commit: Some(push.after),
        directory: directory.clone(),
    }))
}

async fn deploy_push(
    app: &App,
    service: ServiceId,
    origin: Origin,
    delivery: &str,
) -> Result<HookReply, Problem> {
    let id = DeploymentId::from_u128(random::new_id());
    let key = format!("github/{service}/{delivery}");
    let deployment = deploy::queued(id, service, (Trigger::Webhook, origin));
    let command = deploy::command(&deployment, Some(key));
    match app.store.propose(command).await? {
        Reply::Deployment {
            deployment,
            replayed,
        } => Ok(HookReply {
            deployment: Some(deployment),
            replayed,
            ..HookReply::default()
        }),
        _ => Err(Problem::new(Code::Internal, "the deployment was not made")),
    }
}

fn audit(app: &App, service: ServiceId, failure: Option<&Problem>) {
    app.history.audit(AuditEntry {
        at_ms: now_ms(),
        principal: "webhook".to_owned(),
        action: "deploy_service".to_owned(),
        resource: format!("hooks/{service}"),
        outcome: failure.map_or_else(|| "ok".to_owned(), |problem| problem.message.clone()),
    });
}

fn shown(service: &Service, secret: Option<String>) -> WebhookView {
    WebhookView {
        path: format!("/v1/hooks/{}", service.id),
        has_secret: service.webhook_secret.is_some(),
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
