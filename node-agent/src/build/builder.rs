//! The builders: each makes of an app's folder a recipe for Docker, or the image itself. One file each;
//! which of them builds is chosen before (`choose`), and what becomes of the image is decided after.

mod dockerfile;
mod exec;
mod nixpacks;
mod site;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use skep_model::assignment::BuildOrder;
use skep_model::build;
use skep_model::problem::{Code, Problem};
use skep_model::spec::ServiceSpec;
use tokio::sync::mpsc;

use super::choose::Choice;
use super::folder::WorkFolder;
use super::{Env, image};

/// Label on an image that Nixpacks planned: the digest of the plan.
const LABEL_PLAN: &str = "sh.skep.plan";

/// The programs of this node that build, beside Docker.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// Nixpacks; none: this node has none.
    pub nixpacks: Option<PathBuf>,
    /// Its operator's, by name.
    pub programs: BTreeMap<String, PathBuf>,
}

impl Tools {
    /// What the node says of itself, as a service names its builder.
    pub fn names(&self) -> Vec<String> {
        let nixpacks = self.nixpacks.iter().map(|_| build::Builder::Nixpacks);
        let programs = self.programs.keys().cloned().map(build::Builder::Exec);
        nixpacks
            .chain(programs)
            .map(|builder| builder.to_string())
            .collect()
    }
}

/// What is to be built.
pub(super) struct Job<'a> {
    pub(super) order: &'a BuildOrder,
    pub(super) env: &'a Env,
    pub(super) work: &'a WorkFolder,
    /// The app's folder: the build's own copy.
    pub(super) folder: &'a Path,
    pub(super) commit: Option<&'a str>,
    /// What the service and its own file say.
    pub(super) spec: &'a ServiceSpec,
    pub(super) choice: &'a Choice,
    pub(super) name: &'a image::Name,
    pub(super) lines: &'a mpsc::Sender<String>,
}

impl Job<'_> {
    /// The variables that the build declares as its secrets.
    ///
    /// # Errors
    /// The service has none of that name.
    pub(super) fn secrets(&self) -> Result<Vec<(String, String)>, Problem> {
        let found = self.spec.build.secrets.iter().map(|name| {
            let value = super::variable(&self.order.variables, name);
            let value = value.ok_or_else(|| super::no_variable("build.secrets", name))?;
            Ok((name.clone(), value.to_owned()))
        });
        found.collect()
    }
}

/// What a builder makes.
#[derive(Debug)]
pub(super) enum Made {
    /// Docker makes the image of this.
    Recipe(Recipe),
    /// The image is in Docker under this name or id.
    Image(String),
}

/// What Docker is to build of the app's folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recipe {
    /// Inside the folder.
    pub(super) dockerfile: String,
    /// Folder that is sent whatever `.dockerignore` says; empty: none.
    pub(super) kept: String,
    /// The stage that becomes the image.
    pub(super) target: Option<String>,
    /// Values for `ARG`.
    pub(super) args: BTreeMap<String, String>,
    /// What steps may mount, by its id.
    pub(super) secrets: Vec<(String, String)>,
    /// Further labels of the image.
    pub(super) labels: BTreeMap<String, String>,
}

/// One way to an image.
pub(super) trait Builder: Send + Sync {
    /// Makes ready what Docker builds, or the image.
    fn make<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Made, Problem>>;
}

/// The builder that was chosen for a folder.
///
/// # Errors
/// This node does not have it.
pub(super) fn of(choice: &Choice, tools: &Tools) -> Result<Box<dyn Builder>, Problem> {
    Ok(match &choice.builder {
        build::Builder::Dockerfile => Box::new(dockerfile::Dockerfile),
        build::Builder::Nixpacks => Box::new(nixpacks::Nixpacks::of(choice, tools)?),
        build::Builder::Exec(name) => Box::new(exec::Exec::of(name, tools)?),
        build::Builder::Static => Box::new(site::StaticSite),
        build::Builder::Image => {
            let text = "an image is not built of a folder";
            return Err(Problem::new(Code::Internal, text));
        }
    })
}

/// Secrets can be given to steps of a Dockerfile alone: elsewhere they would stay in the image.
fn no_secrets(job: &Job<'_>, builder: &str) -> Result<(), Problem> {
    if job.spec.build.secrets.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        Code::BuildFailed,
        format!("{builder} would leave `build.secrets` in the image"),
    )
    .at("build.secrets")
    .hint("add a Dockerfile with RUN --mount=type=secret,id=NAME, or leave them out"))
}
