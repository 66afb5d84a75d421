//! Static sites on this node: an image of nothing but files is unpacked into a folder, from which the data
//! plane hands them out, and no container is made of it. What is here by now stands on the disk alone, so
//! that an agent that comes back finds it as it finds containers in Docker.
//!
//! `sites/DIGEST/` is what was unpacked, `running/ALLOCATION.json` which allocation has which of them.

mod scan;
#[cfg(test)]
mod testing;
mod unpack;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skep_ingress::files::Site;
use skep_model::assignment::Assignment;
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use tokio::task::spawn_blocking;

use crate::clock;
use crate::images::{Images, Taken, full};
use crate::plan::{Phase, Seen};
use crate::routes::Spot;
pub(crate) use scan::scan;
pub(crate) use unpack::{Unpacked, unpack};

/// Label on an image that is a bundle: how its files are handed out, as JSON.
pub(crate) const LABEL: &str = "sh.skep.bundle";
/// The folder of all of it, under the agent's own.
const FOLDER: &str = "bundles";
/// Before the name of what is not whole yet, or goes.
const UNFINISHED: &str = "unfinished-";

/// The bundles of this node; cheap to clone.
#[derive(Clone)]
pub(crate) struct Bundles {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    running: Mutex<BTreeMap<AllocationId, Mark>>,
    /// One unpacks or removes at a time.
    changing: tokio::sync::Mutex<()>,
}

/// What an allocation has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Name of the folder below `sites`.
    site: String,
    attempt: u32,
    started_ms: u64,
}

impl Bundles {
    /// Finds what is here, and removes what nobody has. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        fs::create_dir_all(folder.join("sites"))?;
        fs::create_dir_all(folder.join("running"))?;
        let mut running = BTreeMap::new();
        for entry in fs::read_dir(folder.join("running"))? {
            let path = entry?.path();
            match read_mark(&path) {
                Some((id, mark)) if folder.join("sites").join(&mark.site).is_dir() => {
                    running.insert(id, mark);
                }
                // It is started again, like a container that somebody removed.
                _ => fs::remove_file(&path)?,
            }
        }
        let bundles = Self {
            inner: Arc::new(Inner {
                folder,
                running: Mutex::new(running),
                changing: tokio::sync::Mutex::default(),
            }),
        };
        bundles.sweep()?;
        Ok(bundles)
    }

    /// Every bundle that is handed out here.
    pub(crate) fn list(&self) -> Vec<(AllocationId, Seen)> {
        let running = self.inner.running.lock();
        let seen = running.iter();
        seen.map(|(id, mark)| (*id, self.seen(*id, mark))).collect()
    }

    /// What an allocation has of them.
    pub(crate) fn list_of(&self, id: AllocationId) -> Option<Seen> {
        let running = self.inner.running.lock();
        running.get(&id).map(|mark| self.seen(id, mark))
    }

    /// Has the files of an assignment's image handed out from now on.
    ///
    /// # Errors
    /// Nobody has the image, it is no bundle, or the disk is full.
    pub(crate) async fn start(
        &self,
        images: &Images,
        assignment: &Assignment,
        attempt: u32,
    ) -> Result<Seen, Problem> {
        let (id, image) = (assignment.allocation, &assignment.image);
        let givers = (&assignment.image_peers[..], assignment.workspace);
        let site = site_name(&image.digest).ok_or_else(|| {
            let text = format!("`{}` is not a digest", image.digest);
            Problem::new(Code::ImageFailed, text)
        })?;
        let place = self.inner.folder.join("sites").join(&site);
        let is_here = async || tokio::fs::try_exists(&place).await.unwrap_or(false);
        let _changing = loop {
            // Nobody waits for what comes over the network.
            let taken = match is_here().await {
                true => None,
                false => Some(images.take(image, givers).await?),
            };
            let changing = self.inner.changing.lock().await;
            match (is_here().await, taken) {
                (true, _) => break changing,
                (false, Some(taken)) => {
                    self.unpack(taken, &place, &image.reference).await?;
                    break changing;
                }
                // Its last user went meanwhile.
                (false, None) => {}
            }
        };
        let mark = Mark {
            site,
            attempt,
            started_ms: clock::now_ms(),
        };
        let (path, text) = (self.mark_path(id), serde_json::to_vec(&mark));
        let text = text.expect("plain data");
        blocking(move || {
            let beside = path.with_extension("new");
            let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path));
            written.map_err(|error| {
                let text = format!("the node cannot write down what it hands out: {error}");
                Problem::new(Code::Runtime, text)
            })
        })
        .await?;
        let seen = self.seen(id, &mark);
        self.inner.running.lock().insert(id, mark);
        Ok(seen)
    }

    /// Unpacks an image whose blobs are here as the folder `place`.
    async fn unpack(&self, taken: Taken, place: &Path, reference: &str) -> Result<(), Problem> {
        let beside = self.unfinished();
        let (place, reference) = (place.to_owned(), reference.to_owned());
        blocking(move || {
            let unpacked = unpack_taken(taken, &beside);
            let placed = unpacked.and_then(|_| fs::rename(&beside, &place).map_err(Into::into));
            placed.map_err(|error: unpack::Error| {
                // Whatever cannot be removed now is removed at the agent's next start.
                let _ = fs::remove_dir_all(&beside);
                match error.is_full() {
                    true => full(&reference),
                    false => broken(&reference, &error),
                }
            })
        })
        .await
    }

    /// A name of its own each time: a start that is not wanted any more goes on unpacking beside the next one.
    fn unfinished(&self) -> PathBuf {
        let id = skep_identity::random::new_id();
        self.inner.folder.join(format!("{UNFINISHED}{id:032x}"))
    }

    /// An allocation's files are not handed out any more; they go with the last that had them.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn remove(&self, id: AllocationId) -> io::Result<()> {
        let _changing = self.inner.changing.lock().await;
        let path = self.mark_path(id);
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.inner.running.lock().remove(&id);
        let bundles = self.clone();
        spawn_blocking(move || bundles.sweep())
            .await
            .map_err(io::Error::other)?
    }

    /// Removes the folders that no allocation has.
    fn sweep(&self) -> io::Result<()> {
        let running = self.inner.running.lock().clone();
        let sites = self.inner.folder.join("sites");
        for entry in fs::read_dir(&sites)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_used = running.values().any(|mark| *mark.site == *name);
            if !is_used {
                // Under another name first: what is half removed must not be taken for the site.
                fs::rename(entry.path(), self.unfinished())?;
            }
        }
        for entry in fs::read_dir(&self.inner.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn mark_path(&self, id: AllocationId) -> PathBuf {
        let running = self.inner.folder.join("running");
        running.join(format!("{id}.json"))
    }

    fn seen(&self, id: AllocationId, mark: &Mark) -> Seen {
        let folder = self.inner.folder.join("sites").join(&mark.site);
        Seen {
            id: seen_id(id, mark.attempt),
            attempt: mark.attempt,
            phase: Phase::Running {
                spot: Some(Spot::Files(folder.into())),
                pid: 0,
                started_ms: mark.started_ms,
            },
            grant: Default::default(),
            service: None,
        }
    }
}

/// What stands where a container has Docker's id.
fn seen_id(id: AllocationId, attempt: u32) -> String {
    format!("bundle-{id}-{attempt}")
}

/// Whether `id` stands for a bundle and no container.
pub(crate) fn is_bundle(id: &str) -> bool {
    id.starts_with("bundle-")
}

/// Unpacks an image whose blobs are here into the folder `into`, which is not there yet. Blocks on the disk.
pub(crate) fn unpack_taken(taken: Taken, into: &Path) -> Result<Unpacked, unpack::Error> {
    match fs::remove_dir_all(into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fs::create_dir_all(into)?;
    let site = site_of(&taken.config).map_err(unpack::Error::Label)?;
    unpack(taken.layers, site, into)
}

/// What an image's label says.
fn site_of(config: &[u8]) -> Result<Site, String> {
    let read: Result<ImageConfiguration, _> = serde_json::from_slice(config);
    let read = read.map_err(|error| error.to_string())?;
    let inner = read.config().as_ref();
    let labels = inner.and_then(|inner| inner.labels().as_ref());
    let label = labels.and_then(|labels| labels.get(LABEL));
    let label = label.ok_or_else(|| format!("it has no label `{LABEL}`"))?;
    serde_json::from_str(label).map_err(|error| error.to_string())
}

fn site_name(digest: &str) -> Option<String> {
    let parsed: crate::images::Digest = digest.parse().ok()?;
    Some(parsed.hex())
}

fn read_mark(path: &Path) -> Option<(AllocationId, Mark)> {
    let id = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let mark: Mark = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    // One path element, whoever wrote it.
    let is_name = site_name(&format!("sha256:{}", mark.site)).is_some();
    is_name.then_some((id.parse().ok()?, mark))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    spawn_blocking(work).await.unwrap_or_else(|_| {
        let text = "unpacking a bundle panicked";
        Err(Problem::new(Code::Internal, text))
    })
}

/// The problem of a bundle that is none.
pub(crate) fn broken(reference: &str, error: &unpack::Error) -> Problem {
    let why = crate::error_chain(error);
    let text = format!("the files of `{reference}` cannot be unpacked: {why}");
    Problem::new(Code::ImageFailed, text)
}

#[cfg(test)]
mod tests;
