//! `skep smoke`: whether a live cluster does what it is for, end to end, with a small app of its own that is gone
//! afterwards. Owns the order of the steps; what is checked by them is real requests and the API's own word.

mod app;
mod doors;
mod life;
mod mark;
mod process;
mod steps;

use std::time::Duration;

use serde::Serialize;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Style, time};
use crate::session::Session;
use crate::target::Target;

use app::{App, Kind};
use life::Life;
use mark::Mark;
use steps::{Step, Steps};

/// Deploy, request, scale, roll back and remove a small app, to see that the cluster works
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep smoke                               one line a step; exit code 0: the cluster works
  skep smoke --ingress 203.0.113.10:80     through this address alone, a floating one say
  skep smoke --app site                    files that the nodes hand out, no container
  skep smoke --json                        what a program needs to know

The app is this very `skep` in an image FROM scratch, so no registry is asked for a base image; where the
nodes are of another architecture than this machine it is a site of files. It is made in the project
`skep-smoke`, under a name of its own, and removed at the end: after a failure and after Ctrl-C, too. What a
`skep smoke` that was killed left behind is removed by the next one.

Requests go to the ingress of every ready node, at the address that other nodes reach it at. Where none of
them is reached from here, they go where the service's name leads.

Exit codes: 0 all of it worked, 1 a step failed, 3 no server answers, 130 Ctrl-C.")]
pub(crate) struct Args {
    /// What is deployed
    #[arg(long, value_name = "KIND", default_value = "auto")]
    app: Kind,
    /// Send requests here, and to no node; repeatable
    #[arg(long, value_name = "HOST:PORT", value_parser = doors::parse)]
    ingress: Vec<doors::Door>,
    /// All steps together may take so long: 90s, 10m
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = time::parse_span)]
    timeout: Duration,
    /// Leave the app there
    #[arg(long)]
    keep: bool,
    /// Be the app: answer with this version
    #[arg(long, value_name = "VERSION", hide = true)]
    answer: Option<u32>,
}

/// What a program reads.
#[derive(Debug, Serialize)]
struct Report {
    /// All steps went well.
    ok: bool,
    /// The service that was made.
    service: String,
    /// What it was: `process` or `site`; none: it did not come to that.
    app: Option<Kind>,
    /// It is still there.
    left: bool,
    duration_ms: u64,
    steps: Vec<Step>,
}

/// Runs the command.
///
/// # Errors
/// A step failed, the time is over, it was interrupted, or the app could not be removed.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    if let Some(version) = args.answer {
        return process::answer(version).await;
    }
    let client = session.client()?;
    let here = mark::Here::look();
    let target = life::target(&Mark::new(&here, args.timeout).name(args.keep));
    let mut steps = Steps::new(session.out);
    let mut kind = None;
    let worked = {
        let all = all_steps(&args, (&client, session), &target, (&mut steps, &mut kind));
        tokio::select! {
            worked = tokio::time::timeout(args.timeout, all) => worked.unwrap_or_else(|_| Err(late(args.timeout))),
            failure = super::exec::ended_by_signal() => Err(failure),
        }
    };
    if let Err(failure) = &worked {
        steps.broken(failure);
    }
    let removed = match args.keep {
        true => Ok(()),
        false => remove(&client, &target, &mut steps, worked.is_err()).await,
    };
    let is_left = args.keep || removed.is_err();
    let outcome = worked.and(removed);
    let report = Report {
        ok: outcome.is_ok(),
        service: target.to_string(),
        app: kind,
        left: is_left,
        duration_ms: steps.total_ms(),
        steps: steps.into_done(),
    };
    if report.ok || session.out.is_json() {
        session.out.result(&report, || done(&report, session));
    }
    if is_left {
        let text = format!("{target} is still there: `skep rm {target}` removes it");
        session.out.warning(&text);
    }
    outcome
}

async fn all_steps(
    args: &Args,
    (client, session): (&Client, &Session),
    target: &Target,
    (steps, kind): (&mut Steps, &mut Option<Kind>),
) -> Result<(), Failure> {
    let here = mark::Here::look();
    steps
        .take("leftovers", life::remove_leftovers(client, &here))
        .await?;
    let seen = steps.take("cluster", life::look(client)).await?;
    let chosen = args.app.choose(&seen.nodes)?;
    *kind = Some(chosen);
    let life = Life {
        client,
        out: session.out,
        target: target.clone(),
        app: App::make(chosen).await?,
        doors: steps
            .take("ingress", doors::find(&args.ingress, &seen.nodes))
            .await?,
    };
    steps.take("deploy", life.deploy(1)).await?;
    steps.take("request", life.is_seen(1)).await?;
    steps.take("second version", life.deploy(2)).await?;
    steps.take("request", life.is_seen(2)).await?;
    steps.take("scale", life.scale(seen.ready())).await?;
    steps.take("rollback", life.roll_back()).await?;
    steps.take("request", life.is_seen(1)).await?;
    Ok(())
}

/// Takes the app away, whatever went before. A second signal ends the wait for it, not the removal.
async fn remove(
    client: &Client,
    target: &Target,
    steps: &mut Steps,
    is_quiet: bool,
) -> Result<(), Failure> {
    let removed = tokio::select! {
        removed = steps.take("remove", life::remove(client, target)) => removed.map(drop),
        failure = super::exec::ended_by_signal() => Err(failure),
    };
    if let Err(failure) = &removed {
        steps.broken(failure);
        if is_quiet {
            // What went wrong first is the answer.
            steps.warn(&format!("not removed: {failure}"));
        }
    }
    removed
}

fn late(timeout: Duration) -> Failure {
    Failure::failed(format!("not through within {}", time::span(timeout)))
        .hint("`skep deployments` and `skep why` tell what it waits for; --timeout gives it longer")
}

fn done(report: &Report, session: &Session) -> String {
    let seconds = Duration::from_millis(report.duration_ms).as_secs_f64();
    let done = session.out.styled(Style::Good, "done:");
    format!("{done} the cluster works ({seconds:.1} s)")
}
