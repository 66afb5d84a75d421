//! The node's blobs by the SHA-256 of their content, as an OCI image layout: `blobs/sha256/`,
//! `index.json`, `oci-layout`; and beside it what is on its way: `partial/` (fetches) and `uploads/`
//! (pushes). A blob gets its name only when its content is known to be that. Never talks to anybody.

pub(crate) mod evict;
pub(crate) mod index;
pub(crate) mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::digest::Digest;
use super::manifest::{MANIFEST_MAX_BYTES, Manifest};
use crate::clock;
use evict::{Blob, Image, Limits};
use index::{Entry, Index};
pub(crate) use writer::{Error, Writer};

/// What marks a folder as an OCI layout.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Manifests under all their names.
const ENTRIES_MAX: usize = 4_096;
/// What was begun so long ago is begun anew.
const ABANDONED: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Default)]
struct State {
    /// Size and last use of each blob.
    blobs: BTreeMap<Digest, (u64, u64)>,
    index: Index,
    /// What the manifests of the index name.
    needs: BTreeMap<Digest, Vec<Digest>>,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    budget_bytes: u64,
    state: Mutex<State>,
    /// One writes the index at a time.
    writing: tokio::sync::Mutex<()>,
}

/// A manifest was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// It means nothing.
    #[error("{0}")]
    Invalid(String),
    /// It names a blob that is not here.
    #[error("it names {0}, which is not here")]
    Missing(Digest),
    /// The store has as many names as it takes.
    #[error("there are {ENTRIES_MAX} manifests already")]
    Full,
    /// Another content than its name says, or the disk.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> Self {
        Self::Store(Error::Disk(error))
    }
}

impl Store {
    /// Opens the store in `folder`, making it where there is none. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's. An index that cannot be read is begun anew: its blobs can be fetched again.
    pub(crate) fn open(folder: &Path, budget_bytes: u64) -> io::Result<Self> {
        for part in ["blobs/sha256", "partial", "uploads"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        std::fs::write(folder.join("oci-layout"), LAYOUT)?;
        for part in ["partial", "uploads"] {
            clean(&folder.join(part))?;
        }
        let store = Self {
            folder: folder.to_owned(),
            budget_bytes,
            state: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        };
        let mut state = State::default();
        for entry in std::fs::read_dir(folder.join("blobs/sha256"))? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = format!("sha256:{}", name.to_string_lossy()).parse();
            let Ok(digest) = digest else { continue };
            let about = entry.metadata()?;
            state.blobs.insert(digest, (about.len(), mtime_ms(&about)));
        }
        match std::fs::read(folder.join("index.json")) {
            Ok(text) => match Index::decode(&text) {
                Ok(index) => state.index = index,
                Err(why) => tracing::warn!(%why, "the image store's index is begun anew"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let blobs = &state.blobs;
        state
            .index
            .entries
            .retain(|entry| blobs.contains_key(&entry.digest));
        for entry in &state.index.entries {
            if let Ok(bytes) = std::fs::read(store.path(entry.digest)) {
                state
                    .needs
                    .insert(entry.digest, needs(entry.digest, &bytes));
            }
        }
        *store.state.lock() = state;
        Ok(store)
    }

    /// Where a blob is once it is whole.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    /// Where the store is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The size of a blob; none: it is not here.
    pub(crate) fn size(&self, digest: Digest) -> Option<u64> {
        self.state.lock().blobs.get(&digest).map(|(size, _)| *size)
    }

    /// Bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.state.lock().blobs.values().map(|(size, _)| size).sum()
    }

    /// Opens a blob to read it, which counts as a use; with its size. None: it is not here.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn read(&self, digest: Digest) -> io::Result<Option<(File, u64)>> {
        let Some(size) = self.size(digest) else {
            return Ok(None);
        };
        let path = self.path(digest);
        let opened = spawn_blocking(move || {
            let file = File::open(path)?;
            // A disk that is read-only by now still serves.
            let _ = file.set_modified(SystemTime::now());
            Ok(file)
        });
        match opened.await.map_err(io::Error::other)? {
            Ok(file) => {
                if let Some((_, used_ms)) = self.state.lock().blobs.get_mut(&digest) {
                    *used_ms = clock::now_ms();
                }
                Ok(Some((file, size)))
            }
            // Somebody cleaned up by hand.
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => {
                self.state.lock().blobs.remove(&digest);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// All of a small blob: a manifest or a configuration.
    ///
    /// # Errors
    /// The disk's, or it is longer than any manifest.
    pub(crate) async fn read_small(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        let Some((mut file, size)) = self.read(digest).await? else {
            return Ok(None);
        };
        if size > MANIFEST_MAX_BYTES {
            let text = format!("{digest} is longer than {MANIFEST_MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let read = spawn_blocking(move || {
            let mut bytes = Vec::with_capacity(size as usize);
            file.read_to_end(&mut bytes).map(|_| bytes)
        });
        Ok(Some(read.await??))
    }

    /// The same, without that counting as a use.
    pub(crate) async fn peek(&self, digest: Digest) -> Option<Vec<u8>> {
        let is_small = self
            .size(digest)
            .is_some_and(|size| size <= MANIFEST_MAX_BYTES);
        match is_small {
            true => tokio::fs::read(self.path(digest)).await.ok(),
            false => None,
        }
    }

    /// Goes on fetching a blob that is not here, or begins to.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn partial(&self, digest: Digest, limit: u64) -> io::Result<Writer> {
        Writer::open(&self.partial_path(digest), limit).await
    }

    /// Where a blob grows while it is fetched.
    pub(crate) fn partial_path(&self, digest: Digest) -> PathBuf {
        self.folder.join("partial").join(digest.hex())
    }

    /// Goes on with an upload, or begins it. `id` is one path element.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn upload(&self, id: &str) -> io::Result<Writer> {
        Writer::open(&self.folder.join("uploads").join(id), self.budget_bytes).await
    }

    /// Whether an upload was begun.
    pub(crate) async fn has_upload(&self, id: &str) -> bool {
        let path = self.folder.join("uploads").join(id);
        tokio::fs::try_exists(path).await.unwrap_or(false)
    }

    /// Takes what was written as a blob.
    ///
    /// # Errors
    /// It is something else, or the disk's.
    pub(crate) async fn keep(&self, written: Writer, digest: Digest) -> Result<(), Error> {
        if self.size(digest).is_some() {
            written.discard().await;
            return Ok(());
        }
        let size = written.finish(digest, &self.path(digest)).await?;
        let mut state = self.state.lock();
        state.blobs.insert(digest, (size, clock::now_ms()));
        Ok(())
    }

    /// Takes a manifest, whose parts must be here unless `is_partial`, under a name.
    ///
    /// # Errors
    /// It means nothing, names what is not here, or cannot be written.
    pub(crate) async fn put_manifest(
        &self,
        (repository, tag): (&str, Option<&str>),
        bytes: &[u8],
        is_partial: bool,
    ) -> Result<Digest, PutError> {
        let manifest = Manifest::parse(bytes).map_err(PutError::Invalid)?;
        let digest = Digest::of(bytes);
        if !is_partial {
            let missing = manifest
                .parts()
                .find(|part| self.size(part.digest).is_none());
            if let Some(part) = missing {
                return Err(PutError::Missing(part.digest));
            }
        }
        if self.size(digest).is_none() {
            // In a file of its own: the same manifest may be put by several at the same time.
            let id = format!("{:032x}", skep_identity::random::new_id());
            let mut written = self.upload(&id).await?;
            written.write(bytes).await?;
            self.keep(written, digest).await?;
        }
        let entry = Entry {
            digest,
            size: bytes.len() as u64,
            media_type: manifest.media_type,
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            added_ms: clock::now_ms(),
        };
        let _writing = self.writing.lock().await;
        let text = {
            let state = self.state.lock();
            let mut index = state.index.clone();
            index.add(entry.clone());
            if index.entries.len() > ENTRIES_MAX {
                return Err(PutError::Full);
            }
            index.encode().map_err(PutError::Invalid)?
        };
        self.write_index(text).await?;
        let mut state = self.state.lock();
        state.index.add(entry);
        state.needs.insert(digest, needs(digest, bytes));
        Ok(digest)
    }

    /// What a tag stands for.
    pub(crate) fn tagged(&self, repository: &str, tag: &str) -> Option<Digest> {
        let state = self.state.lock();
        state
            .index
            .tagged(repository, tag)
            .map(|entry| entry.digest)
    }

    /// The tags of a repository; none: there is no such repository.
    pub(crate) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        self.state.lock().index.tags(repository)
    }

    async fn write_index(&self, text: String) -> io::Result<()> {
        let folder = self.folder.clone();
        let written = spawn_blocking(move || {
            let beside = folder.join("index.json.new");
            let mut file = File::create(&beside)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, folder.join("index.json"))?;
            File::open(&folder)?.sync_all()
        });
        written.await.map_err(io::Error::other)?
    }

    /// Makes room for `incoming_bytes` within the budget, or within less: `budget_bytes`. Nothing that
    /// is `in_use` goes. Gives what was removed, and by how many bytes the budget is exceeded still.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn make_room(
        &self,
        in_use: &BTreeSet<Digest>,
        incoming_bytes: u64,
        budget_bytes: Option<u64>,
    ) -> io::Result<(usize, u64)> {
        let _writing = self.writing.lock().await;
        let (plan, text) = {
            let mut state = self.state.lock();
            let (blobs, images) = state.inventory();
            let limits = Limits {
                budget_bytes: budget_bytes.unwrap_or(u64::MAX).min(self.budget_bytes),
                incoming_bytes,
                now_ms: clock::now_ms(),
            };
            let plan = evict::plan(&blobs, &images, in_use, limits);
            for blob in &plan.blobs {
                state.blobs.remove(blob);
            }
            let State {
                blobs,
                index,
                needs,
            } = &mut *state;
            let gone: BTreeSet<_> = plan.images.iter().collect();
            index
                .entries
                .retain(|it| !gone.contains(&it.digest) && blobs.contains_key(&it.digest));
            needs.retain(|digest, _| blobs.contains_key(digest));
            let text = state.index.encode().map_err(io::Error::other)?;
            (plan, text)
        };
        if !plan.images.is_empty() {
            // A crash between the two leaves blobs that no manifest names: they go later.
            self.write_index(text).await?;
        }
        for blob in &plan.blobs {
            match tokio::fs::remove_file(self.path(*blob)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok((plan.blobs.len(), plan.short_bytes))
    }
}

impl State {
    /// What a manifest names, and what the manifests among that name.
    fn all_needs(&self, digest: Digest) -> Vec<Digest> {
        let Some(own) = self.needs.get(&digest) else {
            return vec![digest];
        };
        let further = own.iter().filter(|part| **part != digest);
        let further = further.filter_map(|part| self.needs.get(part)).flatten();
        let all: BTreeSet<Digest> = own.iter().chain(further).copied().collect();
        all.into_iter().collect()
    }

    fn inventory(&self) -> (Vec<Blob>, Vec<Image>) {
        let blobs = self.blobs.iter().map(|(digest, (size, used_ms))| Blob {
            digest: *digest,
            size: *size,
            used_ms: *used_ms,
        });
        // What is named by an index is a part of it, and no image of its own.
        let named = self.needs.iter().flat_map(|(digest, needs)| {
            let others = needs.iter().filter(move |part| *part != digest);
            others.filter(|part| self.needs.contains_key(*part))
        });
        let named: BTreeSet<Digest> = named.copied().collect();
        // Under several names it is as young as the youngest, and one image.
        let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
        let entries = self.index.entries.iter();
        for entry in entries.filter(|entry| !named.contains(&entry.digest)) {
            let image = images.entry(entry.digest).or_insert_with(|| Image {
                digest: entry.digest,
                needs: self.all_needs(entry.digest),
                owners: vec![entry.repository.clone()],
                added_ms: entry.added_ms,
            });
            if entry.added_ms > image.added_ms {
                (image.added_ms, image.owners) = (entry.added_ms, vec![entry.repository.clone()]);
            }
        }
        (blobs.collect(), images.into_values().collect())
    }
}

fn needs(digest: Digest, manifest: &[u8]) -> Vec<Digest> {
    let parts = Manifest::parse(manifest).map(|it| it.parts().map(|part| part.digest).collect());
    let mut needs: Vec<Digest> = parts.unwrap_or_default();
    needs.push(digest);
    needs
}

/// Removes what was begun long ago.
fn clean(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if age > ABANDONED {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn mtime_ms(about: &std::fs::Metadata) -> u64 {
    let age = about
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
