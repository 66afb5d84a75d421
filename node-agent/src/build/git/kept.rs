//! Copies of repositories that stay on the node between builds, one for each service and address: a push brings
//! what is new in it, not the repository. Nothing is checked out of one, no build changes another's, and none is ever
//! a reason to fail: what is damaged or has grown too large goes, and is fetched anew.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use skep_identity::secret_file;
use skep_model::id::ServiceId;

use super::super::folder::{blocking, remove};
use crate::images::Digest;

/// Copies on a node: more repositories than are pushed to at a time.
const COPIES_MAX: usize = 16;
/// Of one: with [`COPIES_MAX`] at most 8 GiB. What is larger is fetched for each build.
const BYTES_MAX: u64 = 512 << 20;
/// Each fetch brings one, and git looks into all of them.
const PACKS_MAX: usize = 40;
/// A repository that nobody has built for so long is fetched anew.
const UNUSED_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The copies of a node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Copies {
    folder: PathBuf,
    /// Names of those that a build works with, or that are being removed.
    busy: Arc<Mutex<BTreeSet<String>>>,
}

/// One copy, and nobody else's as long as this lives.
#[derive(Debug)]
pub(in crate::build) struct Kept {
    copies: Copies,
    name: String,
    /// It is not to be trusted any more.
    is_bad: bool,
}

/// A copy that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    unused: Duration,
}

impl Copies {
    /// Those in a folder, which need not be there.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            busy: Arc::default(),
        }
    }

    /// The copy of a repository for a service, or the place for it; none: another build has it at the moment, or
    /// the node has no folder for it.
    pub(super) async fn take(&self, service: ServiceId, url: &str) -> Option<Kept> {
        // A service reads with its own login: it never finds what another one was given. An address may hold a
        // token, which the name of a folder must not.
        let name = Digest::of(format!("{service}\n{url}").as_bytes()).hex();
        if !self.busy.lock().insert(name.clone()) {
            return None;
        }
        let kept = Kept {
            copies: self.clone(),
            name,
            is_bad: false,
        };
        let (folder, path) = (self.folder.clone(), kept.path());
        let made = blocking(move || {
            Ok(secret_file::ensure_private_dir(&folder).is_ok()
                && secret_file::ensure_private_dir(&path).is_ok()
                && used(&path).is_ok())
        });
        made.await.ok()?.then_some(kept)
    }

    /// Removes all that no build works with: the disk has no room for what can be fetched again. Blocks on the disk.
    pub(crate) fn clear(&self) {
        self.remove_free(self.entries().into_iter().map(|one| one.name));
    }

    /// Removes what is more than may stay; `name` is given back. Blocks on the disk.
    fn settle(&self, name: &str, is_bad: bool) {
        let path = self.folder.join(name);
        if is_bad || !is_within(size(&path)) {
            remove(&path);
        }
        self.remove_free(surplus(self.entries()).into_iter());
        self.busy.lock().remove(name);
    }

    fn remove_free(&self, names: impl Iterator<Item = String>) {
        for name in names {
            if self.busy.lock().insert(name.clone()) {
                remove(&self.folder.join(&name));
                self.busy.lock().remove(&name);
            }
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let all = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let entry = |found: fs::DirEntry| {
            let used = found.metadata().ok()?.modified().ok()?;
            Some(Entry {
                name: found.file_name().into_string().ok()?,
                unused: used.elapsed().unwrap_or_default(),
            })
        };
        all.filter_map(entry).collect()
    }
}

impl Kept {
    /// Where it is, or will be.
    pub(super) fn path(&self) -> PathBuf {
        self.copies.folder.join(&self.name)
    }

    /// It goes: something is wrong with it, or with what it was asked for.
    pub(super) fn discard(mut self) {
        self.is_bad = true;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let (copies, name, is_bad) = (
            self.copies.clone(),
            std::mem::take(&mut self.name),
            self.is_bad,
        );
        let settle = move || copies.settle(&name, is_bad);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(settle)),
            Err(_) => settle(),
        }
    }
}

/// Says that it is used now.
fn used(path: &Path) -> std::io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

/// Bytes and packs of a copy.
fn size(path: &Path) -> (u64, usize) {
    let packs = fs::read_dir(path.join("objects/pack"));
    let mut bytes = 0;
    let mut count = 0;
    for file in packs.into_iter().flatten().flatten() {
        bytes += file.metadata().map_or(0, |it| it.len());
        count += usize::from(file.path().extension().is_some_and(|it| it == "pack"));
    }
    (bytes, count)
}

fn is_within((bytes, packs): (u64, usize)) -> bool {
    bytes <= BYTES_MAX && packs <= PACKS_MAX
}

/// Which go: those that were not used for long, and the longest unused of too many.
fn surplus(mut all: Vec<Entry>) -> Vec<String> {
    all.sort_by(|a, b| (a.unused, &a.name).cmp(&(b.unused, &b.name)));
    let numbered = all.into_iter().enumerate();
    let goes = numbered.filter(|(at, one)| *at >= COPIES_MAX || one.unused > UNUSED_MAX);
    goes.map(|(_, one)| one.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_too_much_goes() {
        let entry = |name: &str, hours: u64| Entry {
            name: name.to_owned(),
            unused: Duration::from_secs(hours * 3_600),
        };
        let few = vec![entry("a", 0), entry("b", 7 * 24), entry("c", 7 * 24 + 1)];
        assert_eq!(surplus(few), ["c"]);
        let many: Vec<Entry> = (0..COPIES_MAX as u64 + 2)
            .map(|hours| entry(&format!("{hours}"), hours))
            .rev()
            .collect();
        assert_eq!(surplus(many), ["16", "17"]);
        assert_eq!(surplus(Vec::new()), [""; 0]);
        for (size, stays) in [
            ((0, 0), true),
            ((BYTES_MAX, PACKS_MAX), true),
            ((BYTES_MAX + 1, 1), false),
            ((1, PACKS_MAX + 1), false),
        ] {
            assert_eq!(is_within(size), stays, "{size:?}");
        }
    }

    #[tokio::test]
    async fn one_build_has_a_copy_at_a_time_and_services_share_none() {
        let dir = tempfile::tempdir().expect("folder");
        let copies = Copies::new(dir.path().join("copies"));
        let (a, b) = (ServiceId::from_u128(1), ServiceId::from_u128(2));
        let first = copies.take(a, "u").await.expect("free");
        assert!(copies.take(a, "u").await.is_none());
        let others = [copies.take(b, "u").await, copies.take(a, "v").await];
        let paths = others.map(|it| it.expect("its own").path());
        assert!(paths[0] != first.path() && paths[1] != first.path() && paths[0] != paths[1]);
        let path = first.path();
        let name = first.name.clone();
        assert!(path.is_dir());
        std::mem::forget(first);
        copies.settle(&name, true);
        assert!(!path.exists());
        let again = copies.take(a, "u").await.expect("given back");
        assert_eq!(again.path(), path);
        // What a build works with stays, whatever the disk says.
        let idle = dir.path().join("copies/idle");
        fs::create_dir(&idle).expect("a copy");
        copies.clear();
        assert!(path.exists() && !idle.exists());
    }
}
