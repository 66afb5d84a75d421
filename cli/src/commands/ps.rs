//! `skep ps`: what runs where.

use skep_control_plane::api::types::{AllocationView, AllocationsView};

use crate::failure::Failure;
use crate::output::{time, view};
use crate::session::Session;
use crate::target::{self, Scope};

/// Show what runs where
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  skep ps\n  skep ps web --all")]
pub(crate) struct Args {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Those that have ended, too
    #[arg(long, short)]
    all: bool,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let path = match &args.service {
        Some(text) => {
            let target = target::find(&client, Some(text), &args.scope).await?;
            format!("/v1/allocations?{}&all={}", target.query(), args.all)
        }
        None => format!("/v1/allocations?all={}", args.all),
    };
    let found: AllocationsView = client.get(&path).await?;
    let in_scope =
        |given: &Option<String>, value: &str| given.as_deref().is_none_or(|it| it == value);
    let shown: Vec<&AllocationView> = found
        .allocations
        .iter()
        .filter(|it| in_scope(&args.scope.project, &it.project))
        .filter(|it| in_scope(&args.scope.environment, &it.environment))
        .collect();
    session
        .out
        .result(&shown, || view::allocations(&shown, time::now_ms()));
    Ok(())
}
