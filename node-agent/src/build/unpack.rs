//! Unpacking an upload: a gzip-compressed tar that anybody with a token may have made. Never
//! writes outside its folder, and makes nothing but files, folders and links that stay inside.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use skep_model::problem::{Code, Problem};
use tar::EntryType;

use super::context::{MAX_BYTES, MAX_ENTRIES};

/// A tar has a block for each entry, and blocks are padded.
const BLOCK_BYTES: u64 = 512;
const MAX_UNPACKED_BYTES: u64 = MAX_BYTES + 3 * BLOCK_BYTES * MAX_ENTRIES as u64;

/// Unpacks `packed` into the empty folder `into`. Blocks on the disk and on `packed`.
///
/// # Errors
/// Not a gzip-compressed tar, an entry that is refused, or more than the limits allow.
pub(super) fn unpack(packed: impl Read, into: &Path) -> Result<(), Problem> {
    unpack_at_most(MAX_ENTRIES, packed, into)
}

fn unpack_at_most(max_entries: usize, packed: impl Read, into: &Path) -> Result<(), Problem> {
    let limited = Limited {
        inner: GzDecoder::new(packed),
        left: MAX_UNPACKED_BYTES,
    };
    let mut archive = tar::Archive::new(limited);
    archive.set_preserve_permissions(false);
    let mut count = 0;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        count += 1;
        if count > max_entries {
            return Err(too_large(format!("more than {max_entries} files")));
        }
        if is_wanted(&entry)? && !entry.unpack_in(into).map_err(damaged)? {
            return Err(refused(&entry.path_bytes(), "leaves the app's folder"));
        }
    }
    // To the very end: only there gzip tells whether all of it came, unchanged.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(())
}

fn is_wanted<R: Read>(entry: &tar::Entry<'_, R>) -> Result<bool, Problem> {
    let name = entry.path_bytes();
    let path = entry.path().map_err(damaged)?;
    if resolve(Path::new(""), &path).is_none() {
        return Err(refused(&name, "leaves the app's folder"));
    }
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::Directory => Ok(true),
        EntryType::Link => Ok(true),
        EntryType::Symlink => {
            let target = entry.link_name().map_err(damaged)?.unwrap_or_default();
            let parent = path.parent().unwrap_or(Path::new(""));
            if resolve(parent, &target).is_none() {
                let why = format!(
                    "is a link to {}, outside of the app's folder",
                    target.display()
                );
                return Err(refused(&name, &why));
            }
            Ok(true)
        }
        // Remarks that concern all entries.
        EntryType::XGlobalHeader => Ok(false),
        _ => Err(refused(&name, "is neither a file, a folder nor a link")),
    }
}

/// Where `path` leads from `base`, by its text alone; none: out of the folder. (Through other
/// links it may still lead out: whoever writes or reads checks real paths.)
fn resolve(base: &Path, path: &Path) -> Option<PathBuf> {
    let mut place = base.to_owned();
    for part in path.components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            Component::ParentDir if place.pop() => {}
            _ => return None,
        }
    }
    Some(place)
}

struct Limited<R> {
    inner: R,
    left: u64,
}

/// Found again in the error that the tar reader wraps it into.
const OVER_LIMIT: &str = "the upload is over its limit";

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(OVER_LIMIT))?;
        Ok(read)
    }
}

fn damaged(error: io::Error) -> Problem {
    let text = super::folder::chain(&error);
    if text.contains(OVER_LIMIT) {
        return too_large(format!("more than {} MiB of files", MAX_BYTES >> 20));
    }
    Problem::new(
        Code::SourceFailed,
        format!("the upload cannot be unpacked: {text}"),
    )
    .hint("a gzip-compressed tar of the app's folder is expected; upload again")
}

fn refused(name: &[u8], why: &str) -> Problem {
    let name = String::from_utf8_lossy(name);
    Problem::new(
        Code::SourceFailed,
        format!("`{}` {why}", name.escape_debug()),
    )
    .hint("remove it, or list it in .dockerignore")
}

fn too_large(what: String) -> Problem {
    Problem::new(Code::TooLarge, format!("the upload has {what}"))
        .hint("list what the build does not need in .dockerignore")
}

#[cfg(test)]
mod tests;
