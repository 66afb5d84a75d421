//! `skep attach`: what a container writes, as it writes it.

use crate::failure::{Failure, chain};
use crate::session::Session;
use crate::shell::keys::Detach;
use crate::shell::{self, line, stdio, terminal};
use crate::target::{self, Scope};

use super::exec::{ended_by_signal, outcome};

/// Watch what a running container writes, until it ends
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep attach web
  skep attach web --alloc 3XW9

Shows stdout and stderr byte by byte from now on, and nothing of before: `skep logs` has that. ctrl-p
ctrl-q leaves, as does Ctrl-C; the container goes on. Where it ends, skep exits with its exit code.
Containers of services have no input: `skep exec -it` is a way in.")]
pub(crate) struct Args {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// To this allocation
    #[arg(long, value_name = "ID")]
    alloc: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Refused, broken off, or the container's own exit code.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    let chosen = shell::allocation(&client, &target, args.alloc.as_deref()).await?;
    let query = chosen.trim_start_matches('&');
    let path = format!("{}/attach?{query}", target.path());
    let opened = line::open(&client, &path).await?;
    shell::tell(session, &opened.opened, args.alloc.is_some());
    let taken = match terminal::is_there() {
        true => Some(terminal::Taken::for_keys().map_err(|error| Failure::failed(chain(&error)))?),
        false => None,
    };
    let ended = tokio::select! {
        ended = outcome(opened) => ended,
        () = detached(taken.is_some()) => Ok(0),
        failure = ended_by_signal() => Err(failure),
    };
    drop(taken);
    match ended? {
        0 => Ok(()),
        code => {
            let text = format!("the container exited with code {code}");
            let failure = Failure::failed(text);
            Err(match u8::try_from(code) {
                Ok(code) => failure.exiting(code),
                Err(_) => failure,
            })
        }
    }
}

/// Returns when the keys that leave are typed.
async fn detached(is_terminal: bool) {
    if is_terminal {
        let (mut input, mut detach) = (stdio::input(), Detach::default());
        while let Some(typed) = input.recv().await {
            if detach.typed(&typed) {
                return;
            }
        }
    }
    std::future::pending().await
}
