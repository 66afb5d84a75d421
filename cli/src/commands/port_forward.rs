//! `skep port-forward`: ports of a container at this machine's loopback. Each connection is a shell of
//! its own, so that it finds a container of the release that is live by then.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::json;
use skep_model::problem::{Code, Problem};
use skep_model::shell::{DATA_MAX_BYTES, Frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::exec::ended_by_signal;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::session::Session;
use crate::shell;
use crate::shell::line::{self, Line, Shell};
use crate::target::{self, Scope};

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// Reach ports of a running container from this machine
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep port-forward db 5432
  skep port-forward web 8080:80 9090:9090
  skep port-forward web 0:80       any free port here

Listens on 127.0.0.1 until Ctrl-C. Each connection goes to a healthy container of the live release, or
to the allocation that --alloc names; a port need not be one that is routed. The audit trail has each
connection, never what passes.")]
pub(crate) struct Args {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    scope: Scope,
    /// To this allocation
    #[arg(long, value_name = "ID")]
    alloc: Option<String>,
    /// A port here and one there; one alone is both
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<Ports>,
}

/// A port here and one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    local: u16,
    remote: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let port = |text: &str| {
            text.parse::<u16>()
                .map_err(|_| format!("`{text}` is no port: 1 to 65535 are"))
        };
        match (port(local)?, port(remote)?) {
            (_, 0) => Err("0 is no port of a container".to_owned()),
            (local, remote) => Ok(Self { local, remote }),
        }
    }
}

/// Runs the command until it is interrupted.
///
/// # Errors
/// No such service, or a port here is taken.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, Some(&args.service), &args.scope).await?;
    let chosen = shell::allocation(&client, &target, args.alloc.as_deref()).await?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut listening = JoinSet::new();
    for Ports { local, remote } in args.ports {
        let (listener, at) = listen(local).await?;
        let forward = Forward {
            client: client.clone(),
            out: session.out,
            path: format!("{}/forward?port={remote}{chosen}", target.path()),
            room: room.clone(),
        };
        let told = json!({ "local": at.to_string(), "remote": remote });
        session.out.item(&told, || {
            format!("{at} -> port {remote} of {target}, until Ctrl-C")
        });
        listening.spawn(forward.serve(listener));
    }
    let failure = ended_by_signal().await;
    match failure.exit {
        // The one way to end it.
        Exit::Interrupted => Ok(()),
        _ => Err(failure),
    }
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |error: std::io::Error| {
        let text = format!("cannot listen on {address}: {error}");
        let problem = Problem::new(Code::Conflict, text);
        Failure::of(problem.hint("`0:PORT` takes any port that is free"))
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

#[derive(Clone)]
struct Forward {
    client: Client,
    out: Output,
    path: String,
    room: Arc<Semaphore>,
}

impl Forward {
    async fn serve(self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            let slot = self.room.clone().acquire_owned().await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = open.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let forward = self.clone();
                    open.spawn(async move {
                        if let Err(failure) = forward.connect(stream).await {
                            forward.out.warning(&failure.problem.to_string());
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    self.out
                        .warning(&format!("a connection could not be taken: {error}"));
                }
            }
        }
    }

    async fn connect(&self, stream: TcpStream) -> Result<(), Failure> {
        let _ = stream.set_nodelay(true);
        let shell = line::open(&self.client, &self.path).await?;
        let (from, to) = stream.into_split();
        let line = shell.line.clone();
        tokio::select! {
            done = down(shell, to) => done,
            () = up(from, &line) => Ok(()),
        }
    }
}

/// Returns when the local side broke off; after its orderly end the other may go on.
async fn up(mut from: OwnedReadHalf, line: &Line) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(DATA_MAX_BYTES);
        let sent = match from.read_buf(&mut buffer).await {
            Ok(0) => {
                let _ = line.send(Frame::Eof).await;
                return std::future::pending().await;
            }
            Ok(_) => line.data(buffer.split().freeze()).await,
            Err(_) => return,
        };
        if sent.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn down(mut shell: Shell, mut to: OwnedWriteHalf) -> Result<(), Failure> {
    while let Some(event) = shell.events.recv().await {
        match event {
            Ok(Frame::Data(data)) => {
                // Whoever does not read any more has gone.
                if to.write_all(&data).await.is_err() {
                    return Ok(());
                }
                let _ = shell.line.release(data.len()).await;
            }
            Ok(Frame::Eof) => {
                let _ = to.shutdown().await;
            }
            Ok(Frame::Exit(_)) => return Ok(()),
            Ok(_) => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_is_both_and_zero_is_any_here() {
        for (text, expected) in [
            ("80", Some((80, 80))),
            ("8080:80", Some((8080, 80))),
            ("0:80", Some((0, 80))),
            ("80:0", None),
            ("0", None),
            (":80", None),
            ("80:", None),
            ("1:2:3", None),
            ("65536", None),
        ] {
            let found = text.parse::<Ports>().ok();
            let found = found.map(|ports| (ports.local, ports.remote));
            assert_eq!(found, expected, "{text}");
        }
    }
}
