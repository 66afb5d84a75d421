//! A tar from a container on its way into this machine's files. Whoever runs the container may have
//! made it up: nothing is written outside of the one place that was named, no link is followed, and
//! nothing but files, folders and links is made.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Buf as _, Bytes};
use skep_model::problem::{Code, Problem};
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc;

/// Bits of a file's mode that are taken over: nobody is made anybody else.
const MODE: u32 = 0o777;
/// Refused entries that are named.
const SKIPPED_SHOWN: usize = 5;

/// What was unpacked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Files, folders and links.
    pub(crate) entries: u64,
    /// Content, in bytes.
    pub(crate) bytes: u64,
    /// Devices, sockets and the like that were left out: the first few.
    pub(crate) skipped: Vec<String>,
}

/// Where `to`, as it was typed, puts what is called `name` in the tar: into a folder that exists under
/// its own name, else under the new one.
pub(crate) fn place(to: &Path, name: Option<&str>) -> PathBuf {
    match name {
        Some(name) if to.is_dir() => to.join(name),
        _ => to.to_owned(),
    }
}

/// Unpacks to `base` what is below `name` in the tar; none: all of it. Blocks.
///
/// # Errors
/// Not a tar, an entry that is refused, or the disk.
pub(crate) fn unpack(tar: impl Read, name: Option<&str>, base: &Path) -> Result<Summary, Problem> {
    let mut unpacking = Unpacking {
        name: name.map(OsStr::new),
        base,
        folders: Vec::new(),
        summary: Summary::default(),
    };
    let mut archive = Archive::new(tar);
    for entry in archive.entries().map_err(|error| damaged(&error))? {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        unpacking.entry(&mut entry)?;
    }
    unpacking.finish()
}

struct Unpacking<'a> {
    name: Option<&'a OsStr>,
    base: &'a Path,
    /// Made here, with the modes that they get once nothing more is written below.
    folders: Vec<(PathBuf, u32)>,
    summary: Summary,
}

impl Unpacking<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Problem> {
        let path = entry.path().map_err(|error| damaged(&error))?.into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let to = self.resolve(&path)?;
        let failed = |error: io::Error| unwritable(&to, &error);
        let mode = entry.header().mode().unwrap_or(0o644) & MODE;
        match kind {
            EntryType::Directory => {
                self.ensure_folders(&to)?;
                self.folders.push((to, mode));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.make_room(&to)?;
                self.summary.bytes += write(entry, &to, mode).map_err(failed)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(|error| damaged(&error))?;
                self.make_room(&to)?;
                symlink(target.unwrap_or_default(), &to).map_err(failed)?;
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(|error| damaged(&error))?;
                let from = self.resolve(&target.unwrap_or_default())?;
                self.ensure_parents(&from)?;
                if !fs::symlink_metadata(&from).is_ok_and(|found| found.is_file()) {
                    return Err(refused(&path, "is another name of what is no file"));
                }
                self.make_room(&to)?;
                fs::hard_link(&from, &to).map_err(failed)?;
            }
            _ => {
                if self.summary.skipped.len() < SKIPPED_SHOWN {
                    let name = path.display().to_string();
                    self.summary.skipped.push(name);
                }
                return Ok(());
            }
        }
        self.summary.entries += 1;
        Ok(())
    }

    /// Where a path of the tar is here.
    fn resolve(&self, path: &Path) -> Result<PathBuf, Problem> {
        let leaves = || refused(path, "leaves the folder that is copied");
        let mut names = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => names.push(name),
                Component::CurDir => {}
                // Of the root folder.
                Component::RootDir if self.name.is_none() => {}
                _ => return Err(leaves()),
            }
        }
        let below = match (self.name, names.split_first()) {
            (None, _) => &names[..],
            (Some(wanted), Some((first, rest))) if *first == wanted => rest,
            _ => return Err(leaves()),
        };
        let mut to = self.base.to_owned();
        to.extend(below);
        Ok(to)
    }

    /// Makes the way to `to` out of folders that are none but folders, and its place free.
    fn make_room(&self, to: &Path) -> Result<(), Problem> {
        self.ensure_parents(to)?;
        match fs::symlink_metadata(to) {
            Ok(found) if found.is_dir() => {
                let text = format!("`{}` is a folder here, and a file there", to.display());
                Err(Problem::new(Code::Conflict, text))
            }
            // Removed and made anew: what is written never goes through a link.
            Ok(_) => fs::remove_file(to).map_err(|error| unwritable(to, &error)),
            Err(_) => Ok(()),
        }
    }

    fn ensure_parents(&self, to: &Path) -> Result<(), Problem> {
        match to.parent() {
            // Above the base everything is the user's own.
            Some(parent) if to != self.base => self.ensure_folders(parent),
            _ => Ok(()),
        }
    }

    /// Makes a folder at or below the base, and those between.
    fn ensure_folders(&self, folder: &Path) -> Result<(), Problem> {
        let below = folder.strip_prefix(self.base).unwrap_or(Path::new(""));
        let mut at = self.base.to_owned();
        let names = std::iter::once(None).chain(below.components().map(Some));
        for name in names {
            if let Some(name) = name {
                at.push(name);
            }
            match fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() => {}
                // The base itself may be what the user has made a link to a folder.
                Ok(found) if found.is_symlink() && name.is_none() && self.is_own(&at) => {}
                Ok(_) => return Err(refused(&at, "is no folder here, and something is below it")),
                Err(_) => fs::create_dir(&at).map_err(|error| unwritable(&at, &error))?,
            }
        }
        Ok(())
    }

    /// Whether the base was there before anything was unpacked: then nobody but the user made it.
    fn is_own(&self, at: &Path) -> bool {
        self.summary.entries == 0 && at.is_dir() && self.name.is_none()
    }

    fn finish(mut self) -> Result<Summary, Problem> {
        // The innermost first: an outer one may not be entered any more.
        while let Some((folder, mode)) = self.folders.pop() {
            // Something else may have taken its place; a mode would go through a link.
            if fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir()) {
                let mode = Permissions::from_mode(mode | 0o700);
                fs::set_permissions(&folder, mode).map_err(|error| unwritable(&folder, &error))?;
            }
        }
        Ok(self.summary)
    }
}

fn write(entry: &mut Entry<'_, impl Read>, to: &Path, mode: u32) -> io::Result<u64> {
    let mtime = entry.header().mtime().ok();
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode | 0o200)
        .open(to)?;
    let bytes = io::copy(entry, &mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Some(time) = mtime.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s))) {
        // A time that the file system does not have is none that anybody needs.
        let _ = file.set_modified(time);
    }
    Ok(bytes)
}

fn damaged(error: &io::Error) -> Problem {
    let text = format!("what came from the container is damaged: {error}");
    Problem::new(Code::Runtime, text)
}

fn refused(path: &Path, why: &str) -> Problem {
    let shown = path.display().to_string();
    let text = format!("`{}` {why}", shown.escape_debug());
    Problem::new(Code::Forbidden, text).hint(
        "what came before it is there; the rest is not. `-` as the target writes the tar itself",
    )
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    let text = format!("`{}` cannot be written: {error}", path.display());
    Problem::new(Code::Invalid, text)
}

/// Chunks as one stream to read, which blocks. Ends only where that is said.
pub(crate) struct Chunks {
    /// What comes; none: it is the end.
    pub(crate) from: mpsc::UnboundedReceiver<Option<Bytes>>,
    /// How much of it was read.
    pub(crate) read: mpsc::UnboundedSender<usize>,
    /// What is left of the chunk at hand.
    pub(crate) left: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.from.blocking_recv() {
                Some(Some(chunk)) => {
                    // Granted again as soon as it is being read.
                    let _ = self.read.send(chunk.len());
                    self.left = chunk;
                }
                Some(None) => return Ok(0),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let bytes = buffer.len().min(self.left.len());
        self.left.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
