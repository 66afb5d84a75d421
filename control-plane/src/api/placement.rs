//! What if: where a service could run and why not elsewhere, and what a change of it would do. By the
//! planner that the leader uses, on this server's state; nothing is proposed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use skep_identity::random;
use skep_model::allocation::{Allocation, Desired};
use skep_model::id::{AllocationId, DeploymentId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::rollout::Progress;
use skep_model::service::{Release, Service, Target};
use skep_scheduler::cluster::Cluster;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::Ask;
use skep_scheduler::forecast::{self, Forecast};
use skep_scheduler::plan::{Desire, MAX_CHANGES};
use skep_scheduler::rollout::{self, Input};
use skep_scheduler::why;
use skep_state::State as View;

use super::error::Failure;
use super::extract::{Body, Path};
use super::find::{self, ServiceKey};
use super::services::below;
use super::types::{
    AllocationReason, NodeAnswer, PlanRequest, PlanView, PlannedEnd, PlannedStart, PlannedStep,
    WhyView,
};
use super::{Here, views};
use crate::deploy::release::renewed;
use crate::placement::{cluster_of, quotas, surroundings};
use crate::store::now_ms;

/// Where a service could run, node by node, and why its allocations are where they are.
#[utoipa::path(get, path = "/v1/projects/{project}/environments/{environment}/services/{service}/why",
    tag = "services", params(ServiceKey), operation_id = "why_service",
    responses((status = 200, body = WhyView)))]
pub(super) async fn why_service(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
) -> Result<Json<WhyView>, Failure> {
    let view = app.store.view();
    let service = find::service(&view, &key)?;
    let release = target_release(&view, &service)?;
    let cluster = cluster_of(&view);
    let around = surroundings(&view, &service);
    let live = live_release(&view, &service);
    let quotas = quotas(&view, &service);
    let (running, there): (Vec<_>, _) = counted(&view, &service);
    // As the planner counts them: what is on its way out keeps nobody away.
    let staying = running
        .iter()
        .filter(|a| a.desired == Desired::Run && Some(a.target) == service.target());
    let ask = Ask {
        staying: Some(staying.map(|allocation| allocation.node).collect()),
        ..Ask::of(&release, &around)
    };
    let answers = why::why(&Draft::new(&cluster), &ask);
    let mut rank = 0;
    let nodes = answers.into_iter().map(|answer| NodeAnswer {
        id: answer.node,
        node: answer.name,
        allocations: there.get(&answer.node).copied().unwrap_or_default(),
        rank: answer.score.map(|_| {
            rank += 1;
            rank
        }),
        reasons: answer.reasons.into_iter().map(|(_, text)| text).collect(),
    });
    let nodes = nodes.collect();
    let input = Input {
        service: &service,
        release: Some(&release),
        live_release: live.as_deref(),
        allocations: all_of(&view, &service),
        now_ms: now_ms(),
        drained: &|_| false,
        around: &around,
        quotas: &quotas,
        limit: MAX_CHANGES,
    };
    let plan = rollout::plan(&mut Draft::new(&cluster), &input, &mut fresh);
    Ok(Json(WhyView {
        allocations: running
            .into_iter()
            .map(|allocation| AllocationReason {
                id: allocation.id,
                node: views::node_name(&view, allocation.node),
                desired: allocation.desired,
                reason: allocation.reason.clone(),
            })
            .collect(),
        nodes,
        relaxed_by: view
            .relaxed_by(&service)
            .map(|scope| view.scope_name(scope)),
        refusal: plan.refusal.map(Into::into),
    }))
}

/// What a change of a service would do, step by step, if everything that is started becomes healthy.
#[utoipa::path(post, path = "/v1/projects/{project}/environments/{environment}/services/{service}/plan",
    tag = "services", params(ServiceKey), operation_id = "plan_service", request_body = PlanRequest,
    responses((status = 200, body = PlanView)))]
pub(super) async fn plan_service(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Body(request): Body<PlanRequest>,
) -> Result<Json<PlanView>, Failure> {
    let view = app.store.view();
    let found = find::service(&view, &key)?;
    let present = target_release(&view, &found)?;
    let mut service = (*found).clone();
    if let Some(spec) = request.spec {
        service.spec = spec;
    }
    if let Some(replicas) = request.replicas {
        service.spec.replicas = replicas;
    }
    let checked = service.spec.check();
    checked.map_err(|problem| below("spec", problem))?;
    // The release that a deployment of the present image would make now.
    let deployment = DeploymentId::from_u128(random::new_id());
    let release = renewed(&service, deployment, &present);
    let new_release = !is_same(&release, &present);
    if new_release {
        service.last_release = release.number;
        service.rollout = Some(Target {
            release: release.number,
            deployment: release.deployment,
        });
        service.progress = Progress {
            phase: service.spec.first_phase(service.live.is_some()),
            ..Progress::default()
        };
    }
    let release = if new_release { &release } else { &*present };
    let (cluster, around) = (cluster_of(&view), surroundings(&view, &service));
    let live = live_release(&view, &service);
    let quotas = quotas(&view, &service);
    let input = Input {
        service: &service,
        release: Some(release),
        live_release: live.as_deref(),
        allocations: all_of(&view, &service),
        now_ms: now_ms(),
        drained: &|_| true,
        around: &around,
        quotas: &quotas,
        limit: MAX_CHANGES,
    };
    let forecast = forecast::forecast(&cluster, &input, &mut fresh);
    Ok(Json(plan_view(&view, &cluster, forecast, new_release)))
}

fn target_release(view: &View, service: &Service) -> Result<Arc<Release>, Problem> {
    let target = service.target();
    let release = target.and_then(|target| view.release(service.id, target.release));
    release.cloned().ok_or_else(|| {
        let text = format!(
            "`{}` has no release yet: nothing is to be placed",
            service.name
        );
        Problem::new(Code::Conflict, text).hint("deploy it first: `skep up`, or `skep deploy`")
    })
}

fn live_release(view: &View, service: &Service) -> Option<Arc<Release>> {
    let live = service.live?;
    view.release(service.id, live.release).cloned()
}

fn all_of<'a>(view: &'a View, service: &Service) -> Vec<&'a Allocation> {
    view.allocations_of(service.id).map(|one| &**one).collect()
}

/// The allocations that have not ended, and how many of them each node has.
fn counted<'a>(view: &'a View, service: &Service) -> (Vec<&'a Allocation>, BTreeMap<NodeId, u32>) {
    let mut live = all_of(view, service);
    live.retain(|allocation| allocation.is_live());
    let mut there = BTreeMap::new();
    for allocation in &live {
        *there.entry(allocation.node).or_default() += 1;
    }
    (live, there)
}

fn fresh() -> AllocationId {
    AllocationId::from_u128(random::new_id())
}

/// Whether two releases run the same in the same places. Their variables are no question here: they do not
/// say where it runs.
fn is_same(one: &Release, other: &Release) -> bool {
    *one == Release {
        variables: one.variables.clone(),
        number: one.number,
        deployment: one.deployment,
        created_ms: one.created_ms,
        branch: one.branch.clone(),
        public_url: one.public_url.clone(),
        file_variables: one.file_variables.clone(),
        ..other.clone()
    }
}

fn plan_view(view: &View, cluster: &Cluster, forecast: Forecast, new_release: bool) -> PlanView {
    let mut planned: BTreeMap<AllocationId, NodeId> = BTreeMap::new();
    let name = |node: NodeId| {
        let known = cluster.node(node).map(|node| node.name.to_owned());
        known.unwrap_or_else(|| views::node_name(view, node))
    };
    let mut steps = Vec::new();
    for step in forecast.steps {
        let end = |desire: Desire| {
            let known = view.allocation(desire.allocation);
            let node = known.map(|known| known.node);
            let node = node.or_else(|| planned.get(&desire.allocation).copied());
            PlannedEnd {
                allocation: known.map(|known| known.id),
                node: node.map_or_else(String::new, name),
                desired: desire.desired,
                reason: desire.reason,
            }
        };
        let ends = step.desires.into_iter().map(end).collect();
        let displaced = step.displaced.into_iter().map(end).collect();
        for start in &step.starts {
            planned.insert(start.allocation, start.node);
        }
        let starts = step.starts.into_iter().map(|start| PlannedStart {
            node: name(start.node),
            reason: start.reason,
        });
        steps.push(PlannedStep {
            starts: starts.collect(),
            ends,
            displaced,
        });
    }
    PlanView {
        new_release,
        steps,
        refusal: forecast.refusal.map(Into::into),
        is_cut: forecast.is_cut,
    }
}
