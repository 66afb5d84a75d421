//! Builds: from what a deployment starts with to one image on this node, by digest.
//!
//! Owns the steps of a build, its deadline and its folder. Decides nothing about deployments:
//! every way that a build can end is a [`BuildOutcome`].

pub mod choose;
pub mod context;
mod docker;
mod dockerignore;
mod folder;
mod git;
mod image;
mod progress;
mod source;
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use skep_model::assignment::BuildOrder;
use skep_model::deployment::{BuildOutcome, Built, Origin};
use skep_model::id::{ClusterId, NodeId, UploadId};
use skep_model::manifest::Manifest;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use choose::Choice;
pub(crate) use docker::cache::trim_now as trim_cache;
use folder::WorkFolder;
pub(crate) use image::repository as image_repository;
use source::Source;

use crate::images::Images;
use crate::logins::Logins;
use crate::runtime::transport::Socket;

/// Label on every image built here: the cluster.
pub const LABEL_CLUSTER: &str = "sh.skep.cluster";
/// Label on every image built here: the service.
pub const LABEL_SERVICE: &str = "sh.skep.service";

/// Build argument: the commit that is built.
const COMMIT_ARGUMENT: &str = "SKEP_GIT_COMMIT";

/// The bytes of an upload, as they come.
pub type UploadStream = BoxStream<'static, Result<Bytes, Problem>>;

/// Where uploaded folders come from: a server relays them.
pub trait Uploads: Send + Sync {
    /// The gzip-compressed tar of the app's folder. Can be asked for once.
    fn fetch(&self, upload: UploadId) -> BoxFuture<'static, Result<UploadStream, Problem>>;
}

/// What a build needs beside its order.
#[derive(Clone)]
pub struct Env {
    /// The node's Docker.
    pub docker: bollard::Docker,
    /// Its socket, for what the client has no words for.
    pub(crate) socket: Socket,
    /// Whose images these are.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Builds make their folders in here, and remove them.
    pub work_dir: PathBuf,
    /// Uploaded folders.
    pub uploads: Arc<dyn Uploads>,
    /// Keeps what was built for other nodes; none: it stays in this node's Docker alone.
    pub(crate) images: Option<Images>,
    /// As whom to pull from registries.
    pub(crate) logins: Logins,
}

/// Carries `order` out, writing what a person should see to `lines` as it happens; a full queue
/// holds the build back, a closed one does not. Ends soon after `cancel`, and after the order's
/// own time at the latest; then nothing of it is left but the image and Docker's cache.
pub async fn run(
    order: BuildOrder,
    env: Env,
    lines: mpsc::Sender<String>,
    cancel: CancellationToken,
) -> BuildOutcome {
    let limit = Duration::from_millis(order.timeout_ms);
    let work = build(&order, &env, &lines);
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Problem::new(Code::Canceled, "the build was canceled")),
        ended = tokio::time::timeout(limit, work) => {
            ended.unwrap_or_else(|_| Err(too_slow(order.timeout_ms)))
        }
    };
    match ended {
        Ok(built) => BuildOutcome::Built(built),
        Err(problem) => BuildOutcome::Failed(problem),
    }
}

/// Removes the folders that builds of an agent that was killed left in `work_dir`. For the
/// agent's start, before its first build. Blocks on the disk.
pub fn clean(work_dir: &Path) {
    folder::clean(work_dir);
}

fn too_slow(timeout_ms: u64) -> Problem {
    let seconds = timeout_ms / 1_000;
    Problem::new(
        Code::Timeout,
        format!("the build was not finished within {seconds} s"),
    )
    .hint("look at the last lines of the build for what takes so long")
}

async fn build(
    order: &BuildOrder,
    env: &Env,
    lines: &mpsc::Sender<String>,
) -> Result<Built, Problem> {
    match &order.origin {
        Origin::Image { reference } => {
            let choice = choose::for_image(order.builder);
            say(lines, choice.line()).await;
            let name = image::Name::of(order);
            image::resolve(env, (order, &name), (reference, lines)).await
        }
        Origin::Release { .. } => Err(Problem::new(
            Code::Internal,
            "a release has its image already: there is nothing to build",
        )),
        Origin::Upload { .. } | Origin::Git { .. } => {
            let work = WorkFolder::create(&env.work_dir, order.deployment).await?;
            let building = from_folder(order, env, &work, lines);
            let built = with_room(env, ("the build", Code::BuildFailed), building).await;
            work.remove().await;
            built
        }
    }
}

async fn from_folder(
    order: &BuildOrder,
    env: &Env,
    work: &WorkFolder,
    lines: &mpsc::Sender<String>,
) -> Result<Built, Problem> {
    let source = source::fetch(&order.origin, env, work, lines).await?;
    let order_builder = order.builder;
    let order_dockerfile = order.dockerfile.clone();
    let folder = source.folder.clone();
    let (manifest, choice) = folder::blocking(move || {
        let text = source::manifest(&folder)?;
        let manifest = text
            .as_deref()
            .map_or_else(|| Ok(Manifest::default()), Manifest::parse)?;
        let wish = choose::Wish {
            builder: manifest.builder.or(order_builder),
            dockerfile: manifest.dockerfile.or(order_dockerfile),
        };
        let choice = choose::for_folder(&wish, |path| folder::has_file(&folder, path))?;
        Ok((text, choice))
    })
    .await?;
    say(lines, choice.line()).await;
    let Choice { dockerfile, .. } = choice;
    let Source { folder, commit } = source;
    let mut arguments = order.arguments.clone();
    if let Some(commit) = &commit {
        arguments.insert(COMMIT_ARGUMENT.to_owned(), commit.clone());
    }
    let image = docker::Build {
        env,
        work,
        folder,
        dockerfile,
        name: image::Name::of(order),
        service: order.service,
        arguments,
    };
    let made = image.run(lines).await?;
    Ok(Built {
        commit,
        manifest,
        ..made
    })
}

/// Brings something in as long as the node's disk has room.
async fn with_room<T>(
    env: &Env,
    what: (&str, Code),
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    match &env.images {
        Some(images) => images.with_room(what, work).await,
        None => work.await,
    }
}

/// A line for whoever watches. Nobody watching is no reason to stop.
async fn say(lines: &mpsc::Sender<String>, line: impl Into<String>) {
    let _ = lines.send(line.into()).await;
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
