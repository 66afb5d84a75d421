//! Stacks: connected, shown, read again, their removals approved, disconnected.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::id::EnvironmentId;
use skep_model::problem::{Code, Problem};
use skep_model::stack::{Reading, Settings, Stack};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::step_stack::{Settle, Step};
use skep_state::{Change, State};
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::services::ensure_environment;
use super::settings::EnvironmentKey;
use super::types::{
    StackGoneView, StackReadingView, StackRemovals, StackServiceView, StackState, StackView,
    StacksView,
};
use super::{App, Here, find};
use crate::deploy::queue;

/// Longest wait for a stack to settle: callers ask again.
const MAX_WAIT_MS: u64 = 20_000;

/// How long an answer may wait.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Patience {
    /// The answer comes when nothing of the stack goes on, or after so long, in ms; 20000 at most.
    #[serde(default)]
    wait_ms: u64,
}

/// Lists all stacks.
#[utoipa::path(get, path = "/v1/stacks", tag = "stacks", operation_id = "list_stacks",
    responses((status = 200, body = StacksView)))]
pub(super) async fn list(Here(app): Here) -> Json<StacksView> {
    let view = app.store.view();
    let mut stacks: Vec<StackView> = view.stacks().map(|it| shown(&view, it)).collect();
    stacks.sort_by(|left, right| {
        (&left.project, &left.environment).cmp(&(&right.project, &right.environment))
    });
    Json(StacksView { stacks })
}

/// Shows the stack of an environment.
#[utoipa::path(get, path = "/v1/stacks/{project}/{environment}", tag = "stacks",
    params(EnvironmentKey, Patience), operation_id = "get_stack",
    responses((status = 200, body = StackView)))]
pub(super) async fn get(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Query(patience): Query<Patience>,
) -> Result<Json<StackView>, Failure> {
    let mut changes = app.store.consensus().changes();
    let wait = Duration::from_millis(patience.wait_ms.min(MAX_WAIT_MS));
    let until = tokio::time::sleep(wait);
    tokio::pin!(until);
    loop {
        let view = app.store.view();
        let stack = stack_of(&view, &key)?;
        if state_of(&stack).is_settled() || wait.is_zero() {
            return Ok(Json(shown(&view, &stack)));
        }
        let mine = Change::Stack(stack.environment);
        loop {
            tokio::select! {
                batch = changes.recv() => match batch {
                    Ok(batch) if !batch.changes.contains(&mine) => continue,
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(Json(shown(&view, &stack))),
                },
                () = &mut until => {
                    let view = app.store.view();
                    let stack = stack_of(&view, &key)?;
                    return Ok(Json(shown(&view, &stack)));
                }
            }
        }
    }
}

/// Lets an environment follow a Compose file in a repository, or changes how it does. The file is read at once.
#[utoipa::path(put, path = "/v1/stacks/{project}/{environment}", tag = "stacks", params(EnvironmentKey),
    operation_id = "put_stack", request_body = Settings, responses((status = 200, body = StackView)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Body(settings): Body<Settings>,
) -> Result<Json<StackView>, Failure> {
    settings.check()?;
    let environment = ensure_environment(&app, &key.project, &key.environment).await?;
    let command = |view: &State| {
        let old = view.stack(environment);
        let stack = Stack {
            environment,
            settings: settings.clone(),
            generation: 0,
            created_ms: 0,
            asked: 0,
            answered: 0,
            seen: None,
            reading: None,
            trouble: None,
            members: Default::default(),
        };
        Ok(Kind::PutStack(v1::PutStack {
            stack: Some((&stack).into()),
            expected_generation: old.map_or(0, |old| old.generation),
        }))
    };
    app.store.change(command).await?;
    answer(&app, &key)
}

/// Reads the file again, and deploys what has failed once more.
#[utoipa::path(post, path = "/v1/stacks/{project}/{environment}/sync", tag = "stacks",
    params(EnvironmentKey), operation_id = "sync_stack", responses((status = 200, body = StackView)))]
pub(super) async fn sync(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
) -> Result<Json<StackView>, Failure> {
    let environment = stack_of(&app.store.view(), &key)?.environment;
    app.store.propose(asked(environment)).await?;
    answer(&app, &key)
}

/// Says what becomes of services that the file has no more.
#[utoipa::path(post, path = "/v1/stacks/{project}/{environment}/removals", tag = "stacks",
    params(EnvironmentKey), operation_id = "settle_stack_removals", request_body = StackRemovals,
    responses((status = 200, body = StackView)))]
pub(super) async fn removals(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
    Body(request): Body<StackRemovals>,
) -> Result<Json<StackView>, Failure> {
    let command = |view: &State| {
        let stack = stack_of(view, &key)?;
        let step = Settle {
            remove: named(&stack, "approve", &request.approve)?,
            keep: named(&stack, "keep", &request.keep)?,
            end: None,
        };
        Ok(Kind::StepStack(v1::StepStack {
            environment: id_bytes(stack.environment.as_u128()),
            reading: request.reading,
            step: Some(Step::Settle(step)),
        }))
    };
    app.store.change(command).await?;
    answer(&app, &key)
}

/// Lets the environment follow the file no more. Its services stay as they are.
#[utoipa::path(delete, path = "/v1/stacks/{project}/{environment}", tag = "stacks",
    params(EnvironmentKey), operation_id = "remove_stack",
    responses((status = 204, description = "It is gone, its services are not")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<EnvironmentKey>,
) -> Result<StatusCode, Failure> {
    let environment = stack_of(&app.store.view(), &key)?.environment;
    let command = v1::DropStack {
        environment: id_bytes(environment.as_u128()),
    };
    app.store.propose(Kind::DropStack(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The command that has a stack's file read.
pub(super) fn asked(environment: EnvironmentId) -> Kind {
    Kind::AskStack(v1::AskStack {
        environment: id_bytes(environment.as_u128()),
    })
}

fn answer(app: &App, key: &EnvironmentKey) -> Result<Json<StackView>, Failure> {
    let view = app.store.view();
    let stack = stack_of(&view, key)?;
    Ok(Json(shown(&view, &stack)))
}

fn stack_of(view: &State, key: &EnvironmentKey) -> Result<Arc<Stack>, Problem> {
    let missing = || {
        Problem::new(Code::NotFound, "the environment has no stack")
            .at("environment")
            .hint("`skep stack connect` gives it one, `skep stack ls` lists all")
    };
    let environment =
        find::environment(view, &key.project, &key.environment).map_err(|_| missing())?;
    view.stack(environment).cloned().ok_or_else(missing)
}

/// The ids of services that wait to be removed.
fn named(stack: &Stack, field: &str, names: &[String]) -> Result<Vec<Vec<u8>>, Problem> {
    let id = |name: &String| {
        let found = stack.gone().find(|(gone, _)| *gone == name);
        found
            .map(|(_, member)| id_bytes(member.service.as_u128()))
            .ok_or_else(|| {
                let text = format!("`{}` does not wait to be removed", name.escape_debug());
                Problem::invalid(field, text).hint("`skep stack status` lists those that do")
            })
    };
    names.iter().map(id).collect()
}

fn state_of(stack: &Stack) -> StackState {
    let end = stack.reading.as_ref().map(|it| it.end.as_ref());
    match (stack.asked > stack.answered, end, &stack.trouble) {
        (true, _, _) => StackState::Reading,
        (false, Some(None), _) => StackState::Deploying,
        (false, _, Some(_)) | (false, None, None) => StackState::Refused,
        (false, Some(Some(end)), None) if end.problem.is_some() => StackState::Incomplete,
        (false, Some(Some(_)), None) => StackState::InForce,
    }
}

fn shown(view: &State, stack: &Stack) -> StackView {
    let environment = view.environment(stack.environment);
    let project = environment.and_then(|it| view.project(it.project));
    let ended = stack.reading.as_ref().and_then(|it| it.end.as_ref());
    let trouble = stack.trouble.as_ref().map(|it| it.problem.clone());
    let state = state_of(stack);
    let is_there = |service| view.service(service).is_some_and(|it| !it.removing);
    let gone = stack.gone().filter(|(_, member)| is_there(member.service));
    StackView {
        project: project.map_or_else(String::new, |it| it.name.clone()),
        environment: environment.map_or_else(String::new, |it| it.name.clone()),
        settings: stack.settings.clone(),
        state,
        problem: match state {
            StackState::Reading => unheard(view),
            _ => trouble.or_else(|| ended?.problem.clone()),
        },
        seen: stack.seen.clone(),
        reading: stack
            .reading
            .as_ref()
            .map(|reading| shown_reading(view, stack, reading)),
        gone: gone
            .map(|(name, member)| StackGoneView {
                name: name.clone(),
                service: member.service,
            })
            .collect(),
    }
}

/// Why nobody reads a file.
fn unheard(view: &State) -> Option<Problem> {
    let problem = || {
        Problem::new(Code::Unavailable, "no node that builds is ready")
            .hint("`skep node ls` shows the nodes")
    };
    queue::sites(view).is_empty().then(problem)
}

fn shown_reading(view: &State, stack: &Stack, reading: &Reading) -> StackReadingView {
    let deployment = |name: &str| {
        let service = view.service_named(stack.environment, name)?;
        let all = view.deployments_of(service.id);
        let newest = all.max_by_key(|it| (it.created_ms, it.id))?;
        Some(newest.status.as_str().to_owned())
    };
    let services = reading.services.iter().map(|planned| StackServiceView {
        deployment: deployment(&planned.name),
        planned: planned.clone(),
    });
    StackReadingView {
        number: reading.number,
        commit: reading.commit.clone(),
        file: reading.file.clone(),
        read_ms: reading.read_ms,
        services: services.collect(),
        reports: reading.reports.clone(),
        more_reports: reading.more_reports,
    }
}
