//! `skep releases`: what `skep rollback` can return to.

use skep_control_plane::api::types::ReleasesView;

use crate::failure::Failure;
use crate::output::{time, view};
use crate::session::Session;
use crate::target::{self, Scope};

/// Show the releases of a service
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  skep releases web")]
pub(crate) struct Args {
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
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    let found: ReleasesView = client.get(&format!("{}/releases", target.path())).await?;
    session.out.result(&found.releases, || {
        view::releases(&found.releases, time::now_ms())
    });
    Ok(())
}
