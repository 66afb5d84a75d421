//! From other nodes into this node's Docker: the manifest and the configuration first, so that what does not
//! fit is refused before anything large moves; then Docker pulls from the loopback what it lacks, each layer
//! streamed on while it comes.

use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{CreateImageOptions, TagImageOptions};
use futures_util::StreamExt as _;
use skep_model::assignment::ImagePeer;
use skep_model::problem::{Code, Problem};
use skep_model::service::Image;
use tokio::time::{sleep, timeout};

use super::Images;
use super::back::Givers;
use super::digest::Digest;
use super::fetch::{self, Offer};
use super::manifest::{self, Content, MANIFEST_MAX_BYTES, Manifest, Part};
use super::room::look_at;
use super::share::{full, says_full, words};
use super::store::PutError;
use crate::backoff::Backoff;

/// Docker says all the time how far it is, and waits for this agent at most as long as it asks all others.
const SILENCE: Duration = Duration::from_secs(180);
/// How often Docker is asked: it goes on with what it has.
const ATTEMPTS: u32 = 4;
/// First and longest pause between them.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// One word to the daemon about a name.
const NAME_LIMIT: Duration = Duration::from_secs(30);

impl Images {
    /// Docker's classic id of an image whose manifest is here; none: it is not.
    pub(crate) async fn docker_id(&self, image: &Image) -> Option<String> {
        let mut digest: Digest = image.digest.parse().ok()?;
        // An index, and the image of it for this machine.
        for _ in 0..2 {
            let bytes = self.inner.store.read_small(digest).await.ok()??;
            let manifest = Manifest::parse(&bytes).ok()?;
            match &manifest.content {
                Content::Image { config, .. } => return Some(config.digest.to_string()),
                Content::Index(images) => {
                    let own = manifest::choose(images, &manifest::platform(), "");
                    digest = own.ok()?.digest;
                }
            }
        }
        None
    }

    /// Brings an image that other nodes have into this node's Docker; gives Docker's id of it.
    ///
    /// # Errors
    /// Nobody has it, it is for other machines, the disk is full, or Docker does not take it.
    pub(crate) async fn bring(
        &self,
        image: &Image,
        (peers, workspace): Givers<'_>,
    ) -> Result<String, Problem> {
        match self.bring_from(image, peers).await {
            Err(why) => {
                self.pull_back(image, workspace, why).await?;
                self.bring_from(image, &[]).await
            }
            brought => brought,
        }
    }

    async fn bring_from(&self, image: &Image, peers: &[ImagePeer]) -> Result<String, Problem> {
        let reference = &image.reference;
        let coming = self.expect(image, peers).await?;
        let digest = coming.digest;
        manifest::check_platform(&coming.config_bytes, &manifest::platform(), reference)?;
        self.make_room(&coming.layers, reference).await?;
        let name = name_of(reference);
        self.pull(&format!("{}@{digest}", self.repository(&name)), reference)
            .await?;
        self.remember(digest, reference, &name).await?;
        self.tag(digest, reference, &name).await;
        self.inner.grown.notify_one();
        Ok(coming.config.digest.to_string())
    }

    /// Manifest and configuration of an image that is to come; the rest may be fetched as long as this lives.
    ///
    /// # Errors
    /// Nobody has it, or it cannot be read.
    pub(super) async fn expect(
        &self,
        image: &Image,
        peers: &[ImagePeer],
    ) -> Result<Expected, Problem> {
        let reference = &image.reference;
        let digest: Digest = image
            .digest
            .parse()
            .map_err(|error: super::digest::NotADigest| {
                Problem::new(Code::ImageFailed, format!("image `{reference}`: {error}"))
            })?;
        let (own, mut offers) = self.describe(digest, reference, peers).await?;
        let Content::Image { config, layers } = &own.content else {
            let text = format!("image `{reference}`: its index names an index");
            return Err(Problem::new(Code::ImageFailed, text));
        };
        let parts: Vec<_> = own
            .parts()
            .map(|part| (part.digest, Some(part.size)))
            .collect();
        offers.push(self.inner.fetcher.offer(&parts, peers));
        self.fetch(*config, reference).await?;
        let bytes = self.inner.store.read_small(config.digest).await;
        Ok(Expected {
            digest,
            config: *config,
            config_bytes: bytes
                .map_err(|error| disk(reference, &error))?
                .unwrap_or_default(),
            layers: layers.clone(),
            _offers: offers,
        })
    }

    /// The manifest for this machine; blobs on the way to it may be fetched as long as the offers live.
    async fn describe(
        &self,
        digest: Digest,
        reference: &str,
        peers: &[ImagePeer],
    ) -> Result<(Manifest, Vec<Offer>), Problem> {
        let mut offers = vec![self.inner.fetcher.offer(&[(digest, None)], peers)];
        let manifest = self.manifest(Part { digest, size: 0 }, reference).await?;
        let Content::Index(images) = &manifest.content else {
            return Ok((manifest, offers));
        };
        let own = manifest::choose(images, &manifest::platform(), reference)?;
        let known = [(own.digest, Some(own.size))];
        offers.push(self.inner.fetcher.offer(&known, peers));
        let manifest = self.manifest(own, reference).await?;
        Ok((manifest, offers))
    }

    async fn manifest(&self, part: Part, reference: &str) -> Result<Manifest, Problem> {
        self.fetch(part, reference).await?;
        let bytes = self.inner.store.read_small(part.digest).await;
        let bytes = bytes.map_err(|error| disk(reference, &error))?;
        Manifest::parse(&bytes.unwrap_or_default())
            .map_err(|why| Problem::new(Code::ImageFailed, format!("image `{reference}`: {why}")))
    }

    async fn fetch(&self, part: Part, reference: &str) -> Result<(), Problem> {
        if part.size > MANIFEST_MAX_BYTES {
            let text = format!(
                "image `{reference}`: {} is too long to be read",
                part.digest
            );
            return Err(Problem::new(Code::ImageFailed, text));
        }
        let fetched = self.inner.fetcher.fetch(part.digest).await;
        fetched.map_err(|error| not_fetched(reference, &error))
    }

    /// Clean-up comes before a disk is full, not after.
    pub(super) async fn make_room(&self, layers: &[Part], reference: &str) -> Result<(), Problem> {
        let store = &self.inner.store;
        let missing = layers
            .iter()
            .filter(|layer| store.size(layer.digest).is_none());
        let incoming: u64 = missing.map(|layer| layer.size).sum();
        if incoming == 0 {
            return Ok(());
        }
        let folder = store.folder().to_owned();
        let low = self.inner.room.low();
        let lacks = look_at(&folder).await.lacks(incoming, low);
        let budget = (lacks > 0).then(|| (store.used_bytes() + incoming).saturating_sub(lacks));
        let in_use = self.inner.in_use.lock().clone();
        let made = store.make_room(&in_use, incoming, budget).await;
        made.map_err(|error| disk(reference, &error))?;
        let disk_now = look_at(store.folder()).await;
        let least = incoming + low.floor_bytes(disk_now.total_bytes);
        match disk_now.total_bytes > 0 && disk_now.free_bytes < least {
            true => Err(full(reference)),
            false => Ok(()),
        }
    }

    async fn pull(&self, name: &str, reference: &str) -> Result<(), Problem> {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut attempt = 1;
        // Docker hears only that its answer ends too early, and would ask for a while.
        let mut no_room = self.inner.fetcher.full();
        loop {
            let pulled = tokio::select! {
                pulled = self.pull_once(name) => pulled,
                Ok(()) = no_room.changed() => return Err(full(reference)),
            };
            let Err(error) = pulled else {
                return Ok(());
            };
            let said = words(&error);
            if says_full(&said) {
                return Err(full(reference));
            }
            if attempt == ATTEMPTS {
                let text = format!("image `{reference}` cannot be brought into Docker: {said}");
                return Err(Problem::new(Code::ImageFailed, text)
                    .hint("the agent's log on the node says which node did not give what"));
            }
            tracing::info!(%reference, why = %said, "an image is asked for again");
            attempt += 1;
            sleep(backoff.next()).await;
        }
    }

    async fn pull_once(&self, name: &str) -> Result<(), Error> {
        let options = CreateImageOptions {
            from_image: Some(name.to_owned()),
            ..Default::default()
        };
        let credentials = Some(self.credentials());
        let docker = &self.inner.docker;
        let mut said = std::pin::pin!(docker.create_image(Some(options), None, credentials));
        loop {
            match timeout(SILENCE, said.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(line))) => {
                    if let Some(error) = line.error_detail.and_then(|detail| detail.message) {
                        return Err(Error::DockerStreamError { error });
                    }
                }
                Ok(Some(Err(error))) => return Err(error),
                Err(_) => return Err(Error::RequestTimeoutError),
            }
        }
    }

    /// The image is one of this node's now, for other nodes and for the clean-up.
    pub(super) async fn remember(
        &self,
        digest: Digest,
        reference: &str,
        name: &str,
    ) -> Result<(), Problem> {
        let bytes = self.inner.store.read_small(digest).await;
        let bytes = bytes
            .map_err(|error| disk(reference, &error))?
            .unwrap_or_default();
        let put = self
            .inner
            .store
            .put_manifest((name, None), &bytes, true)
            .await;
        put.map(|_| ()).map_err(|error| match &error {
            PutError::Store(inner) if inner.is_full() => full(reference),
            _ => Problem::new(
                Code::Runtime,
                format!("image `{reference}`: {}", crate::error_chain(&error)),
            ),
        })
    }

    /// Its name in Docker, for people who look at the node: nothing that anybody relies on.
    async fn tag(&self, digest: Digest, reference: &str, name: &str) {
        if let Some((repo, tag)) = tag_of(reference) {
            let options = TagImageOptions {
                repo: Some(repo),
                tag: Some(tag),
            };
            let known = format!("{}@{digest}", self.repository(name));
            let tagged = self.inner.docker.tag_image(&known, Some(options));
            let _ = timeout(NAME_LIMIT, tagged).await;
        }
    }
}

/// An image of which all but the layers is known.
pub(super) struct Expected {
    pub(super) digest: Digest,
    config: Part,
    pub(super) config_bytes: Vec<u8>,
    pub(super) layers: Vec<Part>,
    _offers: Vec<Offer>,
}

/// The repository in this node's registry: the reference's, without its host.
pub(super) fn name_of(reference: &str) -> String {
    let parsed = super::Reference::parse(reference);
    parsed.map_or_else(|| "unnamed".to_owned(), |it| it.repository)
}

/// Name and tag of a reference that has both.
fn tag_of(reference: &str) -> Option<(String, String)> {
    let (name, tag) = reference.rsplit_once(':')?;
    let is_tag = !tag.contains('/') && !name.contains('@');
    is_tag.then(|| (name.to_owned(), tag.to_owned()))
}

pub(super) fn disk(reference: &str, error: &std::io::Error) -> Problem {
    if super::store::writer::is_full(error) {
        return full(reference);
    }
    let text = format!("image `{reference}`: the node's image store: {error}");
    Problem::new(Code::Runtime, text)
}

pub(super) fn not_fetched(reference: &str, error: &Arc<fetch::Error>) -> Problem {
    if error.is_full() {
        return full(reference);
    }
    let why = crate::error_chain(error.as_ref());
    let problem = Problem::new(Code::ImageFailed, format!("image `{reference}`: {why}"));
    problem.hint(match **error {
        fetch::Error::Nobody { .. } => {
            "the nodes that had it are gone, or have cleaned it up: deploy again to build it anew; \
             `skep registry push-to` keeps what is built in a registry, too"
        }
        _ => "can this node reach the others at their image address? skep node ls; a firewall must let it through",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_without_their_host() {
        let cases = [
            ("skep/web-production-shop:01ab", "skep/web-production-shop"),
            ("hello:1", "library/hello"),
            ("host:5000/a/b:1", "a/b"),
            ("Not A Name", "unnamed"),
        ];
        for (reference, name) in cases {
            assert_eq!(name_of(reference), name, "{reference}");
        }
        assert_eq!(tag_of("host:5000/a"), None);
        assert_eq!(tag_of("a:1"), Some(("a".into(), "1".into())));
    }
}
