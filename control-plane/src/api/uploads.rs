//! Folders on their way to a build: streamed through to the building node, never stored.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;
use skep_model::deployment::Origin;
use skep_model::id::{DeploymentId, UploadId};
use skep_model::problem::{Code, Problem};
use skep_state::State as View;
use std::sync::Arc;
use utoipa::IntoParams;

use super::error::Failure;
use super::extract::Path;
use super::stream::Feed;
use super::types::UploadView;
use super::{App, Here};

/// Largest folder, packed.
pub const MAX_UPLOAD_BYTES: u64 = 2 << 30;

/// The id of an upload.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct UploadKey {
    /// Its id: the `origin.upload` of its deployment.
    #[param(value_type = String)]
    upload: UploadId,
}

/// Sends the folder of a deployment: a gzip-compressed tar archive of at most 2 GiB. Answers when
/// the building node has all of it.
#[utoipa::path(put, path = "/v1/uploads/{upload}", tag = "deployments", params(UploadKey),
    operation_id = "put_upload",
    request_body(content = Vec<u8>, content_type = "application/gzip"),
    responses((status = 200, body = UploadView)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<UploadKey>,
    body: Body,
) -> Result<Json<UploadView>, Failure> {
    let upload = key.upload;
    let deployment = deployment_of(&app.store.view(), upload).ok_or_else(|| {
        Problem::new(Code::NotFound, "no deployment waits for this upload")
            .hint("upload again: `skep up`")
    })?;
    let sent = Arc::new(AtomicU64::new(0));
    let bytes = counted(body, Arc::clone(&sent));
    tokio::select! {
        offered = app.uploads.offer(upload, bytes) => {
            let total = sent.load(Ordering::Relaxed);
            if total > MAX_UPLOAD_BYTES {
                return Err(too_large().into());
            }
            offered?;
            Ok(Json(UploadView { upload, bytes: total }))
        }
        problem = end_of(&app, deployment) => Err(problem.into()),
    }
}

/// The deployment that waits for an upload.
fn deployment_of(view: &View, upload: UploadId) -> Option<DeploymentId> {
    view.active_deployments()
        .find(|deployment| deployment.origin == Origin::Upload { upload })
        .map(|deployment| deployment.id)
}

fn too_large() -> Problem {
    Problem::new(
        Code::TooLarge,
        format!("the folder is larger than {MAX_UPLOAD_BYTES} bytes"),
    )
    .hint("leave out what the build does not need: .dockerignore")
}

fn counted(body: Body, sent: Arc<AtomicU64>) -> impl Stream<Item = Result<Bytes, String>> + Send {
    body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(|error| error.to_string())?;
        let length = chunk.len() as u64;
        if sent.fetch_add(length, Ordering::Relaxed) + length > MAX_UPLOAD_BYTES {
            return Err(too_large().message);
        }
        Ok(chunk)
    })
}

/// Returns when the deployment has ended without the upload: nobody will come for it.
async fn end_of(app: &App, id: DeploymentId) -> Problem {
    let mut feed = Feed::open(app);
    loop {
        let view = app.store.view();
        let gone = || Problem::new(Code::Canceled, "the deployment has ended");
        match view.deployment(id) {
            None => return gone(),
            Some(deployment) if !deployment.status.is_active() => {
                return deployment.problem.clone().unwrap_or_else(gone);
            }
            // Its build ended, one way or the other: what is still to be said of the upload is
            // said by the stream.
            Some(_) => {}
        }
        if !feed.deployment(id).await {
            return Problem::new(Code::Unavailable, "the server is stopping");
        }
    }
}
