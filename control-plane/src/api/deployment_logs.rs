//! Timeline and build log of a deployment: by page, or live until it has ended.

use axum::Json;
use axum::http::HeaderMap;
use axum::response::sse::Event as Message;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use skep_model::deployment::Status;
use skep_model::id::DeploymentId;
use skep_model::problem::Problem;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;

use super::deployments::DeploymentKey;
use super::error::Failure;
use super::extract::{Path, Query};
use super::nodes::unavailable;
use super::stream::{self, Feed};
use super::types::{EndView, LogPage};
use super::{App, Here, find, views};
use crate::history::Event;

/// Events in a page where the caller does not say, and in one read of a stream.
const PAGE: u32 = 500;
/// Most events in a page.
const MAX_PAGE: u32 = 5_000;

/// Which part of a log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct LogRange {
    /// Only events after this sequence number.
    after: u64,
    /// Most events in the page: 1 to 5,000; 500 where it is left out. Streams have no limit.
    limit: Option<u32>,
}

/// Reads a deployment's timeline and build log. With `Accept: text/event-stream` it is followed
/// until the deployment has ended: events `step` and `log` (data: `Event`; the event's id is its
/// `seq`, `Last-Event-ID` resumes without gap or repeat), at last `end` (data: `EndView`).
#[utoipa::path(get, path = "/v1/deployments/{deployment}/logs", tag = "deployments",
    params(DeploymentKey, LogRange), operation_id = "read_deployment_logs",
    responses((status = 200, content(
        (LogPage = "application/json"), (String = "text/event-stream")))))]
pub(super) async fn read(
    Here(app): Here,
    Path(key): Path<DeploymentKey>,
    Query(range): Query<LogRange>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let id = key.deployment;
    flush(&app, id).await;
    let limit = range.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let status = known_status(&app, id).await?;
    if stream::wants_events(&headers) {
        let place = stream::place(&app)?;
        let after = stream::last_event_id(&headers).unwrap_or(range.after);
        let (queue, messages) = mpsc::channel(stream::QUEUE);
        tokio::spawn(async move {
            let _place = place;
            Follower {
                app,
                id,
                after,
                queue,
            }
            .run()
            .await;
        });
        return Ok(stream::events(ReceiverStream::new(messages)));
    }
    let read = app.history.events(id, range.after, limit).await;
    let events = read.map_err(|error| unavailable(&error))?;
    let next = events.last().map_or(range.after, |event| event.seq);
    Ok(Json(LogPage {
        events,
        next,
        status,
    })
    .into_response())
}

/// Where a deployment is; none: the state has forgotten it, but its log is there still.
async fn known_status(app: &App, id: DeploymentId) -> Result<Option<Status>, Problem> {
    match find::deployment(&app.store.view(), id) {
        Ok(deployment) => Ok(Some(deployment.status)),
        Err(unknown) => {
            let first = app.history.events(id, 0, 1).await.unwrap_or_default();
            if first.is_empty() {
                Err(unknown)
            } else {
                Ok(None)
            }
        }
    }
}

/// Makes sure that the timeline, as far as it goes now, is in the history.
async fn flush(app: &App, id: DeploymentId) {
    let view = app.store.view();
    if let Some(deployment) = view.deployment(id) {
        // A history that cannot be written is counted there; the log is shorter then.
        let _ = app.history.flush_steps(id, &deployment.steps).await;
    }
}

/// The reader has gone, or the server is stopping.
struct Over;

struct Follower {
    app: App,
    id: DeploymentId,
    after: u64,
    queue: mpsc::Sender<Message>,
}

impl Follower {
    async fn run(mut self) {
        // Both subscribed before the first look: nothing between is missed.
        let mut feed = Feed::open(&self.app);
        let mut fresh = self.app.history.watch(self.id);
        let mut is_broken = false;
        loop {
            // Looked at before the log is read: what the end brought is in the log then.
            let is_ended = self.is_ended();
            if is_ended {
                flush(&self.app, self.id).await;
            }
            match self.send_new().await {
                Ok(Ok(())) => is_broken = false,
                Ok(Err(problem)) if !is_broken => {
                    is_broken = true;
                    if self.send(stream::event("problem", &problem)).await.is_err() {
                        return;
                    }
                }
                Ok(Err(_)) => {}
                Err(Over) => return,
            }
            if is_ended {
                // The reader may have gone meanwhile.
                let _ = self.send(stream::event("end", &self.end())).await;
                return;
            }
            tokio::select! {
                woken = fresh.changed() => if woken.is_err() { return },
                goes_on = feed.deployment(self.id) => if !goes_on { return },
                () = self.queue.closed() => return,
            }
        }
    }

    fn is_ended(&self) -> bool {
        let view = self.app.store.view();
        view.deployment(self.id)
            .is_none_or(|deployment| !deployment.status.is_active())
    }

    /// Sends what is kept and not sent yet; inside: why that could not be read.
    async fn send_new(&mut self) -> Result<Result<(), Problem>, Over> {
        loop {
            let page = match self.app.history.events(self.id, self.after, PAGE).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(unavailable(&error))),
            };
            let is_last = page.len() < PAGE as usize;
            for event in page {
                self.after = event.seq;
                self.send(message(&event)).await?;
            }
            if is_last {
                return Ok(Ok(()));
            }
        }
    }

    async fn send(&self, message: Message) -> Result<(), Over> {
        self.queue.send(message).await.map_err(|_| Over)
    }

    fn end(&self) -> EndView {
        let view = self.app.store.view();
        let deployment = view.deployment(self.id);
        let service = deployment.and_then(|deployment| view.service(deployment.service));
        EndView {
            status: deployment.map(|deployment| deployment.status),
            problem: deployment.and_then(|deployment| deployment.problem.clone()),
            release: deployment.and_then(|deployment| deployment.release),
            urls: service.map_or_else(Vec::new, |service| views::urls(&view, service)),
        }
    }
}

fn message(event: &Event) -> Message {
    stream::event(event.kind.as_str(), event).id(event.seq.to_string())
}
