//! `skep stop`: a service without allocations; its releases and variables stay.

use std::time::Duration;

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::ServiceView;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::session::Session;
use crate::target::{self, Scope};

/// Containers may take their grace to end.
pub(super) const END_DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks: the API has no event for services.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Stop a service; the next deployment starts it again
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  skep stop web        `skep restart web` starts it again")]
pub(crate) struct Args {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Do not stay until its containers have ended
    #[arg(long)]
    no_wait: bool,
}

/// Runs the command.
///
/// # Errors
/// Refused, or containers that do not end.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    let path = format!("{}/stop", target.path());
    let mut view: ServiceView = client.send(Method::POST, &path, &json!({})).await?;
    let deadline = Instant::now() + END_DEADLINE;
    while !args.no_wait && view.allocations.live > 0 {
        if Instant::now() >= deadline {
            let message = format!(
                "{} of its allocations have not ended yet",
                view.allocations.live
            );
            return Err(Failure::failed(message).hint("`skep ps` shows where they run"));
        }
        tokio::time::sleep(LOOK).await;
        view = client.get(&target.path()).await?;
    }
    session.out.result(&view, || format!("{target} is stopped"));
    Ok(())
}
