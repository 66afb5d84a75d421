//! Where a server of a test runs: on a host of a lab, or on the machine's own loopback. Owns its
//! folder's layout and its addresses; starts nothing.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::lab::Host;
use crate::place;
use crate::process::Process;

/// Ports on a host that has them all for itself.
const API_PORT: u16 = 7070;
const CLUSTER_PORT: u16 = 7072;

/// A place for one server.
#[derive(Debug, Clone)]
pub struct Site {
    /// The server's name.
    pub name: String,
    /// Where its API is (TLS).
    pub api: SocketAddr,
    /// Where servers and agents dial it (mTLS).
    pub cluster: SocketAddr,
    /// The folder of its data.
    pub data: PathBuf,
    dir: PathBuf,
    /// What leads a program to the place; empty: it is there already.
    through: Vec<OsString>,
    /// Variables of its programs.
    environment: Vec<(String, OsString)>,
}

impl Site {
    /// A host of a lab. The data's disk is to be mounted before (`data`), where it has one.
    pub fn on(host: &Host) -> Self {
        let at = |port| SocketAddr::from((host.address(), port));
        Self {
            name: host.name().to_owned(),
            api: at(API_PORT),
            cluster: at(CLUSTER_PORT),
            data: host.path("data"),
            dir: host.path(""),
            through: host.entry().to_vec(),
            environment: Vec::new(),
        }
    }

    /// Loopback, on ports of its own, in a new folder below `dir`.
    ///
    /// # Errors
    /// No free port, or the folder cannot be made.
    pub fn loopback(dir: &Path, name: &str) -> Result<Self> {
        let dir = dir.join(name);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("{} cannot be made", dir.display()))?;
        Ok(Self {
            name: name.to_owned(),
            api: place::free_address()?,
            cluster: place::free_address()?,
            data: dir.join("data"),
            dir,
            through: Vec::new(),
            environment: Vec::new(),
        })
    }

    /// A file of this place, outside of the data.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The same with this variable for its programs.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// A program that runs there once it is started.
    pub fn process(&self, name: &str, program: &Path) -> Process {
        let log = self.dir.join(format!("{name}.log"));
        let shown = format!("{name}@{}", self.name);
        let process = match self.through.split_first() {
            Some((first, rest)) => Process::new(&shown, Path::new(first), log)
                .args(rest.to_vec())
                .args([program]),
            None => Process::new(&shown, program, log),
        };
        let variables = self.environment.iter().cloned();
        variables.fold(process, |process, (name, value)| process.env(&name, value))
    }
}
