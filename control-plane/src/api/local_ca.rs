//! The authority for private names: make it, show its root, end it. Its key is shown to nobody.

use axum::Json;
use axum::http::StatusCode;
use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

use super::Here;
use super::error::Failure;
use super::types::LocalCaView;
use crate::acme::make_local_ca;

/// Shows the root that people trust by hand.
#[utoipa::path(get, path = "/v1/local-ca", tag = "cluster", operation_id = "get_local_ca",
    responses((status = 200, body = LocalCaView)))]
pub(super) async fn get(Here(app): Here) -> Result<Json<LocalCaView>, Failure> {
    Ok(Json(shown(&app.store.view())?))
}

/// Makes the authority: from then on private hosts of routes get certificates. One that is there stays.
#[utoipa::path(put, path = "/v1/local-ca", tag = "cluster", operation_id = "make_local_ca",
    responses((status = 200, body = LocalCaView)))]
pub(super) async fn make(Here(app): Here) -> Result<Json<LocalCaView>, Failure> {
    let view = app.store.view();
    if let Ok(there) = shown(&view) {
        return Ok(Json(there));
    }
    let cluster = view.cluster().map(|it| it.id.to_string());
    let ca = make_local_ca(&app.secrets, &cluster.unwrap_or_default())?;
    let command = v1::SetLocalCa {
        ca: Some((&ca).into()),
    };
    match app.store.propose(Kind::SetLocalCa(command)).await {
        Ok(_) => {}
        // Somebody made one meanwhile: that is it.
        Err(problem) if problem.code == Code::Conflict => {}
        Err(problem) => return Err(problem.into()),
    }
    Ok(Json(shown(&app.store.view())?))
}

/// Nobody issues for private names any more. Certificates that there are stay until they run out.
#[utoipa::path(delete, path = "/v1/local-ca", tag = "cluster", operation_id = "remove_local_ca",
    responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(Here(app): Here) -> Result<StatusCode, Failure> {
    let command = v1::SetLocalCa { ca: None };
    app.store.propose(Kind::SetLocalCa(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(view: &State) -> Result<LocalCaView, Problem> {
    let ca = view.local_ca().ok_or_else(|| {
        Problem::new(Code::NotFound, "there is no local CA")
            .hint("`skep certificates ca --make` makes one, for names under localhost, local, internal and home.arpa")
    })?;
    Ok(LocalCaView {
        root: ca.cert_pem.clone(),
        made_ms: ca.made_ms,
    })
}
