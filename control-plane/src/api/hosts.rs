//! Physical hosts: which nodes are on them and what would end with one; emptied for maintenance, and taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use futures_util::future::join_all;
use serde::Deserialize;
use skep_model::maintenance::{Cause, check_host};
use skep_model::node::{HOST, Node};
use skep_model::problem::{Code, Problem};
use skep_model::provider::Provider;
use skep_pools::promised;
use skep_proto::convert::enum_number;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proxmox::calls::cluster;
use skep_state::State;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::nodes::drain_span;
use super::types::{
    HostDrainRequest, HostMaintenanceView, HostMemoryView, HostMoveView, HostPlanView, HostsView,
    PhysicalHostView,
};
use super::{App, Here, views};
use crate::guests::clients::connect;
use crate::hosts::{all_on, foreseen, nodes_on};
use crate::store::now_ms;

/// How long a provider may take to say how its hosts are: people wait for that.
const ASKED: Duration = Duration::from_secs(5);

/// The name of a physical host.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct HostKey {
    /// Its name, as nodes say it in their metadata `host`.
    host: String,
}

/// Whether it is done.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct PlanQuery {
    /// Say what would be done, and do nothing of it.
    plan: bool,
}

/// Lists the physical hosts that nodes are on: what would end with each, which are under maintenance, and what
/// providers say of them.
#[utoipa::path(get, path = "/v1/hosts", tag = "cluster", operation_id = "list_hosts",
    responses((status = 200, body = HostsView)))]
pub(super) async fn list(Here(app): Here) -> Json<HostsView> {
    let view = app.store.view();
    let (said, unasked) = ask_all(&app, &view).await;
    let on = view.nodes().filter_map(|node| node.meta(HOST));
    let under = view.maintenances().map(|it| &*it.host);
    let names: BTreeSet<&str> = on.chain(under).collect();
    let hosts = names.into_iter().map(|name| PhysicalHostView {
        memory: said.iter().find(|it| it.host == name).cloned(),
        ..shown(&view, name)
    });
    let elsewhere = view.nodes().filter(|node| node.meta(HOST).is_none());
    Json(HostsView {
        hosts: hosts.collect(),
        unknown: elsewhere.map(|node| node.name.clone()).collect(),
        unasked,
    })
}

fn shown(view: &State, name: &str) -> PhysicalHostView {
    PhysicalHostView {
        name: name.to_owned(),
        nodes: nodes_on(view, name).map(|node| node.name.clone()).collect(),
        services: all_on(view, name),
        maintenance: view.maintenance(name).map(|it| HostMaintenanceView {
            cause: it.cause,
            since_ms: it.since_ms,
            deadline_ms: it.deadline_ms,
        }),
        memory: None,
    }
}

/// What all providers that make nodes say of their hosts, and which say nothing, with why.
async fn ask_all(app: &App, view: &State) -> (Vec<HostMemoryView>, Vec<String>) {
    let is_used = |it: &&Provider| view.guest_pools().any(|pool| pool.provider == it.name);
    let providers = view.providers().map(|it| &**it);
    // What is no Proxmox cluster has no hosts to tell of.
    let providers = providers.filter(|it| it.way.is_proxmox()).filter(is_used);
    let asked = providers.map(|provider| async move {
        let answer = tokio::time::timeout(ASKED, ask(app, provider)).await;
        let answer = answer.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        answer.map_err(|why| format!("{}: {why}", provider.name))
    });
    let (mut said, mut unasked) = (Vec::new(), Vec::new());
    for answer in join_all(asked).await {
        match answer {
            Ok(hosts) => said.extend(hosts),
            Err(why) => unasked.push(why),
        }
    }
    (said, unasked)
}

async fn ask(app: &App, provider: &Provider) -> Result<Vec<HostMemoryView>, String> {
    let client = connect(provider, &app.secrets).map_err(|problem| problem.to_string())?;
    let said = |error: skep_proxmox::Error| error.to_string();
    let rows = client.send(&cluster::guests()).await.map_err(said)?.rows;
    let hosts = client.send(&cluster::hosts()).await.map_err(said)?.rows;
    let shown = hosts.iter().map(|host| HostMemoryView {
        host: host.node.clone(),
        provider: provider.name.clone(),
        online: host.is_online(),
        maintenance: host.ha_state.as_deref() == Some("maintenance"),
        memory_bytes: host.maxmem.unwrap_or(0),
        promised_bytes: promised(&host.node, &rows),
    });
    Ok(shown.collect())
}

/// Empties a physical host for maintenance: its nodes, and those that join there, take nothing new, and each
/// allocation goes when its replacement elsewhere is healthy. Answers what that means for each; with `plan` that is all.
#[utoipa::path(post, path = "/v1/hosts/{host}/drain", tag = "cluster", params(HostKey, PlanQuery),
    operation_id = "drain_host", request_body = HostDrainRequest,
    responses((status = 200, body = HostPlanView)))]
pub(super) async fn drain(
    Here(app): Here,
    Path(key): Path<HostKey>,
    Query(query): Query<PlanQuery>,
    Body(request): Body<HostDrainRequest>,
) -> Result<Json<HostPlanView>, Failure> {
    check_host(&key.host)?;
    let span = drain_span(request.deadline_ms)?;
    let view = app.store.view();
    let nodes: Vec<&Node> = nodes_on(&view, &key.host).map(|node| &**node).collect();
    if nodes.is_empty() {
        let text = format!("no node is on a host `{}`", key.host.escape_debug());
        return Err(Problem::new(Code::NotFound, text)
            .at("host")
            .hint("`skep host ls` lists the hosts; a node says its own with `skep node meta set NODE host=NAME`")
            .into());
    }
    let (planned, name) = (view.clone(), key.host.clone());
    // Looks at every service: not on a thread that others wait for.
    let steps = tokio::task::spawn_blocking(move || foreseen(&planned, &name)).await;
    let steps = steps.map_err(|_| {
        Problem::new(Code::Internal, "the search for places ended early").hint("try again")
    })?;
    let name = |id| views::node_name(&view, id);
    let moves = steps.into_iter().map(|step| HostMoveView {
        allocation: step.allocation,
        service: step.service,
        from: name(step.from),
        to: step.to.as_ref().ok().map(|to| name(*to)),
        against: step.to.err(),
    });
    let told = HostPlanView {
        host: key.host.clone(),
        nodes: nodes.iter().map(|node| node.name.clone()).collect(),
        moves: moves.collect(),
    };
    if !query.plan {
        let command = v1::SetHostMaintenance {
            host: key.host,
            cause: enum_number(&Cause::ALL, &Cause::Operator),
            deadline_ms: now_ms() + span,
        };
        app.store.propose(Kind::SetHostMaintenance(command)).await?;
    }
    Ok(Json(told))
}

/// Ends a host's maintenance: its nodes are what they were before.
#[utoipa::path(delete, path = "/v1/hosts/{host}/drain", tag = "cluster", params(HostKey),
    operation_id = "undrain_host", responses((status = 204, description = "Its nodes take work again")))]
pub(super) async fn undrain(
    Here(app): Here,
    Path(key): Path<HostKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::EndHostMaintenance { host: key.host };
    app.store.propose(Kind::EndHostMaintenance(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}
