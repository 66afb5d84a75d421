//! Variables of a service. Secrets go in and never come out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use skep_model::deployment::Trigger;
use skep_model::id::DeploymentId;
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::variable::reference::Place;
use skep_model::variable::{self, Variable, VariableInput};
use skep_state::State as View;

use super::deploy::{self, How, Wish};
use super::error::Failure;
use super::extract::{Body, Path};
use super::find::{self, ServiceKey};
use super::services::{below, check_variables, modify, set_variables};
use super::types::{
    DeploymentView, EffectsView, KeepVariable, PatchVariables, VariableView, VariablesView,
};
use super::{App, Here, views};
use crate::variables::Environment;

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
        let variable: &Variable = variable;
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
        effects: EffectsView::default(),
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
    let mut warnings = Vec::new();
    modify(&app, &key, |service| {
        let kept = request.keep.iter().map(|keep| kept(&app, service, keep));
        let kept: Vec<VariableInput> = kept.collect::<Result<_, _>>()?;
        set_variables(&app, service, &kept);
        for name in &request.unset {
            if service.variables.remove(name).is_none() {
                return Err(unknown(name));
            }
        }
        set_variables(&app, service, &request.set);
        let names = request.set.iter().map(|input| &*input.name);
        warnings = check_references(&app, &app.store.view(), service, names)?;
        Ok(!(request.set.is_empty() && request.unset.is_empty() && request.keep.is_empty()))
    })
    .await?;
    let service = find::service(&app.store.view(), &key)?;
    let mut answer = shown(&app, &service)?;
    if request.redeploy && runs(&service) {
        let id = renew(&app, &service).await?;
        let view = app.store.view();
        answer.deployment = view.deployment(id).map(|of| views::deployment(&view, of));
    }
    let names = request.set.iter().map(|input| &input.name);
    let names = names.chain(request.keep.iter().map(|keep| &keep.under));
    let changed = names.chain(&request.unset);
    let changed = changed.map(|name| Place::of_service(&service.name, name));
    let view = app.store.view();
    let around = Environment::around(&view, &app.secrets, (&service, None));
    let mut dependents = around.dependents(&changed.collect())?;
    dependents.retain(|other| other.id != service.id);
    answer.effects = effects(&app, dependents, request.redeploy_dependents).await?;
    answer.effects.warnings = warnings;
    Ok(Json(answer))
}

fn kept(app: &App, service: &Service, keep: &KeepVariable) -> Result<VariableInput, Problem> {
    let open = |known: &Variable| app.secrets.open_variable(service.id, &keep.name, known);
    under_another_name(&service.variables, keep, open)
}

/// The same value under another name; a secret stays one.
///
/// # Errors
/// There is no such value, or the name is none, or its own.
pub(super) fn under_another_name(
    variables: &BTreeMap<String, Variable>,
    keep: &KeepVariable,
    open: impl FnOnce(&Variable) -> Result<String, Problem>,
) -> Result<VariableInput, Problem> {
    let known = variables.get(&keep.name);
    let known = known.ok_or_else(|| unknown(&keep.name).at("keep"))?;
    let input = VariableInput {
        name: keep.under.clone(),
        value: open(known)?,
        secret: known.secret,
    };
    variable::check(&input).map_err(|problem| below("keep", problem))?;
    match keep.under == keep.name {
        false => Ok(input),
        true => Err(Problem::invalid("keep.under", "it has this name already")),
    }
}

pub(super) fn unknown(name: &str) -> Problem {
    let shown: String = name.chars().take(60).collect();
    let text = format!("there is no variable `{}`", shown.escape_debug());
    Problem::new(Code::NotFound, text).at("unset")
}

/// What references in these variables of a service lack yet, the service as it is to be.
///
/// # Errors
/// What can never be resolved.
pub(super) fn check_references<'a>(
    app: &App,
    view: &View,
    service: &Service,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<Problem>, Problem> {
    let port = service.spec.port;
    let places = names.map(|name| Place::of_service(&service.name, name));
    let places: BTreeSet<Place> = places.collect();
    Environment::around(view, &app.secrets, (service, port)).check(places.into_iter())
}

/// Which of these services run with old values; deploys them again where that is asked for.
///
/// # Errors
/// A deployment could not be made.
pub(super) async fn effects(
    app: &App,
    mut dependents: Vec<Arc<Service>>,
    redeploy: bool,
) -> Result<EffectsView, Problem> {
    dependents.retain(|service| runs(service));
    let mut made: Vec<DeploymentView> = Vec::new();
    if redeploy {
        for service in &dependents {
            let id = renew(app, service).await?;
            let view = app.store.view();
            made.extend(view.deployment(id).map(|of| views::deployment(&view, of)));
        }
    }
    Ok(EffectsView {
        dependents: dependents.iter().map(|it| it.name.clone()).collect(),
        dependent_deployments: made,
        warnings: Vec::new(),
    })
}

fn runs(service: &Service) -> bool {
    service.target().is_some() && !service.stopped && !service.removing
}

/// Deploys what a service runs again, with its variables as they are now.
async fn renew(app: &App, service: &Service) -> Result<DeploymentId, Problem> {
    if let Some(id) = pending(app, service) {
        return Ok(id);
    }
    let (project, environment) = views::owners(&app.store.view(), service);
    let key = ServiceKey {
        project,
        environment,
        service: service.name.clone(),
    };
    deploy::create(app, &key, (&Wish::Renew, How::default())).await
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
