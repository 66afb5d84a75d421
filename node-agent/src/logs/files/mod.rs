//! Docker's own log files as a spool: the app's container writes them through Docker, which rotates
//! them by size, so that nobody who reads them can ever hold the app up. Read by inode and offset.

mod held;
mod record;
mod tail;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use held::FileId;
pub(crate) use tail::{Position, Step, Tail};
pub(crate) use watch::{Watch, Watcher};

use std::path::{Path, PathBuf};

/// The log files of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spool {
    /// The one that is written to; older ones have `.1`, `.2`... behind their name.
    path: PathBuf,
    /// How many there are at most.
    files_max: usize,
    /// From this size on a file is turned over.
    file_bytes: u64,
}

impl Spool {
    /// The log that Docker writes to `path`, in at most `files_max` files of about `file_bytes`.
    pub(crate) fn new(path: PathBuf, (files_max, file_bytes): (usize, u64)) -> Self {
        Self {
            path,
            files_max: files_max.max(1),
            file_bytes,
        }
    }

    /// The file that is written to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the files are.
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// The file that was turned away `age` turns ago; 0: the one that is written to.
    fn file(&self, age: usize) -> PathBuf {
        if age == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{age}"));
        name.into()
    }

    /// Whether this process may read it: not where Docker runs on another machine, or without root.
    pub(crate) fn is_readable(&self) -> bool {
        std::fs::File::open(&self.path).is_ok()
    }
}
