//! `skep backup`: the cluster's state as a file. Making one asks a server; looking at one needs none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use skep_control_plane::backup::{self, Backup, Manifest};
use skep_model::problem::{Code, Problem};
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::failure::{Failure, chain};
use crate::output::{table, time};
use crate::session::Session;

/// Without a byte for so long the server is given up on.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Backups of the cluster's state
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Make one, from any server
    #[command(after_help = "\
It holds what the cluster knows: apps, releases, configuration, nodes. Secrets in it are sealed: to
restore it, the operator's key file of the server that made it is needed, or that of the server that
founded the cluster. Keep a copy of one apart from the backups. Images, data of apps, logs and history
are not in it.

The file is a tar archive; `sha256sum -c SHA256SUMS` checks it without skep, too.

Example:
  skep backup create skep-$(date +%F).tar")]
    Create {
        /// Where to write it
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// From what the asked server knows, without a leader: when most servers are lost
        #[arg(long)]
        stale: bool,
    },
    /// Show what a backup says of itself
    Inspect {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check a backup: restore it into memory and compare
    Verify {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Check that this operator's key file opens it, too
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

impl Command {
    /// Whether it needs no server.
    pub(crate) fn is_offline(&self) -> bool {
        !matches!(self, Self::Create { .. })
    }
}

/// Runs a command that needs no server. Blocks on the disk.
///
/// # Errors
/// The backup cannot be read, or something in it is wrong.
pub(crate) fn look(command: &Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Create { .. } => unreachable!("run with a server by the caller"),
        Command::Inspect { file } => {
            let manifest = Backup::read(file).map_err(refused)?.manifest;
            session.out.result(&manifest, || describe(&manifest));
        }
        Command::Verify { file, key_file } => {
            let backup = Backup::read(file).map_err(refused)?;
            let state = backup.verify().map_err(refused)?;
            if let Some(key) = key_file {
                backup::check_key(&backup, &state, key).map_err(refused)?;
            }
            let manifest = &backup.manifest;
            session.out.result(manifest, || {
                let key = match key_file {
                    Some(_) => "sound, and the key opens it",
                    None => "sound (whether a key opens it: --key-file)",
                };
                format!("{}\n{key}", describe(manifest))
            });
        }
    }
    Ok(())
}

/// A backup that is not accepted, in words.
pub(super) fn refused(error: backup::Error) -> Failure {
    let text = chain(&error);
    let failure = Failure::failed(text);
    match error {
        backup::Error::Damaged(_) => failure.hint("use another copy, or an older backup"),
        backup::Error::Occupied(_) => failure.hint("choose a folder that does not exist yet"),
        _ => failure,
    }
}

/// Runs `backup create`.
///
/// # Errors
/// Not reachable, refused, the file cannot be written, or what came is not sound.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let Command::Create { file, stale } = command else {
        unreachable!("run without a server by the caller")
    };
    if file.exists() {
        let text = format!("{} exists already", file.display());
        let problem = Problem::new(Code::Conflict, text);
        return Err(problem.hint("a backup never replaces a file").into());
    }
    let path = match stale {
        true => "/v1/backup?stale=true",
        false => "/v1/backup",
    };
    let body = session.client()?.download(path).await?;
    let beside = beside(&file)?;
    let manifest = match receive(body, &beside).await {
        Ok(manifest) => manifest,
        Err(failure) => {
            let _not_wanted = tokio::fs::remove_file(&beside).await;
            return Err(failure);
        }
    };
    let written = put(beside, file.clone()).await;
    written.map_err(|error| cannot_write(&file, &error))?;
    session.out.result(&manifest, || {
        format!("{}\nwritten to {}", describe(&manifest), file.display())
    });
    Ok(())
}

fn beside(file: &Path) -> Result<PathBuf, Failure> {
    let name = file.file_name().ok_or_else(|| {
        let text = format!("{} is not the name of a file", file.display());
        Failure::usage(text)
    })?;
    let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
    Ok(file.with_file_name(name))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}

/// Writes what comes, synced, and checks that it is a sound backup.
async fn receive(mut body: Incoming, path: &Path) -> Result<Manifest, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(path).await;
    let mut file = file.map_err(|error| cannot_write(path, &error))?;
    loop {
        let frame = timeout(QUIET_MAX, body.frame());
        let frame = frame.await.map_err(|_| {
            Failure::failed("the server sends nothing any more: the backup is not complete")
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            let text = format!("the backup broke off: {}", chain(&error));
            Failure::failed(text).hint("try again")
        })?;
        if let Ok(data) = frame.into_data() {
            let written = file.write_all(&data).await;
            written.map_err(|error| cannot_write(path, &error))?;
        }
    }
    let synced = file.sync_all().await;
    synced.map_err(|error| cannot_write(path, &error))?;
    let path = path.to_owned();
    let checked = spawn_blocking(move || {
        let backup = Backup::read(&path)?;
        backup.verify()?;
        Ok(backup.manifest)
    });
    let checked = checked.await;
    checked
        .map_err(|error| Failure::failed(chain(&error)))?
        .map_err(refused)
}

/// Gives it its name, for good.
async fn put(beside: PathBuf, file: PathBuf) -> std::io::Result<()> {
    let put = spawn_blocking(move || {
        std::fs::rename(&beside, &file)?;
        let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    });
    put.await.map_err(std::io::Error::other)?
}

/// A manifest for people.
pub(super) fn describe(manifest: &Manifest) -> String {
    let counts = &manifest.counts;
    let made = format!(
        "{} ago by server {}, skep {}",
        time::age(time::now_ms(), manifest.created_ms),
        manifest.server,
        manifest.skep_version
    );
    let holds = format!(
        "{} services in {} projects, {} allocations, {} nodes, {} servers",
        counts.services, counts.projects, counts.allocations, counts.nodes, counts.servers
    );
    table::facts(&[
        ("cluster", manifest.cluster.to_string()),
        ("made", made),
        (
            "at",
            format!(
                "index {}, incarnation {}",
                manifest.index, manifest.incarnation
            ),
        ),
        (
            "format",
            format!(
                "{}, feature level {}",
                manifest.format, manifest.feature_level
            ),
        ),
        ("holds", holds),
        (
            "state",
            format!(
                "{}, SHA-256 {}",
                time::bytes(manifest.state_bytes),
                manifest.state_sha256
            ),
        ),
    ])
}
