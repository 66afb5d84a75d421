//! From the node's store to a registry, by the digest that it has here: what the registry has already is not sent, and
//! what it says to have afterwards is looked at.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use skep_model::problem::{Code, Problem};

use super::bucket::Object;
use super::*;
use crate::images::Images;
use crate::images::manifest::{Content, Manifest, Part};
use crate::images::store::Store;

impl Images {
    /// Pushes an image of this node's store; gives the digest by which the registry has it: the same.
    ///
    /// # Errors
    /// It is not here any more, or the registry does not take it as it is.
    pub(crate) async fn push_to(
        &self,
        remote: &Remote,
        (digest, tag): (&str, &str),
        host: &str,
    ) -> Result<String, Problem> {
        let digest: Digest = digest
            .parse()
            .map_err(|error| Problem::new(Code::ImageFailed, format!("{error}")))?;
        let pushed = push(&self.inner.store, remote, (digest, tag)).await;
        pushed.map_err(|failed| match failed {
            Failed::Gone(digest) => {
                let text = format!("{digest} is not in this node's image store any more");
                Problem::new(Code::ImageFailed, text).hint("deploy again to build it anew")
            }
            Failed::Disk(error) => {
                let text = format!("this node's image store cannot be read: {error}");
                Problem::new(Code::Runtime, text).hint("look at the node's disk")
            }
            Failed::Remote(error) => remote.explain(&error, host),
        })?;
        Ok(digest.to_string())
    }
}

/// Why an image was not pushed.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was cleaned up here.
    Gone(Digest),
    /// The node's own disk.
    Disk(std::io::Error),
    /// The registry.
    Remote(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Remote(error)
    }
}

pub(super) async fn push(
    store: &Store,
    remote: &Remote,
    (digest, tag): (Digest, &str),
) -> Result<(), Failed> {
    let there = match &remote.objects {
        // Nothing has a name there. The manifest is the last of all that it names.
        Some(_) => remote.manifest_bytes(digest).await.map(|_| digest),
        None => remote.digest_of(tag).await,
    };
    match there {
        Ok(there) if there == digest => {}
        // Another image of the same commit, or none: it is this one from now on.
        Ok(_) | Err(Error::Missing(_)) => put(store, remote, (digest, Some(tag))).await?,
        Err(error) => return Err(error.into()),
    }
    Ok(remote.check(digest).await?)
}

/// A manifest with all that it names, before anything that names it.
fn put<'a>(
    store: &'a Store,
    remote: &'a Remote,
    (digest, tag): (Digest, Option<&'a str>),
) -> BoxFuture<'a, Result<(), Failed>> {
    Box::pin(async move {
        let bytes = store.read_small(digest).await.map_err(Failed::Disk)?;
        let bytes = bytes.ok_or(Failed::Gone(digest))?;
        let manifest = Manifest::parse(&bytes).map_err(Error::Odd)?;
        match &manifest.content {
            Content::Image { config, layers } => {
                for part in layers.iter().chain([config]) {
                    put_blob(store, remote, *part).await?;
                }
            }
            Content::Index(images) => {
                for (_, part) in images {
                    put(store, remote, (part.digest, None)).await?;
                }
            }
        }
        let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
        Ok(remote
            .put_manifest((digest, &name), &manifest.media_type, bytes)
            .await?)
    })
}

async fn put_blob(store: &Store, remote: &Remote, part: Part) -> Result<(), Failed> {
    if remote.has_blob(part).await? {
        return Ok(());
    }
    let opened = store.read(part.digest).await.map_err(Failed::Disk)?;
    let (file, size) = opened.ok_or(Failed::Gone(part.digest))?;
    let payload = Payload::Blob(Arc::new(file), size);
    Ok(remote.put_blob(part.digest, payload).await?)
}

impl Remote {
    async fn has_blob(&self, part: Part) -> Result<bool, Error> {
        if let Some(objects) = &self.objects {
            let object = Object::Blob(part.digest);
            return objects.has(&self.http, (object, part.size)).await;
        }
        let digest = part.digest;
        let answer = self
            .call(Call {
                method: Method::HEAD,
                url: self.url(&format!("blobs/{digest}")),
                headers: &[],
                payload: Payload::None,
            })
            .await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() || status.is_redirection() => Ok(true),
            _ => Err(self.odd(answer).await),
        }
    }

    async fn put_blob(&self, digest: Digest, payload: Payload) -> Result<(), Error> {
        if let Some(objects) = &self.objects {
            let object = Object::Blob(digest);
            return objects.put(&self.http, (object, payload)).await;
        }
        let begun = self
            .call(Call {
                method: Method::POST,
                url: self.url("blobs/uploads/"),
                headers: &[],
                payload: Payload::None,
            })
            .await?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(self.odd(begun).await);
        }
        let place = place(&self.url("blobs/uploads/"), begun.headers())?;
        let place = url::Url::parse(&place);
        let mut place = place.map_err(|error| Error::Odd(format!("where to upload: {error}")))?;
        place
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let done = self
            .call(Call {
                method: Method::PUT,
                url: place.into(),
                headers: &[(CONTENT_TYPE, "application/octet-stream".to_owned())],
                payload,
            })
            .await?;
        match done.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(self.odd(done).await),
        }
    }

    async fn put_manifest(
        &self,
        (digest, name): (Digest, &str),
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        if let Some(objects) = &self.objects {
            let payload = Payload::Bytes(bytes.into());
            let object = Object::Manifest(digest);
            return objects.put(&self.http, (object, payload)).await;
        }
        let done = self
            .call(Call {
                method: Method::PUT,
                url: self.url(&format!("manifests/{name}")),
                headers: &[(CONTENT_TYPE, media_type.to_owned())],
                payload: Payload::Bytes(bytes.into()),
            })
            .await?;
        if done.status() != StatusCode::CREATED {
            return Err(self.odd(done).await);
        }
        match done.headers().get(CONTENT_DIGEST) {
            Some(said) if said.as_bytes() != digest.to_string().as_bytes() => Err(Error::Digest {
                found: String::from_utf8_lossy(said.as_bytes()).into_owned(),
                wanted: digest,
            }),
            _ => Ok(()),
        }
    }

    /// What the registry gives under the digest is what was pushed: it will be pulled by that.
    async fn check(&self, digest: Digest) -> Result<(), Error> {
        self.manifest_bytes(digest).await.map(drop)
    }
}
