//! From the workspace's push registry back into this node's store, where no node has an image any more: by digest, so
//! that what runs is what was built. From then on the node hands it to others as before.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use skep_model::assignment::ImagePeer;
use skep_model::id::WorkspaceId;
use skep_model::problem::{Code, Problem};
use skep_model::registry::host_of;
use skep_model::service::Image;

use super::digest::Digest;
use super::manifest::{Content, Manifest, Part};
use super::pull::{disk, name_of};
use super::remote::Error as RemoteError;
use super::share::says_full;
use super::store::{PutError, Store};
use super::{Images, Remote, manifest};

/// The nodes that have an image, and whose login at a registry is for it.
pub(crate) type Givers<'a> = (&'a [ImagePeer], Option<WorkspaceId>);

/// Why a registry did not give it.
#[derive(Debug)]
pub(super) enum Failed {
    /// It did not.
    Remote(RemoteError),
    /// It is for other machines.
    Other(Problem),
    /// This node's disk.
    Store(super::store::Error),
}

impl From<RemoteError> for Failed {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

impl Images {
    /// Brings all of an image into the store, where it was pushed; `why` no node gave it.
    ///
    /// # Errors
    /// It was never pushed: `why`. The registry does not give it, or the disk is full.
    pub(super) async fn pull_back(
        &self,
        image: &Image,
        workspace: Option<WorkspaceId>,
        why: Problem,
    ) -> Result<(), Problem> {
        let Some((name, digest)) = pushed(image).filter(|_| !says_full(&why.message)) else {
            return Err(why);
        };
        // One at a time: whoever waited finds it here.
        let _turn = self.inner.pulling_back.lock().await;
        let reference = &image.reference;
        let host = host_of(name);
        tracing::info!(%reference, %why, host, "no node has an image: it is asked for at its registry");
        let access = self.inner.logins.access(host, workspace);
        let repository = name.strip_prefix(host).unwrap_or(name);
        let place = (host, repository.trim_start_matches('/'));
        let remote = Remote::new(place, access, &self.inner.docker).await;
        let (fetched, remote) = match remote {
            Ok(remote) => (
                fetch((self, &remote), reference, digest).await,
                Some(remote),
            ),
            Err(error) => (Err(error.into()), None),
        };
        fetched.map_err(|failed| match failed {
            Failed::Other(problem) => problem,
            Failed::Store(super::store::Error::Disk(error)) => disk(reference, &error),
            Failed::Store(error) => {
                let text = format!("image `{reference}`: {host} gave something else: {error}");
                Problem::new(Code::ImageFailed, text)
                    .hint("what is there, or something before it, was changed: it is not used")
            }
            Failed::Remote(error) => {
                let said = match &remote {
                    Some(remote) => remote.explain(&error, host),
                    None => error.explain(host),
                };
                let text = format!("{}; and {}", why.message, said.message);
                let problem = Problem::new(Code::ImageFailed, text);
                problem.hint(said.hint.unwrap_or_default())
            }
        })
    }
}

/// Where an image was pushed, and its digest there, which is its own.
fn pushed(image: &Image) -> Option<(&str, Digest)> {
    let (name, digest) = image.pushed.as_deref()?.split_once('@')?;
    (digest == image.digest).then_some(())?;
    Some((name, digest.parse().ok()?))
}

/// A manifest and all that it names for this machine, the manifest last.
fn fetch<'a>(
    (images, remote): (&'a Images, &'a Remote),
    reference: &'a str,
    digest: Digest,
) -> BoxFuture<'a, Result<(), Failed>> {
    Box::pin(async move {
        let store = &images.inner.store;
        let bytes = manifest_of(store, remote, digest).await?;
        let manifest = Manifest::parse(&bytes).map_err(RemoteError::Odd)?;
        let is_partial = match &manifest.content {
            Content::Image { config, layers } => {
                let room = images.make_room(layers, reference).await;
                room.map_err(Failed::Other)?;
                for part in layers.iter().chain([config]) {
                    blob(store, remote, *part).await?;
                }
                false
            }
            Content::Index(all) => {
                let own = manifest::choose(all, &manifest::platform(), reference);
                let own = own.map_err(Failed::Other)?;
                fetch((images, remote), reference, own.digest).await?;
                true
            }
        };
        let name = name_of(reference);
        let put = store.put_manifest((&name, None), &bytes, is_partial).await;
        put.map(|_| ()).map_err(|error| match error {
            PutError::Store(error) => Failed::Store(error),
            other => RemoteError::Odd(other.to_string()).into(),
        })
    })
}

async fn manifest_of(
    store: &Arc<Store>,
    remote: &Remote,
    digest: Digest,
) -> Result<Vec<u8>, Failed> {
    let kept = store.read_small(digest).await;
    if let Some(bytes) = kept.map_err(|error| Failed::Store(error.into()))? {
        return Ok(bytes);
    }
    let bytes = remote.manifest_bytes(digest).await?;
    Ok(bytes.to_vec())
}

/// One blob, where it is not here. It gets its name only when it is that.
pub(super) async fn blob(store: &Arc<Store>, remote: &Remote, part: Part) -> Result<(), Failed> {
    if store.size(part.digest).is_some() {
        return Ok(());
    }
    let disk = |error: std::io::Error| Failed::Store(error.into());
    // Not where a fetch from another node would write it.
    let id = format!("back-{}", part.digest.hex());
    if store.has_upload(&id).await {
        store.upload(&id).await.map_err(disk)?.discard().await;
    }
    let mut writer = store.upload(&id).await.map_err(disk)?;
    let written = remote.copy_blob(part, &mut writer).await;
    if let Err(failed) = written {
        writer.discard().await;
        return Err(failed);
    }
    store.keep(writer, part.digest).await.map_err(Failed::Store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_image_is_taken_back() {
        let digest = Digest::of(b"x").to_string();
        let image = |pushed: Option<String>| Image {
            reference: "skep/web:1".into(),
            digest: digest.clone(),
            node: None,
            shared: true,
            bundle: false,
            pushed,
        };
        let found = image(Some(format!("r:5000/a/web@{digest}")));
        assert_eq!(pushed(&found).map(|(name, _)| name), Some("r:5000/a/web"));
        let other = Digest::of(b"y");
        for odd in [
            None,
            Some("r:5000/a/web:1".into()),
            Some(format!("r:5000/a/web@{other}")),
        ] {
            assert_eq!(pushed(&image(odd)), None);
        }
    }
}
