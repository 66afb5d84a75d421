//! `skep run`: one command with a service's release, variables and secrets, run to its end somewhere
//! in the cluster; its output here, and its exit code as ours.

use http::Method;
use skep_control_plane::api::types::{AppLine, JobView, RunRequest};
use skep_model::id::AllocationId;
use skep_model::job::Status;
use skep_model::problem::{Code, Problem};
use skep_model::variable::VariableInput;

use super::stop::LOOK;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::time;
use crate::session::Session;
use crate::target::{self, Scope};

/// Run one command with a service's release
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep run web -- ./manage.py migrate
  skep run web --env DRY_RUN=1 -- sh -c 'ls -l /data'
  skep run nightly                 a batch or cron service: what it is for, now
  skep run web --detach -- ./reindex

The command runs in a container of its own, with the image, variables and secrets of the live
release. It is not run again after it failed, unless --retries says so. skep exits with its exit
code; Ctrl-C cancels it.")]
pub(crate) struct Args {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    scope: Scope,
    /// A variable for this run alone, as NAME=VALUE
    #[arg(long = "env", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Further attempts after a failed one
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// Stop it when it takes longer: 90s, 15m, 1h
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    deadline: Option<std::time::Duration>,
    /// Do not stay until it has ended
    #[arg(long)]
    detach: bool,
    /// What to run, behind `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Refused, or the job did not succeed: with its exit code.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let variables = args.variables.iter().map(|text| variable(text));
    let request = RunRequest {
        command: args.command,
        variables: variables.collect::<Result<_, _>>()?,
        retries: args.retries,
        deadline_ms: args
            .deadline
            .map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
    };
    let client = session.client()?;
    let target = target::find(&client, Some(&args.service), &args.scope).await?;
    let path = format!("{}/jobs", target.path());
    let made: JobView = client.send(Method::POST, &path, &request).await?;
    if args.detach {
        session.out.result(&made, || {
            format!("job {} is made: `skep jobs logs {0}`", made.id.short())
        });
        return Ok(());
    }
    let mut reader = Reader::new(client.clone(), session);
    let ended = tokio::select! {
        ended = reader.follow(made.clone()) => ended?,
        _ = tokio::signal::ctrl_c() => return Err(interrupted(&client, &made).await),
    };
    if session.out.is_json() {
        session.out.item(&ended, String::new);
    }
    judge(&ended)
}

async fn interrupted(client: &Client, made: &JobView) -> Failure {
    let path = format!("/v1/jobs/{}/cancel", made.id);
    let nothing = serde_json::json!({});
    let sent = client.send::<_, JobView>(Method::POST, &path, &nothing);
    let text = match sent.await {
        Ok(_) => "interrupted: the job is canceled",
        Err(_) => "interrupted, and the job could not be canceled: it may go on",
    };
    let problem = Problem::new(Code::Canceled, text);
    let hint = format!("`skep jobs cancel {}`", made.id.short());
    Failure::with(Exit::Interrupted, problem.hint(hint))
}

/// What a job that ended is to whoever waited for it.
fn judge(job: &JobView) -> Result<(), Failure> {
    if job.status == Status::Succeeded {
        return Ok(());
    }
    let unknown = || Problem::new(Code::Crashed, format!("the job {}", job.status.as_str()));
    let failure = Failure::with(Exit::Failed, job.problem.clone().unwrap_or_else(unknown));
    let own = job.exit_code.and_then(|code| u8::try_from(code).ok());
    Err(match own.filter(|code| *code != 0) {
        Some(code) => failure.exiting(code),
        None => failure,
    })
}

fn variable(text: &str) -> Result<VariableInput, Failure> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Failure::usage(format!("`{text}` is not a variable")).hint("--env NAME=VALUE")
    })?;
    Ok(VariableInput {
        name: name.to_owned(),
        value: value.to_owned(),
        secret: true,
    })
}

/// Prints what the attempts of a job write.
pub(super) struct Reader<'a> {
    client: Client,
    session: &'a Session,
    /// Whose lines are read, and the id of the last one.
    at: Option<(AllocationId, Option<String>)>,
    has_printed: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(client: Client, session: &'a Session) -> Self {
        Self {
            client,
            session,
            at: None,
            has_printed: false,
        }
    }

    /// Prints until the job has ended; answers how.
    ///
    /// # Errors
    /// No server can be reached any more.
    pub(super) async fn follow(&mut self, mut job: JobView) -> Result<JobView, Failure> {
        let path = format!("/v1/jobs/{}", job.id);
        loop {
            if job.ended {
                self.read(&job, false).await;
                if !self.has_printed && !job.log_tail.is_empty() && !self.session.out.is_json() {
                    // Its container is gone already.
                    self.session.out.progress(job.log_tail.trim_end());
                }
                return Ok(job);
            }
            match job.is_attempt_begun {
                true => self.read(&job, true).await,
                // The API has no event for jobs.
                false => tokio::time::sleep(LOOK).await,
            }
            job = self.client.get(&path).await?;
        }
    }

    /// Prints what is there of the newest attempt and was not printed; with `follow`, until it ends.
    /// A stream that breaks off is resumed by the caller's next look.
    async fn read(&mut self, job: &JobView, follow: bool) {
        let Some(allocation) = job.allocation else {
            return;
        };
        let last = match self.at.take() {
            Some((same, last)) if same == allocation => last,
            _ => None,
        };
        let (project, environment, service) = (&job.project, &job.environment, &job.service);
        let path = format!(
            "/v1/projects/{project}/environments/{environment}/services/{service}/logs\
             ?follow={follow}&tail=0&allocation={allocation}"
        );
        let last = self.print(&path, last).await;
        self.at = Some((allocation, last));
        if follow {
            // Its end may not be in the state yet.
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn print(&mut self, path: &str, mut last: Option<String>) -> Option<String> {
        let Ok(mut events) = self.client.events(path, last.as_deref()).await else {
            return last;
        };
        while let Ok(Some(event)) = events.next().await {
            // A problem is that there is no container yet, or no more.
            if let Ok(line) = serde_json::from_str::<AppLine>(&event.data)
                && line.problem.is_none()
            {
                self.has_printed = true;
                let out = self.session.out;
                match line.stderr && !out.is_json() {
                    true => out.aside(&line.text),
                    false => out.item(&line, || line.text.clone()),
                }
            }
            last = event.id.or(last);
        }
        last
    }
}
