//! The wall clock of one process, moved while it runs: libfaketime, told by a file. Its monotonic
//! clock goes on as it is, as with a step of a real clock.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where Debian keeps it; the second is the one for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const FOLDERS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// The clock of a process that is not started yet, or runs.
#[derive(Debug, Clone)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A right clock, told by this file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(file: PathBuf) -> Result<Self> {
        let clock = Self { file };
        clock.step(0)?;
        Ok(clock)
    }

    /// What a process has to have in its environment to look at this clock.
    ///
    /// # Errors
    /// libfaketime is not installed.
    pub fn environment(&self) -> Result<[(&'static str, OsString); 5]> {
        let library = FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(LIBRARY))
            .find(|path| path.is_file());
        let library = library.context("no libfaketime: `make setup-tests` installs it")?;
        Ok([
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
            // A step is seen up to a second late; without this, 10.
            ("FAKETIME_CACHE_DURATION", "1".into()),
            // The times of files are the machine's.
            ("NO_FAKE_STAT", "1".into()),
        ])
    }

    /// From now on it is wrong by so many seconds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn step(&self, seconds: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        std::fs::rename(&new, &self.file).context("the clock's file cannot be replaced")
    }
}
