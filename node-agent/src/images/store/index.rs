//! Which manifests the store has, and what they are called: `index.json` of an OCI layout, so that any
//! tool that knows layouts can read the folder.

use std::collections::HashMap;

use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageIndex, ImageIndexBuilder, MediaType, SCHEMA_VERSION,
};

use super::super::digest::Digest;

/// What a manifest is called: `repository:tag`.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Whose it is, also without a tag.
const REPOSITORY: &str = "sh.skep.repository";
/// When it came, ms since the epoch.
const ADDED: &str = "sh.skep.added-ms";

/// Names of one manifest in one repository.
const NAMES_MAX: usize = 8;

/// One manifest under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its media type.
    pub(crate) media_type: String,
    /// Whose.
    pub(crate) repository: String,
    /// Its tag there; none: pushed by its digest.
    pub(crate) tag: Option<String>,
    /// When it came, ms since the epoch.
    pub(crate) added_ms: u64,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) entries: Vec<Entry>,
}

impl Index {
    /// Adds one; a tag moves to it.
    pub(crate) fn add(&mut self, entry: Entry) {
        let is_replaced = |old: &Entry| {
            old.repository == entry.repository
                && match &entry.tag {
                    Some(_) => old.tag == entry.tag,
                    None => old.digest == entry.digest && old.tag.is_none(),
                }
        };
        self.entries.retain(|old| !is_replaced(old));
        // The same image deployed again and again: its oldest names there go, not the image.
        let is_same =
            |old: &Entry| (old.digest, &old.repository) == (entry.digest, &entry.repository);
        let mut more =
            (self.entries.iter().filter(|old| is_same(old)).count() + 1).saturating_sub(NAMES_MAX);
        self.entries.retain(|old| {
            let goes = more > 0 && is_same(old);
            more -= usize::from(goes);
            !goes
        });
        self.entries.push(entry);
    }

    /// What a tag stands for.
    pub(crate) fn tagged(&self, repository: &str, tag: &str) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.repository == repository && entry.tag.as_deref() == Some(tag))
    }

    /// The tags of a repository in order; none: there is no such repository.
    pub(crate) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        let mut entries = self.entries.iter();
        if !entries.any(|entry| entry.repository == repository) {
            return None;
        }
        let entries = self
            .entries
            .iter()
            .filter(|entry| entry.repository == repository);
        let mut tags: Vec<String> = entries.filter_map(|entry| entry.tag.clone()).collect();
        tags.sort();
        Some(tags)
    }

    /// As it lies on the disk.
    ///
    /// # Errors
    /// Says why it cannot be written.
    pub(crate) fn encode(&self) -> Result<String, String> {
        let manifests: Result<Vec<Descriptor>, _> = self.entries.iter().map(descriptor).collect();
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(manifests.map_err(|error| error.to_string())?)
            .build();
        let index = index.map_err(|error| error.to_string())?;
        index.to_string().map_err(|error| error.to_string())
    }

    /// Reads it back. Entries that are not ours are left out.
    ///
    /// # Errors
    /// It is no index.
    pub(crate) fn decode(text: &[u8]) -> Result<Self, String> {
        let index = ImageIndex::from_reader(text).map_err(|error| error.to_string())?;
        let entries = index.manifests().iter().filter_map(entry).collect();
        Ok(Self { entries })
    }
}

fn descriptor(entry: &Entry) -> Result<Descriptor, oci_spec::OciSpecError> {
    let mut annotations = HashMap::from([
        (REPOSITORY.to_owned(), entry.repository.clone()),
        (ADDED.to_owned(), entry.added_ms.to_string()),
    ]);
    if let Some(tag) = &entry.tag {
        annotations.insert(NAME.to_owned(), format!("{}:{tag}", entry.repository));
    }
    DescriptorBuilder::default()
        .media_type(MediaType::from(entry.media_type.as_str()))
        .digest(entry.digest.oci())
        .size(entry.size)
        .annotations(annotations)
        .build()
}

fn entry(descriptor: &Descriptor) -> Option<Entry> {
    let annotations = descriptor.annotations().as_ref()?;
    let repository = annotations.get(REPOSITORY)?.clone();
    let name = annotations.get(NAME);
    let tag = name.and_then(|name| name.rsplit_once(':'));
    Some(Entry {
        digest: Digest::try_from(descriptor.digest()).ok()?,
        size: descriptor.size(),
        media_type: descriptor.media_type().to_string(),
        repository,
        tag: tag.map(|(_, tag)| tag.to_owned()),
        added_ms: annotations.get(ADDED)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8, tag: Option<&str>) -> Entry {
        Entry {
            digest: Digest::of(&[n]),
            size: u64::from(n),
            media_type: "application/vnd.docker.distribution.manifest.v2+json".into(),
            repository: "skep/web".into(),
            tag: tag.map(str::to_owned),
            added_ms: 7,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut index = Index::default();
        index.add(entry(1, Some("a")));
        index.add(entry(2, None));
        let text = index.encode().expect("written");
        assert_eq!(Index::decode(text.as_bytes()), Ok(index));
        assert!(Index::decode(b"{}").is_err());
    }

    #[test]
    fn an_image_that_is_deployed_for_ever_has_few_names() {
        let mut index = Index::default();
        index.add(entry(2, Some("other")));
        for number in 0..100 {
            index.add(entry(1, Some(&format!("t{number:03}"))));
        }
        assert_eq!(index.entries.len(), NAMES_MAX + 1);
        assert!(index.tagged("skep/web", "t099").is_some());
        assert!(index.tagged("skep/web", "t000").is_none());
    }

    #[test]
    fn a_tag_stands_for_one_thing() {
        let mut index = Index::default();
        for new in [
            entry(1, Some("a")),
            entry(2, None),
            entry(2, None),
            entry(3, Some("a")),
        ] {
            index.add(new);
        }
        assert_eq!(index.entries.len(), 2);
        let found = index.tagged("skep/web", "a").map(|entry| entry.digest);
        assert_eq!(found, Some(Digest::of(&[3])));
        assert_eq!(index.tags("skep/web"), Some(vec!["a".to_owned()]));
        assert_eq!(index.tags("skep/other"), None);
    }
}
