//! Keeps images within their budget and the disk from filling up: the store's blobs, Docker's images that were
//! built or pulled for this cluster, and the build cache, each by the one decision of `store::evict`. What runs, and what a rollback
//! would need, stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ImageSummary;
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions, RemoveImageOptions};
use skep_model::id::ServiceId;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Images;
use super::book::Book;
use super::digest::Digest;
use super::manifest::{self, Content, Manifest};
use super::room::{self, Fill, look_at};
use super::store::evict::{self, Blob, Image, Limits, Plan};
use crate::build::{LABEL_CLUSTER, LABEL_SERVICE, trim_cache};
use crate::clock;

/// How often the disk is looked at where nothing comes: logs and volumes fill it, too.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How often everything is cleaned where the disk says nothing new, in looks.
const CLEAN_AGAIN: u32 = 8;
/// After something came others may come: they are looked at together.
const SETTLE: Duration = Duration::from_secs(2);
/// One question to the daemon.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// Build cache that may stay, where the images' budget is larger: the newest of it.
const CACHE_MAX_BYTES: u64 = 10 << 30;
/// The same, on a disk that is filling up.
const CACHE_LOW_MAX_BYTES: u64 = 1 << 30;
/// Removing layers takes a slow disk a while.
const REMOVE_LIMIT: Duration = Duration::from_secs(300);

/// Cleans until `cancel`.
pub(super) async fn keep(images: Images, cancel: CancellationToken) {
    let keep = async {
        let (mut looks, mut was_short) = (0, false);
        loop {
            let has_grown = tokio::select! {
                () = images.inner.grown.notified() => true,
                () = sleep(LOOK_AGAIN) => false,
            };
            if has_grown {
                sleep(SETTLE).await;
            }
            images.learn().await;
            let room = &images.inner.room;
            looks += 1;
            let is_short = room.look().await.1.lacks(0, room.low()) > 0;
            if has_grown || looks >= CLEAN_AGAIN || (is_short && !was_short) {
                looks = 0;
                images.clean().await;
            }
            was_short = is_short;
            // After the cleaning: what it could help with is nobody's concern.
            room.tell(&room.look().await);
        }
    };
    cancel.run_until_cancelled(keep).await;
}

impl Images {
    /// Removes what the budgets and the disks' marks say, one call after the other.
    pub(super) async fn clean(&self) {
        let _one = self.inner.cleaning.lock().await;
        let store = &self.inner.store;
        let in_use = self.inner.in_use.lock().clone();
        let low = self.inner.room.low();
        let lacks = look_at(store.folder()).await.lacks(0, low);
        // What of the budget is used is reduced by what the disk lacks.
        let budget = (lacks > 0).then(|| store.used_bytes().saturating_sub(lacks));
        if lacks > 0 {
            let copies = self.inner.copies.clone();
            // Nobody waits for more than that they are gone.
            let _ = spawn_blocking(move || copies.clear()).await;
        }
        match store.make_room(&in_use, 0, budget).await {
            Ok((0, _)) => {}
            Ok((gone, _)) => tracing::info!(gone, "blobs of images that nobody needs were removed"),
            Err(error) => tracing::warn!(%error, "the image store could not be cleaned"),
        }
        if let Err(error) = self.clean_docker(&in_use).await {
            let why = crate::error_chain(&error);
            tracing::warn!(%why, "Docker's images could not be cleaned");
        }
    }

    /// Of Docker's images those that were built for this cluster, and those that its agent pulled.
    async fn clean_docker(&self, in_use: &BTreeSet<Digest>) -> Result<(), Error> {
        let docker = &self.inner.docker;
        let found = ask(docker.list_images(None::<ListImagesOptions>)).await?;
        let all = ListContainersOptions {
            all: true,
            ..Default::default()
        };
        let containers = ask(docker.list_containers(Some(all))).await?;
        let mut used: BTreeSet<Digest> = containers
            .into_iter()
            .filter_map(|container| container.image_id?.parse().ok())
            .collect();
        used.extend(self.ids(in_use).await);
        used.extend(pulled_ids(&found, in_use));
        let info = ask(docker.info()).await?;
        let root = PathBuf::from(info.docker_root_dir.unwrap_or_default());
        self.inner.room.learn(root.clone());
        let disk = look_at(&root).await;
        let low = self.inner.room.low();
        let lacks = disk.lacks(0, low);
        let budget_bytes = self.inner.budget.bytes(disk.total_bytes);
        let (gone, book) = {
            let mut book = self.inner.book.lock();
            let present = found.iter().map(|image| image.id.as_str()).collect();
            let names: Vec<String> = used.iter().map(Digest::to_string).collect();
            book.seen(&present, names.iter().map(String::as_str), clock::now_ms());
            let limits = Limits {
                budget_bytes,
                incoming_bytes: 0,
                now_ms: clock::now_ms(),
            };
            let cluster = self.inner.cluster.to_string();
            let ours = ours(&found, &book, &cluster);
            (plan(ours, &used, limits, lacks).images, book.clone())
        };
        self.keep_book(book).await;
        let names: BTreeMap<&str, &ImageSummary> = found
            .iter()
            .map(|image| (image.id.as_str(), image))
            .collect();
        for digest in &gone {
            if let Some(image) = names.get(digest.to_string().as_str()) {
                self.remove(image).await;
            }
        }
        if lacks > 0 {
            let fill = room::judge(Fill::Enough, disk, low);
            trim_cache(&self.inner.socket, cache_bytes(fill, budget_bytes)).await;
        }
        Ok(())
    }

    /// A service runs this image of Docker's from now on; `pulled_as`: the agent has just pulled it.
    pub(crate) async fn note(&self, (id, service): (&str, ServiceId), pulled_as: Option<&str>) {
        let book = {
            let mut book = self.inner.book.lock();
            let is_new = book.note((id, &service.to_string()), pulled_as, clock::now_ms());
            is_new.then(|| book.clone())
        };
        if let Some(book) = book {
            self.keep_book(book).await;
        }
        if pulled_as.is_some() {
            self.inner.grown.notify_one();
        }
    }

    async fn keep_book(&self, book: Book) {
        let folder = self.inner.store.folder().to_owned();
        let written = spawn_blocking(move || book.write(&folder)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(%error, "what is known of Docker's images could not be written down");
        }
    }

    /// How much of the build cache may stay after a build, in bytes.
    pub(crate) async fn cache_bytes(&self) -> u64 {
        self.learn().await;
        let (_, disk) = self.inner.room.look().await;
        let fill = room::judge(Fill::Enough, disk, self.inner.room.low());
        cache_bytes(fill, self.inner.budget.bytes(disk.total_bytes))
    }

    /// Docker's classic ids of manifests that are here. Where the daemon goes by manifests, they are the
    /// ids themselves.
    async fn ids(&self, manifests: &BTreeSet<Digest>) -> BTreeSet<Digest> {
        let mut ids = manifests.clone();
        for digest in manifests {
            let bytes = self.inner.store.peek(*digest).await;
            let parsed = bytes.and_then(|bytes| Manifest::parse(&bytes).ok());
            match parsed.map(|manifest| manifest.content) {
                Some(Content::Image { config, .. }) => {
                    ids.insert(config.digest);
                }
                Some(Content::Index(images)) => {
                    let own = manifest::choose(&images, &manifest::platform(), "");
                    ids.extend(own.map(|part| part.digest));
                }
                None => {}
            }
        }
        ids
    }

    /// By its names: Docker refuses what a container still uses, and then it stays.
    async fn remove(&self, image: &ImageSummary) {
        let mut names = image.repo_tags.clone();
        names.retain(|name| !name.starts_with("<none>"));
        if names.is_empty() {
            names.push(image.id.clone());
        }
        for name in names {
            let options = None::<RemoveImageOptions>;
            let removed = self.inner.docker.remove_image(&name, options, None);
            match timeout(REMOVE_LIMIT, removed).await {
                Ok(Ok(_)) => {
                    tracing::info!(image = %name, "an image that nobody needs was removed")
                }
                Ok(Err(error)) => {
                    tracing::debug!(image = %name, %error, "an image was not removed");
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

/// The build cache's share: as much as images, none where the disk is full.
fn cache_bytes(fill: Fill, budget_bytes: u64) -> u64 {
    match fill {
        Fill::Enough => budget_bytes.min(CACHE_MAX_BYTES),
        Fill::Low => budget_bytes.min(CACHE_LOW_MAX_BYTES),
        Fill::Full => 0,
    }
}

/// Those of Docker's images that may be removed at all: built for this cluster, or pulled by its agent.
/// Everybody else's stay, whatever the disk.
fn ours(found: &[ImageSummary], book: &Book, cluster: &str) -> Vec<(Blob, Image)> {
    let one = |image: &ImageSummary| {
        let digest = image.id.parse::<Digest>().ok()?;
        let known = book.entry(&image.id);
        let is_built = image
            .labels
            .get(LABEL_CLUSTER)
            .is_some_and(|it| it == cluster);
        if !is_built && !known.is_some_and(|it| it.is_ours(&image.repo_tags)) {
            return None;
        }
        let built_ms = u64::try_from(image.created).unwrap_or(0) * 1_000;
        let (added_ms, used_ms) = known.map_or((0, 0), |it| (it.added_ms, it.used_ms));
        // A pulled one may have been made in another year; a built one has its label.
        let (added_ms, used_ms) = match is_built {
            true => (added_ms.max(built_ms), used_ms.max(built_ms)),
            false => (added_ms, used_ms),
        };
        let label = image.labels.get(LABEL_SERVICE).filter(|_| is_built);
        let mut owners: BTreeSet<&String> = known.into_iter().flat_map(|it| &it.owners).collect();
        owners.extend(label);
        let blob = Blob {
            digest,
            size: u64::try_from(image.size).unwrap_or(0),
            used_ms,
        };
        let image = Image {
            digest,
            needs: vec![digest],
            owners: owners.into_iter().cloned().collect(),
            added_ms,
        };
        Some((blob, image))
    };
    found.iter().filter_map(one).collect()
}

/// Those that a registry knows by a manifest which is in use: the store has none of it.
fn pulled_ids(found: &[ImageSummary], in_use: &BTreeSet<Digest>) -> BTreeSet<Digest> {
    let is_used = |name: &String| {
        let digest = name.rsplit_once('@').and_then(|(_, it)| it.parse().ok());
        digest.is_some_and(|digest| in_use.contains(&digest))
    };
    let used = found
        .iter()
        .filter(|it| it.repo_digests.iter().any(is_used));
    used.filter_map(|it| it.id.parse().ok()).collect()
}

/// The same decision as the store's.
fn plan(ours: Vec<(Blob, Image)>, used: &BTreeSet<Digest>, limits: Limits, lacks: u64) -> Plan {
    let (blobs, images): (Vec<Blob>, Vec<Image>) = ours.into_iter().unzip();
    let all: u64 = blobs.iter().map(|blob| blob.size).sum();
    let limits = Limits {
        budget_bytes: limits.budget_bytes.min(all.saturating_sub(lacks)),
        ..limits
    };
    evict::plan(&blobs, &images, used, limits)
}

/// One question to the daemon.
pub(super) async fn ask<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let answered = timeout(ASK_LIMIT, asked).await;
    answered.unwrap_or(Err(Error::RequestTimeoutError))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: i64 = 86_400;
    const NOW_MS: u64 = 86_400_000 * 1_000;

    fn image(n: u8, labels: &[(&str, &str)], days_old: i64) -> ImageSummary {
        ImageSummary {
            id: Digest::of(&[n]).to_string(),
            size: 100,
            created: DAY_S * (1_000 - days_old),
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Default::default()
        }
    }

    fn built(n: u8, days_old: i64) -> ImageSummary {
        image(
            n,
            &[(LABEL_CLUSTER, "own"), (LABEL_SERVICE, "web")],
            days_old,
        )
    }

    fn limits(budget_bytes: u64) -> Limits {
        Limits {
            budget_bytes,
            incoming_bytes: 0,
            now_ms: NOW_MS,
        }
    }

    #[test]
    fn dockers_images_go_by_age_and_stay_where_they_are_used() {
        let found: Vec<_> = (0..6).map(|n| built(n, i64::from(n))).collect();
        let ours = || ours(&found, &Book::default(), "own");
        let used = BTreeSet::from([Digest::of(&[5])]);
        assert_eq!(plan(ours(), &used, limits(600), 0), Plan::default());
        // Three are for rollbacks, one runs.
        let gone = plan(ours(), &used, limits(0), 0);
        assert_eq!(gone.images, [Digest::of(&[4]), Digest::of(&[3])]);
        let gone = plan(ours(), &used, limits(600), 1);
        assert_eq!(
            gone.images,
            [Digest::of(&[4])],
            "a short disk takes no more than it lacks"
        );
    }

    #[test]
    fn pulled_images_are_the_agents_and_everybody_elses_stay() {
        let mut book = Book::default();
        let found = [
            built(0, 1),
            // Built for another cluster, by hand, pulled by the agent, and one of those with another's name.
            image(1, &[(LABEL_CLUSTER, "other")], 900),
            image(2, &[], 900),
            image(3, &[], 900),
            ImageSummary {
                repo_tags: vec!["mine:1".to_owned()],
                ..image(4, &[], 900)
            },
        ];
        for n in [3, 4] {
            book.note((&found[n].id, "web"), Some("nginx:1"), NOW_MS - 5);
        }
        let own: Vec<Digest> = ours(&found, &book, "own")
            .iter()
            .map(|it| it.0.digest)
            .collect();
        assert_eq!(own, [Digest::of(&[0]), Digest::of(&[3])]);
    }

    #[test]
    fn a_pulled_image_is_in_use_by_the_manifest_that_is_assigned() {
        let manifest = Digest::of(b"manifest");
        let found = [
            ImageSummary {
                repo_digests: vec![format!("nginx@{manifest}")],
                ..image(3, &[], 900)
            },
            image(4, &[], 900),
        ];
        let used = pulled_ids(&found, &BTreeSet::from([manifest]));
        assert_eq!(used, BTreeSet::from([Digest::of(&[3])]));
    }

    #[test]
    fn what_ran_lately_goes_after_what_was_merely_built_lately() {
        let found: Vec<_> = (0..5).map(|n| built(n, i64::from(n))).collect();
        let mut book = Book::default();
        book.note((&found[4].id, "web"), None, NOW_MS);
        let gone = plan(ours(&found, &book, "own"), &BTreeSet::new(), limits(400), 0);
        assert_eq!(gone.images, [Digest::of(&[3])]);
    }

    #[test]
    fn a_full_disk_keeps_no_build_cache() {
        let small = 1 << 20;
        assert_eq!(cache_bytes(Fill::Enough, u64::MAX), CACHE_MAX_BYTES);
        assert_eq!(cache_bytes(Fill::Enough, small), small);
        assert_eq!(cache_bytes(Fill::Low, u64::MAX), CACHE_LOW_MAX_BYTES);
        assert_eq!(cache_bytes(Fill::Full, u64::MAX), 0);
    }
}
