//! `skep relax`: whether constraints on nodes are preferences in an environment.

use clap::ValueEnum;
use http::Method;
use skep_control_plane::api::types::{QuotaView, RelaxedRequest};

use super::quota::{Whose, text};
use crate::failure::Failure;
use crate::session::Session;

/// Make constraints on nodes preferences in an environment, or take that back
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep relax on --project shop -e staging       where no node fulfils them, any will do
  skep relax off --project shop -e production   they hold, whatever the workspace says
  skep relax inherit --project shop -e staging  as the workspace says
  skep relax off                                the default workspace

`skep dev` begins with a relaxed workspace. `skep why SERVICE` says what is not fulfilled.")]
pub(crate) struct Args {
    /// Whether they are preferences
    #[arg(value_enum)]
    relaxed: Relaxed,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Relaxed {
    /// They are.
    On,
    /// They are not.
    Off,
    /// As in what it belongs to; in the end they are not.
    Inherit,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let relaxed = match args.relaxed {
        Relaxed::On => Some(true),
        Relaxed::Off => Some(false),
        Relaxed::Inherit => None,
    };
    let path = format!("{}/relaxed", args.whose.path());
    let request = RelaxedRequest { relaxed };
    let client = session.client()?;
    let view: QuotaView = client.send(Method::PUT, &path, &request).await?;
    session
        .out
        .result(&view, || text(std::slice::from_ref(&view)));
    Ok(())
}
