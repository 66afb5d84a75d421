//! Timeline and build log of a deployment: by page, or live until it has ended. Where it is read,
//! `log_source` knows.

use std::time::Duration;

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
use super::log_source::{Read, Reader};
use super::stream::{self, Feed};
use super::types::{EndView, LogPage};
use super::{App, Here, find, views};
use crate::history::Event;

/// Events in a page where the caller does not say, and in one read of a stream.
const PAGE: u32 = 500;
/// Most events in a page.
const MAX_PAGE: u32 = 5_000;

/// Pause before a server that does not give a build's log is asked again.
const AGAIN: Duration = Duration::from_secs(1);

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
/// `seq`, `Last-Event-ID` resumes without gap or repeat), `problem` when a part cannot be shown (data:
/// `Problem`), at last `end` (data: `EndView`). The build's log is read at the server that wrote it, and
/// numbered there. While that server is away the timeline alone is shown, in numbers of its own.
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
                reader: Reader::new(app.clone(), id, after),
                app,
                id,
                queue,
                said: Vec::new(),
            }
            .run()
            .await;
        });
        return Ok(stream::events(ReceiverStream::new(messages)));
    }
    let mut reader = Reader::new(app, id, range.after);
    let mut page = LogPage {
        events: Vec::new(),
        next: range.after,
        status,
        problems: Vec::new(),
    };
    loop {
        let missing = limit - u32::try_from(page.events.len()).unwrap_or(limit);
        let read = reader.read(missing.min(PAGE)).await?;
        page.events.extend(read.events);
        page.next = reader.last();
        page.problems = read.problems;
        if read.is_all || page.events.len() >= limit as usize {
            return Ok(Json(page).into_response());
        }
    }
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
    reader: Reader,
    queue: mpsc::Sender<Message>,
    /// What was said of the parts that cannot be shown.
    said: Vec<Problem>,
}

impl Follower {
    async fn run(mut self) {
        // Both subscribed before the first look: nothing between is missed.
        let mut feed = Feed::open(&self.app);
        let mut fresh = self.app.history.watch(self.id);
        loop {
            // Looked at before the log is read: what the end brought is in the log then.
            let is_ended = self.is_ended();
            if is_ended {
                flush(&self.app, self.id).await;
            }
            if self.send_new().await.is_err() {
                return;
            }
            if is_ended {
                for event in self.reader.rest().await {
                    if self.send(message(&event)).await.is_err() {
                        return;
                    }
                }
                // The reader may have gone meanwhile.
                let _ = self.send(stream::event("end", &self.end())).await;
                return;
            }
            tokio::select! {
                woken = fresh.changed() => if woken.is_err() { return },
                goes_on = feed.deployment(self.id) => if !goes_on { return },
                () = news(&self.reader) => {}
                () = self.queue.closed() => return,
            }
        }
    }

    fn is_ended(&self) -> bool {
        let view = self.app.store.view();
        view.deployment(self.id)
            .is_none_or(|deployment| !deployment.status.is_active())
    }

    /// Sends what is kept and not sent yet, and once what cannot be.
    async fn send_new(&mut self) -> Result<(), Over> {
        loop {
            let read = self.reader.read(PAGE).await.unwrap_or_else(|problem| Read {
                events: Vec::new(),
                is_all: true,
                problems: vec![problem],
            });
            for problem in &read.problems {
                if !self.said.contains(problem) {
                    self.send(stream::event("problem", problem)).await?;
                }
            }
            self.said = read.problems;
            for event in read.events {
                self.send(message(&event)).await?;
            }
            if read.is_all {
                return Ok(());
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

/// Returns when the server with the log has more, or may be asked again.
async fn news(reader: &Reader) {
    if reader.news().await.is_err() {
        tokio::time::sleep(AGAIN).await;
    }
}

fn message(event: &Event) -> Message {
    stream::event(event.kind.as_str(), event).id(event.seq.to_string())
}
