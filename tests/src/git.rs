//! Real repositories: a bare one that stands for the git server, and a clone to work in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::app::App;

/// A commit before the first.
pub const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// A bare repository and its clone, with the test app in it.
pub struct Repository {
    bare: PathBuf,
    /// The app in the clone.
    pub app: App,
}

impl Repository {
    /// A bare repository under `dir`, and a clone with the app; nothing is committed yet.
    ///
    /// # Errors
    /// git's.
    pub fn create(dir: &Path, run: &str, version: &str) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (bare, clone) = (dir.join("app.git"), dir.join("app"));
        git(
            dir,
            &[
                "init",
                "--quiet",
                "--bare",
                "--initial-branch=main",
                "app.git",
            ],
        )?;
        git(dir, &["init", "--quiet", "--initial-branch=main", "app"])?;
        git(
            &clone,
            &[
                "remote",
                "add",
                "origin",
                bare.to_str().context("the path is no text")?,
            ],
        )?;
        Ok(Self {
            bare,
            app: App::create(clone, run, version)?,
        })
    }

    /// Commits everything and pushes it to a branch; answers the commit.
    ///
    /// # Errors
    /// git's.
    pub fn push(&self, branch: &str) -> Result<String> {
        let clone = self.app.dir();
        git(clone, &["add", "--all"])?;
        git(
            clone,
            &[
                "commit",
                "--quiet",
                "--allow-empty",
                "--message",
                "a change",
            ],
        )?;
        git(
            clone,
            &[
                "push",
                "--quiet",
                "origin",
                &format!("HEAD:refs/heads/{branch}"),
            ],
        )?;
        git(clone, &["rev-parse", "HEAD"])
    }

    /// Path of the bare repository.
    ///
    /// # Errors
    /// It is no text.
    pub fn url(&self) -> Result<&str> {
        self.bare.to_str().context("the path is no text")
    }
}

/// Runs git, free of the settings of whoever runs the tests; answers its output.
///
/// # Errors
/// It failed; tells what it said.
pub fn git(dir: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .current_dir(dir)
        .args([
            "-c",
            "user.name=Skep",
            "-c",
            "user.email=skep@localhost",
            "-c",
            "commit.gpgSign=false",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .context("git cannot be run")?;
    if !output.status.success() {
        bail!(
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
