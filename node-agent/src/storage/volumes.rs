//! Volumes: `volumes/SERVICE/NAME` in the agent's own folder. They share the fate of the node's
//! identity there: a disk that is not mounted takes both, so a volume is never made anew in silence.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use skep_model::id::ServiceId;
use skep_model::name;
use skep_model::node::MAX_HELD;
use skep_model::problem::Problem;
use skep_model::storage::{HeldVolume, Volume};

use super::refused;

/// Within the agent's folder.
const FOLDER: &str = "volumes";
/// Of a volume that is being made: not a name that a volume can have.
const UNDER_WAY: &str = ".new-";
/// Of a new volume: its owner's, as `/var/lib` folders are.
const MODE: u32 = 0o755;

/// The folder of a volume, and whether it was made just now.
///
/// # Errors
/// It cannot be made; says why.
pub(super) fn ensure(
    data_dir: &Path,
    service: ServiceId,
    volume: &Volume,
) -> Result<(PathBuf, bool), Problem> {
    let parent = data_dir.join(FOLDER).join(service.to_string());
    let folder = parent.join(&volume.name);
    match fs::symlink_metadata(&folder) {
        Ok(found) if found.is_dir() => return Ok((folder, false)),
        Ok(_) => {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(refused("the volume", &folder, &error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused("the volume", &folder, &error)),
    }
    let made = make(&parent, &folder, volume);
    made.map_err(|error| {
        refused("the volume cannot be made:", &folder, &error)
            .hint("the agent needs room there, and to be root where the volume has an owner")
    })?;
    tracing::info!(%service, volume = volume.name, "made a volume");
    Ok((folder, true))
}

/// Its owner is set before it has its name: a volume is there whole, or not at all.
fn make(parent: &Path, folder: &Path, volume: &Volume) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(parent)?;
    let new = parent.join(format!("{UNDER_WAY}{}", volume.name));
    match fs::remove_dir(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(MODE).create(&new)?;
    if let Some(owner) = volume.owner {
        chown(&new, Some(owner.uid), Some(owner.gid))?;
    }
    fs::rename(&new, folder)?;
    fs::File::open(parent)?.sync_all()
}

/// The volumes that are there, in order. Reads the disk; what cannot be read is not there.
pub(crate) fn held(data_dir: &Path) -> Vec<HeldVolume> {
    let mut held = Vec::new();
    for (service, folder) in folders(&data_dir.join(FOLDER)) {
        let Ok(service) = service.parse::<ServiceId>() else {
            continue;
        };
        let names = folders(&folder).map(|(name, _)| name);
        let names = names.filter(|text| name::check("volume", text).is_ok());
        held.extend(names.map(|name| HeldVolume { service, name }));
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

fn folders(within: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(within).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}
