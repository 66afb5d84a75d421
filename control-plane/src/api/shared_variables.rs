//! Variables that the services of an environment may refer to. Secrets go in and never come out.

use axum::Json;
use skep_model::problem::Problem;
use skep_model::variable::reference::Place;
use skep_model::variable::{SharedVariables, Variable, VariableInput};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State as View;

use super::error::Failure;
use super::extract::{Body, Path};
use super::services::{check_variables, ensure_environment};
use super::settings::EnvironmentKey;
use super::types::{EffectsView, PatchSharedVariables, SharedVariablesView, VariableView};
use super::variables::{effects, under_another_name, unknown};
use super::{App, Here, find};
use crate::variables::Environment;

/// Lists the variables of an environment; the values of secrets are left out.
#[utoipa::path(get, path = "/v1/projects/{project}/environments/{environment}/variables",
    tag = "variables", params(EnvironmentKey), operation_id = "list_shared_variables",
    responses((status = 200, body = SharedVariablesView)))]
pub(super) async fn list(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
) -> Result<Json<SharedVariablesView>, Failure> {
    let view = app.store.view();
    let environment = find::environment(&view, &key.project, &key.environment)?;
    Ok(Json(shown(&app, &view.shared_variables(environment))?))
}

fn shown(app: &App, shared: &SharedVariables) -> Result<SharedVariablesView, Problem> {
    let show = |(name, variable): (&String, &Variable)| {
        let open = || app.secrets.open_shared(shared.environment, name, variable);
        Ok(VariableView {
            name: name.clone(),
            value: (!variable.secret).then(open).transpose()?,
            secret: variable.secret,
        })
    };
    let variables = shared.variables.iter().map(show);
    Ok(SharedVariablesView {
        variables: variables.collect::<Result<_, Problem>>()?,
        generation: shared.generation,
        effects: EffectsView::default(),
    })
}

/// Sets and unsets variables of an environment, which is made where it does not exist. Services have them
/// only where they refer to them.
#[utoipa::path(patch, path = "/v1/projects/{project}/environments/{environment}/variables",
    tag = "variables", params(EnvironmentKey), operation_id = "patch_shared_variables",
    request_body = PatchSharedVariables, responses((status = 200, body = SharedVariablesView)))]
pub(super) async fn patch(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Body(request): Body<PatchSharedVariables>,
) -> Result<Json<SharedVariablesView>, Failure> {
    check_variables("set", &request.set)?;
    let environment = ensure_environment(&app, &key.project, &key.environment).await?;
    let mut warnings = Vec::new();
    let is_silent = request.set.is_empty() && request.unset.is_empty() && request.keep.is_empty();
    if !is_silent {
        let make = |view: &View| {
            let shared = changed(&app, view.shared_variables(environment), &request)?;
            let names = request.set.iter().map(|input| &input.name);
            let names = names.chain(request.keep.iter().map(|keep| &keep.under));
            let places = names.map(|name| Place::shared(name));
            let after = Environment::sharing(view, &app.secrets, shared.clone());
            warnings = after.check(places)?;
            Ok(Kind::PutSharedVariables(v1::PutSharedVariables {
                shared: Some((&shared).into()),
            }))
        };
        app.store.change(make).await?;
    }
    let view = app.store.view();
    let shared = view.shared_variables(environment);
    let mut answer = shown(&app, &shared)?;
    let names = request.set.iter().map(|input| &input.name);
    let names = names.chain(request.keep.iter().map(|keep| &keep.under));
    let places = names.chain(&request.unset).map(|name| Place::shared(name));
    let around = Environment::sharing(&view, &app.secrets, shared);
    let dependents = around.dependents(&places.collect())?;
    answer.effects = effects(&app, dependents, request.redeploy).await?;
    answer.effects.warnings = warnings;
    Ok(Json(answer))
}

fn changed(
    app: &App,
    mut shared: SharedVariables,
    request: &PatchSharedVariables,
) -> Result<SharedVariables, Problem> {
    let kept = request.keep.iter().map(|keep| {
        let open =
            |known: &Variable| (app.secrets).open_shared(shared.environment, &keep.name, known);
        under_another_name(&shared.variables, keep, open)
    });
    let kept: Vec<VariableInput> = kept.collect::<Result<_, _>>()?;
    for name in &request.unset {
        if shared.variables.remove(name).is_none() {
            return Err(unknown(name));
        }
    }
    // What is set wins over what is kept under the same name.
    for input in kept.iter().chain(&request.set) {
        let sealed = app.secrets.seal_shared(shared.environment, input);
        shared.variables.insert(input.name.clone(), sealed);
    }
    Ok(shared)
}
