//! `skep server history`: the history in a server's file, carried over to a shared database. Needs no
//! server, and stops none.

use skep_control_plane::history::Error;
use skep_control_plane::history::carry::{self, Carried};

use crate::failure::{Failure, chain};
use crate::session::Session;

/// The history: audit, timelines, build logs
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Carry the history in a server's file over to PostgreSQL
    #[command(after_help = "\
Run it on each machine, once its server writes to PostgreSQL:

  SKEP_HISTORY=postgres://skep@db.example.com/skep \\
    skep server history copy --from sqlite:///var/lib/skep/history.db

Servers may run meanwhile. What is there already stays as it is, so it may be broken off and run
again; what was written to the file since comes with the next run. Nothing is taken out of the file.")]
    Copy {
        /// The file: sqlite://PATH, or a path
        #[arg(long, value_name = "URL")]
        from: String,
        /// The database: postgres://...; better given by the environment, as it may hold a password
        #[arg(long, value_name = "URL", env = "SKEP_HISTORY", hide_env_values = true)]
        to: String,
    },
}

/// Runs the command.
///
/// # Errors
/// One of the two is not what it should be, or fails; what was carried by then stays.
pub(crate) async fn run(command: &Command, session: &Session) -> Result<(), Failure> {
    let Command::Copy { from, to } = command;
    let progress = |carried: Carried| session.out.progress(&shown(&carried));
    let carried = carry::over((from, to), progress).await;
    let carried = carried.map_err(|error| match &error {
        Error::Database(_) => Failure::failed(chain(&error))
            .hint("what was carried so far is kept: run it again once the cause is gone"),
        _ => Failure::usage(chain(&error)),
    })?;
    session.out.result(&carried, || shown(&carried));
    Ok(())
}

fn shown(carried: &Carried) -> String {
    format!(
        "{} deployments looked at: {} events and {} entries were new",
        carried.deployments, carried.events, carried.entries
    )
}
