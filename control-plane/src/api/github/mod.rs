//! GitHub Apps: begun here, made and installed in a browser (`browser`), told of by deliveries (`crate::api::hooks`). Their
//! secrets are shown to nobody.

mod browser;
mod page;

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use skep_identity::{digest, random};
use skep_model::forge::{
    AppSite, Draft, ForgeApp, Installation, Kind as ForgeKind, SETUP_MS, Setup, SetupStep,
    check_api_url, check_forge_host,
};
use skep_model::id::{ForgeAppId, WorkspaceId};
use skep_model::notify::address_of;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;
use utoipa::IntoParams;

use super::access::bearer;
use super::error::Failure;
use super::extract::{Body, Path};
use super::forges::{allowed, shown_installation};
use super::types::{
    BrowserStepView, ForgeAppRequest, ForgeAppView, ForgeAppsView, RotateAppRequest,
};
use super::{App, Here, find};
use crate::forges::check_key;
use crate::outgoing::roots;
use crate::secrets::AppUse;

pub(super) use browser::*;

/// Bytes of the secrets in URLs, and of those of webhooks.
const SECRET_BYTES: usize = 32;
/// Longest name of an organization.
const MAX_ORGANIZATION: usize = 100;

/// A GitHub App.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AppKey {
    /// Its id here, or what GitHub names it in URLs.
    app: String,
}

/// Lists the GitHub Apps of the workspace, without their secrets.
#[utoipa::path(get, path = "/v1/forge-apps", tag = "forges", operation_id = "list_forge_apps",
    responses((status = 200, body = ForgeAppsView)))]
pub(super) async fn list(Here(app): Here) -> Result<Json<ForgeAppsView>, Failure> {
    let view = app.store.view();
    let workspace = find::workspace(&view)?;
    let all = view.forge_apps().filter(|it| it.workspace == workspace);
    let apps = all.map(|it| shown(&view, it)).collect();
    Ok(Json(ForgeAppsView { apps }))
}

/// Begins to make a GitHub App: whoever opens the URL in a browser makes it at GitHub with one click. The URL is good once,
/// for an hour, and as long as the token is that it was asked for with.
#[utoipa::path(post, path = "/v1/forge-apps", tag = "forges", operation_id = "create_forge_app",
    request_body = ForgeAppRequest, responses((status = 200, body = BrowserStepView)))]
pub(super) async fn create(
    Here(app): Here,
    headers: HeaderMap,
    Body(request): Body<ForgeAppRequest>,
) -> Result<Json<BrowserStepView>, Failure> {
    let draft = drafted(&app, request)?;
    let base = format!("{}/v1/github/make", draft.cluster_url);
    let workspace = find::workspace(&app.store.view())?;
    let step = SetupStep::Create(Box::new(draft));
    let secret = begin(&app, (workspace, token_digest(&headers)?), step).await?;
    Ok(Json(step_view(
        &app,
        &secret,
        format!("{base}?state={secret}"),
    )))
}

fn drafted(app: &App, request: ForgeAppRequest) -> Result<Draft, Problem> {
    let host = request.host.unwrap_or_else(|| "github.com".to_owned());
    check_forge_host(&host)?;
    let url = |field: &str, text: String| {
        let text = text.trim_end_matches('/').to_owned();
        check_api_url(&text)
            .map_err(|problem| problem.at(field))
            .map(|_| text)
    };
    let site = AppSite {
        api_url: url(
            "api_url",
            request
                .api_url
                .unwrap_or_else(|| ForgeKind::GitHub.api_url(&host)),
        )?,
        web_url: url(
            "web_url",
            request.web_url.unwrap_or_else(|| format!("https://{host}")),
        )?,
        ca_pem: request.ca_pem,
        host,
    };
    let allowed = allowed(app, &app.store.view());
    for (field, text) in [("api_url", &site.api_url), ("web_url", &site.web_url)] {
        let uri = check_api_url(text)?;
        if let Some(address) = address_of(&uri) {
            allowed
                .check(address)
                .map_err(|problem| problem.at(field))?;
        }
    }
    if let Some(pem) = &site.ca_pem {
        roots(pem).map_err(|why| {
            let text = format!("this is no certificate of a CA: {why}");
            Problem::invalid("ca_pem", text).hint("PEM: -----BEGIN CERTIFICATE-----")
        })?;
    }
    let is_word = |text: &str, most: usize| {
        !text.is_empty()
            && text.len() <= most
            && !text.chars().any(|it| it.is_control() || it == '/')
    };
    let organization = request.organization;
    if organization
        .as_ref()
        .is_some_and(|it| !is_word(it, MAX_ORGANIZATION))
    {
        return Err(Problem::invalid("organization", "this is no organization")
            .hint("as GitHub's URLs have it: `acme`"));
    }
    let name = request
        .name
        .unwrap_or_else(|| format!("skep-{}", random::hex(4)));
    if !is_word(&name, skep_forge::api::app::MAX_APP_NAME) {
        return Err(Problem::invalid("name", "this is no name of an App")
            .hint("up to 34 characters, and nobody else's at GitHub"));
    }
    Ok(Draft {
        app: ForgeAppId::from_u128(random::new_id()),
        cluster_url: url("cluster_url", request.cluster_url)?,
        site,
        name,
        organization,
    })
}

/// Shows a GitHub App, and where it is installed.
#[utoipa::path(get, path = "/v1/forge-apps/{app}", tag = "forges", params(AppKey),
    operation_id = "show_forge_app", responses((status = 200, body = ForgeAppView)))]
pub(super) async fn show(
    Here(app): Here,
    Path(key): Path<AppKey>,
) -> Result<Json<ForgeAppView>, Failure> {
    let view = app.store.view();
    let known = known(&view, &key.app)?;
    Ok(Json(shown(&view, &known)))
}

/// Begins to install a GitHub App: whoever opens the URL in a browser, and administers the account that they choose, binds
/// that to the workspace. As of `create_forge_app`.
#[utoipa::path(post, path = "/v1/forge-apps/{app}/install", tag = "forges", params(AppKey),
    operation_id = "install_forge_app", responses((status = 200, body = BrowserStepView)))]
pub(super) async fn install(
    Here(app): Here,
    headers: HeaderMap,
    Path(key): Path<AppKey>,
) -> Result<Json<BrowserStepView>, Failure> {
    let known = known(&app.store.view(), &key.app)?;
    let by = (known.workspace, token_digest(&headers)?);
    let secret = begin(&app, by, SetupStep::Install(known.id)).await?;
    let url = install_at(&known, &secret)?;
    Ok(Json(step_view(&app, &secret, url)))
}

/// Replaces the secret of a GitHub App's webhook, or its key by one that GitHub made.
#[utoipa::path(post, path = "/v1/forge-apps/{app}/rotate", tag = "forges", params(AppKey),
    operation_id = "rotate_forge_app", request_body = RotateAppRequest,
    responses((status = 200, body = ForgeAppView)))]
pub(super) async fn rotate(
    Here(app): Here,
    Path(key): Path<AppKey>,
    Body(request): Body<RotateAppRequest>,
) -> Result<Json<ForgeAppView>, Failure> {
    let view = app.store.view();
    let known = known(&view, &key.app)?;
    app.tokens.learn(&view);
    let mut next = (*known).clone();
    let outcome = match &request.private_key {
        Some(pem) => {
            check_key(pem).map_err(|why| Problem::invalid("private_key", why))?;
            next.secrets.private_key = app.secrets.seal_app(AppUse::Key, known.id, pem);
            app.tokens.ask_as_app(&next, |site| site.app()).await
        }
        None => {
            let secret = random::hex(SECRET_BYTES);
            next.secrets.webhook = app.secrets.seal_app(AppUse::Webhook, known.id, &secret);
            app.tokens
                .ask_as_app(&known, |site| site.hook_secret(&secret))
                .await
        }
    };
    let why = match outcome {
        Ok(reply) if reply.status.is_success() => None,
        Ok(reply) => Some(reply.status.to_string()),
        Err(why) => Some(why),
    };
    if let Some(why) = why {
        let text = format!("{} did not take it: {why}", known.site.host);
        return Err(Problem::new(Code::Unavailable, text)
            .hint("nothing was changed here; a key has to be one of this App, made at GitHub")
            .into());
    }
    let command = v1::PutForgeApp {
        app: Some((&next).into()),
        expected_changed_ms: known.changed_ms,
    };
    app.store.propose(Kind::PutForgeApp(command)).await?;
    let view = app.store.view();
    let stored = self::known(&view, &known.id.to_string())?;
    Ok(Json(shown(&view, &stored)))
}

/// Removes a GitHub App with its installations from the cluster. At GitHub its owner deletes it.
#[utoipa::path(delete, path = "/v1/forge-apps/{app}", tag = "forges", params(AppKey),
    operation_id = "remove_forge_app", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<AppKey>,
) -> Result<StatusCode, Failure> {
    let known = known(&app.store.view(), &key.app)?;
    let command = v1::RemoveForgeApp {
        id: id_bytes(known.id.as_u128()),
    };
    app.store.propose(Kind::RemoveForgeApp(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The App of the workspace that goes by this.
fn known(view: &State, name: &str) -> Result<Arc<ForgeApp>, Problem> {
    let workspace = find::workspace(view)?;
    let id: Option<ForgeAppId> = name.parse().ok();
    let is_it = |it: &&Arc<ForgeApp>| Some(it.id) == id || it.slug.eq_ignore_ascii_case(name);
    let all = view.forge_apps().filter(|it| it.workspace == workspace);
    let found: Vec<_> = all.filter(is_it).collect();
    match found[..] {
        [one] => Ok(Arc::clone(one)),
        [] => Err(Problem::new(Code::NotFound, "there is no such GitHub App")
            .at("app")
            .hint(
                "`skep forge app ls` lists those that there are, `skep forge app create` makes one",
            )),
        _ => Err(Problem::invalid(
            "app",
            "several GitHub Apps have this name, at several hosts",
        )
        .hint("say its id: `skep forge app ls` shows it")),
    }
}

/// What whoever asks proves themselves with.
fn token_digest(headers: &HeaderMap) -> Result<Vec<u8>, Problem> {
    let token = bearer(headers)?;
    Ok(digest::sha256(token.as_bytes()).to_vec())
}

/// Waits for a step in a browser; answers with its secret.
async fn begin(
    app: &App,
    (workspace, by): (WorkspaceId, Vec<u8>),
    step: SetupStep,
) -> Result<String, Problem> {
    let secret = random::hex(SECRET_BYTES);
    let setup = Setup {
        digest: digest::sha256(secret.as_bytes()).to_vec(),
        workspace,
        by,
        step,
        // Set where it is obeyed.
        expires_ms: 0,
    };
    let command = v1::BeginForgeSetup {
        setup: Some((&setup).into()),
    };
    app.store.propose(Kind::BeginForgeSetup(command)).await?;
    Ok(secret)
}

fn step_view(app: &App, secret: &str, url: String) -> BrowserStepView {
    let view = app.store.view();
    let setup = view.forge_setup(&digest::sha256(secret.as_bytes()));
    // A replica that is behind has not heard of it yet.
    let expires_ms = setup.map_or(crate::store::now_ms() + SETUP_MS, |it| it.expires_ms);
    BrowserStepView { url, expires_ms }
}

fn install_at(app: &ForgeApp, secret: &str) -> Result<String, Problem> {
    let url = skep_forge::api::app::install_url(&app.site, &app.slug, secret);
    url.ok_or_else(|| Problem::new(Code::Internal, "the App's site has no address"))
}

fn shown(view: &State, app: &ForgeApp) -> ForgeAppView {
    let connection = view.forge(app.workspace, &app.site.host);
    let all = connection.map(|it| it.installations()).unwrap_or_default();
    let its = all.iter().filter(|it: &&Installation| it.app == app.id);
    let apps = match app.site.host == "github.com" {
        true => "apps",
        false => "github-apps",
    };
    ForgeAppView {
        id: app.id,
        host: app.site.host.clone(),
        slug: app.slug.clone(),
        owner: app.owner.clone(),
        number: app.number,
        url: format!("{}/{apps}/{}", app.site.web_url, app.slug),
        hook: format!("/v1/hooks/github/{}", app.id),
        installations: its
            .map(|it| shown_installation(view, app.workspace, it))
            .collect(),
        made_ms: app.made_ms,
        changed_ms: app.changed_ms,
    }
}
