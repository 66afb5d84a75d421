//! Backups: the whole state as a file, streamed to whoever may have it. Sealed values stay sealed.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use skep_model::problem::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::access::Principal;
use super::error::Failure;
use super::{Action, App, Here};
use crate::backup::{Backup, Maker};
use crate::history::AuditEntry;
use crate::store::now_ms;

/// Backups that a server makes at once: each holds the encoded state in memory.
pub(super) const MAX_BACKUPS: usize = 1;
/// After this a reader is given up on that does not take it.
const DEADLINE: Duration = Duration::from_secs(600);
/// Sent at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for the reader.
const CHUNKS: usize = 4;

/// Makes a backup: a tar archive of the state as it is now, with a manifest and checksums.
#[utoipa::path(get, path = "/v1/backup", tag = "cluster", operation_id = "create_backup",
    responses((status = 200, content_type = "application/x-tar", body = Vec<u8>)))]
pub(super) async fn create(
    Here(app): Here,
    Extension(principal): Extension<Principal>,
) -> Result<Response, Failure> {
    let permit = Arc::clone(&app.backups).try_acquire_owned();
    let permit = permit.map_err(|_| {
        Problem::new(Code::Busy, "this server is making another backup").hint("try again")
    })?;
    let view = app.store.view();
    let own = view.server(app.own.neighbours.own());
    let name = own.map_or_else(String::new, |server| server.name.clone());
    let wrapped_data_key = Arc::clone(&app.own.wrapped_data_key);
    let made = tokio::task::spawn_blocking(move || {
        let maker = Maker {
            server: &name,
            created_ms: now_ms(),
            wrapped_data_key: &wrapped_data_key,
        };
        Backup::make(&view, &maker)
    });
    let made = made
        .await
        .map_err(|_| Problem::new(Code::Internal, "the backup could not be made"))??;
    note(&app, principal);
    let manifest = &made.manifest;
    tracing::info!(index = manifest.index, bytes = made.bytes(), "backup made");
    let file = format!("skep-{}-{}.tar", manifest.cluster.short(), manifest.index);
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_LENGTH, made.bytes().to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{file}\""),
        ),
    ];
    let (chunks, body) = mpsc::channel(CHUNKS);
    tokio::spawn(send(made, chunks, permit));
    Ok((headers, Body::from_stream(ReceiverStream::new(body))).into_response())
}

/// Reading everything is worth a line, though nothing is changed by it.
fn note(app: &App, principal: Principal) {
    app.history.audit(AuditEntry {
        at_ms: now_ms(),
        principal: principal.as_str().to_owned(),
        action: Action::CreateBackup.as_str().to_owned(),
        resource: "backup".to_owned(),
        outcome: "200".to_owned(),
    });
}

/// Sends all of it, or, to a reader that is gone or too slow, less than was announced.
async fn send(
    made: Backup,
    chunks: mpsc::Sender<Result<Bytes, std::io::Error>>,
    _permit: OwnedSemaphorePermit,
) {
    let sending = async {
        for piece in made.pieces() {
            for chunk in piece.chunks(CHUNK_BYTES) {
                // Copied: a chunk that waits in a connection must not keep the whole state.
                if chunks
                    .send(Ok(Bytes::copy_from_slice(chunk)))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    };
    if tokio::time::timeout(DEADLINE, sending).await.is_err() {
        tracing::warn!("a backup was not taken in time: given up");
    }
}
