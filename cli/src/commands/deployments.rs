//! `skep deployments`: what was deployed, and how it went.

use skep_control_plane::api::types::DeploymentsView;

use crate::failure::Failure;
use crate::output::{time, view};
use crate::session::Session;
use crate::target::{self, Scope};

/// Show the deployments of a service
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  skep deployments web")]
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
    let found: DeploymentsView = client
        .get(&format!("{}/deployments", target.path()))
        .await?;
    session.out.result(&found.deployments, || {
        view::deployments(&found.deployments, time::now_ms())
    });
    Ok(())
}
