//! Storages that several nodes have: folders that something else mounts on each of them. A volume there is at
//! `skep-volumes/SERVICE/NAME`. Nothing is begun on a folder that is not that storage: where the mount is missing there is an
//! empty folder of the node's own disk, and an app would begin anew in it.
//!
//! What a storage is says a marker in it, with its name. It is made once, and only where the folder is a mount point, so that
//! a folder without a mount never gets one; a device number alone would not do, as a folder within a mount has its mount's,
//! and a bind has its source's.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use skep_identity::random;
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use skep_model::storage::Volume;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::volumes;
use super::{copies, refused};

/// Says whose the folder is, in the top of a storage.
const MARKER: &str = ".skep-storage";
/// Has the volumes, below the top of a storage.
const FOLDER: &str = "skep-volumes";
/// What this process has mounted.
const MOUNTS: &str = "/proc/self/mountinfo";
/// Longest that a storage may take to answer: one whose servers are away blocks whoever looks, for good.
const PATIENCE: Duration = Duration::from_secs(20);

/// Storages by name, and where they are.
pub(crate) type Storages = BTreeMap<String, PathBuf>;

/// Looks which storages are there, one look at a time however long that takes.
#[derive(Debug, Default)]
pub(crate) struct Look {
    under_way: Option<JoinHandle<Vec<String>>>,
}

impl Look {
    /// Names of those that are there, in order. One that does not answer is not, and none is while a look at it goes on.
    pub(crate) async fn there(&mut self, storages: &Storages) -> Vec<String> {
        if storages.is_empty() {
            return Vec::new();
        }
        let look = self.under_way.get_or_insert_with(|| {
            let storages = storages.clone();
            spawn_blocking(move || there(&storages))
        });
        match timeout(PATIENCE, look).await {
            Ok(names) => {
                self.under_way = None;
                names.unwrap_or_default()
            }
            Err(_) => {
                tracing::warn!("shared storage does not answer: it is not told of");
                Vec::new()
            }
        }
    }
}

fn there(storages: &Storages) -> Vec<String> {
    let mut names = Vec::new();
    for (name, folder) in storages {
        match admit(name, folder) {
            Ok(()) => names.push(name.clone()),
            Err(problem) => tracing::warn!(storage = name, %problem, "shared storage is not there"),
        }
    }
    names
}

/// The folder of a volume, made where it is not there yet.
///
/// # Errors
/// The node does not have the storage, or it is not mounted, or does not answer; says which.
pub(super) async fn ensure(
    storages: &Storages,
    service: ServiceId,
    volume: &Volume,
) -> Result<PathBuf, Problem> {
    let name = volume.storage.clone().unwrap_or_default();
    let Some(folder) = storages.get(&name).cloned() else {
        let text = format!("this node does not have the storage `{name}`");
        return Err(Problem::new(Code::Unavailable, text).hint(format!(
            "its operator can start the agent with `--shared-storage {name}=DIR`"
        )));
    };
    let (shown, volume) = (folder.clone(), volume.clone());
    let runtime = tokio::runtime::Handle::current();
    let made = spawn_blocking(move || {
        admit(&name, &folder)?;
        // An operator's program knows the filesystem of this node, not the one that others have as well.
        let (top, plain) = (folder.join(FOLDER), copies::of(None));
        runtime.block_on(volumes::ensure_below(&top, service, &volume, &*plain))
    });
    match timeout(PATIENCE, made).await {
        Ok(Ok(made)) => made.map(|(folder, _)| folder),
        Ok(Err(error)) => Err(Problem::new(Code::Internal, error.to_string())),
        Err(_) => {
            let text = format!("the storage in {} does not answer", shown.display());
            Err(Problem::new(Code::Unavailable, text).hint("are its servers there?"))
        }
    }
}

/// Whether this folder is the storage of this name: its marker says so, which is made at the first use. Blocks.
///
/// # Errors
/// It is not mounted, or is another one.
fn admit(name: &str, folder: &Path) -> Result<(), Problem> {
    let marker = folder.join(MARKER);
    match fs::read_to_string(&marker) {
        Ok(text) if text.trim() == name => return Ok(()),
        Ok(text) => {
            let said: String = text.trim().chars().take(64).collect();
            let text = format!(
                "the storage in {} is `{}`, not `{name}`",
                folder.display(),
                said.escape_debug()
            );
            return Err(Problem::new(Code::Conflict, text)
                .hint("one name for one storage, the same on all nodes that have it"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused("the storage's marker", &marker, &error)),
    }
    let mounts = fs::read_to_string(MOUNTS)
        .map_err(|error| refused("the list of mounts", Path::new(MOUNTS), &error))?;
    let real = fs::canonicalize(folder)
        .map_err(|error| refused("the storage", folder, &error).hint("mount it there"))?;
    if !is_mount_point(&mounts, &real) {
        let text = format!(
            "the storage `{name}` is not mounted in {}",
            folder.display()
        );
        return Err(Problem::new(Code::Unavailable, text).hint(format!(
            "mount it there; where this is a folder within a mount, say once that it is that storage: \
             `echo {name} > {}`",
            marker.display()
        )));
    }
    mark(name, &marker)
}

/// Two nodes may come to that at once; it is there whole, or not at all.
fn mark(name: &str, marker: &Path) -> Result<(), Problem> {
    let failed = |error: io::Error| {
        refused("the storage's marker cannot be made:", marker, &error)
            .hint("the agent has to be able to write there as root")
    };
    let new = marker.with_extension(format!("new-{:x}", random::new_id()));
    let mut file = fs::File::create(&new).map_err(failed)?;
    writeln!(file, "{name}").map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, marker).map_err(failed)?;
    tracing::info!(storage = name, marker = %marker.display(), "marked a shared storage");
    Ok(())
}

/// Whether something is mounted at this very folder, as the kernel lists it: proc_pid_mountinfo(5), the fifth field, with
/// blanks and backslashes in octal.
fn is_mount_point(mounts: &str, folder: &Path) -> bool {
    let wanted = folder.to_string_lossy();
    mounts.lines().any(|line| {
        let at = line.split(' ').nth(4);
        at.is_some_and(|at| unescaped(at) == *wanted)
    })
}

fn unescaped(text: &str) -> String {
    let mut plain = text.to_owned();
    for (escaped, is) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        plain = plain.replace(escaped, is);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_and_folders_within_them_are_none() {
        let mounts = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 22 0:50 / /mnt/pve/ceph rw,relatime shared:40 - ceph 10.0.0.1:/ rw
91 22 8:1 /srv/x /mnt/with\\040blank rw - ext4 /dev/sda1 rw
";
        let is = |path: &str| is_mount_point(mounts, Path::new(path));
        assert!(is("/mnt/pve/ceph") && is("/mnt/with blank"));
        assert!(!is("/mnt/pve/ceph/skep") && !is("/mnt/pve") && !is("/srv/x"));
    }

    #[test]
    fn a_folder_without_a_mount_is_no_storage_and_gets_no_marker() {
        let folder = tempfile::tempdir().expect("a folder");
        let problem = admit("ceph", folder.path()).expect_err("nothing is mounted");
        assert_eq!(problem.code, Code::Unavailable);
        assert!(problem.message.contains("not mounted"), "{problem}");
        assert!(!folder.path().join(MARKER).exists());
        let gone = folder.path().join("gone");
        assert!(admit("ceph", &gone).is_err());
        // What an operator has said holds; another storage's does not.
        mark("ceph", &folder.path().join(MARKER)).expect("marked");
        admit("ceph", folder.path()).expect("it is that one");
        let problem = admit("nfs", folder.path()).expect_err("another one");
        assert!(
            problem.message.contains("is `ceph`, not `nfs`"),
            "{problem}"
        );
    }

    #[tokio::test]
    async fn a_volume_is_the_same_for_all_that_have_its_storage() {
        let folder = tempfile::tempdir().expect("a folder");
        mark("ceph", &folder.path().join(MARKER)).expect("marked");
        let storages = Storages::from([("ceph".to_owned(), folder.path().to_owned())]);
        let volume = |storage: &str| Volume {
            name: "data".into(),
            path: "/data".into(),
            owner: None,
            size_bytes: 0,
            read_only: false,
            storage: Some(storage.to_owned()),
        };
        let service = ServiceId::from_u128(7);
        let made = ensure(&storages, service, &volume("ceph"))
            .await
            .expect("made");
        let wanted = folder
            .path()
            .join(FOLDER)
            .join(service.to_string())
            .join("data");
        assert_eq!(made, wanted);
        fs::write(made.join("kept"), "x").expect("written");
        let again = ensure(&storages, service, &volume("ceph"))
            .await
            .expect("found");
        assert!(again.join("kept").exists());
        let problem = ensure(&storages, service, &volume("nfs"))
            .await
            .expect_err("not here");
        assert!(
            problem
                .hint
                .is_some_and(|hint| hint.contains("--shared-storage nfs=DIR"))
        );
        // The mount is gone, and with it the marker.
        fs::remove_file(folder.path().join(MARKER)).expect("removed");
        assert!(ensure(&storages, service, &volume("ceph")).await.is_err());
        let mut look = Look::default();
        assert!(look.there(&storages).await.is_empty());
        mark("ceph", &folder.path().join(MARKER)).expect("marked");
        assert_eq!(look.there(&storages).await, ["ceph"]);
    }
}
