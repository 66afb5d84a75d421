//! Previews: listed, made by hand, put off, removed; and the rules that they are made by.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::id::EnvironmentId;
use skep_model::name;
use skep_model::preview::{Preview, Rules, Why, check_ttl};
use skep_model::problem::{Code, Problem};
use skep_model::settings::Scope;
use skep_model::spec::{Source, check_image};
use skep_model::tenancy::DEFAULT_ENVIRONMENT;
use skep_model::variable::Variable;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path};
use super::services::check_variables;
use super::settings::EnvironmentKey;
use super::types::{
    AllPreviewRulesView, CommentView, ExtendRequest, PreviewRequest, PreviewRulesRequest,
    PreviewRulesView, PreviewServiceView, PreviewView, PreviewsView, PullRequestView, VariableView,
};
use super::{App, Here, find};
use crate::forges::comment_state;
use crate::previews::{Head, Wish, make};
use crate::urls::urls;

/// The names that lead to a preview.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PreviewKey {
    /// Name of the project.
    project: String,
    /// Name of the preview, which is its environment's.
    preview: String,
}

/// Lists the previews of all projects; those whose services are going, too.
#[utoipa::path(get, path = "/v1/previews", tag = "previews", operation_id = "list_previews",
    responses((status = 200, body = PreviewsView)))]
pub(super) async fn list(Here(app): Here) -> Json<PreviewsView> {
    let view = app.store.view();
    let there = view.previews();
    let there = there.filter(|it| view.environment(it.environment).is_some());
    let mut previews: Vec<_> = there.map(|it| shown(&view, it)).collect();
    previews.sort_by(|left, right| (&left.project, &left.name).cmp(&(&right.project, &right.name)));
    Json(PreviewsView { previews })
}

/// Shows a preview.
#[utoipa::path(get, path = "/v1/previews/{project}/{preview}", tag = "previews", params(PreviewKey),
    operation_id = "get_preview", responses((status = 200, body = PreviewView)))]
pub(super) async fn get(
    Here(app): Here,
    Path(key): Path<PreviewKey>,
) -> Result<Json<PreviewView>, Failure> {
    let view = app.store.view();
    let preview = preview_of(&view, &key)?;
    Ok(Json(shown(&view, &preview)))
}

/// Makes a preview by hand: a copy of an environment that ends by itself.
#[utoipa::path(post, path = "/v1/previews/{project}/{preview}", tag = "previews", params(PreviewKey),
    operation_id = "make_preview", request_body = PreviewRequest,
    responses((status = 201, body = PreviewView)))]
pub(super) async fn create(
    Here(app): Here,
    Path(key): Path<PreviewKey>,
    Body(request): Body<PreviewRequest>,
) -> Result<(StatusCode, Json<PreviewView>), Failure> {
    name::check("name", &key.preview)?;
    request.ttl_ms.map_or(Ok(()), check_ttl)?;
    for image in request.images.values() {
        check_image("images", image)?;
    }
    let from = request.from.as_deref().unwrap_or(DEFAULT_ENVIRONMENT);
    let command = |view: &State| {
        let base = find::environment(view, &key.project, from).map_err(|problem| {
            problem.hint("`skep ps` lists the services with their environments")
        })?;
        let wish = Wish {
            base,
            name: key.preview.clone(),
            ttl_ms: request.ttl_ms,
            request: None,
            head: request
                .branch
                .as_ref()
                .map(|branch| head(view, base, branch)),
            images: request.images.clone(),
        };
        make(view, &app.secrets, &wish).map(Kind::MakePreview)
    };
    app.store.change(command).await?;
    let view = app.store.view();
    let preview = preview_of(&view, &key)?;
    Ok((StatusCode::CREATED, Json(shown(&view, &preview))))
}

/// A branch of every service that comes from git.
fn head(view: &State, base: EnvironmentId, branch: &str) -> Head {
    let services = view.services_in(Scope::Environment(base));
    let from_git = services.filter(|it| matches!(it.spec.source, Some(Source::Git { .. })));
    Head {
        repository: None,
        of: from_git.map(|service| service.name.clone()).collect(),
        branch: branch.to_owned(),
        commit: None,
    }
}

/// Puts the end of a preview off.
#[utoipa::path(post, path = "/v1/previews/{project}/{preview}/extend", tag = "previews",
    params(PreviewKey), operation_id = "extend_preview", request_body = ExtendRequest,
    responses((status = 200, body = PreviewView)))]
pub(super) async fn extend(
    Here(app): Here,
    Path(key): Path<PreviewKey>,
    Body(request): Body<ExtendRequest>,
) -> Result<Json<PreviewView>, Failure> {
    request.ttl_ms.map_or(Ok(()), check_ttl)?;
    let preview = preview_of(&app.store.view(), &key)?;
    let ttl_ms = request.ttl_ms.unwrap_or(preview.ttl_ms);
    let command = v1::ExtendPreview {
        environment: id_bytes(preview.environment.as_u128()),
        ttl_ms,
    };
    app.store.propose(Kind::ExtendPreview(command)).await?;
    let view = app.store.view();
    let preview = preview_of(&view, &key)?;
    Ok(Json(shown(&view, &preview)))
}

/// Ends a preview: its services are removed with all that they have, and then its environment is forgotten.
#[utoipa::path(delete, path = "/v1/previews/{project}/{preview}", tag = "previews", params(PreviewKey),
    operation_id = "end_preview", responses((status = 202, body = PreviewView)))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<PreviewKey>,
) -> Result<(StatusCode, Json<PreviewView>), Failure> {
    let before = app.store.view();
    let preview = preview_of(&before, &key)?;
    let mut gone = shown(&before, &preview);
    if preview.ended.is_none() {
        let command = v1::EndPreview {
            environment: id_bytes(preview.environment.as_u128()),
            why: enum_number(&Why::ALL, &Why::Removed),
            ..v1::EndPreview::default()
        };
        app.store.propose(Kind::EndPreview(command)).await?;
        gone.ended = Some(Why::Removed);
    }
    Ok((StatusCode::ACCEPTED, Json(gone)))
}

/// Lists what environments say of their previews.
#[utoipa::path(get, path = "/v1/preview-rules", tag = "previews", operation_id = "list_preview_rules",
    responses((status = 200, body = AllPreviewRulesView)))]
pub(super) async fn list_rules(Here(app): Here) -> Result<Json<AllPreviewRulesView>, Failure> {
    let view = app.store.view();
    let all = view.all_preview_rules();
    let rules: Result<Vec<_>, Problem> = all.map(|it| said(&app, &view, it)).collect();
    let mut rules = rules?;
    rules.sort_by(|left, right| {
        (&left.project, &left.environment).cmp(&(&right.project, &right.environment))
    });
    Ok(Json(AllPreviewRulesView { rules }))
}

/// Says what an environment's previews are like: pull requests get one from now on.
#[utoipa::path(put, path = "/v1/preview-rules/{project}/{environment}", tag = "previews",
    params(EnvironmentKey), operation_id = "put_preview_rules", request_body = PreviewRulesRequest,
    responses((status = 200, body = PreviewRulesView)))]
pub(super) async fn put_rules(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Body(request): Body<PreviewRulesRequest>,
) -> Result<Json<PreviewRulesView>, Failure> {
    check_variables("set", &request.set)?;
    let command = |view: &State| {
        let base = find::environment(view, &key.project, &key.environment)?;
        let rules = changed(&app, view, base, &request)?;
        Ok(Kind::SetPreviewRules(v1::SetPreviewRules {
            rules: Some((&rules).into()),
        }))
    };
    app.store.change(command).await?;
    let view = app.store.view();
    let base = find::environment(&view, &key.project, &key.environment)?;
    let rules = view.preview_rules(base).ok_or_else(no_rules)?;
    Ok(Json(said(&app, &view, rules)?))
}

fn changed(
    app: &App,
    view: &State,
    base: EnvironmentId,
    request: &PreviewRulesRequest,
) -> Result<Rules, Problem> {
    let old = view.preview_rules(base);
    let mut variables = old.map_or_else(Default::default, |old| old.variables.clone());
    for name in &request.unset {
        if variables.remove(name).is_none() {
            let text = format!("previews have no variable `{}`", name.escape_debug());
            return Err(Problem::new(Code::NotFound, text)
                .at("unset")
                .hint("`skep preview rules show` lists them"));
        }
    }
    for input in &request.set {
        variables.insert(input.name.clone(), app.secrets.seal_preview(base, input));
    }
    let rules = Rules {
        base,
        services: request.services.iter().cloned().collect(),
        variables,
        base_domain: request.base_domain.clone(),
        ttl_ms: request.ttl_ms,
        max: request.max,
        forks: request.forks,
        idle_ms: request.idle_ms,
        seed: request.seed.clone(),
    };
    rules.check()?;
    let named = rules.services.iter();
    let named = named.chain(rules.seed.iter().map(|seed| &seed.service));
    for name in named {
        if view.service_named(base, name).is_none() {
            let text = format!("the environment has no service `{name}`");
            return Err(Problem::invalid("services", text).hint("`skep ps` lists the services"));
        }
    }
    Ok(rules)
}

/// Pull requests get no previews any more; those that there are stay until they end.
#[utoipa::path(delete, path = "/v1/preview-rules/{project}/{environment}", tag = "previews",
    params(EnvironmentKey), operation_id = "remove_preview_rules",
    responses((status = 204, description = "It says nothing any more")))]
pub(super) async fn remove_rules(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
) -> Result<StatusCode, Failure> {
    let base = find::environment(&app.store.view(), &key.project, &key.environment)?;
    let command = v1::RemovePreviewRules {
        environment: id_bytes(base.as_u128()),
    };
    app.store.propose(Kind::RemovePreviewRules(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_rules() -> Problem {
    Problem::new(Code::NotFound, "the environment says nothing of previews")
        .hint("`skep preview rules set` does")
}

fn preview_of(view: &State, key: &PreviewKey) -> Result<Arc<Preview>, Problem> {
    let missing = || {
        Problem::new(Code::NotFound, "the project has no such preview")
            .at("preview")
            .hint("`skep preview ls` lists them")
    };
    let environment = find::environment(view, &key.project, &key.preview).map_err(|_| missing())?;
    view.preview_of(environment).cloned().ok_or_else(missing)
}

fn shown(view: &State, preview: &Preview) -> PreviewView {
    let (project, from) = names(view, preview.base);
    let services = view.services_in(Scope::Environment(preview.environment));
    let services = services.map(|service| PreviewServiceView {
        service: service.name.clone(),
        deployment: view
            .deployments_of(service.id)
            .next_back()
            .map(|newest| newest.status.as_str().to_owned()),
        urls: urls(view, service),
    });
    PreviewView {
        project,
        name: preview.name.clone(),
        from,
        request: preview.request.as_ref().map(|request| PullRequestView {
            repository: request.repository.clone(),
            number: request.number,
            title: request.title.clone(),
            url: request.url.clone(),
            fork: request.is_fork,
        }),
        branch: preview.branch.clone(),
        commit: preview.commit.clone(),
        created_ms: preview.created_ms,
        expires_ms: preview.expires_ms,
        ended: preview.ended.map(|ended| ended.why),
        comment: comment(view, preview),
        services: services.collect(),
    }
}

fn comment(view: &State, preview: &Preview) -> Option<CommentView> {
    let last = preview.comment.as_ref();
    Some(CommentView {
        state: comment_state(view, preview.environment)?,
        problem: last.and_then(|comment| comment.problem.clone()),
        told_ms: last.map(|comment| comment.at_ms),
    })
}

/// Names of an environment's project and of itself.
fn names(view: &State, environment: EnvironmentId) -> (String, String) {
    let environment = view.environment(environment);
    let project = environment.and_then(|it| view.project(it.project));
    (
        project.map_or_else(String::new, |it| it.name.clone()),
        environment.map_or_else(String::new, |it| it.name.clone()),
    )
}

fn said(app: &App, view: &State, rules: &Rules) -> Result<PreviewRulesView, Problem> {
    let (project, environment) = names(view, rules.base);
    let show = |(name, variable): (&String, &Variable)| {
        let open = || app.secrets.open_preview(rules.base, name, variable);
        Ok(VariableView {
            name: name.clone(),
            value: (!variable.secret).then(open).transpose()?,
            secret: variable.secret,
        })
    };
    let variables: Result<_, Problem> = rules.variables.iter().map(show).collect();
    Ok(PreviewRulesView {
        project,
        environment,
        services: rules.services.iter().cloned().collect(),
        base_domain: rules.base_domain.clone(),
        ttl_ms: rules.ttl_ms,
        max: rules.max,
        used: u32::try_from(view.previews_from(rules.base).count()).unwrap_or(u32::MAX),
        forks: rules.forks,
        idle_ms: rules.idle_ms,
        seed: rules.seed.clone(),
        variables: variables?,
    })
}
