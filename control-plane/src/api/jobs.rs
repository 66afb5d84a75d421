//! Jobs: list, show, run, cancel; schedules: pause and resume. Never runs anything itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use skep_identity::random;
use skep_model::allocation::State;
use skep_model::id::JobId;
use skep_model::job::{Cause, Job, Limits};
use skep_model::problem::{Code, Problem};
use skep_model::run::{Mode, Run};
use skep_model::service::Service;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State as View;
use utoipa::IntoParams;

use super::access::Principal;
use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::find::{self, ServiceFilter, ServiceKey};
use super::services::{check_variables, modify};
use super::types::{CauseView, JobView, JobsView, RunRequest, ScheduleRequest, ScheduleView};
use super::{App, Here, views};
use crate::store::now_ms;

/// The id of a job.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct JobKey {
    /// Its id.
    #[param(value_type = String)]
    job: JobId,
}

/// Lists jobs, newest first within a service, and the schedules of cron services.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(ServiceFilter),
    operation_id = "list_jobs", responses((status = 200, body = JobsView)))]
pub(super) async fn list(Here(app): Here, Query(filter): Query<ServiceFilter>) -> Json<JobsView> {
    let view = app.store.view();
    let services = filter.matching(&view);
    let jobs = services
        .iter()
        .flat_map(|service| view.jobs_of(service.id).rev())
        .map(|job| shown(&view, job))
        .collect();
    let now_ms = now_ms();
    let schedules = services
        .iter()
        .filter_map(|service| schedule(&view, service, now_ms))
        .collect();
    Json(JobsView { jobs, schedules })
}

/// Shows a job.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "jobs", params(JobKey),
    operation_id = "get_job", responses((status = 200, body = JobView)))]
pub(super) async fn get(
    Here(app): Here,
    Path(key): Path<JobKey>,
) -> Result<Json<JobView>, Failure> {
    let view = app.store.view();
    let job = find(&view, key.job)?;
    Ok(Json(shown(&view, &job)))
}

/// Runs a job with the live release of a service: a command of its own in the release's image, with
/// its variables and secrets; or, for a batch or cron service, what the service is for, now.
#[utoipa::path(post,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/jobs",
    tag = "jobs", params(ServiceKey), operation_id = "run_job", request_body = RunRequest,
    responses((status = 202, body = JobView)))]
pub(super) async fn run(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<RunRequest>,
) -> Result<(StatusCode, Json<JobView>), Failure> {
    check_variables("variables", &request.variables)?;
    let id = JobId::from_u128(random::new_id());
    app.store
        .change(|view| {
            let service = find::service(view, &key)?;
            let job = wanted(&app, &service, id, principal, &request)?;
            let job = Some((&job).into());
            Ok(Kind::CreateJob(v1::CreateJob { job }))
        })
        .await?;
    let view = app.store.view();
    let job = find(&view, id)?;
    Ok((StatusCode::ACCEPTED, Json(shown(&view, &job))))
}

fn wanted(
    app: &App,
    service: &Service,
    id: JobId,
    principal: Principal,
    request: &RunRequest,
) -> Result<Job, Problem> {
    let run = &service.spec.run;
    let is_aside = !request.command.is_empty();
    if !is_aside && !run.mode.runs_jobs() {
        return Err(
            Problem::invalid("command", "this service has no work that ends by itself")
                .hint("say what to run: `skep run SERVICE -- COMMAND`"),
        );
    }
    if !is_aside && service.stopped {
        return Err(Problem::new(Code::Conflict, "the service is stopped")
            .hint("deploy it to start it again: `skep restart SERVICE`"));
    }
    if request.command.iter().any(|word| word.contains('\0')) {
        return Err(Problem::invalid("command", "a word with a NUL byte"));
    }
    let target = service.live.ok_or_else(|| {
        Problem::new(Code::Conflict, "nothing of this service is live yet")
            .hint("deploy it first: `skep up` or `skep deploy`")
    })?;
    let of_service = |of: u64| if is_aside { 0 } else { of };
    let retries = u64::from(run.retries);
    let limits = Run {
        retries: request.retries.unwrap_or(of_service(retries) as u32),
        deadline_ms: request.deadline_ms.unwrap_or(of_service(run.deadline_ms)),
        ..run.clone()
    };
    limits.check().map_err(|mut problem| {
        let field = problem.field.as_deref();
        problem.field = field.map(|field| field.trim_start_matches("run.").to_owned());
        problem
    })?;
    let sealed = request.variables.iter().map(|input| {
        let variable = app.secrets.seal_variable(service.id, input);
        (input.name.clone(), variable)
    });
    let cause = Cause::Request {
        by: principal.as_str().to_owned(),
        command: request.command.clone(),
        variables: sealed.collect::<BTreeMap<_, _>>(),
    };
    Ok(Job {
        limits: Limits {
            retries: limits.retries,
            deadline_ms: limits.deadline_ms,
            backoff_ms: limits.backoff_ms,
            max_backoff_ms: limits.max_backoff_ms,
        },
        ..Job::new(id, service.id, target, cause)
    })
}

/// Ends a job that has not ended: what runs of it is stopped.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", tag = "jobs", params(JobKey),
    operation_id = "cancel_job", responses((status = 202, body = JobView)))]
pub(super) async fn cancel(
    Here(app): Here,
    Path(key): Path<JobKey>,
) -> Result<(StatusCode, Json<JobView>), Failure> {
    find(&app.store.view(), key.job)?;
    let command = v1::CancelJob {
        job: id_bytes(key.job.as_u128()),
    };
    app.store.propose(Kind::CancelJob(command)).await?;
    let view = app.store.view();
    let job = find(&view, key.job)?;
    Ok((StatusCode::ACCEPTED, Json(shown(&view, &job))))
}

/// Pauses the schedule of a cron service, or follows it again. What falls into a pause is not made up
/// for.
#[utoipa::path(post,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/schedule",
    tag = "jobs", params(ServiceKey), operation_id = "change_schedule",
    request_body = ScheduleRequest, responses((status = 200, body = ScheduleView)))]
pub(super) async fn change_schedule(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Body(request): Body<ScheduleRequest>,
) -> Result<Json<ScheduleView>, Failure> {
    let no_schedule = || {
        Problem::new(Code::Conflict, "this service has no schedule")
            .hint("set `run.mode` to `cron` and `run.schedule` in skep.toml, and deploy")
    };
    modify(&app, &key, |service| {
        if service.spec.run.mode != Mode::Cron {
            return Err(no_schedule());
        }
        let before = std::mem::replace(&mut service.spec.run.paused, request.paused);
        Ok(before != request.paused)
    })
    .await?;
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    let shown = schedule(&view, &service, now_ms());
    Ok(Json(shown.ok_or_else(no_schedule)?))
}

fn find(view: &View, id: JobId) -> Result<Arc<Job>, Problem> {
    view.job(id).cloned().ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no job {id}"))
            .at("job")
            .hint("only the newest of each service are kept: `skep jobs` lists them")
    })
}

fn shown(view: &View, job: &Job) -> JobView {
    let service = view.service(job.service);
    let (project, environment) =
        service.map_or_else(Default::default, |service| views::owners(view, service));
    let cause = match &job.cause {
        Cause::Deployment(deployment) => CauseView::Deployment {
            deployment: *deployment,
        },
        Cause::Schedule { at_ms } => CauseView::Schedule { at_ms: *at_ms },
        Cause::Release(deployment) => CauseView::Release {
            deployment: *deployment,
        },
        Cause::Request {
            by,
            command,
            variables,
        } => CauseView::Request {
            by: by.clone(),
            command: command.clone(),
            variables: variables.keys().cloned().collect(),
        },
    };
    let some = |ms: u64| (ms > 0).then_some(ms);
    JobView {
        id: job.id,
        service_id: job.service,
        project,
        environment,
        service: service.map_or_else(String::new, |service| service.name.clone()),
        release: job.target.release,
        cause,
        status: job.status,
        ended: !job.status.is_active(),
        canceling: job.cancel && job.status.is_active(),
        limits: job.limits,
        attempts: job.attempts,
        allocation: job.allocation,
        is_attempt_begun: is_begun(view, job),
        node: job.node.map(|node| views::node_name(view, node)),
        exit_code: job.exit_code,
        problem: job.problem.clone(),
        log_tail: job.log_tail.clone(),
        created_ms: job.created_ms,
        started_ms: some(job.started_ms),
        ended_ms: some(job.ended_ms),
        next_attempt_ms: some(job.not_before_ms)
            .filter(|_| job.status == skep_model::job::Status::Pending),
    }
}

fn is_begun(view: &View, job: &Job) -> bool {
    let attempt = job.allocation.and_then(|id| view.allocation(id));
    attempt.is_some_and(|attempt| {
        let state = attempt.observed.state;
        !matches!(state, State::Pending | State::Pulling | State::Starting)
    })
}

/// The schedule of a cron service; none: it is another kind of service.
fn schedule(view: &View, service: &Service, now_ms: u64) -> Option<ScheduleView> {
    let run = &service.spec.run;
    let text = run.schedule.clone().filter(|_| run.mode == Mode::Cron)?;
    let (project, environment) = views::owners(view, service);
    let is_followed =
        !run.paused && !service.stopped && !service.removing && service.live.is_some();
    let (parsed, problem) = match run.parse_schedule() {
        Ok(parsed) => (parsed, None),
        Err(problem) => (None, Some(problem)),
    };
    let decided_ms = view.job_book(service.id).until_ms;
    let next = parsed.and_then(|schedule| schedule.next_after(now_ms.max(decided_ms)));
    let last = view.jobs_of(service.id).next_back();
    Some(ScheduleView {
        service_id: service.id,
        project,
        environment,
        service: service.name.clone(),
        schedule: text,
        time_zone: run.time_zone.clone(),
        overlap: run.overlap,
        paused: run.paused,
        next_ms: next.filter(|_| is_followed),
        last: last.map(|job| job.id),
        last_status: last.map(|job| job.status),
        problem,
    })
}
