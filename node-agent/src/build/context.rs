//! Packing: an app's folder as one tar, without what its `.dockerignore` leaves out.
//!
//! Used for builds, and by the command line for uploads: both send the same files. Never follows
//! a link, and never sends anything but plain files, folders and links.

use std::ffi::OsString;
use std::fs::{self, DirEntry, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use skep_model::manifest::{self, Manifest};
use skep_model::problem::{Code, Problem};

use super::choose::DEFAULT_DOCKERFILE;
use super::dockerignore::{self, Ignored};
use super::folder;

/// Most files, links and folders in one context.
pub const MAX_ENTRIES: usize = 200_000;
/// Most bytes of files in one context.
pub const MAX_BYTES: u64 = 2 << 30;

/// What was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Plain files and links.
    pub files: usize,
    /// Bytes of the files' content.
    pub bytes: u64,
}

/// Writes the folder `dir` to `out` as a tar. The Dockerfile, `.dockerignore` and `skep.toml` are
/// always in it. Entries come sorted by name and belong to root: the same folder gives the same
/// bytes. Modes and times (whole seconds) are the files'; Docker's cache does not look at times,
/// but web servers make validators of them. Blocks on the disk.
///
/// # Errors
/// `dir` is no folder, `.dockerignore` cannot be read, a limit is exceeded, a file cannot be read
/// or changed meanwhile, or `out` cannot be written.
pub fn pack(dir: &Path, out: impl Write) -> Result<Summary, Problem> {
    let named = manifest_dockerfile(dir);
    pack_with(
        dir,
        (named.as_deref().unwrap_or(DEFAULT_DOCKERFILE), ""),
        out,
    )
}

/// The same, with the Dockerfile at a path that the caller knows, and a folder `kept` that is sent
/// whatever `.dockerignore` says.
pub(super) fn pack_with(
    dir: &Path,
    (dockerfile, kept): (&str, &str),
    out: impl Write,
) -> Result<Summary, Problem> {
    if !dir.is_dir() {
        return Err(Problem::new(
            Code::SourceFailed,
            format!("{} is not a folder", dir.display()),
        ));
    }
    let mut packer = Packer {
        root: dir,
        ignored: read_ignored(dir)?,
        kept: PathBuf::from(kept),
        always: [
            dockerignore::FILE,
            manifest::FILE,
            DEFAULT_DOCKERFILE,
            dockerfile,
        ]
        .map(|path| PathBuf::from(path.trim_start_matches("./"))),
        tar: tar::Builder::new(out),
        pending: Vec::new(),
        entries: 0,
        summary: Summary::default(),
    };
    packer.folder(Path::new(""))?;
    packer.tar.finish().map_err(unwritable)?;
    Ok(packer.summary)
}

/// The Dockerfile that `skep.toml` names. A file that does not parse is reported where it counts.
fn manifest_dockerfile(dir: &Path) -> Option<String> {
    let mut text = String::new();
    let file = folder::open(dir, manifest::FILE)?.ok()?;
    file.take(manifest::MAX_BYTES + 1)
        .read_to_string(&mut text)
        .ok()?;
    Manifest::parse(&text).ok()?.dockerfile
}

fn read_ignored(dir: &Path) -> Result<Ignored, Problem> {
    let Some(opened) = folder::open(dir, dockerignore::FILE) else {
        return Ok(Ignored::nothing());
    };
    let mut text = String::new();
    opened
        .and_then(|file| {
            file.take(dockerignore::MAX_BYTES + 1)
                .read_to_string(&mut text)
        })
        .map_err(|error| unreadable(Path::new(dockerignore::FILE), &error))?;
    if text.len() as u64 > dockerignore::MAX_BYTES {
        let limit = dockerignore::MAX_BYTES;
        return Err(
            Problem::new(Code::TooLarge, format!("larger than {limit} bytes"))
                .at(dockerignore::FILE),
        );
    }
    Ignored::parse(&text)
}

struct Packer<'a, W: Write> {
    root: &'a Path,
    ignored: Ignored,
    /// Sent whatever `.dockerignore` says.
    always: [PathBuf; 4],
    /// The same, with all that is in it; empty: none.
    kept: PathBuf,
    tar: tar::Builder<W>,
    /// Ignored folders that we are in: sent only when something inside of them is.
    pending: Vec<(PathBuf, Metadata)>,
    entries: usize,
    summary: Summary,
}

impl<W: Write> Packer<'_, W> {
    fn is_kept(&self, path: &Path) -> bool {
        !self.kept.as_os_str().is_empty() && path.starts_with(&self.kept)
    }

    fn folder(&mut self, path: &Path) -> Result<(), Problem> {
        let full = self.root.join(path);
        let read = |error: io::Error| unreadable(path, &error);
        let mut entries: Vec<(OsString, DirEntry)> = fs::read_dir(full)
            .map_err(read)?
            .map(|entry| entry.map(|entry| (entry.file_name(), entry)))
            .collect::<Result<_, _>>()
            .map_err(read)?;
        entries.sort_by(|left, right| left.0.cmp(&right.0));
        for (name, entry) in entries {
            let path = path.join(name);
            // Of the link, where it is one.
            let metadata = entry
                .metadata()
                .map_err(|error| unreadable(&path, &error))?;
            self.entry(path, metadata)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, metadata: Metadata) -> Result<(), Problem> {
        let is_dir = metadata.is_dir();
        let is_ignored = self.ignored.is_ignored(&path, is_dir);
        if is_dir {
            let may_hold_some = !is_ignored
                || self.ignored.has_exceptions()
                || self.always.iter().any(|kept| kept.starts_with(&path))
                || self.is_kept(&path);
            if !may_hold_some {
                return Ok(());
            }
            let depth = self.pending.len();
            self.pending.push((path.clone(), metadata));
            if !is_ignored {
                self.send_pending()?;
            }
            self.folder(&path)?;
            self.pending.truncate(depth);
            return Ok(());
        }
        if is_ignored && !self.always.contains(&path) && !self.is_kept(&path) {
            return Ok(());
        }
        self.send_pending()?;
        if metadata.is_symlink() {
            self.link(&path, &metadata)
        } else if metadata.is_file() {
            self.file(&path, &metadata)
        } else {
            // Sockets, pipes and devices have no content to send.
            Ok(())
        }
    }

    fn send_pending(&mut self) -> Result<(), Problem> {
        for (path, metadata) in std::mem::take(&mut self.pending) {
            self.count()?;
            let mut header = header(&metadata, tar::EntryType::Directory);
            self.tar
                .append_data(&mut header, path.join(""), io::empty())
                .map_err(unwritable)?;
        }
        Ok(())
    }

    fn link(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Problem> {
        self.count()?;
        let target =
            fs::read_link(self.root.join(path)).map_err(|error| unreadable(path, &error))?;
        let mut header = header(metadata, tar::EntryType::Symlink);
        self.tar
            .append_link(&mut header, path, target)
            .map_err(unwritable)?;
        self.summary.files += 1;
        Ok(())
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Problem> {
        self.count()?;
        let size = metadata.len();
        self.summary.bytes = self.summary.bytes.saturating_add(size);
        if self.summary.bytes > MAX_BYTES {
            return Err(too_large(format!(
                "more than {} MiB of files",
                MAX_BYTES >> 20
            )));
        }
        let file = File::open(self.root.join(path)).map_err(|error| unreadable(path, &error))?;
        let opened = file.metadata().map_err(|error| unreadable(path, &error))?;
        // Replaced by a link to somewhere else since it was listed?
        if (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
            return Err(changed(path));
        }
        let mut header = header(metadata, tar::EntryType::Regular);
        header.set_size(size);
        let mut content = file.take(size);
        let written = self.tar.append_data(&mut header, path, &mut content);
        // Checked first: a short file also makes the archive unusable.
        if written.is_ok() && content.limit() > 0 {
            return Err(changed(path));
        }
        written.map_err(unwritable)?;
        self.summary.files += 1;
        Ok(())
    }

    fn count(&mut self) -> Result<(), Problem> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(too_large(format!("more than {MAX_ENTRIES} files")));
        }
        Ok(())
    }
}

fn header(metadata: &Metadata, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let shown = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    Problem::new(
        Code::SourceFailed,
        format!("cannot read {}: {error}", shown.display()),
    )
    .hint("make it readable, or list it in .dockerignore")
}

fn changed(path: &Path) -> Problem {
    Problem::new(
        Code::SourceFailed,
        format!("{} changed while it was read", path.display()),
    )
    .hint("try again")
}

fn too_large(what: String) -> Problem {
    Problem::new(Code::TooLarge, format!("the app's folder has {what}"))
        .hint("list what the build does not need in .dockerignore")
}

fn unwritable(error: io::Error) -> Problem {
    Problem::new(
        Code::Unavailable,
        format!("the app's folder could not be sent: {error}"),
    )
}

#[cfg(test)]
mod tests;
