//! Rollouts: how far one is, and pause, resume, promote, abort. Decides nothing: what is allowed when, the
//! state says.

use axum::http::{HeaderMap, Method};
use axum::{Extension, Json};
use bytes::Bytes;
use skep_model::problem::{Code, Problem};
use skep_model::rollout::{Control, Phase, Promote};
use skep_model::service::{Service, Target};
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_scheduler::rollout::analysis::Counts;
use skep_state::State as View;

use crate::placement::release_phase;
use crate::samples::latency;

use super::access::Principal;
use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::find::{self, ServiceKey};
use super::leader::{self, Asked, Place};
use super::types::{
    ComparedCounts, ComparedView, ReleaseCounts, RolloutProgressView, RolloutRequest, RolloutView,
};
use super::{Here, views};

/// Shows how releases of a service take over, and how far one is that does.
#[utoipa::path(get,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/rollout",
    tag = "deployments", params(ServiceKey, Place), operation_id = "get_rollout",
    responses((status = 200, body = RolloutView)))]
pub(super) async fn get(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Query(place): Query<Place>,
    headers: HeaderMap,
) -> Result<Json<RolloutView>, Failure> {
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    let mut answer = shown(&view, &service);
    let Some(target) = service.compared() else {
        return Ok(Json(answer));
    };
    let trial = app.samples.trial(service.id, target.deployment);
    if trial.is_none() && !place.here {
        let asked = Asked {
            what: "the requests that the leader compares cannot be asked for",
            method: Method::GET,
            path: format!("{}?here=true", leader::path(&key, "rollout")),
            body: Bytes::new(),
            caller: leader::caller(&headers),
        };
        // Without a leader there is still what the state knows.
        if let Ok(found) = leader::ask(&app, asked).await {
            return Ok(Json(found));
        }
    }
    if let Some(rollout) = &mut answer.rollout {
        rollout.compared = trial.map(|trial| ComparedView {
            new: compared(&trial.new),
            live: compared(&trial.live),
        });
    }
    Ok(Json(answer))
}

fn compared(counts: &Counts) -> ComparedCounts {
    let latency = counts.latency.map(|count| count as f32);
    let p95 = latency::percentile_ms(&latency, 0.95);
    ComparedCounts {
        requests: counts.all,
        failed: counts.failed,
        latency_p95_ms: p95.map(|ms| ms.ceil() as u64),
    }
}

/// Pauses, resumes, promotes or aborts what is being rolled out.
#[utoipa::path(post,
    path = "/v1/projects/{project}/environments/{environment}/services/{service}/rollout",
    tag = "deployments", params(ServiceKey), operation_id = "control_rollout",
    request_body = RolloutRequest, responses((status = 200, body = RolloutView)))]
pub(super) async fn control(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<RolloutRequest>,
) -> Result<Json<RolloutView>, Failure> {
    if request.full && request.action != Control::Promote {
        let text = format!("`{}` is always in full", request.action.as_str());
        return Err(Problem::invalid("full", text)
            .hint("only with `promote`")
            .into());
    }
    let make = |view: &View| {
        let service = find::service(view, &key)?;
        let deployment = match (service.rollout, request.deployment) {
            (Some(target), None) => target.deployment,
            (Some(target), Some(meant)) if target.deployment == meant => meant,
            (_, None) => return Err(nothing(&service)),
            (_, Some(meant)) => {
                let text = format!("deployment {meant} is not being rolled out");
                return Err(Problem::new(Code::Conflict, text)
                    .at("deployment")
                    .hint("`skep rollout status` shows what is"));
            }
        };
        Ok(Kind::ControlRollout(v1::ControlRollout {
            service: id_bytes(service.id.as_u128()),
            deployment: id_bytes(deployment.as_u128()),
            control: enum_number(&Control::ALL, &request.action),
            full: request.full,
            by: principal.as_str().to_owned(),
        }))
    };
    app.store.change(make).await?;
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    Ok(Json(shown(&view, &service)))
}

fn nothing(service: &Service) -> Problem {
    let text = format!("nothing of `{}` is being rolled out", service.name);
    Problem::new(Code::Conflict, text)
        .hint("`skep deployments` lists what was; `skep rollback` goes back to an older release")
}

fn shown(view: &View, service: &Service) -> RolloutView {
    let (project, environment) = views::owners(view, service);
    RolloutView {
        service_id: service.id,
        project,
        environment,
        service: service.name.clone(),
        policy: service.spec.rollout.clone(),
        live: service.live.map(|live| counts(view, service, live)),
        rollout: service
            .rollout
            .map(|target| progress(view, service, target)),
    }
}

fn counts(view: &View, service: &Service, target: Target) -> ReleaseCounts {
    let healthy = view
        .allocations_of(service.id)
        .filter(|one| one.target == target && one.is_routable())
        .count();
    ReleaseCounts {
        release: target.release,
        deployment: target.deployment,
        healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
        serves: service.serves(target),
    }
}

fn progress(view: &View, service: &Service, target: Target) -> RolloutProgressView {
    let progress = service.progress;
    let new = counts(view, service, target);
    let wanted = service.spec.rollout.share(progress.phase, service.wanted());
    let begun_ms = view
        .deployment(target.deployment)
        .map_or(0, |deployment| deployment.status_ms);
    RolloutProgressView {
        new,
        wanted,
        phase: progress.phase,
        since_ms: progress.since_ms.max(begun_ms),
        paused: progress.paused,
        waits_for: waits_for(view, service, (new.healthy, wanted)),
        compared: None,
    }
}

fn waits_for(view: &View, service: &Service, (healthy, wanted): (u32, u32)) -> String {
    let policy = &service.spec.rollout;
    let promoted = "somebody to promote it: `skep rollout promote`";
    let text = match service.progress.phase {
        _ if service.progress.paused => "somebody to resume it: `skep rollout resume`",
        Phase::Before => match release_phase(view, service) {
            Some(job) => return format!("the release phase to end: `skep jobs logs {}`", job.id),
            None => "the release phase to begin",
        },
        _ if healthy < wanted => {
            return format!("{} more healthy allocations", wanted - healthy);
        }
        Phase::Rolling => "the old allocations to end",
        Phase::Trial if policy.promote == Promote::Manual => promoted,
        Phase::Trial => "the traffic to move",
        Phase::Kept { .. } => "the time for an instant way back to be over",
        Phase::Canary { step } => match policy.steps.get(step as usize).map(|it| it.pause_ms) {
            Some(None) => promoted,
            _ => "its pause to be over",
        },
    };
    text.to_owned()
}
