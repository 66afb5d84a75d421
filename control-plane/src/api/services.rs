//! Services: list, show, create or change, stop, scale, remove.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use skep_identity::random;
use skep_model::id::{EnvironmentId, ProjectId, ServiceId};
use skep_model::name;
use skep_model::problem::{Code, Problem};
use skep_model::run::Mode;
use skep_model::service::Service;
use skep_model::spec::ServiceSpec;
use skep_model::tenancy::{Environment, Project};
use skep_model::variable::{self, VariableInput};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Reply, State as View};

use super::autoscale::refuse_autoscaled;
use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::find::{self, ServiceFilter, ServiceKey};
use super::leader::{self, Asked, Place};
use super::types::{PutService, ScaleRequest, ServiceView, ServicesView};
use super::variables::check_references;
use super::{App, Here, proof, views};
use crate::variables::check_service_name;

/// Lists services.
#[utoipa::path(get, path = "/v1/services", tag = "services", params(ServiceFilter),
    operation_id = "list_services", responses((status = 200, body = ServicesView)))]
pub(super) async fn list(
    Here(app): Here,
    Query(filter): Query<ServiceFilter>,
) -> Json<ServicesView> {
    let view = app.store.view();
    let services = filter.matching(&view);
    Json(ServicesView {
        services: services
            .iter()
            .map(|service| views::service(&view, service))
            .collect(),
    })
}

/// Shows a service.
#[utoipa::path(get, path = "/v1/projects/{project}/environments/{environment}/services/{service}",
    tag = "services", params(ServiceKey, Place), operation_id = "get_service",
    responses((status = 200, body = ServiceView)))]
pub(super) async fn get(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Query(place): Query<Place>,
    headers: HeaderMap,
) -> Result<Json<ServiceView>, Failure> {
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    let is_asked = views::asked_source(&service).is_some();
    if !place.here && !app.samples.is_leading() && is_asked {
        let asked = Asked {
            what: "when its source was asked last is not known",
            method: Method::GET,
            path: format!("{}?here=true", leader::path(&key, "").trim_end_matches('/')),
            body: Bytes::new(),
            caller: leader::caller(&headers),
        };
        // Without a leader there is still what the state knows.
        if let Ok(found) = leader::ask(&app, asked).await {
            return Ok(Json(found));
        }
    }
    Ok(Json(ServiceView {
        source_asked_ms: app.asked.at_ms(service.id).filter(|_| is_asked),
        ..views::service(&view, &service)
    }))
}

/// Creates or changes a service. Project and environment are made where they do not exist.
#[utoipa::path(put, path = "/v1/projects/{project}/environments/{environment}/services/{service}",
    tag = "services", params(ServiceKey), operation_id = "put_service", request_body = PutService,
    responses((status = 200, body = ServiceView), (status = 201, body = ServiceView)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Body(request): Body<PutService>,
) -> Result<(StatusCode, Json<ServiceView>), Failure> {
    for (field, text) in [
        ("project", &key.project),
        ("environment", &key.environment),
        ("service", &key.service),
    ] {
        name::check(field, text)?;
    }
    check_variables("variables", &request.variables)?;
    if let Some(spec) = &request.spec {
        spec.check_given()
            .map_err(|problem| below("spec", problem))?;
    }
    if let Ok(service) = find::service(&app.store.view(), &key)
        && is_same(&app, &service, &request)
    {
        let view = app.store.view();
        return Ok((StatusCode::OK, Json(views::service(&view, &service))));
    }
    check_service_name(&key.service)?;
    let environment = ensure_environment(&app, &key.project, &key.environment).await?;
    let fresh = ServiceId::from_u128(random::new_id());
    if let Some(spec) = &request.spec {
        let mut wanted = new_service(fresh, environment, &key.service);
        wanted.spec = spec.clone();
        proof::check(&app, environment, &wanted).await?;
    }
    let reply = app
        .store
        .change(|view| {
            let existing = view.service_named(environment, &key.service);
            let service = match existing {
                Some(service) => (**service).clone(),
                None => new_service(fresh, environment, &key.service),
            };
            changed_service(&app, view, service, &request)
        })
        .await?;
    let view = app.store.view();
    let is_new = matches!(reply, Reply::Service { generation: 1, .. });
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let service = find::service(&view, &key)?;
    Ok((status, Json(views::service(&view, &service))))
}

/// Whether the service is as asked for already: then nothing enters the log.
fn is_same(app: &App, service: &Service, request: &PutService) -> bool {
    let has = |input: &VariableInput| {
        service.variables.get(&input.name).is_some_and(|variable| {
            variable.secret == input.secret
                && app
                    .secrets
                    .open_variable(service.id, &input.name, variable)
                    .is_ok_and(|value| value == input.value)
        })
    };
    !service.removing
        && request
            .if_generation
            .is_none_or(|generation| generation == service.generation)
        && request
            .spec
            .as_ref()
            .is_none_or(|spec| *spec == service.spec)
        && request.variables.iter().all(has)
}

fn changed_service(
    app: &App,
    view: &View,
    mut service: Service,
    request: &PutService,
) -> Result<Kind, Problem> {
    refuse_removing(&service)?;
    let is_expected = request
        .if_generation
        .is_none_or(|generation| generation == service.generation);
    if !is_expected {
        let text = format!("the service has generation {}", service.generation);
        return Err(Problem::new(Code::Conflict, text)
            .at("if_generation")
            .hint("read it again and repeat the change"));
    }
    if let Some(spec) = &request.spec {
        service.spec = spec.clone();
    }
    set_variables(app, &mut service, &request.variables);
    let names = request.variables.iter().map(|input| &*input.name);
    // What is missing yet may come: only what can never resolve is refused.
    check_references(app, view, &service, names).map_err(|problem| below("variables", problem))?;
    Ok(put_command(&service))
}

/// A service of which nothing is said yet.
pub(crate) fn new_service(id: ServiceId, environment: EnvironmentId, name: &str) -> Service {
    Service {
        id,
        environment,
        name: name.to_owned(),
        spec: ServiceSpec::default(),
        variables: Default::default(),
        webhook_secret: None,
        live: None,
        rollout: None,
        progress: Default::default(),
        last_release: 0,
        stopped: false,
        removing: false,
        generation: 0,
        created_ms: 0,
        scaling: None,
        pinned: None,
    }
}

/// The command that stores a service as it is here, if nobody changed it meanwhile.
pub(super) fn put_command(service: &Service) -> Kind {
    Kind::PutService(v1::PutService {
        service: Some(service.into()),
        expected_generation: service.generation,
    })
}

/// Checks variables as they are sent: names, values, and no name twice.
pub(super) fn check_variables(field: &str, inputs: &[VariableInput]) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    for input in inputs {
        variable::check(input).map_err(|problem| below(field, problem))?;
        if !seen.insert(&input.name) {
            let text = format!("{} is given twice", input.name);
            return Err(Problem::invalid(field, text));
        }
    }
    Ok(())
}

/// Seals and sets variables.
pub(super) fn set_variables(app: &App, service: &mut Service, inputs: &[VariableInput]) {
    for input in inputs {
        let sealed = app.secrets.seal_variable(service.id, input);
        service.variables.insert(input.name.clone(), sealed);
    }
}

/// The same problem, its field as part of a larger thing.
pub(super) fn below(parent: &str, mut problem: Problem) -> Problem {
    problem.field = Some(match problem.field.take() {
        Some(field) => format!("{parent}.{field}"),
        None => parent.to_owned(),
    });
    problem
}

/// The environment of these names, made where it does not exist.
///
/// # Errors
/// A name is not accepted.
pub(super) async fn ensure_environment(
    app: &App,
    project_name: &str,
    environment_name: &str,
) -> Result<EnvironmentId, Problem> {
    name::check("project", project_name)?;
    name::check("environment", environment_name)?;
    let view = app.store.view();
    let workspace = find::workspace(&view)?;
    if let Some(existing) = view
        .project_named(workspace, project_name)
        .and_then(|project| view.environment_named(project.id, environment_name))
    {
        return Ok(existing.id);
    }
    let project = ProjectId::from_u128(random::new_id());
    let environment = EnvironmentId::from_u128(random::new_id());
    let message = v1::EnsureEnvironment {
        workspace: id_bytes(workspace.as_u128()),
        project: Some(
            (&Project {
                id: project,
                workspace,
                name: project_name.to_owned(),
            })
                .into(),
        ),
        environment: Some(
            (&Environment {
                id: environment,
                project,
                name: environment_name.to_owned(),
            })
                .into(),
        ),
    };
    match app.store.propose(Kind::EnsureEnvironment(message)).await? {
        Reply::Environment { environment, .. } => Ok(environment),
        _ => Err(Problem::new(Code::Internal, "the environment was not made")),
    }
}

/// Reads, changes and stores a service, as often as it takes. `change` answers false when there is
/// nothing to do.
pub(super) async fn modify<F>(app: &App, key: &ServiceKey, mut change: F) -> Result<(), Problem>
where
    F: FnMut(&mut Service) -> Result<bool, Problem>,
{
    let seen = find::service(&app.store.view(), key)?;
    if !change(&mut (*seen).clone())? {
        return Ok(());
    }
    let make = |view: &View| {
        let mut service = (*find::service(view, key)?).clone();
        change(&mut service)?;
        Ok(put_command(&service))
    };
    app.store.change(make).await.map(|_| ())
}

pub(super) fn refuse_removing(service: &Service) -> Result<(), Problem> {
    if service.removing {
        return Err(Problem::new(Code::Conflict, "the service is being removed")
            .hint("wait until it is gone, then make it again"));
    }
    Ok(())
}

async fn modified<F>(app: &App, key: &ServiceKey, change: F) -> Result<Json<ServiceView>, Failure>
where
    F: FnMut(&mut Service) -> Result<bool, Problem>,
{
    modify(app, key, change).await?;
    let view = app.store.view();
    let service = find::service(&view, key)?;
    Ok(Json(views::service(&view, &service)))
}

/// Removes a service: its allocations are stopped, then it is forgotten.
#[utoipa::path(delete,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}",
    tag = "services", params(ServiceKey), operation_id = "remove_service",
    responses((status = 202, body = ServiceView, description = "It is on its way out")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<(StatusCode, Json<ServiceView>), Failure> {
    let before = app.store.view();
    let service = find::service(&before, &key)?;
    modify(&app, &key, |service| {
        Ok(!std::mem::replace(&mut service.removing, true))
    })
    .await?;
    let view = app.store.view();
    // Without allocations it may be gone already.
    let shown = match view.service(service.id) {
        Some(service) => views::service(&view, service),
        None => views::service(
            &before,
            &Service {
                removing: true,
                ..(*service).clone()
            },
        ),
    };
    Ok((StatusCode::ACCEPTED, Json(shown)))
}

/// Stops a service: it keeps its releases, and runs again with its next deployment.
#[utoipa::path(post,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/stop",
    tag = "services", params(ServiceKey), operation_id = "stop_service",
    responses((status = 200, body = ServiceView)))]
pub(super) async fn stop(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<Json<ServiceView>, Failure> {
    modified(&app, &key, |service| {
        refuse_removing(service)?;
        Ok(!std::mem::replace(&mut service.stopped, true))
    })
    .await
}

/// Changes how many allocations a service has.
#[utoipa::path(post,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/scale",
    tag = "services", params(ServiceKey), operation_id = "scale_service",
    request_body = ScaleRequest, responses((status = 200, body = ServiceView)))]
pub(super) async fn scale(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Body(request): Body<ScaleRequest>,
) -> Result<Json<ServiceView>, Failure> {
    modified(&app, &key, |service| {
        refuse_removing(service)?;
        let mode = service.spec.run.mode;
        if mode != Mode::Service {
            let text = format!("a service of the mode `{}` has no replicas", mode.as_str());
            return Err(Problem::new(Code::Conflict, text).at("replicas"));
        }
        refuse_autoscaled(service)?;
        let before = std::mem::replace(&mut service.spec.replicas, request.replicas);
        service.spec.check()?;
        Ok(before != request.replicas)
    })
    .await
}
