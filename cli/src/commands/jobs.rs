//! `skep jobs`: what ran, runs and is to run to completion.

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{CauseView, JobView, JobsView, ScheduleView};
use skep_model::problem::{Code, Problem};

use super::run::Reader;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{table, time, view};
use crate::session::Session;
use crate::target::{self, Scope};

/// Show jobs: what runs to completion
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  skep jobs
  skep jobs nightly
  skep jobs logs 4fk2m9xq
  skep jobs cancel 4fk2m9xq")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only of this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// What to do with one.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// End one that has not ended
    Cancel {
        /// Its id, as listed
        #[arg(value_name = "JOB")]
        job: String,
    },
    /// Show what one writes, until it has ended
    Logs {
        /// Its id, as listed
        #[arg(value_name = "JOB")]
        job: String,
    },
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match args.command {
        None => list(&client, args.service.as_deref(), &args.scope, session).await,
        Some(Command::Cancel { job }) => {
            let job = pick(&client, &job).await?;
            let path = format!("/v1/jobs/{}/cancel", job.id);
            let job: JobView = client.send(Method::POST, &path, &json!({})).await?;
            session
                .out
                .result(&job, || format!("job {} is being ended", job.id.short()));
            Ok(())
        }
        Some(Command::Logs { job }) => {
            let job = pick(&client, &job).await?;
            Reader::new(client, session).follow(job).await.map(|_| ())
        }
    }
}

async fn list(
    client: &Client,
    service: Option<&str>,
    scope: &Scope,
    session: &Session,
) -> Result<(), Failure> {
    let found = fetch(client, service, scope).await?;
    session.out.result(&found, || {
        let now_ms = time::now_ms();
        let rows = found.jobs.iter().map(|job| row(job, now_ms)).collect();
        let columns = [
            "JOB", "SERVICE", "STATUS", "CAUSE", "ATTEMPTS", "EXIT", "TOOK", "AGE", "REASON",
        ];
        let mut text = table::render(&columns, rows, "no jobs");
        let schedules = found
            .schedules
            .iter()
            .filter_map(|schedule| next(schedule, now_ms));
        for line in schedules {
            text.push('\n');
            text.push_str(&line);
        }
        text
    });
    Ok(())
}

/// Jobs and schedules, of one service or of those in scope.
pub(super) async fn fetch(
    client: &Client,
    service: Option<&str>,
    scope: &Scope,
) -> Result<JobsView, Failure> {
    let path = match service {
        Some(text) => {
            let target = target::find(client, Some(text), scope).await?;
            format!("/v1/jobs?{}", target.query())
        }
        None => "/v1/jobs".to_owned(),
    };
    let mut found: JobsView = client.get(&path).await?;
    let is = |given: &Option<String>, value: &str| given.as_deref().is_none_or(|it| it == value);
    let in_scope = |project: &str, environment: &str| {
        is(&scope.project, project) && is(&scope.environment, environment)
    };
    found
        .jobs
        .retain(|job| in_scope(&job.project, &job.environment));
    found
        .schedules
        .retain(|one| in_scope(&one.project, &one.environment));
    Ok(found)
}

fn next(schedule: &ScheduleView, now_ms: u64) -> Option<String> {
    let next_ms = schedule.next_ms?;
    let span = time::span(std::time::Duration::from_millis(
        next_ms.saturating_sub(now_ms),
    ));
    Some(format!("{} is due next in {span}", schedule.service))
}

fn row(job: &JobView, now_ms: u64) -> Vec<String> {
    let cause = match &job.cause {
        CauseView::Deployment { .. } => "deployment".to_owned(),
        CauseView::Schedule { .. } => "schedule".to_owned(),
        CauseView::Release { .. } => "release phase".to_owned(),
        CauseView::Request { by, .. } => by.clone(),
    };
    let took = job.started_ms.map_or("-".to_owned(), |started_ms| {
        time::age(job.ended_ms.unwrap_or(now_ms), started_ms)
    });
    let status = match job.canceling {
        true => format!("{} (ending)", job.status.as_str()),
        false => job.status.as_str().to_owned(),
    };
    vec![
        job.id.short(),
        format!("{}/{}/{}", job.project, job.environment, job.service),
        status,
        cause,
        format!("{} of {}", job.attempts, job.limits.retries + 1),
        job.exit_code
            .map_or("-".to_owned(), |code| code.to_string()),
        took,
        time::age(now_ms, job.created_ms),
        job.problem
            .as_ref()
            .map_or(String::new(), |problem| view::cut(&problem.message)),
    ]
}

/// The job that is meant by an id in full, or as lists show it.
async fn pick(client: &Client, text: &str) -> Result<JobView, Failure> {
    let all: JobsView = client.get("/v1/jobs").await?;
    let mut meant = all
        .jobs
        .into_iter()
        .filter(|one| one.id.to_string() == text || one.id.short() == text);
    let hint = "`skep jobs` lists them; with --json, with ids in full";
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let message = format!("there is no job {text}");
            Err(Problem::new(Code::NotFound, message).hint(hint).into())
        }
        (Some(_), Some(_)) => {
            let message = "more than one has this end";
            Err(Problem::invalid("JOB", message).hint(hint).into())
        }
    }
}
