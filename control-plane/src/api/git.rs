//! `git push skep main`: git's smart HTTP in front of the state. What there is comes out of the state and no node is
//! asked; a push is acknowledged when the nodes that keep it have it on their disks and the state says so. What is
//! pushed can be built, and not be fetched again.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use h2::Reason;
use serde::Deserialize;
use skep_identity::random;
use skep_model::deployment::{Deployment, Origin, Trigger};
use skep_model::id::{DeploymentId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::pushed::{COPIES, MAX_REFERENCES, NOT_HELD, Order, Pushed, Update};
use skep_model::service::Service;
use skep_model::spec::Source;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Reply, State, Taken};
use tokio::time::timeout;
use utoipa::IntoParams;

use super::access::Said;
use super::deploy::queued;
use super::error;
use super::extract::{Path, Query};
use super::find::{self, ServiceKey};
use super::views::node_name;
use super::{App, Here};
use crate::agents::uploads::STALL_DEADLINE;
use crate::deploy::queue;
use crate::pushing::carry::{Refused, carry};
use crate::pushing::meaning::{Meaning, from_where_they_are, meaning, source_after};
use crate::pushing::wire::{self, Commands, SERVICE};
use crate::urls;

/// Pushes that a server carries at a time: each holds a few parts of a pack.
pub(super) const MAX_PUSHES: usize = 32;

/// Has git speak HTTP/1.1, as it does of itself when it is told that it has to. By HTTP/2 several versions of libcurl, Debian
/// 12's among them, now and then hang in a large push or send it damaged.
///
/// # Errors
/// `request` is git's, by HTTP/2.
pub(crate) fn by_http1<B>(request: Request<B>) -> Result<Request<B>, h2::Error> {
    let is_gits = request.uri().path().starts_with("/git/");
    match is_gits && request.version() == Version::HTTP_2 {
        true => Err(Reason::HTTP_1_1_REQUIRED.into()),
        false => Ok(request),
    }
}

/// What git wants to do.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RefsQuery {
    /// `git-receive-pack`: push. There is nothing else.
    #[serde(default)]
    service: Option<String>,
}

/// Tells git which branches and tags of a service are here, as the first step of a push: those that all nodes hold
/// which would keep it. The password of HTTP Basic is the token.
#[utoipa::path(get, path = "/git/{project}/{environment}/{service}/info/refs", tag = "git",
    params(ServiceKey, RefsQuery), operation_id = "get_git_refs",
    responses((status = 200, body = Vec<u8>,
        content_type = "application/x-git-receive-pack-advertisement")))]
pub(super) async fn refs(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    Query(query): Query<RefsQuery>,
) -> Response {
    if query.service.as_deref() != Some(SERVICE) {
        let text = "this remote takes pushes only: nothing can be fetched or cloned from it";
        let problem = Problem::new(Code::Forbidden, text);
        return refusal(&problem.hint("what was pushed is in the repository that it came from"));
    }
    let view = app.store.view();
    match found(&view, &key) {
        Err(problem) => refusal(&problem),
        Ok(service) => {
            let pushed = pushed(&view, &service);
            let told = pushed.held_by_all(&pushed.choose(ready(&view)));
            answer(
                &format!("{SERVICE}-advertisement"),
                wire::advertisement(&told),
            )
        }
    }
}

/// Takes a push: git's commands and its pack. The answer is git's report, whatever came of it.
#[utoipa::path(post, path = "/git/{project}/{environment}/{service}/git-receive-pack", tag = "git",
    params(ServiceKey), operation_id = "push_git",
    request_body(content = Vec<u8>, content_type = "application/x-git-receive-pack-request"),
    responses((status = 200, body = Vec<u8>,
        content_type = "application/x-git-receive-pack-result")))]
pub(super) async fn receive(
    Here(app): Here,
    Path(key): Path<ServiceKey>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if headers.contains_key(header::CONTENT_ENCODING) {
        let text = "a push that is compressed as a whole is not taken";
        return refusal(
            &Problem::new(Code::Invalid, text).hint("git sends none: what is between?"),
        );
    }
    let mut body = body.into_data_stream();
    let (commands, rest) = match read_commands(&mut body).await {
        Ok(read) => read,
        Err(problem) => {
            drain(body).await;
            return reported(
                &Commands {
                    has_band: true,
                    ..Commands::default()
                },
                Err(problem),
            );
        }
    };
    if commands.updates.is_empty() {
        // Git looks whether it may come in before it sends much.
        return answer(&format!("{SERVICE}-result"), Vec::new());
    }
    let first = futures_util::stream::iter((!rest.is_empty()).then_some(Ok(rest)));
    let outcome = push(&app, &key, &commands, first.chain(body)).await;
    reported(&commands, outcome)
}

/// What git understands of a refusal: a status, and text that it shows.
pub(super) fn refusal(problem: &Problem) -> Response {
    let status = error::status(problem.code);
    let mut response = (status, format!("{problem}\n")).into_response();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    if status == StatusCode::UNAUTHORIZED {
        let realm = HeaderValue::from_static("Basic realm=\"skep\", charset=\"UTF-8\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, realm);
    }
    response
}

fn answer(kind: &str, bytes: impl Into<Body>) -> Response {
    let mut response = Response::new(bytes.into());
    let kind = HeaderValue::try_from(format!("application/x-{kind}"));
    let kind = kind.expect("made of words here");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let fresh = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, fresh);
    response
}

fn reported(commands: &Commands, outcome: Result<Done, Problem>) -> Response {
    let said = match &outcome {
        Ok(done) => done.trail.clone(),
        Err(problem) => format!("refused: {}", problem.message),
    };
    let told = outcome.map(|done| done.told);
    let report = wire::report(commands, &told);
    let mut response = answer(&format!("{SERVICE}-result"), report);
    response.extensions_mut().insert(Said(said));
    response
}

/// What came of a push.
struct Done {
    /// For the audit trail.
    trail: String,
    /// For whoever pushed.
    told: Vec<String>,
}

async fn read_commands<S, E>(body: &mut S) -> Result<(Commands, Bytes), Problem>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    let cut = |why: String| {
        Problem::new(Code::Invalid, format!("the push broke off: {why}")).hint("push again")
    };
    let mut read = BytesMut::new();
    loop {
        match timeout(STALL_DEADLINE, body.next()).await {
            Ok(Some(Ok(part))) => read.extend_from_slice(&part),
            Ok(Some(Err(error))) => return Err(cut(error.to_string())),
            Ok(None) => return Err(cut("its commands are not whole".to_owned())),
            Err(_) => return Err(cut("nothing came any more".to_owned())),
        }
        if let Some(commands) = wire::commands(&mut read)? {
            return Ok((commands, read.freeze()));
        }
    }
}

/// A client that is still sending hears the answer only when it has ended.
async fn drain<S, E>(body: S)
where
    S: Stream<Item = Result<Bytes, E>>,
{
    let mut body = std::pin::pin!(body);
    let drained = async { while let Some(Ok(_)) = body.next().await {} };
    let _ = timeout(STALL_DEADLINE, drained).await;
}

/// The service that a URL names, with `.git` behind it or not.
fn found(view: &State, key: &ServiceKey) -> Result<std::sync::Arc<Service>, Problem> {
    let name = key.service.strip_suffix(".git").unwrap_or(&key.service);
    let key = ServiceKey {
        service: name.to_owned(),
        ..key.clone()
    };
    let service = find::service(view, &key)
        .map_err(|problem| problem.hint("`skep git remote add` makes one, and names its remote"))?;
    match service.removing {
        true => Err(Problem::new(Code::Conflict, "the service is being removed")),
        false => Ok(service),
    }
}

fn pushed(view: &State, service: &Service) -> Pushed {
    let known = view.pushed(service.id);
    known.map_or_else(|| Pushed::nothing(service.id), |known| (**known).clone())
}

/// The nodes that build, and can be asked; each with whether it does nothing else.
fn ready(view: &State) -> impl ExactSizeIterator<Item = (NodeId, bool)> {
    let sites = queue::sites(view).into_iter();
    sites.map(|site| (site.node, site.is_dedicated))
}

/// What the service's stores must not drop: what its last deployments are of can be deployed again.
fn needed(view: &State, pushed: &Pushed) -> Vec<String> {
    let mut deployments: Vec<_> = view.deployments_of(pushed.service).collect();
    deployments.sort_by_key(|of| std::cmp::Reverse(of.id));
    let commits = deployments.iter().filter_map(|of| match &of.origin {
        Origin::Pushed { commit, .. } => Some(commit.as_str()),
        _ => None,
    });
    pushed.needed(commits.take(MAX_REFERENCES))
}

/// What is to be done for a push, as the state is before it.
struct Plan {
    service: std::sync::Arc<Service>,
    /// From where the references are.
    updates: Vec<Update>,
    /// Who takes the pack.
    nodes: Vec<NodeId>,
    order: Order,
    builders: usize,
}

fn plan(view: &State, key: &ServiceKey, commands: &Commands) -> Result<Plan, Problem> {
    let service = found(view, key)?;
    let pushed = pushed(view, &service);
    let builders = ready(view).len();
    let nodes = pushed.choose(ready(view));
    let told = pushed.held_by_all(&nodes);
    let updates = from_where_they_are(&pushed, &told, &commands.updates)?;
    if nodes.is_empty() && commands.has_pack() {
        let text = "no node that builds is ready to keep the push";
        return Err(Problem::new(Code::Unavailable, text)
            .hint("`skep node ls` shows the nodes; start the agent on one that builds"));
    }
    let distinct = |all: BTreeSet<&str>| all.into_iter().map(str::to_owned).collect();
    let wanted = commands.updates.iter().filter_map(|it| it.new.as_deref());
    let order = Order {
        service: service.id,
        known: distinct(told.into_values().collect()),
        wanted: distinct(wanted.collect()),
        needed: needed(view, &pushed),
    };
    Ok(Plan {
        service,
        updates,
        nodes,
        order,
        builders,
    })
}

async fn push<S, E>(
    app: &App,
    key: &ServiceKey,
    commands: &Commands,
    pack: S,
) -> Result<Done, Problem>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let planned = async {
        let place = app.pushes.clone().try_acquire_owned().map_err(|_| {
            let text = format!("{MAX_PUSHES} pushes pass through this server already");
            Problem::new(Code::Busy, text).hint("push again in a minute")
        })?;
        let view = app.store.read().await?;
        Ok::<_, Problem>((place, plan(&view, key, commands)?))
    };
    let (_place, plan) = match planned.await {
        Ok(planned) => planned,
        Err(problem) => {
            drain(pack).await;
            return Err(problem);
        }
    };
    if commands.has_pack() {
        carry(&app.relay, (&plan.nodes, &plan.order), pack)
            .await
            .map_err(|refused| refused_by(app, &plan, refused))?;
    }
    settle(app, plan).await
}

/// A node that has not what it should hold is asked no more, and not told of either.
fn refused_by(app: &App, plan: &Plan, refused: Refused) -> Problem {
    let Refused { node, problem } = refused;
    let Some(node) = node else { return problem };
    let name = node_name(&app.store.view(), node);
    if problem.field.as_deref() == Some(NOT_HELD) {
        let (store, service) = (app.store.clone(), plan.service.id);
        tokio::spawn(async move {
            let forget = Kind::ForgetHolder(v1::ForgetHolder {
                service: id_bytes(service.as_u128()),
                node: id_bytes(node.as_u128()),
            });
            if let Err(problem) = store.propose(forget).await {
                tracing::warn!(%problem, "a node stays a holder of what it has not");
            }
        });
    }
    let hint = match problem.code {
        // What is said to people with shells is about their commands.
        Code::Unavailable => Some("push again: nothing of it was taken".to_owned()),
        _ => problem.hint,
    };
    Problem {
        message: format!("node {name}: {}", problem.message),
        field: None,
        hint,
        ..problem
    }
}

/// The nodes have it: the references move, and what is to be deployed is queued, in one step.
async fn settle(app: &App, plan: Plan) -> Result<Done, Problem> {
    let Plan {
        service,
        updates,
        nodes,
        builders,
        ..
    } = plan;
    let Meaning { origin, remarks } = meaning(&service, &updates);
    let id = DeploymentId::from_u128(random::new_id());
    let deployment = origin.map(|origin| Deployment {
        source: source_after(&service, &origin),
        ..queued(id, service.id, (Trigger::Api, origin))
    });
    let command = Kind::PushReferences(v1::PushReferences {
        service: id_bytes(service.id.as_u128()),
        updates: updates.iter().map(Into::into).collect(),
        holders: nodes.iter().map(|it| id_bytes(it.as_u128())).collect(),
        deployment: deployment.as_ref().map(Into::into),
    });
    let reply = app.store.propose(command).await?;
    let view = app.store.view();
    let made = match reply {
        Reply::Taken(taken) => taken.into_iter().find_map(|it| match it {
            Taken::Made(id) => Some(id),
            _ => None,
        }),
        _ => None,
    };
    let mut told = remarks;
    if updates.iter().any(|update| update.new.is_some()) {
        told.insert(0, kept_on(&view, &nodes, builders));
    }
    let own = service.spec.source.as_ref().and_then(Source::branch);
    match (made, &deployment, own) {
        (Some(id), _, _) => told.extend(about(&view, &service, id)),
        (None, Some(_), _) => {
            told.push("another push was the first to say which branch is deployed".to_owned())
        }
        (None, None, Some(_)) => told.push(format!(
            "nothing is deployed; `skep git remote add --service {} --branch NAME` chooses another branch",
            service.name
        )),
        (None, None, None) => told.push("nothing is deployed: push a branch".to_owned()),
    }
    Ok(Done {
        trail: trail(&updates, made),
        told,
    })
}

fn kept_on(view: &State, nodes: &[NodeId], builders: usize) -> String {
    let names: Vec<String> = nodes.iter().map(|node| node_name(view, *node)).collect();
    match names.as_slice() {
        [one] if builders < COPIES => {
            format!("kept on node {one}, the only one that is ready to build")
        }
        [one] => format!("kept on node {one}"),
        all => format!("kept on the nodes {}", all.join(" and ")),
    }
}

fn about(view: &State, service: &Service, id: DeploymentId) -> Vec<String> {
    let mut told = vec![
        format!("deployment {id} of {} is queued", service.name),
        format!("`skep deployments {}` shows how it goes", service.name),
    ];
    told.extend(urls::urls(view, service).into_iter().take(1));
    told
}

fn trail(updates: &[Update], made: Option<DeploymentId>) -> String {
    let moves: BTreeMap<&str, &str> = updates
        .iter()
        .map(|it| (it.name.as_str(), it.new.as_deref().unwrap_or("removed")))
        .collect();
    let moves = moves.iter().map(|(name, to)| format!("{name} {to}"));
    let moves = moves.collect::<Vec<_>>().join(", ");
    match made {
        Some(id) => format!("{moves}; deployment {id}"),
        None => moves,
    }
}
