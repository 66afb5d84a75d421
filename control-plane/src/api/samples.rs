//! What services, allocations and nodes use now. The leader alone knows it: any other server asks it on
//! behalf of the caller. Keeping the same in every server would cost each of them the memory and all
//! links between them the bytes, for numbers that are old in two seconds.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use serde::Deserialize;
use skep_model::allocation::Allocation;
use skep_model::node::Node;
use skep_model::service::Service;
use skep_model::spec::Resources;
use skep_state::State as View;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::Query;
use super::find::ServiceFilter;
use super::leader::{self, Asked};
use super::types::{AllocationSampleView, NodeSampleView, SamplesView, ServiceSampleView};
use super::{App, Here, views};
use crate::samples::{SHOWN_WINDOW, ServiceSample};

/// What is said where they cannot be had.
const WHAT: &str = "the leader's samples are not known";

/// Which samples.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct SampleFilter {
    /// Name of a project.
    project: Option<String>,
    /// Name of an environment.
    environment: Option<String>,
    /// Name of a service.
    service: Option<String>,
    /// Each allocation, too.
    allocations: bool,
    /// The nodes, too.
    nodes: bool,
    /// Only what the asked server itself knows: an error where it does not lead.
    here: bool,
}

/// What services use now: CPU, memory, requests. Any server answers, with what the leader knows.
#[utoipa::path(get, path = "/v1/samples", tag = "services", params(SampleFilter),
    operation_id = "list_samples", responses((status = 200, body = SamplesView)))]
pub(super) async fn list(
    Here(app): Here,
    uri: Uri,
    Query(filter): Query<SampleFilter>,
    headers: HeaderMap,
) -> Result<Json<SamplesView>, Failure> {
    let is_here = filter.here;
    if let Some(view) = own_view(&app, filter) {
        return Ok(Json(view));
    }
    if is_here {
        return Err(leader::unknown(WHAT, "this server does not lead").into());
    }
    let query = uri
        .query()
        .map_or(String::new(), |query| format!("{query}&"));
    let asked = Asked {
        what: WHAT,
        method: Method::GET,
        path: format!("/v1/samples?{query}here=true"),
        body: Bytes::new(),
        caller: leader::caller(&headers),
    };
    Ok(Json(leader::ask(&app, asked).await?))
}

/// None: this server does not lead.
fn own_view(app: &App, filter: SampleFilter) -> Option<SamplesView> {
    let view = app.store.view();
    let services = ServiceFilter {
        project: filter.project,
        environment: filter.environment,
        service: filter.service,
    }
    .matching(&view);
    let ids = services.iter().map(|service| service.id);
    let samples = app.samples.of_services(&view, ids, SHOWN_WINDOW)?;
    let both = services.iter().zip(samples);
    let services = both.map(|(service, sample)| {
        let allocations = filter
            .allocations
            .then(|| allocations(&view, service, &sample));
        ServiceSampleView {
            allocations,
            ..service_view(&view, service, &sample)
        }
    });
    Some(SamplesView {
        window_ms: millis(SHOWN_WINDOW),
        services: services.collect(),
        nodes: filter.nodes.then(|| nodes(app, &view)),
    })
}

fn service_view(view: &View, service: &Service, sample: &ServiceSample) -> ServiceSampleView {
    let live = || view.allocations_of(service.id).filter(|it| it.is_live());
    let requested = || live().map(|allocation| resources(view, allocation));
    let healthy = live().filter(|it| it.is_routable()).count();
    let path = view.path_of(service);
    let (project, environment) =
        path.map_or_else(Default::default, |path| (path.project, path.environment));
    ServiceSampleView {
        id: service.id,
        project,
        environment,
        name: service.name.clone(),
        wanted: service.wanted(),
        healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
        cpu_millis: sample.cpu_millis(),
        cpu_millis_requested: requested().map(|it| u64::from(it.cpu_millis)).sum(),
        memory_bytes: sample.memory_bytes(),
        memory_bytes_requested: requested().map(|it| it.memory_bytes).sum(),
        request_rate: sample.request_rate,
        in_flight: sample.in_flight,
        latency_p95_ms: sample.latency_p95_ms,
        age_ms: sample.age.map(millis),
        missing: u32::try_from(sample.missing.len()).unwrap_or(u32::MAX),
        allocations: None,
    }
}

/// What an allocation requested; nothing, where its release is not known any more.
fn resources(view: &View, allocation: &Allocation) -> Resources {
    let release = view.release(allocation.service, allocation.target.release);
    release.map_or(
        Resources {
            cpu_millis: 0,
            memory_bytes: 0,
            cpu_limit_millis: 0,
            memory_limit_bytes: 0,
            disk_bytes: 0,
        },
        |release| release.resources,
    )
}

fn allocations(
    view: &View,
    service: &Service,
    sample: &ServiceSample,
) -> Vec<AllocationSampleView> {
    let live = view.allocations_of(service.id).filter(|it| it.is_live());
    let each = live.map(|allocation| {
        let used = sample
            .allocations
            .iter()
            .find(|it| it.allocation == allocation.id);
        let requested = resources(view, allocation);
        AllocationSampleView {
            id: allocation.id,
            node: views::node_name(view, allocation.node),
            release: allocation.target.release,
            state: allocation.observed.state,
            cpu_millis: used.and_then(|used| used.cpu_millis),
            cpu_millis_requested: requested.cpu_millis.into(),
            memory_bytes: used.and_then(|used| used.memory_bytes),
            memory_bytes_requested: requested.memory_bytes,
            restarts: allocation.observed.restarts,
            detail: used.map_or_else(Default::default, |used| used.detail.into()),
        }
    });
    each.collect()
}

fn nodes(app: &App, view: &View) -> Vec<NodeSampleView> {
    let each = view.nodes().map(|node| node_view(app, node));
    let mut nodes: Vec<_> = each.collect();
    nodes.sort_by(|left, right| left.name.cmp(&right.name));
    nodes
}

fn node_view(app: &App, node: &Node) -> NodeSampleView {
    let sample = app.samples.of_node(node.id, SHOWN_WINDOW);
    NodeSampleView {
        id: node.id,
        name: node.name.clone(),
        cpu_millis: sample.and_then(|it| it.cpu_millis),
        cpu_millis_total: node.facts.cpu_millis.into(),
        memory_bytes: sample.and_then(|it| it.memory_bytes),
        memory_bytes_total: node.facts.memory_bytes,
        age_ms: sample.map(|it| millis(it.age)),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
