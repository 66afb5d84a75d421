//! The parts of Skep as processes: server, agent, data plane. Owns what they have in common: a
//! small runtime, logs on stderr, the end by signal or with the parent, the word of readiness, and
//! that code which is no longer used leaves the memory.

pub(crate) mod agent;
pub(crate) mod doctor;
mod memory;
pub(crate) mod net;
pub(crate) mod server;

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::{Failure, chain};

/// A part is mostly waiting: two threads keep one slow task from stopping the rest.
const WORKERS: usize = 2;
/// What blocking work gets to finish once the part itself has ended.
const LAST_WORK: Duration = Duration::from_secs(5);
/// The variable that filters logs, as in `info,skep_ingress=debug`.
const LOG_VARIABLE: &str = "SKEP_LOG";

/// Options of every part.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Write the line of readiness to this file, too
    #[arg(long, value_name = "FILE", env = "SKEP_READY_FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// End when stdin ends: as soon as the parent is gone, however it went
    #[arg(long, hide = true)]
    pub(crate) exit_with_parent: bool,
}

impl Common {
    /// Says that the part serves: one line of JSON on stdout, and the same in the ready file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn announce<T: Serialize>(&self, ready: &T) -> Result<(), Failure> {
        let line = serde_json::to_string(ready).expect("addresses are plain data");
        // A part that was started with a closed stdout works all the same.
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        let Some(path) = &self.ready_file else {
            return Ok(());
        };
        write_whole(path, &line)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
    }
}

/// Readers see all of it or nothing.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    std::fs::write(&beside, format!("{text}\n"))?;
    std::fs::rename(&beside, path)
}

/// Runs a part until it ends, SIGINT or SIGTERM ask it to, or its parent is gone.
///
/// # Errors
/// What the part says.
pub(crate) fn run<F, R>(common: &Common, part: F) -> Result<(), Failure>
where
    F: FnOnce(CancellationToken) -> R,
    R: Future<Output = Result<(), Failure>>,
{
    // First: the process has one thread.
    let code = memory::Code::of_this_process();
    init_logs();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(chain(&error)))?;
    let shutdown = CancellationToken::new();
    if common.exit_with_parent {
        follow_parent(shutdown.clone());
    }
    let result = runtime.block_on(async {
        tokio::spawn(follow_signals(shutdown.clone()));
        tokio::spawn(code.release_when_quiet(shutdown.clone()));
        part(shutdown).await
    });
    runtime.shutdown_timeout(LAST_WORK);
    result
}

/// Plain targets and levels: the richer filter language would keep a regular expression engine in
/// the memory of every part.
fn init_logs() {
    let wish = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let targets: Result<Targets, _> = wish.parse();
    let is_refused = targets.is_err();
    let targets = targets.ok().filter(|_| !wish.is_empty());
    let targets = targets.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer()
        .compact()
        .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr)
        // Whoever read stderr may be gone: that is no reason to panic.
        .log_internal_errors(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(targets))
        .init();
    if is_refused {
        tracing::warn!(
            "{LOG_VARIABLE}=`{wish}` is not understood; for example: info,skep_ingress=debug"
        );
    }
}

/// Cancels at the first signal that asks for an end.
async fn follow_signals(shutdown: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        tracing::error!("signals cannot be watched: only SIGKILL ends this process");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    shutdown.cancel();
}

/// Cancels when stdin ends. A thread: a blocked read of stdin would hold up the runtime's end.
fn follow_parent(shutdown: CancellationToken) {
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        let mut stdin = std::io::stdin();
        while !matches!(stdin.read(&mut ignored), Ok(0) | Err(_)) {}
        shutdown.cancel();
    });
}
