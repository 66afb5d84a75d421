//! Rebalancing: what could move so that fewer nodes are in use, and whether it does.

use axum::Json;
use skep_model::id::{AllocationId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::rebalance::{MAX_MOVES, Mode, Rebalance};
use skep_proto::convert::enum_number;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_scheduler::rebalance::Move;
use skep_state::State as View;

use super::error::Failure;
use super::extract::Body;
use super::types::{BegunView, MoveView, RebalanceRequest, RebalanceView};
use super::{App, Here, views};
use crate::rebalancing::{self, Advice};
use crate::store::now_ms;

/// Shows how the cluster is rebalanced, and what is advised now.
#[utoipa::path(get, path = "/v1/rebalance", tag = "cluster", operation_id = "show_rebalance",
    responses((status = 200, body = RebalanceView)))]
pub(super) async fn show(Here(app): Here) -> Result<Json<RebalanceView>, Failure> {
    Ok(Json(shown(&app).await?))
}

/// Sets whether allocations are moved so that fewer nodes are in use, and how fast.
#[utoipa::path(put, path = "/v1/rebalance", tag = "cluster", operation_id = "set_rebalance",
    request_body = RebalanceRequest, responses((status = 200, body = RebalanceView)))]
pub(super) async fn put(
    Here(app): Here,
    Body(request): Body<RebalanceRequest>,
) -> Result<Json<RebalanceView>, Failure> {
    if let Some(pace) = request.moves_per_minute {
        Rebalance::check_pace(pace)?;
    }
    let make = |view: &View| {
        let pace = request.moves_per_minute;
        Ok(Kind::SetRebalance(v1::SetRebalance {
            mode: enum_number(&Mode::ALL, &request.mode),
            moves_per_minute: pace.unwrap_or(view.rebalance().moves_per_minute),
        }))
    };
    app.store.change(make).await?;
    Ok(Json(shown(&app).await?))
}

/// Begins the moves that are advised and have room now, whatever the mode; at most 60.
#[utoipa::path(post, path = "/v1/rebalance/run", tag = "cluster", operation_id = "run_rebalance",
    responses((status = 200, body = BegunView)))]
pub(super) async fn run(Here(app): Here) -> Result<Json<BegunView>, Failure> {
    let view = app.store.view();
    let advice = advice(&view).await?;
    let due = advice.due(&view, MAX_MOVES as usize);
    if !due.is_empty() {
        app.store.propose(rebalancing::command(&due)).await?;
    }
    Ok(Json(BegunView {
        left: advice.moves.moves.len() - due.len(),
        begun: due.iter().map(|step| move_view(&view, step)).collect(),
    }))
}

async fn shown(app: &App) -> Result<RebalanceView, Problem> {
    let view = app.store.view();
    let settings = view.rebalance();
    let advised = match settings.mode {
        Mode::Off => Default::default(),
        Mode::Advise | Mode::Auto => advice(&view).await?.moves,
    };
    let under_way = rebalancing::heading(&view, now_ms()).filter_map(|(id, to)| {
        let allocation = view.allocation(id)?;
        Some(described(&view, id, allocation.node, to))
    });
    Ok(RebalanceView {
        mode: settings.mode,
        moves_per_minute: settings.moves_per_minute,
        under_way: under_way.collect(),
        moves: advised
            .moves
            .iter()
            .map(|step| move_view(&view, step))
            .collect(),
        emptied: advised
            .emptied
            .iter()
            .map(|node| views::node_name(&view, *node))
            .collect(),
    })
}

/// Looks at every node for every service: not on a thread that others wait for.
async fn advice(view: &View) -> Result<Advice, Problem> {
    let view = view.clone();
    let looking = tokio::task::spawn_blocking(move || rebalancing::advise(&view, now_ms()));
    looking.await.map_err(|_| {
        Problem::new(Code::Internal, "the search for moves ended early").hint("try again")
    })
}

fn move_view(view: &View, step: &Move) -> MoveView {
    described(view, step.allocation, step.from, step.to)
}

fn described(view: &View, id: AllocationId, from: NodeId, to: NodeId) -> MoveView {
    let allocation = view.allocation(id);
    let service = allocation.and_then(|allocation| view.service(allocation.service));
    let path = service.and_then(|service| view.path_of(service));
    MoveView {
        allocation: id,
        service: path.map_or_else(String::new, |path| {
            format!("{}/{}/{}", path.project, path.environment, path.service)
        }),
        from: views::node_name(view, from),
        to: views::node_name(view, to),
    }
}
