//! The reading half: manifests, blobs, tags.

use axum::Json;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use axum::http::{Method, Response};
use axum::response::IntoResponse as _;
use oci_spec::distribution::{ErrorCode, TagListBuilder};
use oci_spec::image::{ImageIndexBuilder, MediaType, SCHEMA_VERSION};
use serde::Deserialize;

use super::super::digest::Digest;
use super::super::manifest::Manifest;
use super::super::serve::{self, Source};
use super::Registry;
use super::error::Refused;
use super::path::Name;

/// Tags in one answer.
const TAGS_MAX: usize = 1_000;

/// Which tags are asked for.
#[derive(Debug, Default, Deserialize)]
struct Page {
    n: Option<usize>,
    last: Option<String>,
}

impl Registry {
    pub(super) async fn manifest(
        &self,
        method: &Method,
        (repository, name): (&str, Name),
    ) -> Result<Response<Body>, Refused> {
        let text = format!("`{repository}` has no such manifest here");
        let unknown = || Refused::new(ErrorCode::ManifestUnknown, text.clone());
        let digest = match name {
            Name::Digest(digest) => digest,
            Name::Tag(tag) => self.store.tagged(repository, &tag).ok_or_else(unknown)?,
        };
        let bytes = self.store.read_small(digest).await?.ok_or_else(unknown)?;
        // A blob that is no manifest is not served as one.
        let manifest = Manifest::parse(&bytes).map_err(|_| unknown())?;
        let headers = [
            (CONTENT_TYPE, manifest.media_type),
            (CONTENT_LENGTH, bytes.len().to_string()),
            (super::pull::CONTENT_DIGEST, digest.to_string()),
        ];
        let body = match *method {
            Method::HEAD => Body::empty(),
            _ => Body::from(bytes),
        };
        Ok((headers, body).into_response())
    }

    pub(super) async fn blob(
        &self,
        method: &Method,
        headers: &HeaderMap,
        digest: Digest,
    ) -> Result<Response<Body>, Refused> {
        let source = match self.store.read(digest).await? {
            Some((file, size)) => Source::Whole { file, size },
            None => match self.fetcher.start(digest) {
                Some(coming) => Source::Coming(coming),
                // It may have come between the two.
                None => match self.store.read(digest).await? {
                    Some((file, size)) => Source::Whole { file, size },
                    None => {
                        let text = format!("{digest} is not here");
                        return Err(Refused::new(ErrorCode::BlobUnknown, text));
                    }
                },
            },
        };
        let mut answer = serve::blob(source, method, headers, |_| {}).await;
        let text = digest.to_string();
        let value = text.parse().expect("a digest is a header's value");
        answer.headers_mut().insert(CONTENT_DIGEST, value);
        Ok(answer)
    }

    pub(super) fn tags(&self, repository: &str, query: &str) -> Result<Response<Body>, Refused> {
        let tags = self.store.tags(repository).ok_or_else(|| {
            Refused::new(
                ErrorCode::NameUnknown,
                format!("`{repository}` is not here"),
            )
        })?;
        let uri = format!("/?{query}").parse().unwrap_or_default();
        let page = axum::extract::Query::<Page>::try_from_uri(&uri).map(|page| page.0);
        let page = page.unwrap_or_default();
        let count = page.n.unwrap_or(TAGS_MAX).min(TAGS_MAX);
        let after = |tag: &String| page.last.as_ref().is_none_or(|last| tag > last);
        let mut rest = tags.into_iter().filter(after);
        let tags: Vec<String> = rest.by_ref().take(count).collect();
        let more = rest.next().and(tags.last());
        let link = more.map(|last| {
            format!("</v2/{repository}/tags/list?n={count}&last={last}>; rel=\"next\"")
        });
        let list = TagListBuilder::default()
            .name(repository)
            .tags(tags)
            .build();
        let list = list.map_err(|error| Refused::new(ErrorCode::NameUnknown, error.to_string()))?;
        let mut answer = Json(list).into_response();
        if let Some(Ok(link)) = link.map(|link| link.parse()) {
            answer.headers_mut().insert("link", link);
        }
        Ok(answer)
    }
}

/// The digest of what an answer is about.
pub(super) const CONTENT_DIGEST: axum::http::HeaderName =
    axum::http::HeaderName::from_static("docker-content-digest");

/// An empty index: this registry keeps nothing that refers to images.
pub(super) fn no_referrers() -> Response<Body> {
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(Vec::new())
        .build()
        .expect("everything it needs is there");
    let headers = [(CONTENT_TYPE, MediaType::ImageIndex.to_string())];
    (headers, Json(index)).into_response()
}
