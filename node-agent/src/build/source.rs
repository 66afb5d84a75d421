//! Getting the app's folder: an upload relayed by a server, a commit of a git repository, or one that was pushed here.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use skep_model::assignment::BuildOrder;
use skep_model::build::Fetch;
use skep_model::deployment::Origin;
use skep_model::id::UploadId;
use skep_model::manifest;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::folder::{self, WorkFolder, blocking};
use super::{Env, UploadStream, git, say, unpack};

/// How long an upload may pause: people's connections stall, but not for longer and come back.
const UPLOAD_PAUSE: Duration = Duration::from_secs(60);
/// Parts of an upload between network and disk: what the slower one makes the other wait for.
const UPLOAD_QUEUE: usize = 4;

/// The app's folder on this node.
pub(super) struct Source {
    /// Where it is: inside the build's own folder.
    pub(super) folder: PathBuf,
    /// The commit that it shows.
    pub(super) commit: Option<String>,
    /// Where it is of a repository.
    repository: Option<git::Fetched>,
}

impl Source {
    /// Brings what the folder only points to, where that is wanted.
    pub(super) async fn complete(
        &self,
        wanted: &Fetch,
        lines: &mpsc::Sender<String>,
    ) -> Result<(), Problem> {
        match &self.repository {
            Some(fetched) => fetched.complete(wanted, lines).await,
            None => Ok(()),
        }
    }
}

/// Brings the app's folder here.
pub(super) async fn fetch(
    order: &BuildOrder,
    env: &Env,
    work: &WorkFolder,
    lines: &mpsc::Sender<String>,
) -> Result<Source, Problem> {
    match &order.origin {
        Origin::Upload { upload } => {
            let folder = receive(*upload, env, work).await?;
            say(lines, "source: the uploaded folder").await;
            Ok(Source {
                folder,
                commit: None,
                repository: None,
            })
        }
        Origin::Git {
            repository,
            branch,
            commit,
            directory,
        } => {
            let wanted = git::Wanted {
                repository,
                branch,
                commit: commit.as_deref(),
                directory,
                login: git::Login::of(&order.fetch, &order.variables)?,
                kept: (&env.copies, order.service),
            };
            let fetched = git::fetch(&wanted, work, lines).await?;
            Ok(Source {
                folder: fetched.folder.clone(),
                commit: Some(fetched.commit.clone()),
                repository: Some(fetched),
            })
        }
        Origin::Pushed {
            branch,
            commit,
            directory,
        } => {
            let wanted = git::Commit {
                service: order.service,
                branch,
                commit,
                directory,
            };
            let fetched = git::from_store((&env.stores, &wanted), work, lines).await?;
            Ok(Source {
                folder: fetched.folder.clone(),
                commit: Some(fetched.commit.clone()),
                repository: Some(fetched),
            })
        }
        Origin::Image { .. } | Origin::Release { .. } | Origin::Promoted { .. } => Err(
            Problem::new(Code::Internal, "an image has no folder to build from"),
        ),
    }
}

/// The text of the app's `skep.toml`, where it has one. Blocks on the disk.
pub(super) fn manifest(folder: &Path) -> Result<Option<String>, Problem> {
    let Some(opened) = folder::open(folder, manifest::FILE) else {
        return Ok(None);
    };
    let mut text = String::new();
    // One more than allowed, so that the parser sees that it is too large.
    opened
        .and_then(|file| file.take(manifest::MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| Problem::invalid(manifest::FILE, format!("cannot be read: {error}")))?;
    Ok(Some(text))
}

async fn receive(upload: UploadId, env: &Env, work: &WorkFolder) -> Result<PathBuf, Problem> {
    let stream = timeout(UPLOAD_PAUSE, env.uploads.fetch(upload))
        .await
        .map_err(|_| stalled())??;
    let folder = work.path().join("src");
    let (into, hold) = (folder.clone(), work.hold());
    let (sender, receiver) = mpsc::channel(UPLOAD_QUEUE);
    let unpacking = blocking(move || {
        let _hold = hold;
        std::fs::create_dir(&into).map_err(|error| {
            Problem::new(
                Code::Internal,
                format!("the node has no folder to unpack into: {error}"),
            )
        })?;
        let reader = Parts {
            receiver,
            current: Bytes::new(),
        };
        unpack::unpack(reader, &into)
    });
    let (fed, unpacked) = tokio::join!(feed(stream, sender), unpacking);
    // A stream that broke explains why the archive seems damaged.
    fed?;
    unpacked?;
    Ok(folder)
}

async fn feed(mut stream: UploadStream, sender: mpsc::Sender<Bytes>) -> Result<(), Problem> {
    loop {
        match timeout(UPLOAD_PAUSE, stream.next()).await {
            Err(_) => return Err(stalled()),
            Ok(None) => return Ok(()),
            Ok(Some(part)) => {
                if sender.send(part?).await.is_err() {
                    // Refused by the reader, which says why.
                    return Ok(());
                }
            }
        }
    }
}

fn stalled() -> Problem {
    Problem::new(
        Code::Timeout,
        format!("the upload stood still for {} s", UPLOAD_PAUSE.as_secs()),
    )
    .hint("upload again: skep up")
}

/// The parts of an upload as a reader for a blocking thread.
struct Parts {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(part) => self.current = part,
                None => return Ok(0),
            }
        }
        let len = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}
