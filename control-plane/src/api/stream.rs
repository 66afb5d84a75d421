//! What streaming handlers share: places, the feed of changes, and the two ways of writing lines.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_state::Change;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::App;
use crate::consensus::Batch;

/// Messages that wait for a slow reader.
pub(super) const QUEUE: usize = 256;
/// A comment is sent to a silent stream so often: proxies cut silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A place among the open streams; free again when dropped.
///
/// # Errors
/// All are taken.
pub(super) fn place(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        Problem::new(Code::Busy, "too many log streams are open").hint("close some, or try again")
    })
}

/// Whether the caller wants server-sent events.
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT);
    accepted.iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.to_ascii_lowercase().contains("text/event-stream"))
    })
}

/// The id of the last event that a returning reader got.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers
        .get("last-event-id")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Server-sent events.
pub(super) fn events(stream: impl Stream<Item = Event> + Send + 'static) -> Response {
    let stream = stream.map(Ok::<_, Infallible>);
    let mut response = Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // Told to nginx and its kind: do not collect.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One JSON document a line out of a queue.
pub(super) fn lines<T: Serialize + Send + 'static>(queue: mpsc::Receiver<T>) -> Response {
    let stream = ReceiverStream::new(queue).map(|item| {
        serde_json::to_vec(&item).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        })
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An event with JSON in it.
pub(super) fn event(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    // serde_json writes no line breaks, and the types here have no maps with odd keys.
    match serde_json::to_string(data) {
        Ok(text) => event.data(text),
        Err(error) => event.comment(error.to_string()),
    }
}

/// The feed of changes, narrowed to one thing. A reader that fell behind is woken: it looks again.
pub(super) struct Feed {
    changes: broadcast::Receiver<Arc<Batch<Change>>>,
    shutdown: CancellationToken,
}

impl Feed {
    /// From now on: open it before the first look at the state.
    pub(super) fn open(app: &App) -> Self {
        Self {
            changes: app.store.consensus().changes(),
            shutdown: app.shutdown.clone(),
        }
    }

    /// Waits until the deployment may have changed. False: the server is stopping.
    pub(super) async fn deployment(&mut self, id: DeploymentId) -> bool {
        self.wait(|change| *change == Change::Deployment(id)).await
    }

    /// Waits until allocations of the service may have changed. False: the server is stopping.
    pub(super) async fn allocations(&mut self, id: ServiceId) -> bool {
        self.wait(|change| match change {
            Change::Allocation { service, .. } | Change::ServiceDropped(service) => *service == id,
            _ => false,
        })
        .await
    }

    async fn wait(&mut self, concerns: impl Fn(&Change) -> bool) -> bool {
        loop {
            let received = tokio::select! {
                received = self.changes.recv() => received,
                () = self.shutdown.cancelled() => return false,
            };
            match received {
                Ok(batch) if !batch.changes.iter().any(&concerns) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            }
        }
    }
}
