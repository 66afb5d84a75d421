//! Health checks: alive, and ready to answer.

use skep_model::problem::{Code, Problem};

use super::error::Failure;
use super::{App, Here};

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "healthz",
    responses((status = 200, description = "`ok`", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The server can answer: it knows a leader, and its state.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "readyz",
    responses((status = 200, description = "`ok`", body = String)))]
pub(super) async fn readyz(Here(app): Here) -> Result<&'static str, Failure> {
    ready(&app)
}

/// Like `/readyz`.
#[utoipa::path(get, path = "/health", tag = "health", operation_id = "health",
    responses((status = 200, description = "`ok`", body = String)))]
pub(super) async fn health(Here(app): Here) -> Result<&'static str, Failure> {
    ready(&app)
}

/// Like `/readyz`.
#[utoipa::path(get, path = "/v1/health", tag = "health", operation_id = "v1_health",
    responses((status = 200, description = "`ok`", body = String)))]
pub(super) async fn v1_health(Here(app): Here) -> Result<&'static str, Failure> {
    ready(&app)
}

fn ready(app: &App) -> Result<&'static str, Failure> {
    let not_yet =
        |text: &str| Failure::from(Problem::new(Code::Unavailable, text).hint("try again"));
    if app.shutdown.is_cancelled() {
        return Err(not_yet("the server is stopping"));
    }
    if app.store.consensus().leadership().borrow().leader.is_none() {
        return Err(not_yet("the servers have no leader"));
    }
    if app.store.view().cluster().is_none() {
        return Err(not_yet("the cluster is not initialised yet"));
    }
    Ok("ok\n")
}
