//! Forge connections: listed without their tokens, made, tried, removed.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_forge::api::app::Scope;
use skep_model::forge::{
    Access, Connection, Installation, Kind, check_api_url, check_forge_host, check_token,
};
use skep_model::id::WorkspaceId;
use skep_model::notify::address_of;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind as Command;
use skep_state::State;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path};
use super::hooks::services_of;
use super::types::{ForgeRequest, ForgeTestView, ForgeView, ForgesView, InstallationView};
use super::{App, Here, find};
use crate::forges;
use crate::outgoing::{Allowed, Outgoing, roots};
use crate::store::now_ms;

/// The host of a forge.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ForgeKey {
    /// As URLs of repositories have it, without a port: `github.com`.
    host: String,
}

/// Lists the forge connections of the workspace, without their tokens.
#[utoipa::path(get, path = "/v1/forges", tag = "forges", operation_id = "list_forges",
    responses((status = 200, body = ForgesView)))]
pub(super) async fn list(Here(app): Here) -> Json<ForgesView> {
    let view = app.store.view();
    let forges = view.forges().map(|it| shown(&view, it)).collect();
    Json(ForgesView { forges })
}

/// Makes a forge connection, or changes it: deployments from there are told of at their commits.
#[utoipa::path(put, path = "/v1/forges/{host}", tag = "forges", params(ForgeKey),
    operation_id = "put_forge", request_body = ForgeRequest,
    responses((status = 200, body = ForgeView)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<ForgeKey>,
    Body(request): Body<ForgeRequest>,
) -> Result<Json<ForgeView>, Failure> {
    let connection = wanted(&app, &key.host, request)?;
    let command = v1::PutForge {
        connection: Some((&connection).into()),
    };
    app.store.propose(Command::PutForge(command)).await?;
    let view = app.store.view();
    let stored = connection_of(&view, &key.host)?;
    Ok(Json(shown(&view, &stored)))
}

fn wanted(app: &App, host: &str, request: ForgeRequest) -> Result<Connection, Problem> {
    check_forge_host(host)?;
    check_token(&request.token)?;
    let kind = request.kind.or(Kind::of_host(host)).ok_or_else(|| {
        let words = Kind::ALL.map(Kind::as_str).join(", ");
        Problem::invalid("kind", "nobody knows what forge is at this host")
            .hint(format!("--kind says it: {words}"))
    })?;
    let api_url = request.api_url.unwrap_or_else(|| kind.api_url(host));
    let uri = check_api_url(&api_url)?;
    let view = app.store.view();
    if let Some(address) = address_of(&uri) {
        allowed(app, &view)
            .check(address)
            .map_err(|problem| problem.at("api_url"))?;
    }
    if let Some(pem) = &request.ca_pem {
        roots(pem).map_err(|why| {
            let text = format!("this is no certificate of a CA: {why}");
            Problem::invalid("ca_pem", text).hint("PEM: -----BEGIN CERTIFICATE-----")
        })?;
    }
    let workspace = find::workspace(&view)?;
    let connection = Connection {
        workspace,
        access: Access::Token(app.secrets.seal_forge(workspace, host, &request.token)),
        host: host.to_owned(),
        kind,
        api_url,
        ca_pem: request.ca_pem,
        // The rest is set where it is obeyed.
        made_ms: 0,
        changed_ms: 0,
        is_refused: false,
        resume_ms: 0,
        problem: None,
        asked_ms: 0,
    };
    connection.check()?;
    Ok(connection)
}

/// Shows a forge connection, and what went wrong with it.
#[utoipa::path(get, path = "/v1/forges/{host}", tag = "forges", params(ForgeKey),
    operation_id = "show_forge", responses((status = 200, body = ForgeView)))]
pub(super) async fn show(
    Here(app): Here,
    Path(key): Path<ForgeKey>,
) -> Result<Json<ForgeView>, Failure> {
    let view = app.store.view();
    let connection = connection_of(&view, &key.host)?;
    Ok(Json(shown(&view, &connection)))
}

/// Asks the forge who the connection's token is.
#[utoipa::path(post, path = "/v1/forges/{host}/test", tag = "forges", params(ForgeKey),
    operation_id = "test_forge", responses((status = 200, body = ForgeTestView)))]
pub(super) async fn test(
    Here(app): Here,
    Path(key): Path<ForgeKey>,
) -> Result<Json<ForgeTestView>, Failure> {
    let view = app.store.view();
    let connection = connection_of(&view, &key.host)?;
    let user = match connection.is_app() {
        true => as_apps(&app, &view, &connection).await?,
        false => {
            let outgoing = Outgoing::new(allowed(&app, &view));
            let token = app.secrets.open_forge(&connection)?;
            let outcome = match forges::request(forges::site(&connection, &token).who()) {
                Ok(asked) => outgoing.send(asked, connection.ca_pem.as_deref()).await,
                Err(why) => Err(why),
            };
            forges::who(&connection, &outcome, now_ms())?
        }
    };
    Ok(Json(ForgeTestView {
        host: key.host,
        user,
    }))
}

/// Asks for a token of each installation, and says as what it came.
async fn as_apps(app: &App, view: &State, connection: &Connection) -> Result<String, Problem> {
    app.tokens.learn(view);
    let failed = |why: String| {
        Problem::new(Code::Unavailable, why)
            .hint("`skep forge show` and `skep forge app ls` say more")
    };
    let all = connection.installations();
    if all.is_empty() {
        return Err(failed(
            "no GitHub App is installed: `skep forge app install`".to_owned(),
        ));
    }
    let mut names = Vec::new();
    for at in all {
        let repository = format!("{}/", at.account);
        let who = app
            .tokens
            .who(view, connection, &repository)
            .map_err(failed)?;
        app.tokens.token(&who, &Scope::All).await.map_err(failed)?;
        let slug = view.forge_app(at.app).map_or("", |it| it.slug.as_str());
        names.push(format!("{slug}[bot] at {}", at.account));
    }
    Ok(names.join(", "))
}

/// Removes a forge connection: nothing is told there any more.
#[utoipa::path(delete, path = "/v1/forges/{host}", tag = "forges", params(ForgeKey),
    operation_id = "remove_forge", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<ForgeKey>,
) -> Result<StatusCode, Failure> {
    let workspace = find::workspace(&app.store.view())?;
    let command = v1::RemoveForge {
        workspace: id_bytes(workspace.as_u128()),
        host: key.host,
    };
    app.store.propose(Command::RemoveForge(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn allowed(app: &App, view: &State) -> Allowed {
    let allowed = Allowed::new(&app.notify_allow);
    allowed.learn(view);
    allowed
}

fn connection_of(view: &State, host: &str) -> Result<Arc<Connection>, Problem> {
    let found = view.forge(find::workspace(view)?, host).cloned();
    found.ok_or_else(|| {
        Problem::new(
            Code::NotFound,
            "there is no connection to a forge at this host",
        )
        .at("host")
        .hint("`skep forge ls` lists those that there are, `skep forge add` makes one")
    })
}

fn shown(view: &State, connection: &Connection) -> ForgeView {
    let some = |ms: u64| Some(ms).filter(|ms| *ms > 0);
    ForgeView {
        host: connection.host.clone(),
        kind: connection.kind,
        api_url: connection.api_url.clone(),
        own_ca: connection.ca_pem.is_some(),
        waiting: forges::waiting(view, connection),
        refused: connection.is_refused,
        resume_ms: some(connection.resume_ms),
        problem: connection.problem.clone(),
        asked_ms: some(connection.asked_ms),
        changed_ms: connection.changed_ms,
        app: connection.is_app(),
        installations: connection
            .installations()
            .iter()
            .map(|it| shown_installation(view, connection.workspace, it))
            .collect(),
    }
}

pub(super) fn shown_installation(
    view: &State,
    workspace: WorkspaceId,
    at: &Installation,
) -> InstallationView {
    let app = view.forge_app(at.app);
    let host = app.map_or("", |it| it.site.host.as_str());
    let is_said = |from: &str| {
        let name = format!("{host}/{from}").to_lowercase();
        !services_of(view, workspace, &name).is_empty()
    };
    let renamed = at.renamed.iter().filter(|it| is_said(&it.from));
    InstallationView {
        app: app.map_or_else(|| at.app.to_string(), |it| it.slug.clone()),
        number: at.number,
        account: at.account.clone(),
        organization: at.is_organization,
        suspended: at.is_suspended,
        missing: at.missing.clone(),
        renamed: renamed
            .map(|it| format!("{} is {}", it.from, it.to))
            .collect(),
    }
}
