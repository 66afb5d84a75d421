//! The servers of the control plane: what they say of themselves, removing one, handing leadership on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use futures_util::future::join_all;
use serde::Deserialize;
use skep_model::problem::{Code, Problem};
use skep_model::server::Server;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State as View;
use tokio::task::spawn_blocking;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::Path;
use super::neighbours::Neighbours;
use super::types::{ErrorBody, ServerReport, ServerRole, ServerView, ServersView};
use super::{App, Here};
use crate::consensus::Group;
use crate::peers::Outbox;
use crate::store::now_ms;

/// Below this the disk of a server's data is nearly full: the log cannot grow for long.
const DISK_LOW_BYTES: u64 = 256 << 20;
/// Clocks that differ by more are told: the times of writes are the leader's.
pub const CLOCK_TOLERANCE_MS: u64 = 60_000;
/// Where a server reports.
const REPORT_PATH: &str = "/v1/server";
/// A server whose report takes longer is frozen, cut off or far too busy; whoever lists the servers
/// wants to know just that, soon.
const REPORT_DEADLINE: Duration = Duration::from_secs(1);

/// What the API knows of the server that it is part of. Cheap to clone.
#[derive(Clone)]
pub struct Own {
    /// Asks the others.
    pub neighbours: Neighbours,
    /// Where its data is: the disk that must not be full.
    pub data_dir: Arc<PathBuf>,
    /// The data key as this server's operator's key wraps it: backups carry it.
    pub wrapped_data_key: Arc<[u8]>,
    /// When it started.
    pub started: Instant,
    /// Its traffic with the other servers.
    pub outbox: Outbox,
}

/// The name or id of a server.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ServerKey {
    /// Its name or id.
    server: String,
}

fn find(view: &View, key: &str) -> Result<Arc<Server>, Problem> {
    let is_meant = |server: &&Arc<Server>| server.name == key || server.id.to_string() == key;
    view.servers().find(is_meant).cloned().ok_or_else(|| {
        let shown: String = key.chars().take(60).collect();
        let message = format!("there is no server `{}`", shown.escape_debug());
        Problem::new(Code::NotFound, message)
            .at("server")
            .hint("`skep server ls` lists the servers")
    })
}

/// What this server says of itself.
#[utoipa::path(get, path = "/v1/server", tag = "cluster", operation_id = "get_server_report",
    responses((status = 200, body = ServerReport)))]
pub(super) async fn report(Here(app): Here) -> Json<ServerReport> {
    Json(own_report(&app).await)
}

async fn own_report(app: &App) -> ServerReport {
    let own = app.own.neighbours.own();
    let group = app.store.consensus().group().borrow().clone();
    let view = app.store.view();
    let member = view.server(own).map_or(0, |server| server.member);
    let folder = Arc::clone(&app.own.data_dir);
    let disk = spawn_blocking(move || disk(&folder)).await.ok().flatten();
    let mut problems = Vec::new();
    if group.leader.is_none() {
        problems.push("it knows no leader: writes wait until most voters reach each other".into());
    }
    if let Some((free, _)) = disk
        && free < DISK_LOW_BYTES
    {
        problems.push(format!("the disk of its data has {} MiB left", free >> 20));
    }
    if !app.history.health().is_ok {
        problems.push("its history does not take writes".into());
    }
    ServerReport {
        id: own,
        member,
        version: crate::version().to_owned(),
        term: group.term,
        leader: group.leader,
        last_index: group.last_index,
        commit_index: group.commit,
        applied_index: group.applied,
        disk_free_bytes: disk.map(|(free, _)| free),
        disk_total_bytes: disk.map(|(_, total)| total),
        clock_ms: now_ms(),
        uptime_s: app.own.started.elapsed().as_secs(),
        problems,
    }
}

/// Free and total bytes of the disk under `folder`, as an ordinary process may use them.
fn disk(folder: &std::path::Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some((
        found.f_bavail.saturating_mul(found.f_frsize),
        found.f_blocks.saturating_mul(found.f_frsize),
    ))
}

/// Lists the servers with what each says of itself. Answered without a leader, too.
#[utoipa::path(get, path = "/v1/servers", tag = "cluster", operation_id = "list_servers",
    responses((status = 200, body = ServersView)))]
pub(super) async fn list(Here(app): Here, headers: HeaderMap) -> Json<ServersView> {
    let view = app.store.view();
    let own = own_report(&app).await;
    let caller = headers.get(header::AUTHORIZATION);
    let asked = view.servers().cloned().map(|server| {
        let (app, own) = (&app, &own);
        async move {
            let heard = if server.id == own.id {
                Ok(own.clone())
            } else {
                ask(app, &server, caller).await
            };
            (server, heard)
        }
    });
    let heard = join_all(asked).await;
    let group = app.store.consensus().group().borrow().clone();
    let newest = newest_index(&group, &heard);
    let mut servers: Vec<_> = heard
        .into_iter()
        .map(|(server, heard)| server_view(&group, newest, &server, heard))
        .collect();
    servers.sort_by(|left, right| left.name.cmp(&right.name));
    let leader = group.leader.and_then(|it| view.server_by_member(it));
    Json(ServersView {
        leader: leader.map(|server| server.id),
        term: group.term,
        feature_level: view.feature_level(),
        servers,
    })
}

type Heard = Result<ServerReport, String>;

async fn ask(app: &App, server: &Server, caller: Option<&HeaderValue>) -> Heard {
    let neighbours = &app.own.neighbours;
    let asked = neighbours.ask_within(REPORT_DEADLINE, server, (Method::GET, REPORT_PATH), caller);
    let answer = asked
        .await
        .map_err(|error| match neighbours.last_heard(server.id) {
            Some(ago) => format!("{error}; its last answer is {} s old", ago.as_secs()),
            None => error.to_string(),
        })?;
    if !answer.status.is_success() {
        return Err(format!("it answers {}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("its report: {error}"))
}

/// The leader's newest index, where the leader is heard; else what is known here.
fn newest_index(group: &Group, heard: &[(Arc<Server>, Heard)]) -> Option<u64> {
    let leader = group.leader?;
    let reports = heard.iter().filter_map(|(server, heard)| {
        let is_leader = server.member == leader;
        heard.as_ref().ok().filter(|_| is_leader)
    });
    reports.map(|report| report.last_index).next()
}

fn server_view(group: &Group, newest: Option<u64>, server: &Server, heard: Heard) -> ServerView {
    let (mut report, unreachable) = match heard {
        Ok(report) => (Some(report), None),
        Err(why) => (None, Some(why)),
    };
    if let Some(report) = &mut report {
        let apart_ms = report.clock_ms.abs_diff(now_ms());
        if apart_ms > CLOCK_TOLERANCE_MS {
            let apart_s = apart_ms / 1_000;
            let text = format!("its clock and the asked server's differ by {apart_s} s");
            report.problems.push(text);
        }
    }
    let applied = report.as_ref().map(|report| report.applied_index);
    let lag = newest
        .zip(applied)
        .map(|(newest, applied)| newest.saturating_sub(applied));
    ServerView {
        id: server.id,
        name: server.name.clone(),
        member: server.member,
        role: role(group, server.member),
        cluster_address: server.cluster_address.clone(),
        api_address: server.api_address.clone(),
        version: server.version.clone(),
        feature_level: server.feature_level,
        joined_ms: server.joined_ms,
        healthy: report.as_ref().is_some_and(|it| it.problems.is_empty()),
        lag,
        report,
        unreachable,
    }
}

fn role(group: &Group, member: u64) -> ServerRole {
    if group.leader == Some(member) {
        ServerRole::Leader
    } else if group.members.voters.contains(&member) {
        ServerRole::Voter
    } else if group.members.learners.contains(&member) {
        ServerRole::Learner
    } else {
        ServerRole::Outside
    }
}

/// Removes a server: the leader takes it out of the group, and its certificate is refused at once.
#[utoipa::path(delete, path = "/v1/servers/{server}", tag = "cluster", params(ServerKey),
    operation_id = "remove_server", responses((status = 204, description = "It is removed")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<ServerKey>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let view = app.store.view();
    let server = find(&view, &key.server)?;
    let group = app.store.consensus().group().borrow().clone();
    if !group.is_leader {
        // The leader alone knows who answers.
        let path = format!("/v1/servers/{}", server.id);
        return at_leader(&app, (Method::DELETE, &path), &headers).await;
    }
    refuse_loss(&view, &group, &server)?;
    let command = v1::RemoveServer {
        server: id_bytes(server.id.as_u128()),
    };
    app.store.propose(Kind::RemoveServer(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has the leader do what only it can.
async fn at_leader(
    app: &App,
    (method, path): (Method, &str),
    headers: &HeaderMap,
) -> Result<StatusCode, Failure> {
    let unavailable = |text: &str| Problem::new(Code::Unavailable, text).hint("try again");
    let view = app.store.view();
    let leader = app.store.consensus().group().borrow().leader;
    let leader = leader
        .and_then(|it| view.server_by_member(it))
        .ok_or_else(|| unavailable("the servers have no leader just now"))?;
    if leader.id == app.own.neighbours.own() {
        return Err(unavailable("leadership is just moving").into());
    }
    let caller = headers.get(header::AUTHORIZATION);
    let asked = app.own.neighbours.ask(leader, (method, path), caller);
    let answer = asked
        .await
        .map_err(|error| unavailable(&error.to_string()))?;
    if answer.status.is_success() {
        return Ok(StatusCode::NO_CONTENT);
    }
    let problem = serde_json::from_slice::<ErrorBody>(&answer.body).map_or_else(
        |_| Problem::new(Code::Internal, "the leader's answer is not understood"),
        Problem::from,
    );
    Err(Failure::with_status(answer.status, problem))
}

/// Refuses to remove a voter where those that are left could not decide anything.
fn refuse_loss(view: &View, group: &Group, server: &Server) -> Result<(), Problem> {
    let is_voter = |member: u64| group.members.voters.contains(&member);
    let is_alone = view.servers().count() < 2;
    if is_alone || !is_voter(server.member) {
        // The state has the word on the only server.
        return Ok(());
    }
    let active: BTreeSet<u64> = group
        .peers
        .iter()
        .filter(|peer| peer.is_active && peer.member != server.member)
        .map(|peer| peer.member)
        .collect();
    let left: Vec<_> = view
        .servers()
        .filter(|other| other.id != server.id)
        .collect();
    let answering = left
        .iter()
        .filter(|other| {
            let is_own = group.leader == Some(other.member);
            is_own || active.contains(&other.member)
        })
        .count();
    if answering > 0 && answering * 2 > left.len().min(group.members.voters.len()) {
        return Ok(());
    }
    let message = format!(
        "without {} only {answering} of {} servers answer: the group could not decide anything",
        server.name,
        left.len()
    );
    Err(Problem::new(Code::Conflict, message)
        .hint("start the others first, or remove those that are gone for good before"))
}

/// Makes another server the leader: it must be a voter that is caught up.
#[utoipa::path(post, path = "/v1/servers/{server}/leader", tag = "cluster", params(ServerKey),
    operation_id = "transfer_leader", responses((status = 204, description = "It leads")))]
pub(super) async fn transfer(
    Here(app): Here,
    Path(key): Path<ServerKey>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let view = app.store.view();
    let server = find(&view, &key.server)?;
    let group = app.store.consensus().group().borrow().clone();
    if group.leader == Some(server.member) {
        return Ok(StatusCode::NO_CONTENT);
    }
    if group.is_leader {
        let moved = app.store.consensus().transfer_leader(Some(server.member));
        moved.await.map_err(|error| {
            Problem::new(Code::Conflict, format!("leadership stays: {error}"))
                .hint("`skep server ls` tells which servers are voters and caught up")
        })?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let path = format!("/v1/servers/{}/leader", server.id);
    at_leader(&app, (Method::POST, &path), &headers).await
}
