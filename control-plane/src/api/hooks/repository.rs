//! Webhooks of repositories: one URL for all services that come from the same one.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use skep_forge::{Event, canonical, clean, is_of, signing_key};
use skep_identity::random;
use skep_model::id::{HookId, WorkspaceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::spec::Source;
use skep_model::variable::Sealed;
use skep_model::webhook::Hook;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;
use utoipa::IntoParams;

use super::delivery::{Meant, answer, believed, is_forced, name_of};
use super::{HookQuery, SECRET_BYTES, stacks};
use crate::api::error::Failure;
use crate::api::extract::{Body as JsonBody, Path, Query};
use crate::api::types::{
    HookReply, RepositoryWebhookRequest, RepositoryWebhookView, RepositoryWebhooksView,
};
use crate::api::{Here, find};

/// The webhook of a repository.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::api) struct RepositoryHookKey {
    /// Its id.
    #[param(value_type = String)]
    hook: HookId,
}

/// Takes a delivery for all services that come from a repository: each event is decided on for each of them,
/// and all deployments are made at once.
#[utoipa::path(post, path = "/v1/hooks/r/{hook}", tag = "webhooks", params(RepositoryHookKey, HookQuery),
    operation_id = "receive_repository_hook",
    request_body(content = serde_json::Value, content_type = "application/json"),
    responses((status = 200, body = HookReply, description = "Nothing to do, or done before"),
        (status = 202, body = HookReply, description = "Deployments were made")))]
pub(in crate::api) async fn receive_repository(
    Here(app): Here,
    Path(key): Path<RepositoryHookKey>,
    Query(query): Query<HookQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<HookReply>), Failure> {
    let known = app.store.view().hook(key.hook).cloned();
    // A replica that is behind has not heard of a webhook that was made a moment ago elsewhere.
    let hook = match known {
        Some(hook) => Some(hook),
        None => app.store.read().await?.hook(key.hook).cloned(),
    };
    let hook = hook.ok_or_else(|| {
        Problem::new(Code::NotFound, "there is no such webhook")
            .hint("`skep webhook repository ls` prints the URLs of those that there are")
    })?;
    let secret = app.secrets.open_hook(&hook)?;
    let resource = format!("hooks/r/{}", hook.id);
    let is_forced = is_forced(&app, &query, &headers, &resource)?;
    let mut delivery = believed(&app, &headers, body, secret).await?;
    let foreign = take_out_foreign(&mut delivery.events, &hook.repository);
    let services = services_of(&app.store.view(), hook.workspace, &hook.repository);
    if delivery.events.contains(&Event::Ping) {
        let reply = HookReply {
            pong: true,
            ..HookReply::default()
        };
        return Ok((StatusCode::OK, Json(reply)));
    }
    let heard = (&*hook.repository, &*delivery.events);
    let told = stacks::hear(&app, hook.workspace, heard).await?;
    if services.is_empty() && !told.is_empty() {
        let reply = HookReply {
            events: told,
            ..HookReply::default()
        };
        return Ok((StatusCode::OK, Json(reply)));
    }
    let why = match (delivery.events.is_empty(), services.is_empty()) {
        (true, _) => foreign,
        (false, true) => Some(format!("no service comes from {}", hook.repository)),
        (false, false) => None,
    };
    if let Some(why) = why {
        let reply = HookReply {
            ignored: Some(why),
            ..HookReply::default()
        };
        return Ok((StatusCode::OK, Json(reply)));
    }
    let meant = Meant {
        services: &services,
        is_shared: true,
        is_forced,
    };
    let (status, Json(mut reply)) = answer(&app, &resource, meant, &delivery).await?;
    if !told.is_empty() {
        reply.ignored = None;
        reply.events.extend(told);
    }
    Ok((status, Json(reply)))
}

/// Events of another repository are nobody's here: a webhook of a whole organisation sends them, too.
pub(super) fn take_out_foreign(events: &mut Vec<Event>, repository: &str) -> Option<String> {
    let before = events.len();
    events.retain(|event| is_of(event, repository) != Some(false));
    (events.len() < before).then(|| format!("the webhook is for {repository}, the delivery is not"))
}

/// The services of a workspace that come from this repository, in the order of their ids.
pub(in crate::api) fn services_of(
    view: &State,
    workspace: WorkspaceId,
    repository: &str,
) -> Vec<Arc<Service>> {
    let is_in = |service: &Service| {
        let environment = view.environment(service.environment);
        let project = environment.and_then(|it| view.project(it.project));
        project.is_some_and(|project| project.workspace == workspace)
    };
    let comes_from = |service: &Service| match &service.spec.source {
        Some(Source::Git {
            repository: its, ..
        }) => canonical(its).as_deref() == Some(repository),
        _ => false,
    };
    view.services()
        .filter(|service| !service.removing && comes_from(service) && is_in(service))
        .cloned()
        .collect()
}

fn shown(view: &State, hook: &Hook, secret: Option<String>) -> RepositoryWebhookView {
    let services = services_of(view, hook.workspace, &hook.repository);
    RepositoryWebhookView {
        id: hook.id,
        repository: hook.repository.clone(),
        path: format!("/v1/hooks/r/{}", hook.id),
        services: services
            .iter()
            .map(|service| name_of(view, service))
            .collect(),
        signing_key: secret.as_deref().and_then(signing_key),
        secret,
    }
}

/// Lists the webhooks of repositories, without their secrets.
#[utoipa::path(get, path = "/v1/repository-webhooks", tag = "webhooks",
    operation_id = "list_repository_webhooks", responses((status = 200, body = RepositoryWebhooksView)))]
pub(in crate::api) async fn list_repositories(Here(app): Here) -> Json<RepositoryWebhooksView> {
    let view = app.store.view();
    let webhooks = view.hooks().map(|hook| shown(&view, hook, None)).collect();
    Json(RepositoryWebhooksView { webhooks })
}

/// Makes the webhook of a repository, or a new secret for the one that it has: the older is void at once. The
/// secret is shown this once.
#[utoipa::path(post, path = "/v1/repository-webhooks", tag = "webhooks",
    operation_id = "put_repository_webhook", request_body = RepositoryWebhookRequest,
    responses((status = 200, body = RepositoryWebhookView)))]
pub(in crate::api) async fn put_repository(
    Here(app): Here,
    JsonBody(request): JsonBody<RepositoryWebhookRequest>,
) -> Result<Json<RepositoryWebhookView>, Failure> {
    let repository = canonical(&request.repository).ok_or_else(|| {
        let text = format!("`{}` is not a repository at a forge", clean(&request.repository));
        Problem::invalid("repository", text)
            .hint("a URL that it is cloned by: https://forge.example.com/team/shop.git, or git@forge.example.com:team/shop.git")
    })?;
    let workspace = find::workspace(&app.store.view())?;
    let secret = random::hex(SECRET_BYTES);
    let sealed: Sealed = app.secrets.seal_hook(workspace, &repository, &secret);
    let hook = Hook {
        id: HookId::from_u128(random::new_id()),
        workspace,
        secret: sealed,
        repository,
        // Set where it is obeyed.
        changed_ms: 0,
    };
    let command = v1::PutHook {
        hook: Some((&hook).into()),
    };
    app.store.propose(Kind::PutHook(command)).await?;
    let view = app.store.view();
    let stored = view.hook_of(workspace, &hook.repository);
    let stored = stored.ok_or_else(|| {
        Problem::new(Code::NotFound, "the webhook was removed meanwhile").at("repository")
    })?;
    Ok(Json(shown(&view, stored, Some(secret))))
}

/// Removes the webhook of a repository: its deliveries are answered with 404.
#[utoipa::path(delete, path = "/v1/repository-webhooks/{hook}", tag = "webhooks",
    params(RepositoryHookKey), operation_id = "remove_repository_webhook",
    responses((status = 204, description = "It is gone")))]
pub(in crate::api) async fn remove_repository(
    Here(app): Here,
    Path(key): Path<RepositoryHookKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::RemoveHook {
        id: id_bytes(key.hook.as_u128()),
    };
    app.store.propose(Kind::RemoveHook(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}
