//! Private networks and the network between nodes: show, check, and choose the pool of addresses.

use axum::Json;
use skep_model::network::Pool;
use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use super::error::Failure;
use super::extract::Body;
use super::types::{NetworkCheckView, NetworkView, PrivatePoolRequest, PrivatePoolView};
use super::{App, Here};
use crate::networking::{check, pool, show};

/// Checks at a time: each makes every node dial all others.
pub(super) const MAX_CHECKS: usize = 1;

/// Shows which environments and services have which private addresses.
#[utoipa::path(get, path = "/v1/network", tag = "cluster", operation_id = "show_network",
    responses((status = 200, body = NetworkView)))]
pub(super) async fn show(Here(app): Here) -> Json<NetworkView> {
    Json(show::network(&app.store.view()))
}

/// Lets every node dial the data planes of all others and look at its own private network, and says what is
/// in the way.
#[utoipa::path(post, path = "/v1/network/check", tag = "cluster", operation_id = "check_network",
    responses((status = 200, body = NetworkCheckView)))]
pub(super) async fn check(Here(app): Here) -> Result<Json<NetworkCheckView>, Failure> {
    let view = app.store.view();
    let answers = ask(&app, view.private_pool()).await?;
    let is_connected = |node| app.fleet.place_of(node).is_some();
    Ok(Json(check::judge(&view, is_connected, &answers)))
}

/// Chooses from where environments get private addresses from now on. What is given stays. Refused where
/// it is too small, or where a node has a network that shares addresses with it.
#[utoipa::path(put, path = "/v1/network/pool", tag = "cluster", operation_id = "set_private_pool",
    request_body = PrivatePoolRequest, responses((status = 200, body = PrivatePoolView)))]
pub(super) async fn put_pool(
    Here(app): Here,
    Body(request): Body<PrivatePoolRequest>,
) -> Result<Json<PrivatePoolView>, Failure> {
    let wanted: Pool = request.pool.parse()?;
    let answers = ask(&app, wanted).await?;
    let make = |view: &skep_state::State| {
        pool::check(view, wanted, &answers)?;
        Ok(Kind::SetPrivatePool(v1::SetPrivatePool {
            pool: wanted.to_string(),
        }))
    };
    app.store.change(make).await?;
    let view = app.store.view();
    let unheard = view.nodes().filter(|node| !answers.contains_key(&node.id));
    Ok(Json(PrivatePoolView {
        pool: view.private_pool().to_string(),
        unheard: unheard.map(|node| node.name.clone()).collect(),
    }))
}

async fn ask(app: &App, pool: Pool) -> Result<check::Answers, Problem> {
    let _permit = app.checks.try_acquire().map_err(|_| {
        Problem::new(Code::Busy, "the network is being checked already")
            .hint("try again in a moment: it takes 45 seconds at most")
    })?;
    let view = app.store.view();
    Ok(check::ask_all(&view, pool, (&app.relay, &app.fleet)).await)
}
