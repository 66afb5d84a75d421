//! Simulated agents as a program: `skep-sim-agent`. Tells on its output, a line of JSON at a time, how
//! far they are; benches start it beside a server so that its own work is not taken for the server's.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};

use super::{Agents, Behavior, guest, join_all};
use crate::process::Process;

/// Uses of one join token.
pub const TOKEN_USES: usize = 1_000;

/// Joins many nodes that have no machine and keeps their sessions: a cluster's load without a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "skep-sim-agent",
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    /// As one node in a guest instead
    #[command(subcommand)]
    one: Option<One>,
    /// Where agents dial the server
    #[arg(long, value_name = "ADDRESS", required = true)]
    server: Option<SocketAddr>,
    /// The cluster's CA, as PEM
    #[arg(long, value_name = "FILE", required = true)]
    ca: Option<PathBuf>,
    /// Join token of nodes; once for every 1,000 agents
    #[arg(long, value_name = "TOKEN", required = true)]
    token: Vec<String>,
    /// How many agents
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// Number of the first one, for its name
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// Milliseconds from being told to run an allocation to its health
    #[arg(long, default_value_t = 0, value_name = "MS")]
    start_ms: u64,
    /// Say nothing of what nodes and allocations use
    #[arg(long)]
    without_samples: bool,
    /// Milliseconds between two lines of progress
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    report_ms: u64,
    /// End when standard input does
    #[arg(long)]
    exit_with_parent: bool,
}

/// What it can be instead of many.
#[derive(Debug, clap::Subcommand)]
enum One {
    /// One node in a guest, by the environment that the guest was told: SKEP_SERVER, SKEP_JOIN_TOKEN, SKEP_NODE_NAME
    Guest(guest::Options),
}

/// A line of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Since the program began, ms.
    pub at_ms: u64,
    /// Agents in session.
    pub connected: usize,
    /// Allocations that the server has acknowledged to be healthy.
    pub healthy: usize,
}

/// Runs the program.
///
/// # Errors
/// An option means nothing, or a node is refused.
pub async fn main(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let options = Options::parse_from(arguments);
    if let Some(One::Guest(options)) = options.one {
        return tokio::select! {
            () = end_of_input() => Ok(()),
            ended = guest::run(options) => ended,
        };
    }
    let (Some(server), Some(ca)) = (options.server, options.ca) else {
        bail!("--server and --ca are needed");
    };
    let began = Instant::now();
    let ca_pem =
        std::fs::read_to_string(&ca).with_context(|| format!("{} cannot be read", ca.display()))?;
    ensure!(
        options.token.len() * TOKEN_USES >= options.agents,
        "{} agents need a token for every {TOKEN_USES}",
        options.agents
    );
    let mut members = Vec::with_capacity(options.agents);
    for token in &options.token {
        let count = (options.agents - members.len()).min(TOKEN_USES);
        let first = options.first + members.len();
        members.extend(join_all(server, &ca_pem, token, first, count).await?);
    }
    let behavior = Behavior {
        start: Duration::from_millis(options.start_ms),
        has_samples: !options.without_samples,
        has_build_logs: false,
    };
    let agents = Agents::start(server, members, behavior);
    tokio::select! {
        () = end_of_input(), if options.exit_with_parent => Ok(()),
        told = tell(&agents, began, Duration::from_millis(options.report_ms)) => told,
    }
}

async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: the program does not wait for it when it ends otherwise.
    std::thread::spawn(move || {
        // Whatever comes, it is the end that matters.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

async fn tell(agents: &Agents, began: Instant, period: Duration) -> Result<()> {
    let mut tick = tokio::time::interval(period);
    loop {
        tick.tick().await;
        let progress = Progress {
            at_ms: u64::try_from(began.elapsed().as_millis())?,
            connected: agents.connected(),
            healthy: agents.healthy(),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&progress)?)?;
        out.flush()?;
    }
}

/// First argument of a bench that is to be this program.
const APART: &str = "skep-sim-agent";
/// Milliseconds between two lines of a bench's agents: as exact as its figures need.
const BENCH_REPORT_MS: &str = "100";

/// Whether a bench was started by [`apart`], and is to run [`main`] with all arguments but its own name.
pub fn is_asked_for() -> bool {
    std::env::args().nth(1).is_some_and(|first| first == APART)
}

/// The agents as a process beside the bench that is running, not started yet.
///
/// # Errors
/// The own program cannot be found.
pub fn apart(log: PathBuf, ca: &Path, arguments: Vec<String>) -> Result<Process> {
    let own = std::env::current_exe()?;
    Ok(Process::new(APART, &own, log)
        .args([APART, "--exit-with-parent", "--report-ms", BENCH_REPORT_MS])
        .args([Path::new("--ca"), ca])
        .args(arguments))
}

/// The newest line of progress in what the program has written.
///
/// # Errors
/// There is none: tells what it wrote instead.
pub fn progress(process: &Process) -> Result<Progress> {
    let log = process.log();
    let mut lines = log.lines().rev();
    let newest = lines.find_map(|line| serde_json::from_str(line).ok());
    newest.with_context(|| format!("the agents have not begun: {log}"))
}
