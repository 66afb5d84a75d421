//! How volumes are copied: with the means of their filesystem. By itself the agent has `cp`, which shares
//! blocks where the filesystem can (btrfs, XFS, ZFS); an operator's program may do better.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use skep_model::problem::{Code, Problem};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// A copy that takes longer is given up.
const LIMIT: Duration = Duration::from_secs(6 * 60 * 60);
/// Of what a program says when it fails.
const WORDS_MAX: u64 = 500;

/// Makes and removes the folders of volumes and of their snapshots. What it makes has no name that counts
/// until it is whole, unless it [does so itself](Copier::is_whole).
pub(crate) trait Copier: Send + Sync + std::fmt::Debug {
    /// Whether a copy is of one moment, and there whole or not at all.
    fn is_whole(&self) -> bool;

    /// Makes an empty folder that can hold so many bytes; 0: nothing is said.
    fn create<'a>(
        &'a self,
        folder: &'a Path,
        size_bytes: u64,
    ) -> BoxFuture<'a, Result<(), Problem>>;

    /// Makes the second folder, which holds what the first holds: to be kept as it is (`is_snapshot`), or
    /// written to.
    fn copy<'a>(
        &'a self,
        from_to: (&'a Path, &'a Path),
        is_snapshot: bool,
    ) -> BoxFuture<'a, Result<(), Problem>>;

    /// Removes a folder with all in it.
    fn remove<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<(), Problem>>;
}

/// The one for a node: an operator's program, or what every machine has.
pub(super) fn of(program: Option<&PathBuf>) -> Box<dyn Copier> {
    match program {
        Some(program) => Box::new(Program(program.clone())),
        None => Box::new(Plain),
    }
}

/// Folders.
#[derive(Debug)]
struct Plain;

impl Copier for Plain {
    fn is_whole(&self) -> bool {
        false
    }

    fn create<'a>(&'a self, folder: &'a Path, _: u64) -> BoxFuture<'a, Result<(), Problem>> {
        Box::pin(async move {
            let made = tokio::fs::create_dir(folder).await;
            made.map_err(|error| super::refused("the volume cannot be made:", folder, &error))
        })
    }

    fn copy<'a>(
        &'a self,
        (from, to): (&'a Path, &'a Path),
        _: bool,
    ) -> BoxFuture<'a, Result<(), Problem>> {
        let options = ["--archive", "--reflink=auto", "--no-target-directory", "--"];
        let all = options.map(OsStr::new).into_iter();
        let all = all.chain([from.as_os_str(), to.as_os_str()]);
        Box::pin(run(Path::new("cp"), all.map(OsStr::to_owned).collect()))
    }

    fn remove<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<(), Problem>> {
        Box::pin(async move {
            let removed = tokio::fs::remove_dir_all(folder).await;
            removed.map_err(|error| super::refused("the volume cannot be removed:", folder, &error))
        })
    }
}

/// An operator's program: `create FOLDER BYTES`, `snapshot FROM TO`, `clone FROM TO`, `remove FOLDER`.
/// What it makes is whole when it ends with 0.
#[derive(Debug)]
struct Program(PathBuf);

impl Program {
    fn run<'a>(&'a self, verb: &str, rest: &[&OsStr]) -> BoxFuture<'a, Result<(), Problem>> {
        let mut all = vec![OsStr::new(verb).to_owned()];
        all.extend(rest.iter().map(|word| (*word).to_owned()));
        Box::pin(run(&self.0, all))
    }
}

impl Copier for Program {
    fn is_whole(&self) -> bool {
        true
    }

    fn create<'a>(
        &'a self,
        folder: &'a Path,
        size_bytes: u64,
    ) -> BoxFuture<'a, Result<(), Problem>> {
        let size = size_bytes.to_string();
        self.run("create", &[folder.as_os_str(), OsStr::new(&size)])
    }

    fn copy<'a>(
        &'a self,
        (from, to): (&'a Path, &'a Path),
        is_snapshot: bool,
    ) -> BoxFuture<'a, Result<(), Problem>> {
        let verb = if is_snapshot { "snapshot" } else { "clone" };
        self.run(verb, &[from.as_os_str(), to.as_os_str()])
    }

    fn remove<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<(), Problem>> {
        self.run("remove", &[folder.as_os_str()])
    }
}

async fn run(program: &Path, arguments: Vec<std::ffi::OsString>) -> Result<(), Problem> {
    let failed = |why: String| {
        let verb = arguments
            .first()
            .map_or(String::new(), |verb| format!(" {}", verb.to_string_lossy()));
        let text = format!("`{}{verb}` {why}", program.display());
        Problem::new(Code::Runtime, text)
    };
    let mut command = Command::new(program);
    command
        .args(&arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    let mut stderr = child.stderr.take().expect("it is piped");
    let end = async {
        let mut said = Vec::new();
        let _ = (&mut stderr).take(WORDS_MAX).read_to_end(&mut said).await;
        // What is too much must not make it wait.
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        (child.wait().await, said)
    };
    let Ok((ended, said)) = timeout(LIMIT, end).await else {
        let hours = LIMIT.as_secs() / 3_600;
        return Err(failed(format!("had not ended after {hours} h")));
    };
    let status = ended.map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    match status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&said);
            Err(failed(format!("failed ({status}): {}", said.trim())))
        }
    }
}
