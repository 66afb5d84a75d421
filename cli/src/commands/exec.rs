//! `skep exec`: a command in a running container, with this terminal or these pipes as its own, and
//! its exit code as ours.

use skep_model::problem::{Code, Problem};
use skep_model::shell::Frame;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Exit, Failure, chain};
use crate::session::Session;
use crate::shell::line::{self, Line, Shell};
use crate::shell::stdio::{self, Output};
use crate::shell::{self, terminal};
use crate::target::{self, Scope};

/// What a shell reports for a program that SIGTERM or SIGHUP ended.
const TERMINATED: u8 = 143;
const HUNG_UP: u8 = 129;
/// What it reports for a program whose reader went away.
const BROKEN_PIPE: u8 = 141;
/// Exit codes are a byte here: what is none of them is this.
const ODD_CODE: u8 = 255;

/// Run a command in a running container
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep exec web -- ls -l /data
  skep exec -it web sh
  skep exec web --alloc 3XW9 -- cat /proc/1/status
  pg_dump db | skep exec -i web -- psql

The command runs in a healthy container of the live release, or in the allocation that --alloc names;
which one is told on stderr. No shell reads the command: `sh -c '...'` is one. skep exits with its exit
code, and with 126 or 127 where it cannot be run. When this end goes away, the command is ended: SIGHUP
to all that it started, and SIGKILL 5 s later. The audit trail has the command, never what it reads or
writes.")]
pub(crate) struct Args {
    /// Hand on what this command reads
    #[arg(short, long)]
    interactive: bool,
    /// Run it on a terminal of its own
    #[arg(short, long)]
    tty: bool,
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    scope: Scope,
    /// In this allocation
    #[arg(long, value_name = "ID")]
    alloc: Option<String>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Refused, broken off, or the command's own exit code.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    if args.tty && args.interactive && !terminal::is_there() {
        return Err(
            Failure::usage("stdin is no terminal").hint("leave out -t to hand on what is piped in")
        );
    }
    let client = session.client()?;
    let target = target::find(&client, Some(&args.service), &args.scope).await?;
    let chosen = shell::allocation(&client, &target, args.alloc.as_deref()).await?;
    let command = serde_json::to_string(&args.command)
        .map_err(|error| Failure::usage(format!("the command cannot be sent: {error}")))?;
    let mut query = format!("stdin={}&tty={}{chosen}", args.interactive, args.tty);
    shell::with(&mut query, "command", &command);
    if args.tty {
        let size = terminal::size();
        query.push_str(&format!("&columns={}&rows={}", size.columns, size.rows));
        let term = std::env::var("TERM").unwrap_or_default();
        shell::with(&mut query, "term", &term);
    }
    let path = format!("{}/exec?{query}", target.path());
    let opened = line::open(&client, &path).await?;
    shell::tell(session, &opened.opened, args.alloc.is_some());
    let taken = match args.tty && args.interactive {
        true => Some(terminal::Taken::wholly().map_err(|error| Failure::failed(chain(&error)))?),
        false => None,
    };
    let run = drive(opened, (args.interactive, args.tty));
    let ended = tokio::select! {
        ended = run => ended,
        failure = ended_by_signal() => Err(failure),
    };
    // Before anything is printed.
    drop(taken);
    judge(ended?)
}

/// What a command's exit code is to whoever ran it.
fn judge(code: i32) -> Result<(), Failure> {
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::exited(code)),
        Err(_) => Err(Failure::exited(ODD_CODE)),
    }
}

/// Ends with the first signal that wants this process to end.
pub(super) async fn ended_by_signal() -> Failure {
    let caught = |kind| signal(kind).map_err(|error| Failure::failed(chain(&error)));
    let caught = (
        caught(SignalKind::interrupt()),
        caught(SignalKind::terminate()),
        caught(SignalKind::hangup()),
    );
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = caught else {
        return Failure::failed("signals cannot be caught");
    };
    let ended = |text: &str| Problem::new(Code::Canceled, text);
    tokio::select! {
        _ = interrupt.recv() => Failure::with(Exit::Interrupted, ended("interrupted")),
        _ = terminate.recv() => Failure::of(ended("terminated")).exiting(TERMINATED),
        _ = hangup.recv() => Failure::of(ended("the terminal was closed")).exiting(HUNG_UP),
    }
}

/// Passes everything both ways; answers the exit code.
async fn drive(shell: Shell, (has_input, is_terminal): (bool, bool)) -> Result<i32, Failure> {
    let line = shell.line.clone();
    tokio::select! {
        ended = outcome(shell) => ended,
        never = feed(&line, has_input) => match never {},
        never = follow_size(&line, is_terminal) => match never {},
    }
}

async fn feed(line: &Line, has_input: bool) -> std::convert::Infallible {
    if has_input {
        let mut input = stdio::input();
        while let Some(bytes) = input.recv().await {
            // How it ended, the events tell.
            if line.data(bytes).await.is_err() {
                return std::future::pending().await;
            }
        }
        let _ = line.send(Frame::Eof).await;
    }
    std::future::pending().await
}

async fn follow_size(line: &Line, is_terminal: bool) -> std::convert::Infallible {
    if is_terminal && let Ok(mut changed) = signal(SignalKind::window_change()) {
        while changed.recv().await.is_some() {
            if line.send(Frame::Resize(terminal::size())).await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// Writes what comes; answers the exit code once all is written.
pub(super) async fn outcome(mut shell: Shell) -> Result<i32, Failure> {
    let mut output = Output::new();
    let mut ended = None;
    loop {
        tokio::select! {
            event = shell.events.recv(), if ended.is_none() => match event {
                Some(Ok(Frame::Data(data))) => output.put(false, data),
                Some(Ok(Frame::Stderr(data))) => output.put(true, data),
                Some(Ok(Frame::Exit(code))) => {
                    ended = Some(Ok(code));
                    output.finish();
                }
                Some(Ok(_)) => {}
                Some(Err(problem)) => {
                    ended = Some(Err(problem.into()));
                    output.finish();
                }
                None => {
                    ended = Some(Err(Failure::failed("the shell ended without a word")));
                    output.finish();
                }
            },
            written = output.written() => match written {
                Ok(Some(bytes)) => {
                    // One that is over needs no grants.
                    let _ = shell.line.release(bytes).await;
                }
                Ok(None) => return ended.unwrap_or_else(|| Err(Failure::exited(BROKEN_PIPE))),
                // `| head` has seen enough.
                Err(_) => return Err(Failure::exited(BROKEN_PIPE)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_commands_own() {
        let own = |code| judge(code).err().and_then(|failure| failure.own);
        assert_eq!(own(0), None);
        assert!(judge(0).is_ok());
        assert_eq!(
            (own(7), own(255), own(-1), own(300)),
            (Some(7), Some(255), Some(255), Some(255))
        );
    }
}
