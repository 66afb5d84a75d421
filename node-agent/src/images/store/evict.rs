//! What is removed from a store that has grown over its budget. Pure: the same decision serves the
//! agent's own blobs and Docker's images.

use std::collections::{BTreeMap, BTreeSet};

use super::super::digest::Digest;

/// Releases of a service whose images stay for a rollback.
pub(crate) const RELEASES_KEPT: usize = 3;
/// A service that nobody has deployed or started for so long holds no images any more, in ms.
pub(crate) const FORGOTTEN_MS: u64 = 30 * 24 * 3_600_000;
/// A blob that no manifest names may be part of a push under way, in ms.
pub(crate) const ORPHAN_MS: u64 = 3_600_000;

/// One thing on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    /// Its name.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// When it was read or written last, ms since the epoch.
    pub(crate) used_ms: u64,
}

/// One image, made of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its name.
    pub(crate) digest: Digest,
    /// All it is made of, itself among them where it is a blob.
    pub(crate) needs: Vec<Digest>,
    /// Whose it is: of each repository the newest stay.
    pub(crate) repository: String,
    /// When it came, ms since the epoch.
    pub(crate) added_ms: u64,
}

/// What must hold afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes that may be used.
    pub(crate) budget_bytes: u64,
    /// Bytes that are about to come.
    pub(crate) incoming_bytes: u64,
    /// Now, ms since the epoch.
    pub(crate) now_ms: u64,
}

/// What goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// These images.
    pub(crate) images: Vec<Digest>,
    /// These blobs.
    pub(crate) blobs: Vec<Digest>,
    /// Bytes by which the budget is still exceeded: all that is left is in use or kept for rollbacks.
    pub(crate) short_bytes: u64,
}

/// Removes nothing that is `in_use`, nor the newest [`RELEASES_KEPT`] images of a repository unless
/// all of it has been idle for [`FORGOTTEN_MS`]. First what no image needs, then what was used longest
/// ago, and only as much as must be.
pub(crate) fn plan(
    blobs: &[Blob],
    images: &[Image],
    in_use: &BTreeSet<Digest>,
    limits: Limits,
) -> Plan {
    let sizes: BTreeMap<Digest, &Blob> = blobs.iter().map(|blob| (blob.digest, blob)).collect();
    let mut needed: BTreeMap<Digest, u32> = BTreeMap::new();
    for digest in images.iter().flat_map(|image| &image.needs) {
        *needed.entry(*digest).or_default() += 1;
    }
    let mut plan = Plan::default();
    let used: u64 = blobs.iter().map(|blob| blob.size).sum();
    let mut excess = (used + limits.incoming_bytes).saturating_sub(limits.budget_bytes);

    for blob in blobs {
        let is_old = limits.now_ms.saturating_sub(blob.used_ms) >= ORPHAN_MS;
        if is_old && !needed.contains_key(&blob.digest) && !in_use.contains(&blob.digest) {
            excess = excess.saturating_sub(blob.size);
            plan.blobs.push(blob.digest);
        }
    }
    let kept = kept(images, &sizes, limits.now_ms);
    let mut free: Vec<&Image> = images
        .iter()
        .filter(|image| !in_use.contains(&image.digest) && !kept.contains(&image.digest))
        .collect();
    free.sort_by_key(|image| (last_use(image, &sizes), image.digest));
    for image in free {
        if excess == 0 {
            break;
        }
        plan.images.push(image.digest);
        for digest in &image.needs {
            let left = needed.entry(*digest).or_default();
            *left = left.saturating_sub(1);
            if *left > 0 || in_use.contains(digest) {
                continue;
            }
            if let Some(blob) = sizes.get(digest) {
                excess = excess.saturating_sub(blob.size);
                plan.blobs.push(*digest);
            }
        }
    }
    plan.short_bytes = excess;
    plan
}

/// An image was used when any part of it was, and not before it came.
fn last_use(image: &Image, sizes: &BTreeMap<Digest, &Blob>) -> u64 {
    let parts = image.needs.iter().filter_map(|digest| sizes.get(digest));
    // Layers are shared: only the image's own blob says when this image was used.
    let own = sizes.get(&image.digest).map(|blob| blob.used_ms);
    own.or_else(|| parts.map(|blob| blob.used_ms).max())
        .unwrap_or(0)
        .max(image.added_ms)
}

/// The newest of each repository that anybody still uses.
fn kept(images: &[Image], sizes: &BTreeMap<Digest, &Blob>, now_ms: u64) -> BTreeSet<Digest> {
    let mut repositories: BTreeMap<&str, Vec<&Image>> = BTreeMap::new();
    for image in images {
        repositories
            .entry(&image.repository)
            .or_default()
            .push(image);
    }
    let mut kept = BTreeSet::new();
    for mut images in repositories.into_values() {
        let newest_use = images.iter().map(|image| last_use(image, sizes)).max();
        if newest_use.is_none_or(|used| now_ms.saturating_sub(used) >= FORGOTTEN_MS) {
            continue;
        }
        images.sort_by_key(|image| (std::cmp::Reverse(image.added_ms), image.digest));
        kept.extend(images.iter().take(RELEASES_KEPT).map(|image| image.digest));
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 3_600_000;
    const NOW: u64 = 1_000 * DAY;

    fn digest(n: u16) -> Digest {
        Digest::of(&n.to_be_bytes())
    }

    /// Image `n` of a repository: its manifest and a layer of its own.
    fn world(ages: &[(u16, &str, u64)]) -> (Vec<Blob>, Vec<Image>) {
        let (mut blobs, mut images) = (Vec::new(), Vec::new());
        for (n, repository, days) in ages {
            let (manifest, layer) = (digest(*n), digest(1_000 + n));
            let used_ms = NOW - days * DAY;
            for (digest, size) in [(manifest, 1), (layer, 99)] {
                blobs.push(Blob {
                    digest,
                    size,
                    used_ms,
                });
            }
            images.push(Image {
                digest: manifest,
                needs: vec![manifest, layer],
                repository: (*repository).to_owned(),
                added_ms: used_ms,
            });
        }
        (blobs, images)
    }

    fn limits(budget_bytes: u64) -> Limits {
        Limits {
            budget_bytes,
            incoming_bytes: 0,
            now_ms: NOW,
        }
    }

    #[test]
    fn nothing_goes_while_there_is_room() {
        let (blobs, images) = world(&[(1, "a", 9), (2, "a", 8)]);
        assert_eq!(
            plan(&blobs, &images, &BTreeSet::new(), limits(200)),
            Plan::default()
        );
        let more = Limits {
            incoming_bytes: 1,
            ..limits(200)
        };
        assert_eq!(plan(&blobs, &images, &BTreeSet::new(), more).short_bytes, 1);
    }

    #[test]
    fn the_oldest_goes_first_and_the_newest_releases_stay() {
        let (blobs, images) = world(&[
            (1, "a", 5),
            (2, "a", 4),
            (3, "a", 3),
            (4, "a", 2),
            (5, "a", 1),
        ]);
        let gone = plan(&blobs, &images, &BTreeSet::new(), limits(400));
        assert_eq!(
            (gone.images, gone.blobs.len(), gone.short_bytes),
            (vec![digest(1)], 2, 0)
        );
        let gone = plan(&blobs, &images, &BTreeSet::new(), limits(0));
        assert_eq!(gone.images, [digest(1), digest(2)]);
        assert_eq!(
            gone.short_bytes, 300,
            "the last three stay, whatever the budget"
        );
    }

    #[test]
    fn what_is_in_use_stays_however_old() {
        let (blobs, images) = world(&[(1, "a", 400), (2, "b", 399)]);
        let in_use = BTreeSet::from([digest(1)]);
        let gone = plan(&blobs, &images, &in_use, limits(0));
        assert_eq!(
            gone.images,
            [digest(2)],
            "a service that nobody uses holds nothing"
        );
        assert_eq!(gone.short_bytes, 100);
    }

    #[test]
    fn a_shared_layer_stays_while_anybody_needs_it() {
        let (mut blobs, mut images) = world(&[(1, "a", 90), (2, "b", 1)]);
        let shared = digest(7);
        blobs.push(Blob {
            digest: shared,
            size: 50,
            used_ms: 0,
        });
        images.iter_mut().for_each(|image| image.needs.push(shared));
        let gone = plan(&blobs, &images, &BTreeSet::new(), limits(0));
        assert_eq!(gone.images, [digest(1)]);
        assert!(!gone.blobs.contains(&shared));
    }

    #[test]
    fn what_no_image_needs_goes_once_it_is_old() {
        let orphan = |n, used_ms| Blob {
            digest: digest(n),
            size: 10,
            used_ms,
        };
        let blobs = [orphan(1, NOW - ORPHAN_MS), orphan(2, NOW - ORPHAN_MS + 1)];
        let gone = plan(&blobs, &[], &BTreeSet::new(), limits(1_000));
        assert_eq!(gone.blobs, [digest(1)]);
    }

    proptest! {
        #[test]
        fn never_what_is_needed_and_never_more_than_must_be(
            ages in prop::collection::vec((0_u64..60, 0_u8..4, any::<bool>()), 0..20),
            budget in 0_u64..2_500,
        ) {
            let names = ["a", "b", "c", "d"];
            let ages: Vec<_> = ages.into_iter().enumerate().collect();
            let list: Vec<(u16, &str, u64)> = ages
                .iter()
                .map(|(n, (days, repository, _))| (*n as u16, names[usize::from(*repository)], *days))
                .collect();
            let (blobs, images) = world(&list);
            let in_use: BTreeSet<Digest> = ages
                .iter()
                .filter(|(_, (_, _, used))| *used)
                .map(|(n, _)| digest(*n as u16))
                .collect();
            let gone = plan(&blobs, &images, &in_use, limits(budget));
            prop_assert!(gone.images.iter().all(|image| !in_use.contains(image)));
            let left: u64 = blobs.iter().filter(|b| !gone.blobs.contains(&b.digest)).map(|b| b.size).sum();
            for image in images.iter().filter(|image| !gone.images.contains(&image.digest)) {
                prop_assert!(image.needs.iter().all(|part| !gone.blobs.contains(part)));
            }
            prop_assert_eq!(gone.short_bytes, left.saturating_sub(budget));
            if let Some(last) = gone.images.last() {
                // Without the last one it would not have been enough.
                let last = images.iter().find(|image| image.digest == *last).expect("an image");
                let before = left + last.needs.len() as u64 * 50;
                prop_assert!(before > budget);
            }
            let after: Vec<Blob> = blobs.iter().filter(|b| !gone.blobs.contains(&b.digest)).copied().collect();
            let rest: Vec<Image> = images.iter().filter(|i| !gone.images.contains(&i.digest)).cloned().collect();
            let again = plan(&after, &rest, &in_use, limits(budget));
            // Planning again after the first finds nothing, unless others have moved up into what is kept.
            prop_assert!(again.images.is_empty(), "{:?}", again);
        }
    }
}
