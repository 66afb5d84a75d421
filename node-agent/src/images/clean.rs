//! Keeps images within their budget and the disk from filling up: the store's blobs, Docker's images of this
//! cluster, and the build cache, each by the one decision of `store::evict`. What runs, and what a rollback
//! would need, stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ImageSummary;
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions, RemoveImageOptions};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Images;
use super::budget::Disk;
use super::digest::Digest;
use super::manifest::{self, Content, Manifest};
use super::store::evict::{self, Blob, Image, Limits, Plan};
use crate::build::{LABEL_CLUSTER, LABEL_SERVICE, trim_cache_short};
use crate::clock;

/// How often the disk is looked at where nothing comes.
const LOOK_AGAIN: Duration = Duration::from_secs(120);
/// After something came others may come: they are looked at together.
const SETTLE: Duration = Duration::from_secs(2);
/// One question to the daemon.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// Removing layers takes a slow disk a while.
const REMOVE_LIMIT: Duration = Duration::from_secs(300);

/// Cleans until `cancel`.
pub(super) async fn keep(images: Images, cancel: CancellationToken) {
    let keep = async {
        loop {
            tokio::select! {
                () = images.inner.grown.notified() => sleep(SETTLE).await,
                () = sleep(LOOK_AGAIN) => {}
            }
            images.clean().await;
        }
    };
    cancel.run_until_cancelled(keep).await;
}

impl Images {
    async fn clean(&self) {
        let store = &self.inner.store;
        let in_use = self.inner.in_use.lock().clone();
        let folder = store.folder().to_owned();
        let lacks = disk(folder).await.lacks(0);
        // What of the budget is used is reduced by what the disk lacks.
        let budget = (lacks > 0).then(|| store.used_bytes().saturating_sub(lacks));
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

    /// Of Docker's images those that were built for this cluster.
    async fn clean_docker(&self, in_use: &BTreeSet<Digest>) -> Result<(), Error> {
        let docker = &self.inner.docker;
        let label = format!("{LABEL_CLUSTER}={}", self.inner.cluster);
        let options = ListImagesOptions {
            filters: Some([("label".to_owned(), vec![label])].into()),
            ..Default::default()
        };
        let found = ask(docker.list_images(Some(options))).await?;
        if found.is_empty() {
            return Ok(());
        }
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
        let info = ask(docker.info()).await?;
        let root = PathBuf::from(info.docker_root_dir.unwrap_or_default());
        let disk = disk(root).await;
        let lacks = disk.lacks(0);
        let limits = Limits {
            budget_bytes: self.inner.budget.bytes(disk.total_bytes),
            incoming_bytes: 0,
            now_ms: clock::now_ms(),
        };
        let plan = plan(&found, &used, limits, lacks);
        let names: BTreeMap<&str, &ImageSummary> = found
            .iter()
            .map(|image| (image.id.as_str(), image))
            .collect();
        for digest in &plan.images {
            if let Some(image) = names.get(digest.to_string().as_str()) {
                self.remove(image).await;
            }
        }
        if lacks > 0 {
            trim_cache_short(&self.inner.socket).await;
        }
        Ok(())
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

/// The same decision as the store's, over Docker's images: whose an image is says its label.
fn plan(found: &[ImageSummary], used: &BTreeSet<Digest>, limits: Limits, lacks: u64) -> Plan {
    let mut blobs = Vec::new();
    let mut images = Vec::new();
    for image in found {
        let Ok(digest) = image.id.parse::<Digest>() else {
            continue;
        };
        let created_ms = u64::try_from(image.created).unwrap_or(0) * 1_000;
        blobs.push(Blob {
            digest,
            size: u64::try_from(image.size).unwrap_or(0),
            used_ms: created_ms,
        });
        images.push(Image {
            digest,
            needs: vec![digest],
            repository: image.labels.get(LABEL_SERVICE).cloned().unwrap_or_default(),
            added_ms: created_ms,
        });
    }
    let all: u64 = blobs.iter().map(|blob| blob.size).sum();
    let limits = Limits {
        budget_bytes: limits.budget_bytes.min(all.saturating_sub(lacks)),
        ..limits
    };
    evict::plan(&blobs, &images, used, limits)
}

async fn ask<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let answered = timeout(ASK_LIMIT, asked).await;
    answered.unwrap_or(Err(Error::RequestTimeoutError))
}

async fn disk(path: PathBuf) -> Disk {
    spawn_blocking(move || Disk::of(&path))
        .await
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(n: u8, service: &str, days_old: i64) -> ImageSummary {
        ImageSummary {
            id: Digest::of(&[n]).to_string(),
            size: 100,
            created: 86_400 * (1_000 - days_old),
            labels: [(LABEL_SERVICE.to_owned(), service.to_owned())].into(),
            ..Default::default()
        }
    }

    #[test]
    fn dockers_images_go_by_age_and_stay_where_they_are_used() {
        let found: Vec<_> = (0..6).map(|n| image(n, "web", i64::from(n))).collect();
        let limits = |budget_bytes| Limits {
            budget_bytes,
            incoming_bytes: 0,
            now_ms: 86_400_000 * 1_000,
        };
        let used = BTreeSet::from([Digest::of(&[5])]);
        assert_eq!(plan(&found, &used, limits(600), 0), Plan::default());
        // Three are for rollbacks, one runs.
        let gone = plan(&found, &used, limits(0), 0);
        assert_eq!(gone.images, [Digest::of(&[4]), Digest::of(&[3])]);
        let gone = plan(&found, &used, limits(600), 1);
        assert_eq!(
            gone.images,
            [Digest::of(&[4])],
            "a short disk takes no more than it lacks"
        );
    }
}
