//! Deployments and releases of a service.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::deployment::Status;
use skep_model::gate::Held;
use skep_model::id::DeploymentId;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use utoipa::IntoParams;

use super::deploy::{self, How, Wish};
use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::find::{self, ServiceKey};
use super::types::{DeploymentRequest, DeploymentView, DeploymentsView, ReleasesView};
use super::{App, Here, views};

/// The id of a deployment.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DeploymentKey {
    /// Its id.
    #[param(value_type = String)]
    pub(super) deployment: DeploymentId,
}

pub(super) fn shown(app: &App, id: DeploymentId) -> Result<DeploymentView, Problem> {
    let view = app.store.view();
    let deployment = find::deployment(&view, id)?;
    Ok(views::deployment(&view, &deployment))
}

/// How a deployment is carried out.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Means {
    /// Build even where there is an image of the same commit and configuration, and without Docker's cache.
    #[serde(default)]
    pub(super) no_cache: bool,
    /// Whoever asks for it says yes to it, where the environment asks for somebody's yes.
    #[serde(default)]
    pub(super) approve: bool,
    /// Freezes do not hold it; with `approve`.
    #[serde(default)]
    pub(super) despite_freeze: bool,
}

impl Means {
    fn held(self) -> Result<Option<Held>, Problem> {
        if self.despite_freeze && !self.approve {
            let text = "whoever begins something despite a freeze has to approve it";
            return Err(Problem::invalid("despite_freeze", text).hint("with `approve=true`"));
        }
        Ok(self.approve.then_some(Held {
            approved_ms: Some(0),
            despite_freeze: self.despite_freeze,
            heard: 0,
        }))
    }
}

/// Deploys: an upload, a git repository, an image, or a release again. A deployment that is on its
/// way is superseded.
#[utoipa::path(post,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/deployments",
    tag = "deployments", params(ServiceKey, Means), operation_id = "create_deployment",
    request_body = DeploymentRequest, responses((status = 202, body = DeploymentView)))]
pub(super) async fn create(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Query(means): Query<Means>,
    Body(request): Body<DeploymentRequest>,
) -> Result<(StatusCode, Json<DeploymentView>), Failure> {
    let how = How {
        no_cache: means.no_cache,
        held: means.held()?,
    };
    let id = deploy::create(&app, &key, (&Wish::Asked(request), how)).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&app, id)?)))
}

/// Lists a service's deployments, newest first.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/deployments",
    tag = "deployments", params(ServiceKey), operation_id = "list_deployments",
    responses((status = 200, body = DeploymentsView)))]
pub(super) async fn list(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<Json<DeploymentsView>, Failure> {
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    let newest_first = view.deployments_of(service.id).rev();
    Ok(Json(DeploymentsView {
        deployments: newest_first
            .map(|of| views::deployment(&view, of))
            .collect(),
    }))
}

/// Shows a deployment.
#[utoipa::path(get, path = "/v1/deployments/{deployment}", tag = "deployments",
    params(DeploymentKey), operation_id = "get_deployment",
    responses((status = 200, body = DeploymentView)))]
pub(super) async fn get(
    Here(app): Here,
    Path(key): Path<DeploymentKey>,
) -> Result<Json<DeploymentView>, Failure> {
    Ok(Json(shown(&app, key.deployment)?))
}

/// Ends a deployment that is on its way; what is live goes on serving.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/cancel", tag = "deployments",
    params(DeploymentKey), operation_id = "cancel_deployment",
    responses((status = 200, body = DeploymentView)))]
pub(super) async fn cancel(
    Here(app): Here,
    Path(key): Path<DeploymentKey>,
) -> Result<Json<DeploymentView>, Failure> {
    app.store
        .change(|view| {
            let deployment = find::deployment(view, key.deployment)?;
            if !deployment.status.is_active() {
                let text = format!("the deployment is {} already", deployment.status.as_str());
                return Err(Problem::new(Code::Conflict, text));
            }
            let problem = Problem::new(Code::Canceled, "canceled on request");
            Ok(Kind::FinishDeployment(v1::FinishDeployment {
                deployment: id_bytes(deployment.id.as_u128()),
                expected_generation: deployment.generation,
                status: enum_number(&Status::ALL, &Status::Canceled),
                problem: Some((&problem).into()),
                step: "canceled on request".to_owned(),
            }))
        })
        .await?;
    Ok(Json(shown(&app, key.deployment)?))
}

/// Lists the releases of a service that are kept, newest first.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/releases",
    tag = "deployments", params(ServiceKey), operation_id = "list_releases",
    responses((status = 200, body = ReleasesView)))]
pub(super) async fn releases(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<Json<ReleasesView>, Failure> {
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    let mut releases: Vec<_> = view
        .releases_of(service.id)
        .map(|release| views::release(release, &service))
        .collect();
    releases.reverse();
    Ok(Json(ReleasesView { releases }))
}
