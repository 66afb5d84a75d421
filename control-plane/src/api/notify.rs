//! Receivers of notifications: listed, made, changed, removed, tried; and what became of what they were told.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_identity::random;
use skep_model::id::{ProjectId, ReceiverId, UploadId};
use skep_model::name;
use skep_model::notify::{
    Attempt, Event, Notification, Own, Receiver, Standing, address_of, check_events,
    check_services, check_url,
};
use skep_model::problem::{Code, Problem};
use skep_model::variable::Sealed;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::ask_notification::What;
use skep_proto::v1::command::Kind;
use skep_state::State;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::{Body, Path};
use super::types::{
    AttemptView, NotificationState, NotificationView, NotificationsView, OwnRequest,
    ReceiverRequest, ReceiverView, ReceiversView, RetryRequest,
};
use super::{App, Here, find};
use crate::notify::new_secret;
use crate::outgoing::Allowed;

/// How long is waited for what becomes of a test: an attempt, and a bit.
const TEST_DEADLINE: Duration = Duration::from_secs(15);

/// The names that lead to a receiver.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ReceiverKey {
    /// Name of the project.
    project: String,
    /// Name of the receiver.
    receiver: String,
}

/// Lists the receivers of all projects, without their secrets.
#[utoipa::path(get, path = "/v1/receivers", tag = "notifications", operation_id = "list_receivers",
    responses((status = 200, body = ReceiversView)))]
pub(super) async fn list(Here(app): Here) -> Json<ReceiversView> {
    let view = app.store.view();
    let mut receivers: Vec<_> = view.receivers().map(|it| shown(&view, it, None)).collect();
    receivers
        .sort_by(|left, right| (&left.project, &left.name).cmp(&(&right.project, &right.name)));
    Json(ReceiversView { receivers })
}

/// Makes a receiver of a project's notifications, or changes it. A secret that is made with it is shown this once.
#[utoipa::path(put, path = "/v1/projects/{project}/receivers/{receiver}", tag = "notifications",
    params(ReceiverKey), operation_id = "put_receiver", request_body = ReceiverRequest,
    responses((status = 200, body = ReceiverView)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<ReceiverKey>,
    Body(request): Body<ReceiverRequest>,
) -> Result<Json<ReceiverView>, Failure> {
    name::check("receiver", &key.receiver)?;
    let uri = check_url(&request.url)?;
    let events = check_events(request.events)?;
    check_services(&request.services)?;
    let keeps_own = request.own.is_none();
    let own = own_of(request.own)?;
    let view = app.store.view();
    if let Some(address) = address_of(&uri) {
        let allowed = Allowed::new(&app.notify_allow);
        allowed.learn(&view);
        allowed.check(address)?;
    }
    let project = project(&view, &key.project)?;
    let is_new = view.receiver_named(project, &key.receiver).is_none();
    let secret = (is_new || request.new_secret).then(new_secret);
    let sealed = secret.as_deref();
    let sealed = sealed.map(|it| app.secrets.seal_receiver(project, &key.receiver, it));
    let receiver = Receiver {
        id: ReceiverId::from_u128(random::new_id()),
        project,
        name: key.receiver.clone(),
        url: request.url,
        events,
        secret: sealed.unwrap_or(Sealed(Vec::new())),
        own: own.map(|own| app.secrets.seal_own(project, &key.receiver, &own)),
        services: request.services,
        is_off: request.off,
        // Set where it is obeyed.
        problem: None,
        told: 0,
        dropped: 0,
        changed_ms: 0,
    };
    let command = v1::PutReceiver {
        receiver: Some((&receiver).into()),
        keeps_own,
    };
    let written = app.store.write(Kind::PutReceiver(command)).await?;
    let view = app.store.view();
    let stored = receiver_of(&view, &key)?;
    // A request that came again has made no secret.
    let secret = secret.filter(|_| !written.is_replayed);
    Ok(Json(shown(&view, &stored, secret)))
}

/// Removes a receiver, and all that waits for it.
#[utoipa::path(delete, path = "/v1/projects/{project}/receivers/{receiver}", tag = "notifications",
    params(ReceiverKey), operation_id = "remove_receiver",
    responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<ReceiverKey>,
) -> Result<StatusCode, Failure> {
    let receiver = receiver_of(&app.store.view(), &key)?;
    let command = v1::RemoveReceiver {
        id: id_bytes(receiver.id.as_u128()),
    };
    app.store.propose(Kind::RemoveReceiver(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows a receiver, and what became of what it was told.
#[utoipa::path(get, path = "/v1/projects/{project}/receivers/{receiver}/notifications",
    tag = "notifications", params(ReceiverKey), operation_id = "list_notifications",
    responses((status = 200, body = NotificationsView)))]
pub(super) async fn show(
    Here(app): Here,
    Path(key): Path<ReceiverKey>,
) -> Result<Json<NotificationsView>, Failure> {
    let view = app.store.view();
    let receiver = receiver_of(&view, &key)?;
    let all = view.notifications_of(receiver.id).rev();
    Ok(Json(NotificationsView {
        notifications: all.map(|it| seen(it)).collect(),
        receiver: shown(&view, &receiver, None),
    }))
}

/// Sends a receiver a test, and waits for what becomes of the first attempt.
#[utoipa::path(post, path = "/v1/projects/{project}/receivers/{receiver}/test", tag = "notifications",
    params(ReceiverKey), operation_id = "test_receiver",
    responses((status = 200, body = NotificationView)))]
pub(super) async fn test(
    Here(app): Here,
    Path(key): Path<ReceiverKey>,
) -> Result<Json<NotificationView>, Failure> {
    let receiver = receiver_of(&app.store.view(), &key)?;
    if receiver.is_off {
        let problem = Problem::new(Code::Conflict, "the receiver is off");
        return Err(problem
            .hint("`skep notify set NAME --on` switches it on")
            .into());
    }
    let id = UploadId::from_u128(random::new_id());
    let id = format!("{id}.{}", Event::Test.as_str());
    let mut changes = app.store.consensus().changes();
    ask(&app, &receiver, What::Test(id.clone())).await?;
    let deadline = Instant::now() + TEST_DEADLINE;
    loop {
        let view = app.store.view();
        // The same request again asks for what the first one made.
        let mut tests = view.notifications_of(receiver.id).rev();
        let found = tests.find(|it| it.id == id);
        let newest = || {
            let mut all = view.notifications_of(receiver.id).rev();
            all.find(|it| it.event == Event::Test)
        };
        let found = found.or_else(newest).ok_or_else(|| {
            Problem::new(
                Code::Conflict,
                "the test was dropped: too much waits for the receiver",
            )
            .hint("`skep notify show` lists it")
        })?;
        let is_over = found.attempts > 0;
        let late = timeout_at(deadline, async {
            match is_over {
                true => Ok(()),
                false => changes.recv().await.map(drop),
            }
        });
        match late.await {
            // A feed that was too fast, or has ended: the next look at the state tells.
            Ok(Ok(()) | Err(_)) if !is_over && !app.shutdown.is_cancelled() => {}
            _ => return Ok(Json(seen(found))),
        }
    }
}

/// Sends one notification again, or all that have not arrived, now.
#[utoipa::path(post, path = "/v1/projects/{project}/receivers/{receiver}/retry", tag = "notifications",
    params(ReceiverKey), operation_id = "retry_notifications", request_body = RetryRequest,
    responses((status = 200, body = ReceiverView)))]
pub(super) async fn retry(
    Here(app): Here,
    Path(key): Path<ReceiverKey>,
    Body(request): Body<RetryRequest>,
) -> Result<Json<ReceiverView>, Failure> {
    let view = app.store.view();
    let receiver = receiver_of(&view, &key)?;
    let what = match &request.notification {
        None => What::All(true),
        Some(id) => {
            let mut all = view.notifications_of(receiver.id);
            let found = all.find(|it| it.id == *id).ok_or_else(|| {
                Problem::new(Code::NotFound, "the receiver has no such notification")
                    .at("notification")
                    .hint("`skep notify show` lists those that are kept")
            })?;
            What::Again(found.number)
        }
    };
    ask(&app, &receiver, what).await?;
    let view = app.store.view();
    let receiver = receiver_of(&view, &key)?;
    Ok(Json(shown(&view, &receiver, None)))
}

/// What is posted in place of Skep's own.
fn own_of(request: Option<OwnRequest>) -> Result<Option<Own>, Problem> {
    let Some(OwnRequest { headers, body }) = request else {
        return Ok(None);
    };
    let Some(body) = body else {
        return match headers.is_empty() {
            true => Ok(None),
            false => Err(Problem::invalid(
                "body",
                "headers of its own go with a body of its own",
            )),
        };
    };
    let own = Own::new(headers, body)?;
    // With something in each place: where a number is to stand, a number may come.
    let sample = own.filled(|_| Some("1".to_owned()));
    if own.is_json()
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&sample)
    {
        let text = format!("the body is no JSON: {error}");
        return Err(Problem::invalid("body", text)
            .hint("another kind of body takes a header: `Content-Type: text/plain`"));
    }
    Ok(Some(own))
}

async fn ask(app: &App, receiver: &Receiver, what: What) -> Result<(), Problem> {
    let command = v1::AskNotification {
        receiver: id_bytes(receiver.id.as_u128()),
        what: Some(what),
    };
    let kind = Kind::AskNotification(command);
    app.store.propose(kind).await.map(drop)
}

fn project(view: &State, name: &str) -> Result<ProjectId, Problem> {
    let found = view.project_named(find::workspace(view)?, name);
    found.map(|project| project.id).ok_or_else(|| {
        Problem::new(Code::NotFound, "there is no such project")
            .at("project")
            .hint(
                "`skep ps` lists the services with their projects; the first deployment makes one",
            )
    })
}

fn receiver_of(view: &State, key: &ReceiverKey) -> Result<Arc<Receiver>, Problem> {
    let project = project(view, &key.project)?;
    let found = view.receiver_named(project, &key.receiver).cloned();
    found.ok_or_else(|| {
        Problem::new(Code::NotFound, "the project has no such receiver")
            .at("receiver")
            .hint("`skep notify ls` lists them")
    })
}

fn shown(view: &State, receiver: &Receiver, secret: Option<String>) -> ReceiverView {
    let project = view.project(receiver.project);
    ReceiverView {
        project: project.map_or_else(String::new, |project| project.name.clone()),
        name: receiver.name.clone(),
        url: receiver.url.clone(),
        events: receiver.events.clone(),
        off: receiver.is_off,
        problem: receiver.problem.clone(),
        pending: view.pending_of(receiver.id) as u64,
        dropped: receiver.dropped,
        services: receiver.services.clone(),
        own: receiver.own.is_some(),
        secret,
    }
}

fn seen(notification: &Notification) -> NotificationView {
    let subject = notification.subject.as_ref();
    let attempt = |it: &Attempt| AttemptView {
        at_ms: it.at_ms,
        status: it.status,
        problem: it.problem.clone(),
    };
    NotificationView {
        id: notification.id.clone(),
        event: notification.event,
        at_ms: notification.at_ms,
        service: subject.map(|it| format!("{}/{}", it.environment, it.service)),
        deployment: subject.map(|it| it.deployment),
        state: match notification.standing {
            Standing::Pending { .. } => NotificationState::Pending,
            Standing::Delivered => NotificationState::Delivered,
            Standing::GivenUp => NotificationState::GivenUp,
        },
        attempts: notification.attempts,
        next_ms: notification.next_ms(),
        last: notification.last.as_ref().map(attempt),
    }
}
