//! `skep agent doctor`: examines this machine, and the same before an agent joins.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use skep_model::problem::{Code, Problem};
use skep_node_agent::doctor::{self, Finding, Level, Options};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, chain};
use crate::output::Output;

/// Between two looks for a Docker that may still be starting.
const DOCKER_PAUSE: Duration = Duration::from_secs(2);

/// Examine whether this machine can be a node, and say what to fix
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep agent doctor
  SKEP_JOIN_TOKEN=$(cat join.token) skep agent doctor --server skep.example.com:7072

It runs a container of an image that it makes itself (no registry is needed), reaches it, removes both,
and looks at Docker, limits, storage, memory, the data folder, the data plane and the clock. Exits
with 1 where something fails; `skep agent` does not join then.")]
pub(crate) struct Args {
    /// Docker's socket [default: what DOCKER_HOST says, else /var/run/docker.sock]
    #[arg(long, value_name = "PATH", env = "SKEP_DOCKER_SOCKET")]
    docker_socket: Option<PathBuf>,
    /// The agent's data folder: whether it can be written, and its identity to speak to a server with
    #[arg(long, value_name = "DIR", env = "SKEP_AGENT_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where a server takes agents: whether it can be reached, and its clock
    #[arg(long, value_name = "HOST:PORT", env = "SKEP_SERVER")]
    server: Option<String>,
    /// Join token, to trust a server by before the node has joined
    #[arg(
        long = "join",
        value_name = "TOKEN",
        env = "SKEP_JOIN_TOKEN",
        hide_env_values = true
    )]
    join_token: Option<String>,
    /// Socket of this node's data plane
    #[arg(long, value_name = "PATH", env = "SKEP_NET_SOCKET")]
    net_socket: Option<PathBuf>,
    /// Memory of the node, where the machine does not tell
    #[arg(long, value_name = "SIZE", env = "SKEP_AGENT_MEMORY", value_parser = super::agent::bytes)]
    memory: Option<u64>,
    /// The program that plans builds of folders without a Dockerfile [default: `nixpacks` on the PATH, where
    /// there is one]
    #[arg(long, value_name = "PROGRAM", env = "SKEP_AGENT_NIXPACKS")]
    nixpacks: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Examines the machine.
///
/// # Errors
/// Something fails.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let docker_host = std::env::var("DOCKER_HOST").ok();
    let options = Options {
        docker_socket: super::agent::docker_socket(args.docker_socket, docker_host)?,
        net_socket: args.net_socket,
        data_dir: args.data_dir,
        server: args.server,
        join_token: args.join_token,
        memory_bytes: args.memory,
        nixpacks: super::agent::nixpacks(args.nixpacks),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(chain(&error)))?;
    let findings = runtime.block_on(doctor::examine(&options));
    let failed = failed(&findings);
    let all = json!({ "ok": failed.is_empty(), "findings": findings });
    Output::new(args.json).result(&all, || text(&findings));
    match failed.len() {
        0 => Ok(()),
        count => Err(Failure::failed(format!(
            "{count} of {} checks fail: this machine cannot be a node yet",
            findings.len()
        ))),
    }
}

fn failed(findings: &[Finding]) -> Vec<&Finding> {
    let failed = findings.iter().filter(|one| one.level == Level::Fail);
    failed.collect()
}

fn text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        lines.push(format!("{mark}  {:<12}  {}", finding.check, finding.text));
        let fix = finding.fix.iter();
        lines.extend(fix.map(|fix| format!("{:<20}{fix}", "")));
    }
    lines.join("\n")
}

/// Before an agent joins: waits for Docker where it is not there yet.
///
/// # Errors
/// An essential check fails: the same text as `skep agent doctor` prints.
pub(crate) async fn admit(options: &Options, shutdown: &CancellationToken) -> Result<(), Failure> {
    let mut is_told = false;
    loop {
        let findings = doctor::essentials(options).await;
        if failed(&findings).is_empty() {
            return Ok(());
        }
        if !doctor::is_docker_away(&findings) {
            let problem = Problem::new(Code::Internal, "this machine cannot be a node yet")
                .hint("`skep agent doctor` examines it again");
            return Err(Failure {
                context: text(&findings).lines().map(str::to_owned).collect(),
                ..Failure::of(problem)
            });
        }
        if !is_told {
            let why = findings.iter().map(ToString::to_string);
            tracing::warn!(why = why.collect::<Vec<_>>().join("; "), "not joining yet");
            is_told = true;
        }
        let pause = tokio::time::sleep(DOCKER_PAUSE);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_what_to_do_another() {
        let finding = |check, level, fix: Option<&str>| Finding {
            check,
            level,
            text: "so it is".into(),
            fix: fix.map(str::to_owned),
        };
        let findings = [
            finding("docker", Level::Ok, None),
            finding("network", Level::Fail, Some("do that")),
        ];
        let expected = "\
ok    docker        so it is
FAIL  network       so it is
                    do that";
        assert_eq!(text(&findings), expected);
        assert_eq!(failed(&findings).len(), 1);
    }
}
