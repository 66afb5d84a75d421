//! Variables of a service. Secrets go in and never come out.

use axum::Json;
use skep_model::deployment::Trigger;
use skep_model::id::DeploymentId;
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;

use super::deploy::{self, Wish};
use super::error::Failure;
use super::extract::{Body, Path};
use super::find::{self, ServiceKey};
use super::services::{check_variables, modify, set_variables};
use super::types::{PatchVariables, VariableView, VariablesView};
use super::{App, Here, views};

/// Lists a service's variables; the values of secrets are left out.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/variables",
    tag = "variables", params(ServiceKey), operation_id = "list_variables",
    responses((status = 200, body = VariablesView)))]
pub(super) async fn list(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<Json<VariablesView>, Failure> {
    let service = find::service(&app.store.view(), &key)?;
    Ok(Json(shown(&app, &service)?))
}

fn shown(app: &App, service: &Service) -> Result<VariablesView, Problem> {
    let show = |(name, variable): (&String, _)| {
        let variable: &skep_model::variable::Variable = variable;
        let value = if variable.secret {
            None
        } else {
            Some(app.secrets.open_variable(service.id, name, variable)?)
        };
        Ok(VariableView {
            name: name.clone(),
            value,
            secret: variable.secret,
        })
    };
    Ok(VariablesView {
        variables: service
            .variables
            .iter()
            .map(show)
            .collect::<Result<_, Problem>>()?,
        generation: service.generation,
        deployment: None,
    })
}

/// Sets and unsets variables, and deploys the live release again with them.
#[utoipa::path(patch,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/variables",
    tag = "variables", params(ServiceKey), operation_id = "patch_variables",
    request_body = PatchVariables, responses((status = 200, body = VariablesView)))]
pub(super) async fn patch(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Body(request): Body<PatchVariables>,
) -> Result<Json<VariablesView>, Failure> {
    check_variables("set", &request.set)?;
    modify(&app, &key, |service| {
        for name in &request.unset {
            if service.variables.remove(name).is_none() {
                let shown: String = name.chars().take(60).collect();
                let text = format!("there is no variable `{}`", shown.escape_debug());
                return Err(Problem::new(Code::NotFound, text).at("unset"));
            }
        }
        set_variables(&app, service, &request.set);
        Ok(!request.set.is_empty() || !request.unset.is_empty())
    })
    .await?;
    let service = find::service(&app.store.view(), &key)?;
    let mut answer = shown(&app, &service)?;
    let runs = service.target().is_some() && !service.stopped;
    if request.redeploy && runs && !service.removing {
        let id = match pending(&app, &service) {
            Some(id) => id,
            None => deploy::create(&app, &key, (&Wish::Renew, false)).await?,
        };
        let view = app.store.view();
        answer.deployment = view.deployment(id).map(|of| views::deployment(&view, of));
    }
    Ok(Json(answer))
}

/// A deployment whose release is not made yet: it will have the new variables.
fn pending(app: &App, service: &Service) -> Option<DeploymentId> {
    let view = app.store.view();
    let active = view
        .deployments_of(service.id)
        .rfind(|of| of.status.is_active())?;
    let takes_them =
        active.release.is_none() && !matches!(active.trigger, Trigger::Restart | Trigger::Rollback);
    takes_them.then_some(active.id)
}
