//! A program that the node's operator has named (`skep agent --builder NAME=PROGRAM`). It runs in the
//! app's folder, makes an image in the node's Docker and prints its name as the last line of its output.
//! What it is told is in its environment: docs/skep-toml.md has the list.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use skep_model::problem::{Code, Problem};
use tokio::process::Command;

use super::super::program;
use super::{Builder, Job, Made, Tools};

/// The operator's program.
pub(super) struct Exec {
    name: String,
    program: PathBuf,
}

impl Exec {
    pub(super) fn of(name: &str, tools: &Tools) -> Result<Self, Problem> {
        let Some(program) = tools.programs.get(name) else {
            let known: Vec<&str> = tools.programs.keys().map(String::as_str).collect();
            let text = format!("this node has no builder `{name}`");
            let hint = match known.is_empty() {
                true => format!("its operator names one: skep agent --builder {name}=PROGRAM"),
                false => format!("it has: {}", known.join(", ")),
            };
            return Err(Problem::new(Code::BuildFailed, text)
                .at("builder")
                .hint(hint));
        };
        Ok(Self {
            name: name.to_owned(),
            program: program.clone(),
        })
    }

    fn command(&self, job: &Job<'_>) -> Result<Command, Problem> {
        let mut command = program::command(&self.program, job.work);
        command
            .current_dir(job.folder)
            // First: what follows cannot be said by the app.
            .envs(&job.spec.build.args)
            .envs(job.secrets()?)
            .env("SKEP_SOURCE", job.folder)
            .env("SKEP_IMAGE", job.name.full())
            .env("SKEP_SERVICE", &job.order.service_label)
            .env("SKEP_DEPLOYMENT", job.order.deployment.to_string())
            .env("SKEP_COMMIT", job.commit.unwrap_or_default())
            .env("DOCKER_HOST", job.env.socket.url());
        Ok(command)
    }
}

impl Builder for Exec {
    fn make<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Made, Problem>> {
        Box::pin(async move {
            let ended = program::run(self.command(job)?, Some(job.lines)).await?;
            let name = &self.name;
            if !ended.is_success {
                return Err(Problem::new(
                    Code::BuildFailed,
                    format!("the builder `{name}` failed: {}", ended.why()),
                )
                .hint("its last lines tell why: correct it, then deploy again"));
            }
            let image = ended.last_line.trim();
            skep_model::spec::check_image("builder", image.trim_start_matches("sha256:")).map_err(
                |_| {
                    let told: String = image.chars().take(200).collect();
                    Problem::new(
                        Code::BuildFailed,
                        format!(
                            "the last line of the builder `{name}` is not the name of an image: `{}`",
                            told.escape_debug()
                        ),
                    )
                    .hint("it has to print the image that it made, alone on its last line")
                },
            )?;
            Ok(Made::Image(image.to_owned()))
        })
    }
}
