//! Volumes: `volumes/SERVICE/NAME` in the agent's own folder, their snapshots beside them. They share
//! the fate of the node's identity there: a disk that is not mounted takes both, so a volume is never
//! made anew in silence.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use skep_model::id::ServiceId;
use skep_model::name;
use skep_model::node::MAX_HELD;
use skep_model::problem::Problem;
use skep_model::storage::{HeldVolume, Volume};

use super::copies::Copier;
use super::refused;

/// Within the agent's folder.
const FOLDER: &str = "volumes";
/// Within a service's folder: the snapshots of its volumes, by volume.
const SNAPSHOTS: &str = ".snapshots";
/// Of a volume that is being made: not a name that a volume can have.
const UNDER_WAY: &str = ".new-";
/// Of a copy that is not whole yet.
const COPYING: &str = ".copy-";
/// Of what is being deleted.
const GOING: &str = ".gone-";
/// Of a new volume: its owner's, as `/var/lib` folders are.
const MODE: u32 = 0o755;
/// Bytes of a block as the kernel counts them.
const BLOCK: u64 = 512;

/// Where a volume is.
pub(super) fn folder_of(data_dir: &Path, held: &HeldVolume) -> PathBuf {
    let parent = data_dir.join(FOLDER).join(held.service.to_string());
    parent.join(&held.name)
}

/// Where its snapshots are, by name.
pub(super) fn snapshots_of(data_dir: &Path, held: &HeldVolume) -> PathBuf {
    let parent = data_dir.join(FOLDER).join(held.service.to_string());
    parent.join(SNAPSHOTS).join(&held.name)
}

/// Where a copy is made that is to be `folder` once it is whole.
pub(super) fn copying(folder: &Path) -> PathBuf {
    marked(folder, COPYING)
}

/// Where a `folder` goes that is to be deleted.
pub(super) fn going(folder: &Path) -> PathBuf {
    marked(folder, GOING)
}

fn marked(folder: &Path, mark: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!("{mark}{name}"))
}

/// A folder that is root's alone, with all above it.
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// The folder of a volume of this node alone, and whether it was made just now.
///
/// # Errors
/// It cannot be made; says why.
pub(super) async fn ensure(
    data_dir: &Path,
    service: ServiceId,
    volume: &Volume,
    copier: &dyn Copier,
) -> Result<(PathBuf, bool), Problem> {
    ensure_below(&data_dir.join(FOLDER), service, volume, copier).await
}

/// The same, `SERVICE/NAME` below another folder.
///
/// # Errors
/// As [`ensure`].
pub(super) async fn ensure_below(
    top: &Path,
    service: ServiceId,
    volume: &Volume,
    copier: &dyn Copier,
) -> Result<(PathBuf, bool), Problem> {
    let folder = top.join(service.to_string()).join(&volume.name);
    let failed = |error: io::Error| {
        refused("the volume cannot be made:", &folder, &error)
            .hint("the agent needs room there, and to be root where the volume has an owner")
    };
    match fs::symlink_metadata(&folder) {
        Ok(found) if found.is_dir() => {
            if copier.is_whole() && is_empty(&folder) {
                // An end of the agent may have come between the two.
                own(&folder, volume).map_err(failed)?;
            }
            return Ok((folder, false));
        }
        Ok(_) => {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(refused("the volume", &folder, &error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused("the volume", &folder, &error)),
    }
    if let Some(parent) = folder.parent() {
        make_private(parent).map_err(failed)?;
    }
    if copier.is_whole() {
        copier.create(&folder, volume.size_bytes).await?;
        own(&folder, volume).map_err(failed)?;
    } else {
        // Its owner is set before it has its name: a volume is there whole, or not at all.
        let new = marked(&folder, UNDER_WAY);
        match fs::remove_dir(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        copier.create(&new, volume.size_bytes).await?;
        own(&new, volume).map_err(failed)?;
        fs::rename(&new, &folder).map_err(failed)?;
    }
    sync(&folder).map_err(failed)?;
    tracing::info!(%service, volume = volume.name, "made a volume");
    Ok((folder, true))
}

fn own(folder: &Path, volume: &Volume) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(MODE))?;
    match volume.owner {
        Some(owner) => chown(folder, Some(owner.uid), Some(owner.gid)),
        None => Ok(()),
    }
}

/// What was done to the names beside `folder` is on the disk.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    fs::File::open(parent)?.sync_all()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// The volumes that are there, in order. Reads the disk; what cannot be read is not there.
pub(crate) fn held(data_dir: &Path) -> Vec<HeldVolume> {
    let mut held = Vec::new();
    for (service, folder) in services(data_dir) {
        held.extend(named(&folder).map(|name| HeldVolume { service, name }));
    }
    held.sort();
    if held.len() > MAX_HELD {
        tracing::warn!(
            there = held.len(),
            "not all volumes of this node can be told"
        );
        held.truncate(MAX_HELD);
    }
    held
}

/// Names of a volume's snapshots, in order.
pub(super) fn snapshots(data_dir: &Path, held: &HeldVolume) -> Vec<String> {
    let mut names: Vec<String> = named(&snapshots_of(data_dir, held)).collect();
    names.sort();
    names
}

/// What an end of the agent left half made or half deleted.
pub(super) fn leftovers(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (_, folder) in services(data_dir) {
        let snapshots = folders(&folder.join(SNAPSHOTS)).map(|(_, folder)| folder);
        for within in snapshots.chain([folder.clone()]) {
            let left = folders(&within).filter(|(name, _)| {
                let marks = [UNDER_WAY, COPYING, GOING];
                marks.iter().any(|mark| name.starts_with(mark))
            });
            found.extend(left.map(|(_, path)| path));
        }
    }
    found
}

/// Disk that a folder takes, in bytes, and whether the time was enough to see all of it. A file with two
/// names counts twice; what is mounted within does not count.
pub(super) fn size(folder: &Path, until: Instant) -> (u64, bool) {
    let Ok(top) = fs::symlink_metadata(folder) else {
        return (0, true);
    };
    let mut bytes = top.blocks() * BLOCK;
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            if Instant::now() >= until {
                return (bytes, false);
            }
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.dev() != top.dev() {
                continue;
            }
            bytes = bytes.saturating_add(found.blocks() * BLOCK);
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    (bytes, true)
}

fn services(data_dir: &Path) -> impl Iterator<Item = (ServiceId, PathBuf)> + use<> {
    let all = folders(&data_dir.join(FOLDER));
    all.filter_map(|(name, folder)| Some((name.parse().ok()?, folder)))
}

fn named(within: &Path) -> impl Iterator<Item = String> + use<> {
    let names = folders(within).map(|(name, _)| name);
    names.filter(|text| name::check("volume", text).is_ok())
}

fn folders(within: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(within).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}
