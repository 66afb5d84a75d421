//! Secrets as files: in memory only, one folder for each container, gone with it.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::mount::{MountFlags, mount};
use skep_model::assignment::Assignment;
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use skep_model::storage::SecretFile;

use super::refused;

/// What `statfs` says of filesystems in memory: tmpfs and ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// Of the tmpfs that the agent mounts where there is none.
const OPTIONS: &CStr = c"mode=0700,size=64m";

/// A private folder in memory, mounted where `folder` is on a disk.
///
/// # Errors
/// It is on a disk and nothing can be mounted, or it is somebody else's.
pub(super) fn ensure_memory(folder: &Path) -> Result<(), Problem> {
    // Two containers that start at once would mount twice.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock();
    let fail = |error: io::Error| refused("the folder of secrets", folder, &error);
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(fail)?;
    if !is_in_memory(folder).map_err(fail)? {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let mounted = mount("tmpfs", folder, "tmpfs", flags, OPTIONS);
        let there = mounted.is_ok() && is_in_memory(folder).map_err(fail)?;
        if !there {
            let why = mounted
                .err()
                .map_or_else(String::new, |why| format!(" ({why})"));
            let text = format!(
                "`{}` is on a disk, and a tmpfs cannot be mounted there{why}: secrets are not written to disks",
                folder.display()
            );
            return Err(Problem::new(Code::Runtime, text).hint(
                "start the agent with `--secrets-dir` within a tmpfs, for example /dev/shm/skep",
            ));
        }
    }
    let found = fs::symlink_metadata(folder).map_err(fail)?;
    let own = fs::metadata("/proc/self").map_err(fail)?.uid();
    if !found.is_dir() || found.uid() != own {
        let text = format!("`{}` belongs to somebody else", folder.display());
        return Err(
            Problem::new(Code::Runtime, text).hint("start the agent with another `--secrets-dir`")
        );
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(fail)
}

pub(super) fn is_in_memory(path: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(path)?.f_type;
    #[allow(clippy::unnecessary_cast, reason = "the width differs by architecture")]
    Ok(IN_MEMORY.contains(&(kind as i64)))
}

/// Where the secrets of one container are.
pub(super) fn folder(secrets: &Path, allocation: AllocationId, attempt: u32) -> PathBuf {
    secrets
        .join(allocation.to_string())
        .join(attempt.to_string())
}

/// Writes the secrets of a container, each a file of its own.
///
/// # Errors
/// A variable is not set, or a file cannot be written.
pub(super) fn write<'a>(
    folder: &Path,
    assignment: &'a Assignment,
) -> Result<Vec<(PathBuf, &'a SecretFile)>, Problem> {
    let mut written = Vec::new();
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(|error| refused("the folder of secrets", folder, &error))?;
    for (number, wanted) in assignment.storage.secrets.iter().enumerate() {
        let name = &wanted.variable;
        let mut all = assignment.environment.iter();
        let Some((_, value)) = all.find(|(variable, _)| variable == name) else {
            let text = format!(
                "the variable `{name}` for the file `{}` is not set",
                wanted.path
            );
            return Err(Problem::new(Code::Invalid, text).hint(format!(
                "`skep env set --secret {name}=...`, or leave the file out"
            )));
        };
        let file = folder.join(number.to_string());
        let done = write_one(&file, value.as_bytes(), wanted);
        done.map_err(|error| refused("the file of a secret", &file, &error))?;
        written.push((file, wanted));
    }
    Ok(written)
}

fn write_one(path: &Path, value: &[u8], wanted: &SecretFile) -> io::Result<()> {
    // Of an earlier try at the same container.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file: File = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(value)?;
    if let Some(owner) = wanted.owner {
        fchown(&file, Some(owner.uid), Some(owner.gid))?;
    }
    file.set_permissions(Permissions::from_mode(wanted.mode.0))
}

/// Removes what belongs to other containers than those that are `left`.
pub(super) fn sweep(of_allocation: &Path, left: &[u32]) -> io::Result<()> {
    for entry in fs::read_dir(of_allocation)? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|text| text.parse().ok());
        if !number.is_some_and(|number: u32| left.contains(&number)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    if left.is_empty() {
        fs::remove_dir(of_allocation)?;
    }
    Ok(())
}
