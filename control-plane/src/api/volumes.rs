//! Volumes: where they are, how large, who has them; deleting, snapshots, clones. The nodes' own word is
//! what counts: the state knows only which node has which.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use serde::Deserialize;
use skep_model::id::{NodeId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::storage::HeldVolume;
use skep_model::volume::{Measured, Order};
use skep_state::State as View;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::find::{self, ServiceKey};
use super::types::{CloneRequest, SnapshotRequest, VolumeState, VolumeView, VolumesView};
use super::{App, Here, views};

/// Nodes that are asked at once.
const AT_ONCE: usize = 16;

/// A volume.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct VolumeKey {
    /// Id of its service, a dot, its own name: as in the list.
    volume: String,
}

/// Where it is.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct VolumePlace {
    /// Name or id of the node: needed where two nodes have one.
    node: Option<String>,
}

/// What of a volume is deleted, and where it is.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveVolumeQuery {
    /// Name or id of the node: needed where two nodes have one.
    node: Option<String>,
    /// That snapshot alone; none: the volume and all its snapshots.
    snapshot: Option<String>,
}

/// Which volumes, and how much of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct VolumeFilter {
    /// Ask the nodes for sizes and snapshots, too: takes seconds.
    measure: bool,
}

/// Lists the volumes that nodes have, those that services left behind among them.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", params(VolumeFilter),
    operation_id = "list_volumes", responses((status = 200, body = VolumesView)))]
pub(super) async fn list(Here(app): Here, Query(filter): Query<VolumeFilter>) -> Json<VolumesView> {
    let view = app.store.view();
    let mut volumes = all(&view);
    if filter.measure {
        measure(&app, &mut volumes).await;
    }
    Json(VolumesView { volumes })
}

/// Deletes a volume with its snapshots, or one of those. Refused while a container has it.
#[utoipa::path(delete, path = "/v1/volumes/{volume}", tag = "volumes",
    params(VolumeKey, RemoveVolumeQuery), operation_id = "remove_volume",
    responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<VolumeKey>,
    Query(query): Query<RemoveVolumeQuery>,
) -> Result<StatusCode, Failure> {
    let view = app.store.view();
    let found = find_volume(&view, &key.volume, query.node.as_deref())?;
    if query.snapshot.is_none() && found.state == VolumeState::InUse {
        let text = format!("an allocation has the volume `{}`", found.name);
        return Err(Problem::new(Code::Conflict, text)
            .at("volume")
            .hint("`skep stop` or `skep rm` its service first")
            .into());
    }
    let order = Order::Remove {
        volume: held(&found),
        snapshot: query.snapshot,
    };
    obey(&app, found.node_id, order).await
}

/// Keeps what a volume holds now, on the same node.
#[utoipa::path(post, path = "/v1/volumes/{volume}/snapshots", tag = "volumes",
    params(VolumeKey, VolumePlace), operation_id = "snapshot_volume", request_body = SnapshotRequest,
    responses((status = 204, description = "It is kept")))]
pub(super) async fn snapshot(
    Here(app): Here,
    Path(key): Path<VolumeKey>,
    Query(place): Query<VolumePlace>,
    Body(request): Body<SnapshotRequest>,
) -> Result<StatusCode, Failure> {
    let view = app.store.view();
    let found = find_volume(&view, &key.volume, place.node.as_deref())?;
    let order = Order::Snapshot {
        volume: held(&found),
        name: request.name,
        torn: request.running,
    };
    obey(&app, found.node_id, order).await
}

/// Makes a volume that holds what another holds, or held when a snapshot of it was made.
#[utoipa::path(post, path = "/v1/volumes/{volume}/clone", tag = "volumes",
    params(VolumeKey, VolumePlace), operation_id = "clone_volume", request_body = CloneRequest,
    responses((status = 204, description = "It is there")))]
pub(super) async fn clone(
    Here(app): Here,
    Path(key): Path<VolumeKey>,
    Query(place): Query<VolumePlace>,
    Body(request): Body<CloneRequest>,
) -> Result<StatusCode, Failure> {
    let view = app.store.view();
    let found = find_volume(&view, &key.volume, place.node.as_deref())?;
    let service = find::service(
        &view,
        &ServiceKey {
            project: request.project,
            environment: request.environment,
            service: request.service,
        },
    )?;
    if service.spec.storage.is_shared() {
        let text = "the service has its volumes on shared storage, and this one is on a node";
        return Err(Problem::new(Code::Conflict, text)
            .at("service")
            .hint("copy with `skep cp`, or by the means of the storage")
            .into());
    }
    one_node(&view, service.id, found.node_id)?;
    let order = Order::Clone {
        volume: held(&found),
        snapshot: request.snapshot,
        to: HeldVolume {
            service: service.id,
            name: request.name,
        },
        replace: request.replace,
        torn: request.running,
    };
    obey(&app, found.node_id, order).await
}

async fn obey(app: &App, node: NodeId, order: Order) -> Result<StatusCode, Failure> {
    order.check()?;
    app.relay.order_volumes(node, order).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The volumes of a service are on one node: else nobody could tell which are the right ones.
fn one_node(view: &View, service: ServiceId, node: NodeId) -> Result<(), Problem> {
    let mut others = view.nodes().filter(|other| other.id != node);
    let other = others.find(|other| other.facts.volumes.iter().any(|one| one.service == service));
    match other {
        None => Ok(()),
        Some(other) => {
            let text = format!("the service has volumes on the node `{}`", other.name);
            Err(Problem::new(Code::Conflict, text)
                .at("service")
                .hint("remove those first: the volumes of a service are on one node"))
        }
    }
}

fn held(view: &VolumeView) -> HeldVolume {
    HeldVolume {
        service: view.service_id,
        name: view.name.clone(),
    }
}

/// One by its key.
///
/// # Errors
/// There is none, or two nodes have one.
fn find_volume(view: &View, key: &str, node: Option<&str>) -> Result<VolumeView, Problem> {
    let is_there = |one: &VolumeView| {
        let is_on = |wanted: &str| one.node == wanted || one.node_id.to_string() == wanted;
        one.id == key && node.is_none_or(is_on)
    };
    let mut found: Vec<VolumeView> = all(view).into_iter().filter(is_there).collect();
    let shown: String = key.chars().take(100).collect();
    let shown = shown.escape_debug();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => {
            let text = format!("several nodes have a volume `{shown}`");
            Err(Problem::new(Code::Conflict, text)
                .at("node")
                .hint("say which: `--node` (`?node=`)"))
        }
        (None, _) => {
            let text = format!("no node has a volume `{shown}`");
            Err(Problem::new(Code::NotFound, text)
                .at("volume")
                .hint("`skep volume ls` lists them"))
        }
    }
}

fn all(view: &View) -> Vec<VolumeView> {
    let mut volumes: Vec<VolumeView> = view
        .nodes()
        .flat_map(|node| node.facts.volumes.iter().map(move |held| (node.id, held)))
        .map(|(node, held)| shown(view, node, held))
        .collect();
    // Those that nobody has any more last.
    let order = |one: &VolumeView| {
        let service = one.service.clone();
        (service.is_none(), service, one.id.clone(), one.node.clone())
    };
    volumes.sort_by_key(order);
    volumes
}

fn shown(view: &View, node: NodeId, held: &HeldVolume) -> VolumeView {
    let service = view.service(held.service);
    let path = service.and_then(|service| view.path_of(service));
    let wanted = service.and_then(|service| {
        let target = service.target().or(service.live);
        let release = target.and_then(|target| view.release(service.id, target.release));
        let released = release.into_iter().flat_map(|it| &it.storage.volumes);
        let mut wanted = service.spec.storage.volumes.iter().chain(released);
        wanted.find(|volume| volume.name == held.name)
    });
    let has_it = |allocation: &skep_model::allocation::Allocation| {
        let release = view.release(held.service, allocation.target.release);
        let mut volumes = release.into_iter().flat_map(|it| &it.storage.volumes);
        allocation.node == node
            && !allocation.observed.state.is_terminal()
            && volumes.any(|volume| volume.name == held.name)
    };
    let mut allocations = view.allocations_of(held.service);
    let state = match (allocations.any(|one| has_it(one)), wanted) {
        (true, _) => VolumeState::InUse,
        (false, Some(_)) => VolumeState::Idle,
        (false, None) => VolumeState::LeftBehind,
    };
    VolumeView {
        id: held.key(),
        name: held.name.clone(),
        service: path.map(|it| format!("{}/{}/{}", it.project, it.environment, it.service)),
        service_id: held.service,
        node: views::node_name(view, node),
        node_id: node,
        state,
        path: wanted.map(|volume| volume.path.clone()),
        size_bytes: wanted.map_or(0, |volume| volume.size_bytes),
        bytes: None,
        at_least: false,
        snapshots: Vec::new(),
        problem: None,
    }
}

/// Adds what the nodes find.
async fn measure(app: &App, volumes: &mut [VolumeView]) {
    let nodes: std::collections::BTreeSet<NodeId> =
        volumes.iter().map(|volume| volume.node_id).collect();
    let asked = nodes.into_iter().map(|node| async move {
        let told = app.relay.order_volumes(node, Order::Measure).await;
        (node, told)
    });
    let told: BTreeMap<NodeId, Result<Vec<Measured>, Problem>> = futures_util::stream::iter(asked)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for volume in volumes {
        let own = held(volume);
        match told.get(&volume.node_id) {
            Some(Ok(all)) => {
                let Some(found) = all.iter().find(|one| one.volume == own) else {
                    volume.problem = Some("the node does not have it any more".to_owned());
                    continue;
                };
                volume.bytes = Some(found.bytes);
                volume.at_least = found.at_least;
                volume.snapshots.clone_from(&found.snapshots);
            }
            Some(Err(problem)) => volume.problem = Some(problem.message.clone()),
            None => {}
        }
    }
}
