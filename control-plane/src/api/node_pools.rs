//! Pools that make their nodes: list, make, change, scale, renew, take away; each also as a plan that changes nothing.

mod machines;

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_model::guest_pool::{DRAIN_MS, GuestPool, PoolGuest};
use skep_model::id::GuestId;
use skep_model::node::Node;
use skep_model::pool::{Guest, Phase};
use skep_model::problem::{Code, Problem};
use skep_model::provider::{Provider, Way};
use skep_pools::{Choice, choose};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proxmox::calls::{access, cluster};
use skep_state::State;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::nodes::{NodeKey, find_node};
use super::providers::unreachable;
use super::types::{
    NodePlanView, NodePoolRequest, NodePoolSizeRequest, NodePoolView, NodePoolsView, RetireRequest,
};
use super::{App, Here};
use crate::guests::clients::connect;
use crate::guests::{keeps_volumes, plan, privileges, sizing};
use crate::store::now_ms;

/// The name of a pool.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NodePoolKey {
    /// Its name.
    pub(super) pool: String,
}

/// Lists the pools that make their nodes.
#[utoipa::path(get, path = "/v1/node-pools", tag = "cluster", operation_id = "list_node_pools",
    responses((status = 200, body = NodePoolsView)))]
pub(super) async fn list(Here(app): Here) -> Json<NodePoolsView> {
    let view = app.store.view();
    let pools = view.guest_pools().map(|pool| shown(&view, pool)).collect();
    Json(NodePoolsView { pools })
}

/// Shows a pool with its guests, and what it would do where it scales itself.
#[utoipa::path(get, path = "/v1/node-pools/{pool}", tag = "cluster", params(NodePoolKey),
    operation_id = "get_node_pool", responses((status = 200, body = NodePoolView)))]
pub(super) async fn get(
    Here(app): Here,
    Path(key): Path<NodePoolKey>,
) -> Result<Json<NodePoolView>, Failure> {
    let view = app.store.view();
    let pool = find(&view, &key.pool)?;
    Ok(Json(NodePoolView {
        outlook: sizing::outlook(&view, pool, now_ms()),
        ..shown(&view, pool)
    }))
}

/// Makes a pool, or changes it. Guests that there are stay as they were made: an upgrade of the pool replaces them.
#[utoipa::path(put, path = "/v1/node-pools/{pool}", tag = "cluster", params(NodePoolKey),
    operation_id = "put_node_pool", request_body = NodePoolRequest,
    responses((status = 200, body = NodePoolView)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<NodePoolKey>,
    Body(request): Body<NodePoolRequest>,
) -> Result<Json<NodePoolView>, Failure> {
    let pool = wanted(&key.pool, &request);
    pool.check(&maker(&app.store.view(), &pool)?.way)?;
    let make = |view: &State| {
        let known = view.guest_pool(&key.pool).map_or(0, |it| it.generation);
        Ok(Kind::PutGuestPool(v1::PutGuestPool {
            pool: Some((&pool).into()),
            expected_generation: request.generation.unwrap_or(known),
        }))
    };
    app.store.change(make).await?;
    let view = app.store.view();
    Ok(Json(shown(&view, find(&view, &key.pool)?)))
}

/// What making or changing a pool would do, and what is against it: its provider is asked, and nothing is changed.
#[utoipa::path(post, path = "/v1/node-pools/{pool}/plan", tag = "cluster", params(NodePoolKey),
    operation_id = "plan_node_pool", request_body = NodePoolRequest,
    responses((status = 200, body = NodePlanView)))]
pub(super) async fn plan_pool(
    Here(app): Here,
    Path(key): Path<NodePoolKey>,
    Body(request): Body<NodePoolRequest>,
) -> Result<Json<NodePlanView>, Failure> {
    let pool = wanted(&key.pool, &request);
    pool.check(&maker(&app.store.view(), &pool)?.way)?;
    Ok(Json(foresee(&app, &pool).await?))
}

/// Says how many nodes a pool should have. Refused where it scales itself.
#[utoipa::path(put, path = "/v1/node-pools/{pool}/size", tag = "cluster", params(NodePoolKey),
    operation_id = "scale_node_pool", request_body = NodePoolSizeRequest,
    responses((status = 200, body = NodePoolView)))]
pub(super) async fn scale(
    Here(app): Here,
    Path(key): Path<NodePoolKey>,
    Body(request): Body<NodePoolSizeRequest>,
) -> Result<Json<NodePoolView>, Failure> {
    let command = v1::ScaleGuestPool {
        name: key.pool.clone(),
        wanted: request.nodes,
        expected_generation: 0,
    };
    app.store.propose(Kind::ScaleGuestPool(command)).await?;
    let view = app.store.view();
    Ok(Json(shown(&view, find(&view, &key.pool)?)))
}

/// Replaces the guests that were made by an older recipe: another one comes before each goes.
#[utoipa::path(post, path = "/v1/node-pools/{pool}/upgrade", tag = "cluster", params(NodePoolKey),
    operation_id = "upgrade_node_pool", responses((status = 200, body = NodePoolView)))]
pub(super) async fn upgrade(
    Here(app): Here,
    Path(key): Path<NodePoolKey>,
) -> Result<Json<NodePoolView>, Failure> {
    let view = app.store.view();
    let pool = find(&view, &key.pool)?;
    machines::check_upgrade(maker(&view, pool)?, pool)?;
    let old = view.guests_of(&pool.name);
    let old: Vec<GuestId> = old
        .filter(|one| one.counts() && one.edition < pool.edition)
        .map(|one| one.guest.id)
        .collect();
    for id in old {
        let command = v1::RetireGuest {
            id: id_bytes(id.as_u128()),
            replace: true,
            leave: false,
            drain_deadline_ms: 0,
        };
        app.unkeyed.propose(Kind::RetireGuest(command)).await?;
    }
    let view = app.store.view();
    Ok(Json(shown(&view, find(&view, &key.pool)?)))
}

/// Takes a pool away; refused while it has guests.
#[utoipa::path(delete, path = "/v1/node-pools/{pool}", tag = "cluster", params(NodePoolKey),
    operation_id = "remove_node_pool", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<NodePoolKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::RemoveGuestPool { name: key.pool };
    app.store.propose(Kind::RemoveGuestPool(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether it is only looked at.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanQuery {
    /// Say what would be done, and do nothing of it.
    #[serde(default)]
    plan: bool,
}

impl PlanQuery {
    /// Whether it is.
    pub(super) const fn plan(&self) -> bool {
        self.plan
    }
}

/// Has a node of a pool go: drained, shut down, removed with its guest, and, where that is asked for, replaced first.
#[utoipa::path(post, path = "/v1/nodes/{node}/retire", tag = "cluster", params(NodeKey, PlanQuery),
    operation_id = "retire_node", request_body = RetireRequest,
    responses((status = 200, body = NodePlanView)))]
pub(super) async fn retire(
    Here(app): Here,
    Path(key): Path<NodeKey>,
    Query(query): Query<PlanQuery>,
    Body(request): Body<RetireRequest>,
) -> Result<Json<NodePlanView>, Failure> {
    let view = app.store.view();
    let node = find_node(&view, &key.node)?;
    let Some(one) = view.guest_of(node.id) else {
        let text = format!("no pool has made the node `{}`", node.name);
        return Err(Problem::new(Code::Conflict, text)
            .at("node")
            .hint("`skep node drain` empties it; stop its agent, then `skep node rm` removes it")
            .into());
    };
    let kept = keeps_volumes(&view, &node);
    if query.plan {
        return Ok(Json(going(&view, one, request, kept)));
    }
    if !request.lose_volumes {
        kept?;
    }
    let command = v1::RetireGuest {
        id: id_bytes(one.guest.id.as_u128()),
        replace: request.replace,
        leave: !request.replace,
        drain_deadline_ms: now_ms() + request.deadline_ms.unwrap_or(DRAIN_MS),
    };
    let told = going(&view, one, request, Ok(()));
    app.store.propose(Kind::RetireGuest(command)).await?;
    Ok(Json(told))
}

/// The guest that a node runs in, its pool, and who makes that.
///
/// # Errors
/// No pool has made it, and `elsewhere` says what that means; or its provider is gone.
pub(super) fn made_by<'v>(
    view: &'v State,
    node: &Node,
    elsewhere: &str,
) -> Result<(&'v PoolGuest, &'v GuestPool, &'v Provider), Problem> {
    let made = view
        .guest_of(node.id)
        .and_then(|one| Some((one, view.guest_pool(&one.pool)?)));
    let Some((one, pool)) = made else {
        let text = format!("no pool has made the node `{}`", node.name);
        return Err(Problem::new(Code::Conflict, text)
            .at("node")
            .hint(elsewhere));
    };
    let provider = view.provider(&pool.provider).ok_or_else(|| {
        let text = format!("there is no provider `{}`", pool.provider);
        Problem::new(Code::NotFound, text)
    })?;
    Ok((one, pool, provider))
}

fn going(
    view: &State,
    one: &PoolGuest,
    request: RetireRequest,
    kept: Result<(), Problem>,
) -> NodePlanView {
    let name = one.guest.name();
    let live = one.node.map_or(0, |node| {
        view.allocations_on(node).filter(|it| it.is_live()).count()
    });
    let mut steps = Vec::new();
    if request.replace {
        steps.push(format!(
            "another node of the pool `{}` is made, and joins",
            one.pool
        ));
    }
    steps.push(format!(
        "{name} is drained: {live} allocations move to other nodes"
    ));
    if let (Some(own), Some(pool), true) =
        (one.guest.size, view.guest_pool(&one.pool), request.replace)
    {
        steps.push(format!(
            "the other node has the size of the recipe, {}: the own one of {name}, {own}, goes with it",
            pool.recipe.size()
        ));
    }
    let mut against = Vec::new();
    let made_by = view.guest_pool(&one.pool);
    let made_by = made_by.and_then(|pool| view.provider(&pool.provider));
    match made_by.map(|it| (&it.name, &it.way)) {
        Some((provider, Way::Exec(_))) => steps.push(format!(
            "the program of `{provider}` is asked to remove its machine, where its MAC proves that it is that one"
        )),
        Some((provider, Way::Static(list))) => {
            steps.push(machines::parting(one));
            if request.replace {
                against.extend(machines::lacking(view, (provider, list), 1));
            }
        }
        Some((_, Way::Proxmox(_))) | None => {
            steps.push(format!("{name} is shut down"));
            let number = one
                .guest
                .vmid
                .map_or_else(String::new, |it| format!(" {it}"));
            steps.push(format!(
                "the guest{number} is removed with its disks, where its MAC and SMBIOS id prove that it is that one"
            ));
        }
    }
    if let (Err(problem), false) = (kept, request.lose_volumes) {
        against.push(problem.message);
    }
    if let Some(pool) = view.guest_pool(&one.pool)
        && !request.replace
        && pool.size.wanted <= pool.size.min
    {
        against.push(format!(
            "the pool `{}` has at least {} nodes",
            pool.name, pool.size.min
        ));
    }
    NodePlanView { steps, against }
}

fn wanted(name: &str, request: &NodePoolRequest) -> GuestPool {
    GuestPool {
        name: name.to_owned(),
        provider: request.provider.clone(),
        recipe: request.recipe.clone(),
        meta: request.meta.clone(),
        size: request.size,
        backups: request.backups.clone(),
        fences: request.fences,
        // What the cluster counts.
        decided: None,
        seen: None,
        edition: 0,
        generation: 0,
        made_ms: 0,
    }
}

pub(super) fn find<'a>(view: &'a State, name: &str) -> Result<&'a GuestPool, Problem> {
    view.guest_pool(name).map(|it| &**it).ok_or_else(|| {
        let text = format!("no pool `{}` makes nodes", name.escape_debug());
        Problem::new(Code::NotFound, text)
            .at("pool")
            .hint("`skep pool ls` lists the pools, `skep pool create` makes one")
    })
}

fn shown(view: &State, pool: &GuestPool) -> NodePoolView {
    let mut shown = NodePoolView::of(pool, view.guests_of(&pool.name).map(|one| &**one));
    machines::add_parting(view, pool, &mut shown.guests);
    shown
}

/// Who makes the guests of a pool.
fn maker<'a>(view: &'a State, pool: &GuestPool) -> Result<&'a Provider, Problem> {
    view.provider(&pool.provider)
        .map(|it| &**it)
        .ok_or_else(|| {
            let text = format!("there is no provider `{}`", pool.provider.escape_debug());
            Problem::new(Code::NotFound, text)
                .at("provider")
                .hint("`skep provider ls` lists them, `skep provider set` makes one")
        })
}

/// Where the nodes that a pool lacks would be made, as things are at its provider now.
async fn foresee(app: &App, pool: &GuestPool) -> Result<NodePlanView, Problem> {
    let view = app.store.view();
    let provider = maker(&view, pool)?;
    let (mut steps, mut against) = changes(&view, pool);
    let there = view.guests_of(&pool.name);
    let there = there.filter(|one| one.counts()).count();
    let lacking = (pool.size.wanted as usize).saturating_sub(there);
    let come = match &provider.way {
        Way::Proxmox(_) => cloned(app, (provider, pool), lacking).await?,
        Way::Exec(program) => machines::asked(app, program, lacking).await,
        Way::Static(list) => machines::taken(&view, (&provider.name, list), lacking),
    };
    steps.extend(come.steps);
    against.extend(come.against);
    if lacking > plan::COMING_MAX {
        let more = lacking - plan::COMING_MAX;
        steps.push(format!("then {more} more, {} at a time", plan::COMING_MAX));
    }
    let over = there.saturating_sub(pool.size.wanted as usize);
    if over > 0 {
        steps.push(format!(
            "{over} nodes are drained and removed, one after the other"
        ));
    }
    steps.extend(scaled(&view, pool));
    if steps.is_empty() {
        steps.push("no node is made or removed".to_owned());
    }
    Ok(NodePlanView { steps, against })
}

/// What a change means for the guests that there are, and what is against it.
fn changes(view: &State, pool: &GuestPool) -> (Vec<String>, Vec<String>) {
    let Some(known) = view.guest_pool(&pool.name) else {
        return (Vec::new(), Vec::new());
    };
    let old = view.guests_of(&pool.name);
    let old = old.filter(|one| one.counts()).count();
    let is_other = known.recipe != pool.recipe;
    if old == 0 || (!is_other && known.provider == pool.provider) {
        return (Vec::new(), Vec::new());
    }
    let stay = format!(
        "{old} nodes stay as they are until `skep pool upgrade {}`",
        pool.name
    );
    let refused = known.check_change(pool).err();
    (
        is_other.then_some(stay).into_iter().collect(),
        refused.map(|it| it.message).into_iter().collect(),
    )
}

/// Where so many guests would be cloned.
async fn cloned(
    app: &App,
    (provider, pool): (&Provider, &GuestPool),
    lacking: usize,
) -> Result<NodePlanView, Problem> {
    let view = app.store.view();
    let client = connect(provider, &app.secrets)?;
    let rows = client
        .send(&cluster::guests())
        .await
        .map_err(unreachable)?
        .rows;
    let hosts = client
        .send(&cluster::hosts())
        .await
        .map_err(unreachable)?
        .rows;
    let may = client
        .send(&access::permissions())
        .await
        .map_err(unreachable)?;
    let mut against: Vec<String> = may
        .missing(&privileges::needed(&pool.recipe, pool.backups.as_ref()))
        .into_iter()
        .map(|it| {
            format!(
                "the token lacks {} on {}",
                it.privileges.join(" or "),
                it.path
            )
        })
        .collect();
    let mut others: Vec<Guest> = view.guests().map(|one| one.guest.clone()).collect();
    let mut steps = Vec::new();
    for _ in 0..lacking.min(plan::COMING_MAX) {
        let id = GuestId::from_u128(skep_identity::random::new_id());
        let mut guest = Guest::planned(id);
        match choose(&pool.recipe, &guest, &others, (&hosts, &rows)) {
            Ok(Choice {
                host,
                vmid,
                address,
            }) => {
                steps.push(format!(
                    "a guest {vmid} is cloned on {host}, started, and joins"
                ));
                (guest.phase, guest.host) = (Phase::Cloning, Some(host));
                (guest.vmid, guest.given) = (Some(vmid), address);
                others.push(guest);
            }
            Err(why) => {
                against.push(why);
                break;
            }
        }
    }
    Ok(NodePlanView { steps, against })
}

/// What the pool would do by itself then.
fn scaled(view: &State, pool: &GuestPool) -> impl Iterator<Item = String> {
    let mut pool = pool.clone();
    if let Some(known) = view.guest_pool(&pool.name) {
        pool.edition = known.edition + u64::from(known.recipe != pool.recipe);
        pool.seen.clone_from(&known.seen);
    }
    let lines = sizing::outlook(view, &pool, now_ms());
    lines
        .into_iter()
        .map(|it| format!("it scales itself: {it}"))
}
