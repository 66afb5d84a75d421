//! `skep alloc`: allocations by themselves, and what is to become of those in quarantine.

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{AllocationView, AllocationsView, QuarantinedView};
use skep_model::problem::{Code, Problem};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{confirm, table, time, view};
use crate::session::Session;

/// Allocations, and what is in quarantine after a restore
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    Ls {
        /// Those that have ended, too
        #[arg(long, short)]
        all: bool,
        /// Instead, what nodes run and the restored cluster does not know
        #[arg(long, conflicts_with = "all")]
        quarantine: bool,
    },
    /// Take one out of quarantine into the cluster: it counts and is routed again
    Adopt {
        /// Its id, as listed
        #[arg(value_name = "ALLOCATION")]
        allocation: String,
    },
    /// Stop and remove one that is in quarantine
    Dismiss {
        /// Its id, as listed
        #[arg(value_name = "ALLOCATION")]
        allocation: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Ls {
            quarantine: true, ..
        } => list_quarantine(session).await,
        Command::Ls { all, .. } => list(all, session).await,
        Command::Adopt { allocation } => settle(&allocation, "adopt", session).await,
        Command::Dismiss { allocation, yes } => {
            if !yes && !confirm(&format!("Stop and remove {allocation}?")) {
                let problem = Problem::invalid("--yes", "it runs on: not confirmed");
                return Err(problem.hint("answer y on a terminal, or say --yes").into());
            }
            settle(&allocation, "dismiss", session).await
        }
    }
}

async fn list(all: bool, session: &Session) -> Result<(), Failure> {
    let path = format!("/v1/allocations?all={all}");
    let found: AllocationsView = session.client()?.get(&path).await?;
    let shown: Vec<&AllocationView> = found.allocations.iter().collect();
    session
        .out
        .result(&shown, || view::allocations(&shown, time::now_ms()));
    Ok(())
}

async fn list_quarantine(session: &Session) -> Result<(), Failure> {
    let found = quarantine(&session.client()?).await?;
    session.out.result(&found, || {
        let now_ms = time::now_ms();
        let row = |one: &QuarantinedView| {
            vec![
                one.id.short(),
                one.service.clone(),
                one.release.to_string(),
                one.node.clone(),
                time::age(now_ms, one.since_ms),
                if one.adoptable { "yes" } else { "no" }.to_owned(),
            ]
        };
        table::render(
            &[
                "ALLOCATION",
                "SERVICE",
                "RELEASE",
                "NODE",
                "SINCE",
                "ADOPTABLE",
            ],
            found.iter().map(row).collect(),
            "nothing is in quarantine",
        )
    });
    Ok(())
}

async fn quarantine(client: &Client) -> Result<Vec<QuarantinedView>, Failure> {
    let found: AllocationsView = client.get("/v1/allocations?quarantine=true").await?;
    Ok(found.quarantine.unwrap_or_default())
}

async fn settle(text: &str, verb: &str, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let all = quarantine(&client).await?;
    let id = pick(&all, text)?.id;
    let path = format!("/v1/allocations/{id}/{verb}");
    let settled: QuarantinedView = client.send(Method::POST, &path, &json!({})).await?;
    session.out.result(&settled, || match verb {
        "adopt" => format!("{text} belongs to {} again", settled.service),
        _ => format!("{text} is being stopped on {}", settled.node),
    });
    Ok(())
}

/// The one that is meant by an id in full, or as lists show it.
fn pick<'a>(all: &'a [QuarantinedView], text: &str) -> Result<&'a QuarantinedView, Problem> {
    let mut meant = all
        .iter()
        .filter(|one| one.id.to_string() == text || one.id.short() == text);
    let hint = "`skep alloc ls --quarantine` lists what is; with --json, with ids in full";
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let message = format!("{text} is not in quarantine");
            Err(Problem::new(Code::NotFound, message).hint(hint))
        }
        (Some(_), Some(_)) => {
            Err(Problem::invalid("ALLOCATION", "more than one has this end").hint(hint))
        }
    }
}
