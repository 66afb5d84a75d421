//! `skep cron`: services that run by the clock.

use http::Method;
use skep_control_plane::api::types::{JobView, RunRequest, ScheduleRequest, ScheduleView};

use super::jobs::fetch;
use crate::failure::Failure;
use crate::output::{table, time};
use crate::session::Session;
use crate::target::{self, Scope};

/// Services that run by the clock
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List the schedules, and when each is due next
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        scope: Scope,
    },
    /// Run one now, beside its schedule
    RunNow(Which),
    /// Make no jobs of the schedule; what falls into the pause is not made up for
    Pause(Which),
    /// Follow the schedule again
    Resume(Which),
}

/// Which service.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Ls { scope } => list(&scope, session).await,
        Command::RunNow(which) => run_now(&which, session).await,
        Command::Pause(which) => set_paused(&which, true, session).await,
        Command::Resume(which) => set_paused(&which, false, session).await,
    }
}

async fn list(scope: &Scope, session: &Session) -> Result<(), Failure> {
    let found = fetch(&session.client()?, None, scope).await?.schedules;
    session.out.result(&found, || {
        let now_ms = time::now_ms();
        let columns = ["SERVICE", "SCHEDULE", "TIME ZONE", "NEXT IN", "LAST"];
        let rows = found.iter().map(|one| row(one, now_ms)).collect();
        table::render(&columns, rows, "no service runs by the clock")
    });
    Ok(())
}

fn row(one: &ScheduleView, now_ms: u64) -> Vec<String> {
    let next = match (one.next_ms, one.paused) {
        (_, true) => "paused".to_owned(),
        (Some(at), _) => time::age(at, now_ms),
        (None, false) => "-".to_owned(),
    };
    vec![
        format!("{}/{}/{}", one.project, one.environment, one.service),
        one.schedule.clone(),
        one.time_zone.clone(),
        next,
        one.last_status
            .map_or("-".to_owned(), |status| status.as_str().to_owned()),
    ]
}

async fn run_now(which: &Which, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    let path = format!("{}/jobs", target.path());
    let request = RunRequest::default();
    let job: JobView = client.send(Method::POST, &path, &request).await?;
    session.out.result(&job, || {
        format!("job {} is made: `skep jobs logs {0}`", job.id.short())
    });
    Ok(())
}

async fn set_paused(which: &Which, paused: bool, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    let path = format!("{}/schedule", target.path());
    let request = ScheduleRequest { paused };
    let shown: ScheduleView = client.send(Method::POST, &path, &request).await?;
    session.out.result(&shown, || match shown.next_ms {
        _ if paused => format!("{target} is paused: `skep cron resume` follows its schedule again"),
        Some(at) => format!("{target} is due next in {}", time::age(at, time::now_ms())),
        None => format!("{target} is not paused; it is due once it is live"),
    });
    Ok(())
}
