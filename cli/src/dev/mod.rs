//! `skep dev`: the whole of Skep on this machine. Owns the folder of its data, the choice of ports
//! and the life of three child processes; everything else is theirs.

mod announce;
mod child;
mod log;
mod plan;
mod ports;
mod supervisor;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use skep_identity::secret_file;
use skep_model::problem::{Code, Problem};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::context::folder_from;
use crate::failure::{Failure, chain};
use crate::session::Session;
use announce::Addresses;
use plan::{Folders, Ports};
use ports::Port;
use supervisor::Supervisor;

/// The usual ports.
const API: u16 = 7070;
const HTTP: u16 = 7071;
const AGENTS: u16 = 7072;
const ADMIN: u16 = 7073;
const INGRESS: u16 = 8000;

/// Run all of Skep on this machine until Ctrl-C
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep dev
  skep dev --data-dir ./skep-data --ingress-port 8080

A usual port that is taken is replaced by a free one; one that was asked for is not. The addresses
are printed, written to DIR/dev.json, and kept as the context `dev`. Ctrl-C stops the apps, too; the
next `skep dev` brings them back. Warnings of the parts are shown here, all they say is in DIR/logs.")]
pub(crate) struct Args {
    /// Folder that keeps everything [default: skep in the user's data folder]
    #[arg(long, value_name = "DIR", env = "SKEP_DEV_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Port of the API (TLS) [default: 7070]
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// Port of the API on plain HTTP, for the browser [default: 7071]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Port that the agent dials [default: 7072]
    #[arg(long, value_name = "PORT")]
    agent_port: Option<u16>,
    /// Port that apps are served on [default: 8000]
    #[arg(long, value_name = "PORT")]
    ingress_port: Option<u16>,
    /// Port of Traefik's endpoint and the data plane's metrics [default: 7073]
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
}

/// Runs until a signal ends it.
///
/// # Errors
/// It cannot start: another one runs here, a port is taken, a part fails again and again.
pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let folders = Folders {
        root: data_dir(args)?,
    };
    let ports = Ports {
        api: Port::choose("--api-port", args.api_port, API)?,
        http: Port::choose("--http-port", args.http_port, HTTP)?,
        agents: Port::choose("--agent-port", args.agent_port, AGENTS)?,
        ingress: Port::choose("--ingress-port", args.ingress_port, INGRESS)?,
        admin: Port::choose("--admin-port", args.admin_port, ADMIN)?,
    };
    let lock = prepare(&folders)?;
    // Only watches and waits: the parts have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(chain(&error)))?;
    let result = runtime.block_on(supervise(folders, ports, session));
    drop(lock);
    result
}

fn data_dir(args: &Args) -> Result<PathBuf, Failure> {
    let chosen = args
        .data_dir
        .clone()
        .or_else(|| folder_from("XDG_DATA_HOME").map(|base| base.join("skep")))
        .or_else(|| folder_from("HOME").map(|home| home.join(".local/share/skep")));
    let chosen = chosen.ok_or_else(|| {
        Failure::usage("neither HOME nor XDG_DATA_HOME is set")
            .hint("--data-dir says where to keep data")
    })?;
    // The parts get it as an argument, and it is shown: no `./` in either.
    std::path::absolute(&chosen).map_err(|error| Failure::usage(chain(&error)))
}

/// Makes the folders and takes the lock.
fn prepare(folders: &Folders) -> Result<File, Failure> {
    if !folders.is_socket_short_enough() {
        let problem = Problem::invalid(
            "--data-dir",
            "the path is too long for the sockets inside it",
        );
        return Err(problem.hint("at most about 90 characters").into());
    }
    let refuse = |error: secret_file::Error| Failure::failed(chain(&error));
    // A folder that is there already may be open to others: what matters is private by itself.
    if !folders.root.is_dir() {
        secret_file::ensure_private_dir(&folders.root).map_err(refuse)?;
    }
    for folder in [folders.logs(), folders.node()] {
        secret_file::ensure_private_dir(&folder).map_err(refuse)?;
    }
    take_lock(&folders.lock(), &folders.root)
}

/// The system lets go of it when this process ends, however it ends.
fn take_lock(path: &Path, root: &Path) -> Result<File, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot lock {}: {error}", path.display()))
    };
    let file = File::create(path).map_err(|error| broken(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another `skep dev` runs on {}", root.display());
            Err(Problem::new(Code::Conflict, message)
                .hint("stop it, or choose another folder with --data-dir")
                .into())
        }
        Err(TryLockError::Error(error)) => Err(broken(&error)),
    }
}

async fn supervise(folders: Folders, ports: Ports, session: &Session) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut supervisor = Supervisor::new(folders.clone(), ports);
    let started = tokio::select! {
        started = supervisor.bring_up() => started,
        () = signals.next() => Err(Failure::failed("stopped before it was ready")),
    };
    let result = match started {
        Ok(addresses) => serve(&mut supervisor, &addresses, &mut signals, session).await,
        Err(failure) => Err(failure),
    };
    announce::withdraw(&folders);
    tokio::select! {
        () = supervisor.stop() => {}
        () = signals.next() => {
            supervisor.kill().await;
            return Err(Failure::failed("stopped at once; apps may still run: `docker ps`"));
        }
    }
    result
}

async fn serve(
    supervisor: &mut Supervisor,
    addresses: &Addresses,
    signals: &mut Signals,
    session: &Session,
) -> Result<(), Failure> {
    let is_current = announce::keep_context(addresses)?;
    announce::write(supervisor.folders(), addresses, supervisor.processes())?;
    announce::wait_for_node(addresses, session.out).await;
    announce::say(supervisor.folders(), addresses, is_current, session.out);
    tokio::select! {
        result = supervisor.watch(addresses) => result?,
        () = signals.next() => {}
    }
    session.out.progress("stopping");
    Ok(())
}

/// Whatever asks this process to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let watch = |kind| signal(kind).map_err(|error| Failure::failed(chain(&error)));
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_dev_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = Folders {
            root: folder.path().join("data"),
        };
        let first = prepare(&folders).expect("free");
        let failure = prepare(&folders).expect_err("taken");
        assert!(
            failure.problem.message.contains("another `skep dev`"),
            "{failure}"
        );
        drop(first);
        prepare(&folders).expect("free again");
    }
}
