//! Nixpacks: the external program looks at the folder and plans; the plan's Dockerfile is built by Docker
//! like any other, never by Nixpacks itself. `nixpacks.toml` and `Procfile` are the program's to read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use skep_model::build;
use skep_model::problem::{Code, Problem};
use skep_model::spec::ServiceSpec;
use tokio::process::Command;

use super::super::choose::Choice;
use super::super::folder::{blocking, clear};
use super::super::{program, say};
use super::{Builder, Job, LABEL_PLAN, Made, Recipe, Tools, no_secrets};
use crate::images::Digest;

/// Where it puts what it makes, inside the folder that Docker gets.
const FOLDER: &str = ".nixpacks";
const DOCKERFILE: &str = ".nixpacks/Dockerfile";
/// What it says in place of a plan where it knows no language of the folder.
const NO_PLAN: &str = "unable to generate a build plan";

/// The program.
pub(super) struct Nixpacks {
    program: PathBuf,
}

/// The part of a plan that is told and used. Source: `nixpacks plan --format json` of 1.41.
#[derive(Debug, Default, Deserialize)]
struct Plan {
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(default)]
    phases: BTreeMap<String, Phase>,
    #[serde(default)]
    start: Start,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Phase {
    #[serde(default)]
    nix_pkgs: Vec<String>,
    #[serde(default)]
    apt_pkgs: Vec<String>,
    #[serde(default)]
    cmds: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Start {
    cmd: Option<String>,
}

impl Nixpacks {
    pub(super) fn of(choice: &Choice, tools: &Tools) -> Result<Self, Problem> {
        let program = tools.nixpacks.clone().ok_or_else(|| {
            let text = format!("this node has no Nixpacks ({})", choice.why);
            Problem::new(Code::BuildFailed, text).at("builder").hint(
                "add a Dockerfile; or install nixpacks on a node that builds (cargo install nixpacks, or \
                 skep agent --nixpacks PATH) and say `builder = \"nixpacks\"` in skep.toml or on the service",
            )
        })?;
        Ok(Self { program })
    }

    fn command(&self, job: &Job<'_>, verb: &str) -> Command {
        let mut command = program::command(&self.program, job.work);
        command.arg(verb).arg(job.folder).args(said(job.spec));
        command
    }

    /// The plan as Nixpacks writes it, and its digest.
    async fn plan(&self, job: &Job<'_>) -> Result<(Plan, String), Problem> {
        let mut command = self.command(job, "plan");
        command.args(["--format", "json"]);
        let ended = program::run(command, None).await?;
        if !ended.is_success {
            return Err(unplanned(&ended));
        }
        let plan = serde_json::from_str(&ended.output).map_err(|error| {
            Problem::new(
                Code::Runtime,
                format!("the plan of this node's Nixpacks is not understood: {error}"),
            )
            .hint("is `--nixpacks` of the agent the program itself? 1.30 to 1.41 are known")
        })?;
        Ok((plan, Digest::of(ended.output.as_bytes()).to_string()))
    }
}

impl Builder for Nixpacks {
    fn make<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Made, Problem>> {
        Box::pin(async move {
            no_secrets(job, "Nixpacks")?;
            let (plan, digest) = self.plan(job).await?;
            for line in told(&plan) {
                say(job.lines, line).await;
            }
            let out = job.work.path().join("nixpacks");
            let mut command = self.command(job, "build");
            command
                .args(["--no-cache", "--name", "app", "--out"])
                .arg(&out);
            let ended = program::run(command, None).await?;
            if !ended.is_success {
                return Err(unplanned(&ended));
            }
            let (folder, hold) = (job.folder.to_owned(), job.work.hold());
            blocking(move || {
                let _hold = hold;
                take_over(&out.join(FOLDER), &folder.join(FOLDER))
            })
            .await?;
            Ok(Made::Recipe(Recipe {
                dockerfile: DOCKERFILE.to_owned(),
                kept: FOLDER.to_owned(),
                // What its Dockerfile names as ARG.
                args: plan.variables,
                labels: [(LABEL_PLAN.to_owned(), digest)].into(),
                ..Recipe::default()
            }))
        })
    }
}

/// What the user says, as arguments. Nothing of the service's variables is among them.
fn said(spec: &ServiceSpec) -> Vec<String> {
    let nixpacks = &spec.nixpacks;
    let mut arguments = Vec::new();
    let mut say =
        |option: &str, value: &str| arguments.extend([option.to_owned(), value.to_owned()]);
    for (option, command) in [
        ("--install-cmd", &nixpacks.install),
        ("--build-cmd", &nixpacks.build),
        ("--start-cmd", &nixpacks.start),
    ] {
        if let Some(command) = command {
            say(option, command);
        }
    }
    nixpacks.packages.iter().for_each(|it| say("--pkgs", it));
    nixpacks.apt.iter().for_each(|it| say("--apt", it));
    for (provider, variable) in build::Nixpacks::VERSIONS {
        if let Some(version) = nixpacks.versions.get(provider) {
            say("--env", &format!("{variable}={version}"));
        }
    }
    for (name, value) in &spec.build.args {
        say("--env", &format!("{name}={value}"));
    }
    arguments
}

/// The plan for whoever watches: phases in the order in which they run.
fn told(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    let order = ["setup", "install", "build"];
    let others = plan.phases.keys().map(String::as_str);
    let others = others.filter(|name| !order.contains(name));
    for name in order.into_iter().chain(others) {
        let Some(phase) = plan.phases.get(name) else {
            continue;
        };
        let all = [&phase.nix_pkgs, &phase.apt_pkgs, &phase.cmds];
        let all: Vec<&str> = all.into_iter().flatten().map(String::as_str).collect();
        lines.push(format!("nixpacks: {name}: {}", all.join(", ")));
    }
    let start = plan.start.cmd.as_deref().unwrap_or("(none)");
    lines.push(format!("nixpacks: start: {start}"));
    lines
}

fn unplanned(ended: &program::Ended) -> Problem {
    let said = ended.why();
    let problem = Problem::new(Code::BuildFailed, format!("Nixpacks makes no plan: {said}"));
    if said.to_lowercase().contains(NO_PLAN) {
        return problem.at("builder").hint(
            "it knows no language of this folder: add a Dockerfile, or deploy a ready image",
        );
    }
    problem.hint(
        "`nixpacks plan .` on your machine says the same; [nixpacks] in skep.toml overrides it",
    )
}

/// In place of what the app may have of that name, be it a link.
fn take_over(made: &Path, place: &Path) -> Result<(), Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(
            Code::Internal,
            format!("what Nixpacks made cannot be taken over: {error}"),
        )
    };
    clear(place).map_err(failed)?;
    std::fs::rename(made, place).map_err(failed)
}
