//! Whether a domain is the project's that wants hosts of it: asked of DNS, where somebody may write who owns it.
//! Asked when a host is claimed, and never again.

use std::net::SocketAddr;

use axum::Json;
use skep_model::claim::{proof_names, proof_of};
use skep_model::id::{EnvironmentId, ProjectId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State as View;

use super::error::Failure;
use super::extract::Body;
use super::types::{DomainProofRequest, DomainProofView};
use super::{App, Here};
use crate::acme::Lookup;

/// Whether projects prove that domains are theirs, and how each does it.
#[utoipa::path(get, path = "/v1/domain-proof", tag = "services", operation_id = "get_domain_proof",
    responses((status = 200, body = DomainProofView)))]
pub(super) async fn get(Here(app): Here) -> Json<DomainProofView> {
    Json(shown(&app.store.view()))
}

/// Says whether projects prove that domains are theirs before they get hosts of them. What they have, they keep.
#[utoipa::path(put, path = "/v1/domain-proof", tag = "services", operation_id = "set_domain_proof",
    request_body = DomainProofRequest, responses((status = 200, body = DomainProofView)))]
pub(super) async fn put(
    Here(app): Here,
    Body(request): Body<DomainProofRequest>,
) -> Result<Json<DomainProofView>, Failure> {
    let required = request.required;
    let command = v1::SetDomainProof { required };
    app.store.propose(Kind::SetDomainProof(command)).await?;
    Ok(Json(shown(&app.store.view())))
}

fn shown(view: &View) -> DomainProofView {
    let projects = view.projects();
    DomainProofView {
        required: view.needs_domain_proof(),
        records: projects
            .map(|project| (project.name.clone(), proof_of(project.id)))
            .collect(),
    }
}

/// Refuses a service hosts whose domains nobody has said to be its project's, where that is asked for.
///
/// # Errors
/// Names the record that is missing.
pub(super) async fn check(
    app: &App,
    environment: EnvironmentId,
    wanted: &Service,
) -> Result<(), Problem> {
    let view = app.store.view();
    if !view.needs_domain_proof() {
        return Ok(());
    }
    let Some(project) = view.environment(environment).map(|it| it.project) else {
        return Ok(());
    };
    for (host, field) in view.unproved_hosts(Some(project), wanted) {
        prove(&app.resolvers, project, &host)
            .await
            .map_err(|problem| problem.at(format!("spec.{field}")))?;
    }
    Ok(())
}

async fn prove(resolvers: &[SocketAddr], project: ProjectId, host: &str) -> Result<(), Problem> {
    let (names, proof) = (proof_names(host), proof_of(project));
    let lookup = Lookup::new(resolvers);
    let mut unheard = None;
    for name in &names {
        match lookup.texts(name).await {
            Ok(texts) if texts.contains(&proof) => return Ok(()),
            Ok(_) => {}
            Err(error) => unheard = Some(error),
        }
    }
    let shortest = names.last().map_or(host, |name| name);
    let hint = format!("a TXT record `{proof}` at `{shortest}`, or nearer to the host; then again");
    let text = match unheard {
        // Whoever has the record is not to look for a mistake in it.
        Some(error) => {
            let text = format!("DNS does not say whose `{host}` is: {error}");
            return Err(Problem::new(Code::Unavailable, text).hint(hint));
        }
        None => format!("DNS does not say that `{host}` is this project's"),
    };
    Err(Problem::new(Code::Conflict, text).hint(hint))
}
