//! `skep rm`: removes a service and what belongs to it.

use http::Method;
use serde_json::{Value, json};
use skep_model::problem::Problem;
use tokio::time::Instant;

use super::stop::{END_DEADLINE, LOOK};
use super::up::existing;
use crate::failure::Failure;
use crate::output::confirm;
use crate::session::Session;
use crate::target::{self, Scope};

/// Remove a service and all that belongs to it
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  skep rm shop/staging/web --yes")]
pub(crate) struct Args {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Do not stay until its containers have ended
    #[arg(long)]
    no_wait: bool,
}

/// Runs the command.
///
/// # Errors
/// Not confirmed, refused, or containers that do not end.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    if !args.yes && !confirm(&format!("Remove {target}, its variables and releases?")) {
        let problem = Problem::invalid("--yes", format!("{target} is not removed: not confirmed"));
        return Err(problem.hint("answer y on a terminal, or say --yes").into());
    }
    let _: Value = client
        .send(Method::DELETE, &target.path(), &json!({}))
        .await?;
    let deadline = Instant::now() + END_DEADLINE;
    while !args.no_wait && existing(&client, &target).await?.is_some() {
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!("{target} is still being removed"))
                .hint("`skep ps` shows what has not ended"));
        }
        tokio::time::sleep(LOOK).await;
    }
    session
        .out
        .result(&json!({ "removed": target.to_string() }), || {
            format!("{target} is removed")
        });
    Ok(())
}
