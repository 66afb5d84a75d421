//! One delivery: believed or not, decided on for each service, carried out in one command, told of.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use skep_forge::{Clock, Event, Forge, ParseError};
use skep_identity::{digest, random};
use skep_model::deployment::{Origin, Trigger};
use skep_model::id::{DeploymentId, EnvironmentId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::take_delivery::Wanted;
use skep_state::{Reply, State, Taken};

use super::{HookQuery, changes};
use crate::api::access::{Action, authenticate, authorize};
use crate::api::types::{HookEvent, HookReply};
use crate::api::{App, deploy, extract};
use crate::history::AuditEntry;
use crate::hooks::{Effect, effects, waiting_for};
use crate::store::now_ms;

/// Largest delivery: GitHub's own limit.
pub const MAX_HOOK_BYTES: usize = 25 << 20;
/// Longest delivery id.
const MAX_DELIVERY_ID: usize = 200;
/// A delivery that says when it was signed is refused when that is further away: clocks differ by less.
const TOLERANCE_S: u64 = 300;
/// How long a delivery waits for a place among those that are read: forges give up after 10 s.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Bodies above this are read by a thread that may take its time.
const LARGE_BYTES: usize = 256 << 10;

/// A delivery that was made by somebody who has the secret.
pub(super) struct Believed {
    forge: Forge,
    /// Names it; none: it is taken however often it comes.
    id: Option<String>,
    pub(super) events: Vec<Event>,
    /// As it came.
    pub(super) body: Bytes,
}

pub(super) fn refused(text: impl Into<String>) -> Problem {
    Problem::new(Code::Unauthenticated, text)
        .hint("enter the secret that `skep webhook rotate` prints at the forge, and choose application/json")
}

/// Reads a body, believes it or not, and only then looks into it.
pub(super) async fn believed(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    secret: String,
) -> Result<Believed, Problem> {
    let forge = skep_forge::detect(headers);
    // Each place may hold a body of the largest size. Forges do not try again what is refused.
    let place = tokio::time::timeout(MAX_WAIT, Arc::clone(&app.hooks).acquire_owned()).await;
    let Ok(Ok(_place)) = place else {
        let problem = Problem::new(Code::Unavailable, "too many deliveries at once");
        return Err(problem.hint("deliver it again"));
    };
    let bytes = extract::read(body, MAX_HOOK_BYTES).await?;
    if bytes.len() < LARGE_BYTES {
        return judged(forge, headers, &bytes, &secret);
    }
    let headers = headers.clone();
    let judging = tokio::task::spawn_blocking(move || judged(forge, &headers, &bytes, &secret));
    judging.await.expect("judging does not panic")
}

fn judged(
    forge: Forge,
    headers: &HeaderMap,
    body: &Bytes,
    secret: &str,
) -> Result<Believed, Problem> {
    let clock = Clock {
        now_s: now_ms() / 1_000,
        tolerance_s: TOLERANCE_S,
    };
    skep_forge::verify(forge, headers, body, secret, clock)
        .map_err(|refusal| refused(refusal.to_string()))?;
    let name = match skep_forge::event_name(forge, headers) {
        Some(name) => name,
        // Its body says it.
        None if matches!(forge, Forge::GitLab | Forge::Generic) => "",
        None => return Err(missing(forge.event_header())),
    };
    let events = skep_forge::parse(forge, name, body).map_err(odd)?;
    // Pings and what is not known have no id of their own everywhere, and need none.
    let is_acted_upon =
        |event: &Event| !matches!(event, Event::Ping | Event::Other(_) | Event::Checks(_));
    let id = match events.iter().any(is_acted_upon) {
        true => delivery_id(forge, headers, body)?,
        false => None,
    };
    Ok(Believed {
        forge,
        id,
        events,
        body: body.clone(),
    })
}

fn missing(header: &str) -> Problem {
    Problem::invalid(header, "the header is missing or not text")
        .hint("forges send it: does something on the way take it out?")
}

fn odd(error: ParseError) -> Problem {
    let problem = match error.field.as_str() {
        "body" => Problem::new(
            Code::Invalid,
            format!("the body cannot be read: {}", error.message),
        ),
        field => Problem::invalid(field, error.message),
    };
    problem.hint("choose the content type application/json at the forge")
}

/// What makes a delivery the same when it comes again. An older GitLab and Bitbucket behind some proxies do not
/// name it: then its body does. Who signs by hand says it, or means each.
fn delivery_id(forge: Forge, headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, Problem> {
    let header = forge.delivery_headers()[0];
    let Some(id) = skep_forge::delivery_id(forge, headers) else {
        return match forge {
            Forge::Generic => Ok(None),
            Forge::GitHub => Err(missing(header)),
            _ => Ok(Some(format!("sha256-{}", digest::sha256_hex(body)))),
        };
    };
    let is_sound = id.len() <= MAX_DELIVERY_ID && id.bytes().all(|b| b.is_ascii_graphic());
    if is_sound {
        return Ok(Some(id.to_owned()));
    }
    Err(Problem::invalid(header, "not a delivery id").hint("up to 200 printable characters"))
}

/// Forcing is not signed: whoever saw a delivery could send it again so. Hence the token.
pub(super) fn is_forced(
    app: &App,
    query: &HookQuery,
    headers: &HeaderMap,
    resource: &str,
) -> Result<bool, Problem> {
    match query.force.as_deref() {
        None | Some("0" | "false") => return Ok(false),
        Some("1" | "true") => {}
        Some(_) => return Err(Problem::invalid("force", "not accepted").hint("1, or nothing")),
    }
    let principal = authenticate(&app.store.view(), headers)?;
    authorize(principal, Action::DeployService, resource)?;
    Ok(true)
}

/// Whose a delivery is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meant<'a> {
    /// The services that it is for: one, or all that come from a repository.
    pub(super) services: &'a [Arc<Service>],
    /// It is for a repository: what one service refuses is told, and the others go on.
    pub(super) is_shared: bool,
    /// What was taken before is made again.
    pub(super) is_forced: bool,
}

/// Takes a delivery and answers it: 202 where a deployment was made.
pub(super) async fn answer(
    app: &App,
    resource: &str,
    meant: Meant<'_>,
    delivery: &Believed,
) -> Result<(StatusCode, Json<HookReply>), Problem> {
    let reply = act(app, meant, delivery).await;
    if reply
        .as_ref()
        .map_or(true, |reply| reply.deployment.is_some())
    {
        audit(app, resource, reply.as_ref().err());
    }
    let reply = reply?;
    let is_new = reply.deployment.is_some() && !reply.replayed;
    let status = if is_new {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(reply)))
}

/// Decides on each event for each service, makes what is to be made in one command, and tells of all.
async fn act(app: &App, meant: Meant<'_>, delivery: &Believed) -> Result<HookReply, Problem> {
    let view = app.store.view();
    let mut reply = HookReply::default();
    let mut wanted = Vec::new();
    // Where in the reply each of `wanted` is told of.
    let mut places = Vec::new();
    let mut heard = Vec::new();
    for (at, event) in delivery.events.iter().enumerate() {
        if let Event::Change(change) = event {
            let key = |base| preview_key(base, delivery, at).filter(|_| !meant.is_forced);
            let change = (&**change, &*event.shown());
            let told = changes::take(app, meant.services, change, key).await?;
            reply.events.extend(told);
            continue;
        }
        for service in meant.services {
            let asked = match event {
                Event::Checks(reported) => waiting_for(&view, service, &reported.commit),
                _ => Vec::new(),
            };
            let decision = match effects(&view, service, event) {
                Effect::Refuse(problem) if meant.is_shared => problem.to_string(),
                Effect::Refuse(problem) => return Err(problem),
                Effect::Nothing(_) if !asked.is_empty() => {
                    heard.extend(asked);
                    "the forge is asked, as a deployment waits for it".to_owned()
                }
                Effect::Nothing(why) => why,
                Effect::Pong => {
                    reply.pong = true;
                    "pong".to_owned()
                }
                Effect::Deploy(origin, why) => {
                    let key = key_of(service.id, delivery, at).filter(|_| !meant.is_forced);
                    wanted.push(wish(service.id, origin, key, meant.is_forced));
                    places.push(reply.events.len());
                    why
                }
            };
            reply.events.push(HookEvent {
                event: event.shown(),
                service: meant.is_shared.then(|| name_of(&view, service)),
                decision,
                deployment: None,
                replayed: false,
            });
        }
    }
    if !heard.is_empty() {
        let deployments = heard.iter().map(|id| id_bytes(id.as_u128())).collect();
        let command = Kind::HearChecks(v1::HearChecks { deployments });
        app.store.propose(command).await?;
    }
    if !wanted.is_empty() {
        let command = Kind::TakeDelivery(v1::TakeDelivery { wanted });
        let Reply::Taken(taken) = app.store.propose(command).await? else {
            return Err(Problem::new(Code::Internal, "the delivery was not taken"));
        };
        for (at, taken) in places.into_iter().zip(taken) {
            tell(&mut reply.events[at], taken);
        }
    }
    sum_up(&mut reply);
    Ok(reply)
}

/// A service as people name it.
pub(super) fn name_of(view: &State, service: &Service) -> String {
    view.path_of(service).map_or_else(
        || service.name.clone(),
        |path| format!("{}/{}/{}", path.project, path.environment, service.name),
    )
}

/// As GitHub's have always been; of several events of one delivery each has its own.
fn key_of(service: ServiceId, delivery: &Believed, at: usize) -> Option<String> {
    let id = delivery.id.as_ref()?;
    let forge = delivery.forge.as_str();
    Some(match delivery.events.len() {
        1 => format!("{forge}/{service}/{id}"),
        _ => format!("{forge}/{service}/{id}/{at}"),
    })
}

/// Of what a delivery asks of an environment.
fn preview_key(base: EnvironmentId, delivery: &Believed, at: usize) -> Option<String> {
    let id = delivery.id.as_ref()?;
    let forge = delivery.forge.as_str();
    Some(format!("{forge}/preview/{base}/{id}/{at}"))
}

fn wish(service: ServiceId, origin: Origin, key: Option<String>, is_forced: bool) -> Wanted {
    let id = DeploymentId::from_u128(random::new_id());
    let deployment = deploy::queued(id, service, (Trigger::Webhook, origin));
    Wanted {
        deployment: Some((&deployment).into()),
        delivery: key,
        once_per_commit: !is_forced,
    }
}

fn tell(event: &mut HookEvent, taken: Taken) {
    let (id, replayed, more) = match taken {
        Taken::Made(id) => (Some(id), false, "deployed".to_owned()),
        Taken::Replayed(id) => (Some(id), true, "this delivery was taken before".to_owned()),
        Taken::SameCommit(id) => (
            Some(id),
            true,
            "another delivery of this commit was taken before".to_owned(),
        ),
        Taken::Refused(problem) => (None, false, problem.to_string()),
    };
    event.deployment = id;
    event.replayed = replayed;
    event.decision = format!("{more}: {}", event.decision);
}

/// What one line can say of all events: the first deployment that was made, else the first that was there.
fn sum_up(reply: &mut HookReply) {
    let deployed = |event: &&HookEvent| event.deployment.is_some();
    let made = reply.events.iter().find(|it| deployed(it) && !it.replayed);
    let first = made.or(reply.events.iter().find(deployed));
    reply.deployment = first.and_then(|event| event.deployment);
    reply.replayed = first.is_some_and(|event| event.replayed);
    if reply.deployment.is_none() && !reply.pong {
        let why: Vec<&str> = reply.events.iter().map(|it| it.decision.as_str()).collect();
        reply.ignored = Some(match why.is_empty() {
            true => "the delivery says nothing".to_owned(),
            false => why.join("; "),
        });
    }
}

fn audit(app: &App, resource: &str, failure: Option<&Problem>) {
    app.history.audit(AuditEntry {
        at_ms: now_ms(),
        principal: "webhook".to_owned(),
        action: "deploy_service".to_owned(),
        resource: resource.to_owned(),
        outcome: failure.map_or_else(|| "ok".to_owned(), |problem| problem.message.clone()),
    });
}
