//! Files that only their owner may read: written atomically with mode 0600, refused when anybody
//! else can read them. Every function blocks on the disk: call them off the async workers.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::random;

/// Secrets are keys, certificates and tokens; a larger file is not one of ours.
const SIZE_MAX_BYTES: u64 = 1024 * 1024;
const OTHERS: u32 = 0o077;

/// A private file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "{} can be read by others (mode {mode:04o}); make it private: chmod {wanted:o} {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits to set.
        wanted: u32,
    },
    /// Not a plain file, or far too large to be a secret.
    #[error("{} is not a plain file of at most {SIZE_MAX_BYTES} bytes", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
}

impl Error {
    /// Whether the file was simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// Writes `bytes` to `path` with mode 0600, replacing what was there: after a crash the file holds
/// either the old bytes or the new ones. The folder must exist.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = Temporary::write(path, bytes)?;
    fs::rename(&temporary.path, path).map_err(io_error("replace", path))?;
    sync_folder(path)
}

/// Like [`write_private`], but never replaces: `false` when `path` already exists, whoever made
/// it first, then untouched.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    let temporary = Temporary::write(path, bytes)?;
    match fs::hard_link(&temporary.path, path) {
        Ok(()) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io_error("create", path)(error)),
    }
}

/// Reads a private file; refuses one that its group or others may touch.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let metadata = file.metadata().map_err(io_error("inspect", path))?;
    if !metadata.is_file() || metadata.len() > SIZE_MAX_BYTES {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    refuse_exposed(path, metadata.permissions().mode(), 0o600)?;
    // Sized up front: growing the buffer would leave unerased copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        SIZE_MAX_BYTES.min(metadata.len() + 1) as usize
    ));
    file.take(SIZE_MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    Ok(bytes)
}

/// Makes a folder (and its parents) with mode 0700; refuses an existing one that others may enter.
pub fn ensure_private_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error("create the folder", path))?;
    let metadata = fs::metadata(path).map_err(io_error("inspect", path))?;
    refuse_exposed(path, metadata.permissions().mode(), 0o700)
}

fn refuse_exposed(path: &Path, mode: u32, wanted: u32) -> Result<(), Error> {
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(Error::Exposed {
        path: path.to_owned(),
        mode: mode & 0o7777,
        wanted,
    })
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a rename or link in the folder of `path` survive a power cut.
fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = folder_of(path);
    File::open(folder)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", folder))
}

/// A synced private file beside its destination; removed when it goes out of scope (after a
/// rename there is nothing left to remove).
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn write(destination: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let name = destination.file_name().ok_or_else(|| Error::NotAFile {
            path: destination.to_owned(),
        })?;
        // Random, so that two writers cannot meet in one temporary file.
        let name = format!(".{}.{}.tmp", name.to_string_lossy(), random::hex(8));
        let path = folder_of(destination).join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("create", &path))?;
        let temporary = Self { path };
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(io_error("write", &temporary.path))?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
    }

    #[test]
    fn written_files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("key");
        write_private(&path, b"one").expect("write");
        write_private(&path, b"two").expect("replace");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(&**read_private(&path).expect("read"), b"two");
        assert_eq!(
            fs::read_dir(dir.path()).expect("list").count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn replacing_an_exposed_file_makes_it_private() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("key");
        fs::write(&path, b"old").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        write_private(&path, b"new").expect("replace");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn an_exposed_file_is_refused_with_the_command_that_helps() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("key");
        write_private(&path, b"secret").expect("write");
        for exposed in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).expect("chmod");
            let error = read_private(&path).expect_err("exposed");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn creation_never_replaces() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("key");
        assert!(create_private(&path, b"first").expect("create"));
        assert!(!create_private(&path, b"second").expect("exists"));
        assert_eq!(&**read_private(&path).expect("read"), b"first");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn what_is_no_secret_file_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        assert!(matches!(
            read_private(dir.path()),
            Err(Error::NotAFile { .. })
        ));
        assert!(
            read_private(&dir.path().join("none"))
                .expect_err("missing")
                .is_not_found()
        );
        let huge = dir.path().join("huge");
        write_private(&huge, &vec![0; SIZE_MAX_BYTES as usize + 1]).expect("write");
        assert!(matches!(read_private(&huge), Err(Error::NotAFile { .. })));
    }

    #[test]
    fn private_folders_are_made_and_exposed_ones_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("a/b");
        ensure_private_dir(&path).expect("make");
        assert_eq!(mode(&path), 0o700);
        ensure_private_dir(&path).expect("again");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        let error = ensure_private_dir(&path).expect_err("exposed");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
}
