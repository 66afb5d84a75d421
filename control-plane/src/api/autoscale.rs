//! The autoscaler of a service: what it is to do, what it did, and the numbers that it is given from
//! outside. What it sees and thinks the leader alone knows: any other server asks it.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderMap, Method};
use bytes::Bytes;
use skep_model::autoscale::{Autoscale, Metric};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_scheduler::autoscale::advice::Advice;
use skep_state::State as View;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::find::{self, ServiceKey};
use super::leader::{self, Asked, Place};
use super::services::{below, modify, refuse_removing};
use super::types::{AdviceView, AutoscaleView, MeasuredTarget, PushRequest, PushView};
use super::{App, Here};
use crate::scaling::Thought;
use crate::store::now_ms;

/// What is said where it cannot be had.
const WHAT: &str = "what the leader's autoscaling knows cannot be asked for";
/// Largest number that may be pushed: in thousandths it fits an integer with room for sums.
const MAX_VALUE: f64 = 1e12;

/// How many allocations a service has by its autoscaler, and why.
#[utoipa::path(get, path = "/v1/projects/{project}/environments/{environment}/services/{service}/autoscale",
    tag = "services", params(ServiceKey, Place), operation_id = "show_autoscale",
    responses((status = 200, body = AutoscaleView)))]
pub(super) async fn show(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Query(place): Query<Place>,
    headers: HeaderMap,
) -> Result<Json<AutoscaleView>, Failure> {
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    if !place.here && !app.samples.is_leading() && service.spec.autoscale.is_some() {
        let asked = Asked {
            what: WHAT,
            method: Method::GET,
            path: format!("{}?here=true", leader::path(&key, "autoscale")),
            body: Bytes::new(),
            caller: leader::caller(&headers),
        };
        // Without a leader there is still what the state knows.
        if let Ok(found) = leader::ask(&app, asked).await {
            return Ok(Json(found));
        }
    }
    Ok(Json(shown(&app, &view, &service)))
}

/// Gives a service an autoscaler, or changes the one that it has.
#[utoipa::path(put, path = "/v1/projects/{project}/environments/{environment}/services/{service}/autoscale",
    tag = "services", params(ServiceKey), operation_id = "set_autoscale", request_body = Autoscale,
    responses((status = 200, body = AutoscaleView)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Body(request): Body<Autoscale>,
) -> Result<Json<AutoscaleView>, Failure> {
    modify(&app, &key, |service| {
        refuse_removing(service)?;
        let before = service.spec.autoscale.replace(request.clone());
        service.spec.check_given()?;
        Ok(before.as_ref() != Some(&request))
    })
    .await?;
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    Ok(Json(shown(&app, &view, &service)))
}

/// Takes a service's autoscaler away: it keeps as many allocations as it has now, and at least one.
#[utoipa::path(delete, path = "/v1/projects/{project}/environments/{environment}/services/{service}/autoscale",
    tag = "services", params(ServiceKey), operation_id = "remove_autoscale",
    responses((status = 200, body = AutoscaleView)))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<Json<AutoscaleView>, Failure> {
    modify(&app, &key, |service| {
        refuse_removing(service)?;
        let Some(autoscale) = service.spec.autoscale.take() else {
            return Ok(false);
        };
        let decided = service.scaling.as_ref().map(|scaling| scaling.replicas);
        service.spec.replicas = autoscale.wanted(service.spec.replicas, decided).max(1);
        Ok(true)
    })
    .await?;
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    Ok(Json(shown(&app, &view, &service)))
}

/// Takes in numbers that a service's targets on `queue_length` and `custom:NAME` are about. They are in the
/// leader's memory alone: whoever knows them pushes them every few seconds.
#[utoipa::path(post, path = "/v1/projects/{project}/environments/{environment}/services/{service}/metrics",
    tag = "services", params(ServiceKey, Place), operation_id = "push_metrics",
    request_body = PushRequest, responses((status = 200, body = PushView)))]
pub(super) async fn push(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Query(place): Query<Place>,
    headers: HeaderMap,
    Body(request): Body<PushRequest>,
) -> Result<Json<PushView>, Failure> {
    let service = find::service(&app.store.view(), &key)?;
    let values = values(&service, &request)?;
    if app.samples.is_leading() {
        let taken = values.len();
        app.scaling.push(service.id, values, now_ms());
        return Ok(Json(PushView { taken }));
    }
    if place.here {
        return Err(leader::unknown(WHAT, "this server does not lead").into());
    }
    let body = serde_json::to_vec(&request)
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let asked = Asked {
        what: WHAT,
        method: Method::POST,
        path: format!("{}?here=true", leader::path(&key, "metrics")),
        body: body.into(),
        caller: leader::caller(&headers),
    };
    Ok(Json(leader::ask(&app, asked).await?))
}

/// Whether a metric comes from outside.
fn is_pushed(metric: &Metric) -> bool {
    matches!(metric, Metric::QueueLength | Metric::Custom(_))
}

/// The numbers, each of a metric that is a target of the service.
fn values(service: &Service, request: &PushRequest) -> Result<BTreeMap<Metric, u64>, Problem> {
    let autoscale = service.spec.autoscale.as_ref().ok_or_else(|| {
        Problem::new(Code::Conflict, "the service has no autoscaler")
            .hint("`skep autoscale set` gives it one")
    })?;
    let mut values = BTreeMap::new();
    for (name, value) in &request.metrics {
        let field = format!("metrics.{name}");
        let metric: Metric = name
            .parse()
            .map_err(|problem: Problem| problem.at(&field))?;
        let is_target = autoscale.targets.iter().any(|it| it.metric == metric);
        if !is_pushed(&metric) || !is_target {
            let text = format!("`{metric}` is no target of the service that is pushed");
            return Err(
                Problem::invalid(field, text).hint("a target on queue_length or custom:NAME")
            );
        }
        if !(0.0..=MAX_VALUE).contains(value) {
            let text = format!("{value} is out of range");
            return Err(Problem::invalid(field, text).hint("0 to 1000000000000"));
        }
        values.insert(metric, (value * 1_000.0).round() as u64);
    }
    match values.is_empty() {
        true => Err(Problem::invalid("metrics", "there is nothing in it")),
        false => Ok(values),
    }
}

fn shown(app: &App, view: &View, service: &Service) -> AutoscaleView {
    let autoscale = service.spec.autoscale.clone();
    let thought = app
        .scaling
        .thought(service.id)
        .filter(|_| autoscale.is_some());
    let healthy = view
        .allocations_of(service.id)
        .filter(|one| one.is_live() && one.is_routable())
        .count();
    let changes = service.scaling.iter().flat_map(|it| &it.changes);
    let mut changes: Vec<_> = changes.cloned().collect();
    changes.reverse();
    AutoscaleView {
        measured: measured(autoscale.as_ref(), thought.as_ref()),
        autoscale,
        wanted: service.wanted(),
        healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
        advice: thought
            .as_ref()
            .and_then(|thought| thought.advice.as_ref())
            .map(advice),
        decision: thought.map(|thought| thought.decision.to_string()),
        changes,
    }
}

fn measured(autoscale: Option<&Autoscale>, thought: Option<&Thought>) -> Vec<MeasuredTarget> {
    let targets = autoscale.iter().flat_map(|it| &it.targets);
    let value = |metric: &Metric| {
        let mut measured = thought.iter().flat_map(|thought| &thought.measured);
        let (_, value) = measured.find(|(known, _)| known == metric)?;
        value.map(|milli| metric.show(milli))
    };
    targets
        .map(|target| MeasuredTarget {
            target: target.to_string(),
            measured: value(&target.metric),
        })
        .collect()
}

fn advice(advice: &Advice) -> AdviceView {
    AdviceView {
        cpu_millis: advice.cpu_millis.1,
        memory_bytes: advice.memory_bytes.1,
        reason: advice.to_string(),
        applied: advice.apply,
    }
}

/// A service with an autoscaler is not scaled by hand.
pub(super) fn refuse_autoscaled(service: &Service) -> Result<(), Problem> {
    let Some(autoscale) = &service.spec.autoscale else {
        return Ok(());
    };
    let text = format!(
        "its autoscaler says how many there are: {} to {}",
        autoscale.min, autoscale.max
    );
    let problem = Problem::new(Code::Conflict, text)
        .hint("`skep autoscale set --min N --max N` bounds it, `skep autoscale off` takes it away");
    Err(below("replicas", problem))
}
