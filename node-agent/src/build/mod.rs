//! Builds: from what a deployment starts with to one image on this node, by digest.
//!
//! Owns the steps of a build, its deadline and its folder. Decides nothing about deployments:
//! every way that a build can end is a [`BuildOutcome`].

mod builder;
mod bundle;
pub mod choose;
pub mod context;
mod docker;
mod dockerignore;
mod folder;
mod git;
mod image;
mod log;
mod presets;
mod program;
mod progress;
mod reuse;
mod source;
mod unpack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use skep_identity::random;
use skep_model::assignment::{BuildOrder, BuildVariable};
use skep_model::deployment::{BuildOutcome, Built, Origin};
use skep_model::id::{ClusterId, DeploymentId, NodeId, UploadId};
use skep_model::manifest::Manifest;
use skep_model::polling::{Ask, Found};
use skep_model::problem::{Code, Problem};
use skep_model::spec::ServiceSpec;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use builder::Tools;
use builder::{Job, Made, Recipe};
use choose::Wish;
pub(crate) use docker::cache::trim_now as trim_cache;
use folder::WorkFolder;
pub use git::{Copies, Stores};
pub(crate) use image::repository as image_repository;
use log::{Bounded, Masks};
use source::Source;

use crate::images::Images;
use crate::logins::Logins;
use crate::runtime::transport::Socket;

/// Label on every image built here: the cluster.
pub const LABEL_CLUSTER: &str = "sh.skep.cluster";
/// Label on every image built here: the service.
pub const LABEL_SERVICE: &str = "sh.skep.service";

/// Label on every image built of a repository: the commit, as the OCI image specification names it.
const LABEL_COMMIT: &str = "org.opencontainers.image.revision";

/// Build argument: the commit that is built.
const COMMIT_ARGUMENT: &str = "SKEP_GIT_COMMIT";
/// Lines between a build and its log.
const LINES_MAX: usize = 64;

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
    /// Copies of repositories, which stay between builds.
    pub copies: Copies,
    /// What people push.
    pub stores: Stores,
    /// Uploaded folders.
    pub uploads: Arc<dyn Uploads>,
    /// Keeps what was built for other nodes; none: it stays in this node's Docker alone.
    pub(crate) images: Option<Images>,
    /// As whom to pull from registries.
    pub(crate) logins: Logins,
    /// The programs that build, beside Docker.
    pub(crate) tools: Tools,
}

/// Carries `order` out, writing what a person should see to `lines` as it happens; a full queue
/// holds the build back, a closed one does not. Ends soon after `cancel`, and after the order's
/// own time at the latest, or the time that the app's own file says; then nothing of it is left but the
/// image and Docker's cache.
pub async fn run(
    order: BuildOrder,
    env: Env,
    lines: mpsc::Sender<String>,
    cancel: CancellationToken,
) -> BuildOutcome {
    let masks = Masks::of(&order.variables);
    let (inner, told) = mpsc::channel(LINES_MAX);
    let (limit, limits) = watch::channel(order.timeout_ms);
    let work = async {
        let building = build(&order, &env, (&inner, &limit));
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Problem::new(Code::Canceled, "the build was canceled")),
            ended = within(limits, building) => ended,
        };
        // The log ends with it.
        drop(inner);
        ended
    };
    let (ended, ()) = tokio::join!(work, relay(told, &lines, &masks));
    match ended {
        Ok(built) => BuildOutcome::Built(built),
        Err(mut problem) => {
            problem.message = masks.hide(problem.message);
            BuildOutcome::Failed(problem)
        }
    }
}

/// Where the branches and tags of a repository are; the same folders, logins and masks as a build's.
pub(crate) async fn look(ask: &Ask, work_dir: &Path) -> Found {
    let folder = DeploymentId::from_u128(random::new_id());
    let work = WorkFolder::create(work_dir, folder).await?;
    let found = git::look(ask, &work).await;
    work.remove().await;
    let masks = Masks::of(&ask.variables);
    found.map_err(|problem| Problem {
        message: masks.hide(problem.message),
        ..problem
    })
}

/// Until the time is over that the newest word says, counted from now.
async fn within<T>(
    mut limits: watch::Receiver<u64>,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let begun = Instant::now();
    let mut work = std::pin::pin!(work);
    loop {
        let limit_ms = *limits.borrow_and_update();
        let until = begun + Duration::from_millis(limit_ms);
        tokio::select! {
            ended = &mut work => return ended,
            () = tokio::time::sleep_until(until) => return Err(too_slow(limit_ms)),
            // The sender lives as long as the work.
            Ok(()) = limits.changed() => {}
        }
    }
}

/// Passes the log on, without secrets and as much of it as is kept.
async fn relay(mut told: mpsc::Receiver<String>, lines: &mpsc::Sender<String>, masks: &Masks) {
    let mut bounded = Bounded::default();
    while let Some(line) = told.recv().await {
        if let Some(line) = bounded.line(masks.hide(line)) {
            say(lines, line).await;
        }
    }
    for line in bounded.finish() {
        say(lines, line).await;
    }
}

/// Removes the folders that builds of an agent that was killed left in `work_dir`. For the
/// agent's start, before its first build. Blocks on the disk.
pub(crate) fn clean(work_dir: &Path) {
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
    (lines, limit): (&mpsc::Sender<String>, &watch::Sender<u64>),
) -> Result<Built, Problem> {
    match &order.origin {
        Origin::Image { reference } => {
            let choice = choose::for_image(order.builder.as_ref());
            say(lines, choice.line()).await;
            let name = image::Name::of(order);
            image::resolve(env, (order, &name), (reference, lines)).await
        }
        Origin::Release { .. } | Origin::Promoted { .. } => Err(Problem::new(
            Code::Internal,
            "a release has its image already: there is nothing to build",
        )),
        Origin::Upload { .. } | Origin::Git { .. } | Origin::Pushed { .. } => {
            let work = WorkFolder::create(&env.work_dir, order.deployment).await?;
            let building = from_folder(order, env, &work, (lines, limit));
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
    (lines, limit): (&mpsc::Sender<String>, &watch::Sender<u64>),
) -> Result<Built, Problem> {
    let source = source::fetch(order, env, work, lines).await?;
    let (manifest, spec) = configured(order, &source).await?;
    limit.send_replace(spec.build.timeout_ms);
    let key = reuse::key(order, &spec, source.commit.as_deref());
    let name = image::Name::of(order);
    let made = match earlier(order, env, key.as_deref(), lines).await? {
        Some(id) => {
            reuse::name(env, &id, &name).await?;
            image::built(env, (&id, None), &name, lines).await?
        }
        None => {
            source.complete(&spec.fetch, lines).await?;
            let folder = source.folder.clone();
            let wish = Wish::of(&spec);
            let choose = move || choose::for_folder(&wish, |path| folder::has_file(&folder, path));
            let choice = folder::blocking(choose).await?;
            say(lines, choice.line()).await;
            let job = Job {
                order,
                env,
                work,
                folder: &source.folder,
                commit: source.commit.as_deref(),
                spec: &spec,
                choice: &choice,
                name: &name,
                lines,
            };
            make(&job, key).await?
        }
    };
    if made.image.bundle {
        bundle::check((order, env), &made.image, work, lines).await?;
    }
    Ok(Built {
        commit: source.commit,
        manifest,
        ..made
    })
}

/// The app's own file, and what the service says with it.
async fn configured(
    order: &BuildOrder,
    source: &Source,
) -> Result<(Option<String>, ServiceSpec), Problem> {
    let folder = source.folder.clone();
    let text = folder::blocking(move || source::manifest(&folder)).await?;
    let manifest = text
        .as_deref()
        .map_or_else(|| Ok(Manifest::default()), Manifest::parse)?;
    let spec = manifest.apply(&ServiceSpec {
        builder: order.builder.clone(),
        dockerfile: order.dockerfile.clone(),
        build: order.build.clone(),
        nixpacks: order.nixpacks.clone(),
        site: order.site.clone(),
        fetch: order.fetch.clone(),
        ..ServiceSpec::default()
    })?;
    spec.check_build()?;
    Ok((text, spec))
}

/// The image that an earlier deployment made of the same source, where one may be taken.
async fn earlier(
    order: &BuildOrder,
    env: &Env,
    key: Option<&str>,
    lines: &mpsc::Sender<String>,
) -> Result<Option<String>, Problem> {
    let Some(key) = key.filter(|_| !order.no_cache) else {
        return Ok(None);
    };
    let Some((id, deployment)) = reuse::find(env, order, key).await? else {
        return Ok(None);
    };
    let line = format!(
        "nothing to build: image of deployment {deployment}, of the same commit and configuration \
         (--no-cache builds it anew)"
    );
    say(lines, line).await;
    Ok(Some(id))
}

/// Lets the builder make the image.
async fn make(job: &Job<'_>, key: Option<String>) -> Result<Built, Problem> {
    let Job { env, lines, .. } = *job;
    let builder = builder::of(job.choice, &env.tools)?;
    match builder.make(job).await? {
        Made::Recipe(recipe) => {
            let mut labels = recipe.labels.clone();
            labels.extend(key.map(|key| (reuse::LABEL_SOURCE.to_owned(), key)));
            let commit = job.commit.map(str::to_owned);
            labels.extend(commit.map(|commit| (LABEL_COMMIT.to_owned(), commit)));
            let args = arguments(job, recipe.args);
            docker::Build {
                job,
                recipe: Recipe {
                    labels,
                    args,
                    ..recipe
                },
            }
            .run(lines)
            .await
        }
        Made::Image(id) => {
            reuse::name(env, &id, job.name).await?;
            image::built(env, (&id, None), job.name, lines).await
        }
    }
}

/// Build arguments: what people say, and what is known of the deployment. A Dockerfile sees those that it names.
fn arguments(job: &Job<'_>, said: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = job.order.arguments.clone();
    all.extend(said);
    if let Some(commit) = job.commit {
        all.insert(COMMIT_ARGUMENT.to_owned(), commit.to_owned());
    }
    all
}

/// The value of one of the service's variables.
fn variable<'a>(variables: &'a [BuildVariable], name: &str) -> Option<&'a str> {
    let mut all = variables.iter();
    all.find(|variable| variable.name == name)
        .map(|variable| variable.value.as_str())
}

fn no_variable(field: &str, name: &str) -> Problem {
    let text = format!("the service has no variable `{}`", name.escape_debug());
    Problem::invalid(field, text).hint(format!("skep env set --secret {name}=VALUE"))
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
