//! What is known of the images in this node's Docker and Docker does not say: which of them the agent pulled,
//! for whom each was used, and when last. Docker's own clock of an image is when it was built, which for a
//! pulled one may be years ago. Pure, but for the file that it is kept in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::build::image_repository;

/// The file's name, in the folder of images.
pub(super) const FILE: &str = "docker.json";
/// Written into the file: another one means something else.
const VERSION: u32 = 1;
/// Images remembered: those used longest ago are forgotten beyond it, which only keeps them in Docker.
const IMAGES_MAX: usize = 4_096;
/// Services remembered of one image.
const OWNERS_MAX: usize = 256;

/// What is known of one image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What the agent pulled it by; none: it came some other way.
    #[serde(default)]
    pub(super) pulled_as: BTreeSet<String>,
    /// The services that were deployed with it.
    #[serde(default)]
    pub(super) owners: BTreeSet<String>,
    /// When it was first heard of, ms since the epoch.
    pub(super) added_ms: u64,
    /// When it was needed last, ms since the epoch.
    pub(super) used_ms: u64,
}

impl Entry {
    /// Whether the agent brought it, and nobody has given it a name of theirs since.
    pub(super) fn is_ours(&self, tags: &[String]) -> bool {
        let ours = |tag: &String| {
            let repository = image_repository(tag);
            let mut pulled = self.pulled_as.iter().map(|name| image_repository(name));
            pulled.any(|name| name == repository)
        };
        let mut named = tags.iter().filter(|tag| !tag.starts_with("<none>"));
        !self.pulled_as.is_empty() && named.all(ours)
    }
}

/// Everything that is known, by Docker's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Book {
    version: u32,
    images: BTreeMap<String, Entry>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            version: VERSION,
            images: BTreeMap::new(),
        }
    }
}

impl Book {
    /// Reads the file; without one, or with one that means nothing, nothing is known. Blocks on the disk.
    pub(super) fn read(folder: &Path) -> Self {
        let text = match std::fs::read_to_string(folder.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(%error, "what was known of Docker's images cannot be read: they stay");
                return Self::default();
            }
        };
        match serde_json::from_str::<Self>(&text) {
            Ok(book) if book.version == VERSION => book,
            _ => {
                tracing::warn!(
                    "what was known of Docker's images is of another version: they stay"
                );
                Self::default()
            }
        }
    }

    /// Writes the file beside the old one, then in its place. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let beside = folder.join("docker.json.new");
        std::fs::write(&beside, serde_json::to_vec(self)?)?;
        std::fs::rename(&beside, folder.join(FILE))
    }

    /// What is known of an image.
    pub(super) fn entry(&self, id: &str) -> Option<&Entry> {
        self.images.get(id)
    }

    /// `owner` runs this image from now on, which was pulled as `pulled_as` for it, or was here. Gives whether
    /// anything but the time is new.
    pub(super) fn note(
        &mut self,
        (id, owner): (&str, &str),
        pulled_as: Option<&str>,
        now_ms: u64,
    ) -> bool {
        if self.images.len() >= IMAGES_MAX && !self.images.contains_key(id) {
            let oldest = self.images.iter().min_by_key(|(_, entry)| entry.used_ms);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.images.remove(&oldest);
            }
        }
        let is_new = !self.images.contains_key(id);
        let entry = self.images.entry(id.to_owned()).or_insert(Entry {
            added_ms: now_ms,
            ..Entry::default()
        });
        entry.used_ms = entry.used_ms.max(now_ms);
        let is_owned = entry.owners.len() < OWNERS_MAX && entry.owners.insert(owner.to_owned());
        let is_pulled = pulled_as.is_some_and(|name| entry.pulled_as.insert(name.to_owned()));
        is_new || is_owned || is_pulled
    }

    /// These are in use now, and no others than `present` are in Docker.
    pub(super) fn seen<'a>(
        &mut self,
        present: &BTreeSet<&str>,
        used: impl Iterator<Item = &'a str>,
        now_ms: u64,
    ) {
        self.images.retain(|id, _| present.contains(id.as_str()));
        for id in used {
            if let Some(entry) = self.images.get_mut(id) {
                entry.used_ms = entry.used_ms.max(now_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_agent_pulled_and_nobody_named_is_ours() {
        let mut book = Book::default();
        assert!(book.note(("sha256:1", "web"), Some("nginx:1.27"), 5));
        assert!(
            !book.note(("sha256:1", "web"), Some("nginx:1.27"), 6),
            "known"
        );
        assert!(book.note(("sha256:2", "web"), None, 7));
        let tags = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let pulled = book.entry("sha256:1").expect("known");
        for (names, ours) in [
            (&["nginx:1.27"] as &[&str], true),
            (&["docker.io/library/nginx:1.27"], true),
            (&[], true),
            (&["<none>:<none>"], true),
            (&["nginx:1.27", "mine:1"], false),
            (&["host:5000/nginx:1.27"], false),
        ] {
            assert_eq!(pulled.is_ours(&tags(names)), ours, "{names:?}");
        }
        assert!(
            !book.entry("sha256:2").expect("known").is_ours(&[]),
            "it was here"
        );
    }

    #[test]
    fn it_survives_its_file_and_forgets_what_is_gone() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(Book::read(folder.path()), Book::default());
        let mut book = Book::default();
        book.note(("a", "web"), Some("x:1"), 5);
        book.note(("b", "web"), None, 5);
        book.write(folder.path()).expect("written");
        assert_eq!(Book::read(folder.path()), book);
        book.seen(&BTreeSet::from(["b"]), ["b", "c"].into_iter(), 9);
        assert_eq!(book.entry("a"), None);
        assert_eq!(
            book.entry("b").map(|it| (it.added_ms, it.used_ms)),
            Some((5, 9))
        );
        assert_eq!(book.entry("c"), None, "of another's nothing is remembered");
        std::fs::write(folder.path().join(FILE), "{}").expect("written");
        assert_eq!(Book::read(folder.path()), Book::default());
    }

    #[test]
    fn it_is_bounded() {
        let mut book = Book::default();
        for n in 0..=IMAGES_MAX as u64 {
            book.note((&n.to_string(), "web"), None, n);
        }
        assert_eq!((book.images.len(), book.entry("0")), (IMAGES_MAX, None));
    }
}
