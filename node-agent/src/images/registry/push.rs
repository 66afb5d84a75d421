//! The writing half: blobs in one piece or in several, gone on with after a restart, and manifests.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request};
use axum::http::header::{CONTENT_RANGE, HeaderMap, LOCATION, RANGE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use futures_util::StreamExt as _;
use oci_spec::distribution::ErrorCode;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::OwnedMutexGuard;

use super::super::digest::Digest;
use super::super::manifest::MANIFEST_MAX_BYTES;
use super::super::store::{PutError, Writer};
use super::Registry;
use super::error::Refused;
use super::path::Name;
use super::pull::CONTENT_DIGEST;

/// Uploads under way: Docker has five at a time.
const UPLOADS_MAX: usize = 64;

type Slot = Arc<tokio::sync::Mutex<Option<Writer>>>;

/// Uploads that this agent has seen something of.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Slot>>);

#[derive(Debug, Default, Deserialize)]
struct Asked {
    digest: Option<String>,
    mount: Option<String>,
}

fn asked(request: &Request) -> Asked {
    let query = Query::<Asked>::try_from_uri(request.uri());
    query.map(|query| query.0).unwrap_or_default()
}

fn digest(text: Option<String>) -> Result<Digest, Refused> {
    let text = text.unwrap_or_default();
    text.parse()
        .map_err(|error: super::super::digest::NotADigest| {
            Refused::new(ErrorCode::DigestInvalid, error.to_string())
        })
}

fn unknown(id: &str) -> Refused {
    Refused::new(
        ErrorCode::BlobUploadUnknown,
        format!("there is no upload {id}"),
    )
}

impl Registry {
    pub(super) async fn begin_upload(
        &self,
        repository: &str,
        request: Request,
    ) -> Result<Response<Body>, Refused> {
        let asked = asked(&request);
        if let Some(mount) = asked.mount {
            let mount = digest(Some(mount))?;
            if self.store.size(mount).is_some() {
                return Ok(created(repository, mount));
            }
        }
        let id = format!("{:032x}", skep_identity::random::new_id());
        let slot = self.slot(&id)?;
        let mut slot = slot.lock_owned().await;
        *slot = Some(self.store.upload(&id).await?);
        if asked.digest.is_none() {
            return Ok(accepted(repository, &id, 0));
        }
        // The whole blob with the first request.
        let digest = digest(asked.digest)?;
        receive(&mut slot, request.into_body()).await?;
        self.end(&id, slot, digest).await?;
        Ok(created(repository, digest))
    }

    pub(super) async fn append(
        &self,
        repository: &str,
        id: &str,
        request: Request,
    ) -> Result<Response<Body>, Refused> {
        let mut slot = self.open(id).await?;
        let writer = slot.as_mut().ok_or_else(|| unknown(id))?;
        check_order(request.headers(), writer.written())?;
        receive(&mut slot, request.into_body()).await?;
        let written = slot.as_ref().map_or(0, Writer::written);
        Ok(accepted(repository, id, written))
    }

    pub(super) async fn end_upload(
        &self,
        repository: &str,
        id: &str,
        request: Request,
    ) -> Result<Response<Body>, Refused> {
        let digest = digest(asked(&request).digest)?;
        let mut slot = self.open(id).await?;
        let writer = slot.as_mut().ok_or_else(|| unknown(id))?;
        check_order(request.headers(), writer.written())?;
        receive(&mut slot, request.into_body()).await?;
        self.end(id, slot, digest).await?;
        Ok(created(repository, digest))
    }

    pub(super) async fn upload_status(
        &self,
        repository: &str,
        id: &str,
    ) -> Result<Response<Body>, Refused> {
        let slot = self.open(id).await?;
        let written = slot.as_ref().ok_or_else(|| unknown(id))?.written();
        let mut answer = accepted(repository, id, written);
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }

    pub(super) async fn cancel_upload(&self, id: &str) -> Result<Response<Body>, Refused> {
        let mut slot = self.open(id).await?;
        if let Some(writer) = slot.take() {
            writer.discard().await;
        }
        self.uploads.0.lock().remove(id);
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    pub(super) async fn put_manifest(
        &self,
        repository: &str,
        name: Name,
        request: Request,
    ) -> Result<Response<Body>, Refused> {
        let bytes = to_bytes(request.into_body(), MANIFEST_MAX_BYTES as usize).await;
        let bytes = bytes.map_err(|error| {
            Refused::new(ErrorCode::ManifestInvalid, error.to_string())
                .with(StatusCode::PAYLOAD_TOO_LARGE)
        })?;
        let tag = match &name {
            Name::Tag(tag) => Some(tag.as_str()),
            Name::Digest(digest) if *digest == Digest::of(&bytes) => None,
            Name::Digest(digest) => {
                let text = format!("the manifest is not {digest}");
                return Err(Refused::new(ErrorCode::DigestInvalid, text));
            }
        };
        let put = self
            .store
            .put_manifest((repository, tag), &bytes, false)
            .await;
        let digest = put.map_err(|error| match &error {
            PutError::Invalid(_) | PutError::Full => {
                Refused::new(ErrorCode::ManifestInvalid, error.to_string())
            }
            PutError::Missing(_) => Refused::new(ErrorCode::ManifestBlobUnknown, error.to_string()),
            PutError::Store(error) => Refused::store(error),
        })?;
        let location = format!("/v2/{repository}/manifests/{digest}");
        let headers = [(LOCATION, location), (CONTENT_DIGEST, digest.to_string())];
        Ok((StatusCode::CREATED, headers).into_response())
    }

    fn slot(&self, id: &str) -> Result<Slot, Refused> {
        let mut uploads = self.uploads.0.lock();
        if let Some(slot) = uploads.get(id) {
            return Ok(slot.clone());
        }
        if uploads.len() >= UPLOADS_MAX {
            // Those that nobody writes to can be gone on with: what is there is on the disk.
            uploads.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        if uploads.len() >= UPLOADS_MAX {
            let text = format!("{UPLOADS_MAX} uploads are under way");
            return Err(Refused::new(ErrorCode::TooManyRequests, text));
        }
        Ok(uploads.entry(id.to_owned()).or_default().clone())
    }

    /// One request at a time writes to an upload; one that an agent before this one began is gone on with.
    async fn open(&self, id: &str) -> Result<OwnedMutexGuard<Option<Writer>>, Refused> {
        let mut slot = self.slot(id)?.lock_owned().await;
        if slot.is_none() {
            if !self.store.has_upload(id).await {
                self.uploads.0.lock().remove(id);
                return Err(unknown(id));
            }
            *slot = Some(self.store.upload(id).await?);
        }
        Ok(slot)
    }

    async fn end(
        &self,
        id: &str,
        mut slot: OwnedMutexGuard<Option<Writer>>,
        digest: Digest,
    ) -> Result<(), Refused> {
        let writer = slot.take().ok_or_else(|| unknown(id))?;
        let kept = self.store.keep(writer, digest).await;
        self.uploads.0.lock().remove(id);
        kept.map_err(|error| Refused::store(&error))
    }
}

/// Pieces come in order: what was sent twice or left out is said so.
fn check_order(headers: &HeaderMap, written: u64) -> Result<(), Refused> {
    let Some(range) = headers.get(CONTENT_RANGE).and_then(|it| it.to_str().ok()) else {
        return Ok(());
    };
    let begins = range
        .split('-')
        .next()
        .and_then(|first| first.parse::<u64>().ok());
    if begins == Some(written) {
        return Ok(());
    }
    let text = format!("the upload has {written} bytes: go on there");
    Err(Refused::new(ErrorCode::BlobUploadInvalid, text).with(StatusCode::RANGE_NOT_SATISFIABLE))
}

async fn receive(slot: &mut Option<Writer>, body: Body) -> Result<(), Refused> {
    let Some(writer) = slot else {
        return Ok(());
    };
    let mut bytes = body.into_data_stream();
    while let Some(piece) = bytes.next().await {
        let piece = piece.map_err(|error| {
            Refused::new(ErrorCode::BlobUploadInvalid, crate::error_chain(&error))
        })?;
        if let Err(error) = writer.write(&piece).await {
            let refused = Refused::store(&error);
            if let Some(writer) = slot.take() {
                // Its sum is of more than the disk has.
                writer.discard().await;
            }
            return Err(refused);
        }
    }
    writer.flush().await.map_err(|error| Refused::store(&error))
}

fn accepted(repository: &str, id: &str, written: u64) -> Response<Body> {
    let headers = [
        (LOCATION, format!("/v2/{repository}/blobs/uploads/{id}")),
        (RANGE, format!("0-{}", written.saturating_sub(1))),
    ];
    let mut answer = (StatusCode::ACCEPTED, headers).into_response();
    if let Ok(id) = id.parse() {
        answer.headers_mut().insert("docker-upload-uuid", id);
    }
    answer
}

fn created(repository: &str, digest: Digest) -> Response<Body> {
    let headers = [
        (LOCATION, format!("/v2/{repository}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    (StatusCode::CREATED, headers).into_response()
}
