//! Shells: what people do inside running allocations. Each is a WebSocket to whoever asks, opened only
//! once the node has begun, so that a refusal is an answer like any other. Who did what where is
//! audited when it begins and when it ends; what was sent and received never is.

mod bridge;
mod choose;
mod trail;

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::extract::rejection::ExtensionRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::Uri;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Deserialize;
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use skep_model::shell::{Exec, Opened, Size, Terminal, Wish};
use std::sync::Arc;
use utoipa::IntoParams;

use super::access::{Action, Principal};
use super::error::Failure;
use super::extract::{Path, Query};
use super::find::{self, ServiceKey};
use super::types::shell::MESSAGE_MAX_BYTES;
use super::{App, Here};
use crate::agents::shells::{Ask, Shell};
pub(super) use trail::Refusals;
use trail::Trail;

/// Shells that may be open at one server at once: each may hold two windows.
pub(super) const MAX_SHELLS: usize = 256;

/// Who asks, and in which words: for the trail.
pub(super) struct Asker {
    principal: Principal,
    uri: Uri,
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Extension(principal) = Extension::from_request_parts(parts, state).await?;
        let uri = parts.uri.clone();
        Ok(Self { principal, uri })
    }
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// A command and where it is to run.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ExecQuery {
    /// Where; else in a healthy allocation of the live release.
    #[param(value_type = Option<String>)]
    allocation: Option<AllocationId>,
    /// Program and arguments as a JSON array of strings. No shell reads them. They are audited.
    command: String,
    /// Whether input will be sent; else it is empty.
    stdin: bool,
    /// Run it on a terminal of its own.
    tty: bool,
    /// Width of the terminal in characters.
    columns: Option<u16>,
    /// Height of the terminal in characters.
    rows: Option<u16>,
    /// The kind of terminal, as `xterm-256color`.
    term: String,
}

/// Which allocation.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct AttachQuery {
    /// Where; else at a healthy allocation of the live release.
    #[param(value_type = Option<String>)]
    allocation: Option<AllocationId>,
}

/// A path in a container.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct CopyQuery {
    /// Where; else in a healthy allocation of the live release.
    #[param(value_type = Option<String>)]
    allocation: Option<AllocationId>,
    /// The path, absolute.
    path: String,
}

/// A port of a container.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ForwardQuery {
    /// Where; else to a healthy allocation of the live release.
    #[param(value_type = Option<String>)]
    allocation: Option<AllocationId>,
    /// The port that it listens on.
    port: u16,
}

/// Runs a command in a running container: a WebSocket of frames (docs/shells.md), which ends with the
/// command's exit code. Closing it ends the command.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/exec",
    tag = "shells", params(ServiceKey, ExecQuery), operation_id = "exec",
    responses((status = 101, description = "The command runs")))]
pub(super) async fn exec(
    Here(app): Here,
    asker: Asker,
    Path(key): Path<ServiceKey>,
    Query(query): Query<ExecQuery>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let command = serde_json::from_str(&query.command).map_err(|_| {
        Problem::invalid("command", "a JSON array of strings is expected").hint("[\"ls\",\"-l\"]")
    })?;
    let terminal = query.tty.then(|| Terminal {
        size: Size {
            columns: query.columns.unwrap_or(80),
            rows: query.rows.unwrap_or(24),
        },
        name: query.term,
    });
    let wish = Wish::Exec(Exec {
        command,
        stdin: query.stdin,
        terminal,
    });
    let who = (asker.principal, Action::Exec, asker.uri);
    open(&app, who, (&key, query.allocation, wish), upgrade).await
}

/// Shows what a container writes from now on: a WebSocket of frames (docs/shells.md), which ends with
/// the container's exit code. Closing it changes nothing for the container.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/attach",
    tag = "shells", params(ServiceKey, AttachQuery), operation_id = "attach",
    responses((status = 101, description = "What it writes follows")))]
pub(super) async fn attach(
    Here(app): Here,
    asker: Asker,
    Path(key): Path<ServiceKey>,
    Query(query): Query<AttachQuery>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let who = (asker.principal, Action::Attach, asker.uri);
    open(&app, who, (&key, query.allocation, Wish::Attach), upgrade).await
}

/// Reads a file or folder of a running container: a WebSocket of frames (docs/shells.md) whose data is
/// a tar.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/copy-out",
    tag = "shells", params(ServiceKey, CopyQuery), operation_id = "copy_out",
    responses((status = 101, description = "The tar follows")))]
pub(super) async fn copy_out(
    Here(app): Here,
    asker: Asker,
    Path(key): Path<ServiceKey>,
    Query(CopyQuery { allocation, path }): Query<CopyQuery>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let who = (asker.principal, Action::CopyOut, asker.uri);
    open(
        &app,
        who,
        (&key, allocation, Wish::CopyOut { path }),
        upgrade,
    )
    .await
}

/// Writes files into a running container: a WebSocket of frames (docs/shells.md) whose data is a tar.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/copy-in",
    tag = "shells", params(ServiceKey, CopyQuery), operation_id = "copy_in",
    responses((status = 101, description = "The tar is awaited")))]
pub(super) async fn copy_in(
    Here(app): Here,
    asker: Asker,
    Path(key): Path<ServiceKey>,
    Query(CopyQuery { allocation, path }): Query<CopyQuery>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let who = (asker.principal, Action::CopyIn, asker.uri);
    open(
        &app,
        who,
        (&key, allocation, Wish::CopyIn { path }),
        upgrade,
    )
    .await
}

/// One connection to a port of a running container: a WebSocket of frames (docs/shells.md).
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/forward",
    tag = "shells", params(ServiceKey, ForwardQuery), operation_id = "forward_port",
    responses((status = 101, description = "Connected")))]
pub(super) async fn forward(
    Here(app): Here,
    asker: Asker,
    Path(key): Path<ServiceKey>,
    Query(ForwardQuery { allocation, port }): Query<ForwardQuery>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let who = (asker.principal, Action::ForwardPort, asker.uri);
    open(
        &app,
        who,
        (&key, allocation, Wish::Forward { port }),
        upgrade,
    )
    .await
}

/// Opens a shell and answers with its WebSocket. Dropped when the caller hangs up: then the node is
/// told nothing, or that it is over.
async fn open(
    app: &App,
    who: (Principal, Action, Uri),
    (key, asked, wish): (&ServiceKey, Option<AllocationId>, Wish),
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let upgrade = upgrade.map_err(|rejection| {
        let text = format!("a WebSocket is expected: {rejection}");
        Problem::new(Code::Invalid, text).hint("`skep exec` and its kind speak it")
    })?;
    wish.check()?;
    let place = Arc::clone(&app.shells).try_acquire_owned().map_err(|_| {
        let text = format!("{MAX_SHELLS} shells are open at this server");
        Problem::new(Code::Busy, text).hint("close some, or try again later")
    })?;
    let view = app.store.view();
    let service = find::service(&view, key)?;
    let allocation = choose::choose(view.allocations_of(service.id), service.live, asked)?;
    let node = view.node(allocation.node);
    let node = node.map_or_else(|| allocation.node.to_string(), |node| node.name.clone());
    let trail = Trail::new(app, who, (allocation.id, &node, &wish));
    let ask = Ask {
        allocation: allocation.id,
        node: allocation.node,
        wish,
    };
    let Shell { opened, line } = match app.relay.open_shell(ask).await {
        Ok(shell) => shell,
        Err(problem) => {
            trail.refused(&problem);
            return Err(problem.into());
        }
    };
    let opened = Opened {
        allocation: allocation.id,
        node,
        ..opened
    };
    let trail = trail.begin();
    let shutdown = app.shutdown.clone();
    Ok(upgrade
        .max_message_size(MESSAGE_MAX_BYTES)
        .max_frame_size(MESSAGE_MAX_BYTES)
        .on_upgrade(async move |socket| {
            let ending = bridge::run(socket, opened, line, shutdown).await;
            trail.end(&ending);
            drop(place);
        }))
}
