//! `skep server`: the control plane as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use skep_control_plane::server;
use tokio_util::sync::CancellationToken;

use super::Common;
use crate::failure::{Failure, chain};

/// Between two looks for the bootstrap file, which the server writes when it is ready.
const LOOK: Duration = Duration::from_millis(20);

/// Run a server of the control plane
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep server --data-dir /var/lib/skep --key-file /etc/skep/operator.key \\
    --api-addr 0.0.0.0:7070 --agent-addr 0.0.0.0:7072 --name skep.example.com
  skep server --data-dir /var/lib/skep --key-file /etc/skep/operator.key \\
    --bootstrap /run/skep/bootstrap.json

With --bootstrap, how to reach the server and its tokens are written there (mode 0600) as soon as it
is ready; a line of JSON on stdout says so.")]
pub(crate) struct Args {
    /// Folder of the log, the snapshots and the history
    #[arg(long, value_name = "DIR", env = "SKEP_SERVER_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// The operator's key, outside of the data folder; made if missing
    #[arg(long, value_name = "FILE", env = "SKEP_KEY_FILE")]
    pub(crate) key_file: PathBuf,
    /// Address of the API (TLS)
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_API_ADDR",
        default_value = "127.0.0.1:7070"
    )]
    pub(crate) api_addr: SocketAddr,
    /// Address of the API on plain HTTP; loopback only
    #[arg(long, value_name = "ADDR", env = "SKEP_HTTP_ADDR")]
    pub(crate) http_addr: Option<SocketAddr>,
    /// Address that agents dial (mTLS)
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_AGENT_ADDR",
        default_value = "127.0.0.1:7072"
    )]
    pub(crate) agent_addr: SocketAddr,
    /// URL of the history (sqlite:// or postgres://) [default: SQLite in the data folder]
    #[arg(long, value_name = "URL", env = "SKEP_HISTORY", hide_env_values = true)]
    pub(crate) history: Option<String>,
    /// Domain that generated host names end in; used when the cluster is founded
    #[arg(
        long,
        value_name = "DOMAIN",
        env = "SKEP_BASE_DOMAIN",
        default_value = "localhost"
    )]
    pub(crate) base_domain: String,
    /// Further name or address that the server's certificate is good for; repeatable
    #[arg(
        long = "name",
        value_name = "NAME",
        env = "SKEP_SERVER_NAMES",
        value_delimiter = ','
    )]
    pub(crate) names: Vec<String>,
    /// Write how to reach this server, with its tokens, to this file once it is ready
    #[arg(long, value_name = "FILE", env = "SKEP_BOOTSTRAP")]
    pub(crate) bootstrap: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Runs the server until it is asked to end.
///
/// # Errors
/// It cannot start, or a part of it failed.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let common = args.common.clone();
    super::run(&common, |shutdown| serve(args, shutdown))
}

async fn serve(args: Args, shutdown: CancellationToken) -> Result<(), Failure> {
    if let Some(path) = &args.bootstrap {
        forget(path)?;
    }
    let options = server::Options {
        data_dir: args.data_dir,
        key_file: args.key_file,
        api_addr: args.api_addr,
        http_addr: args.http_addr,
        agent_addr: args.agent_addr,
        history: args.history,
        base_domain: args.base_domain,
        bootstrap: args.bootstrap.clone(),
        names: args.names,
    };
    let mut serving = std::pin::pin!(server::run(options, shutdown));
    if let Some(path) = &args.bootstrap {
        tokio::select! {
            ended = &mut serving => return ended.map_err(|error| Failure::failed(chain(&error))),
            () = written(path) => {}
        }
        args.common
            .announce(&json!({ "ready": true, "bootstrap": path }))?;
    }
    serving
        .await
        .map_err(|error| Failure::failed(chain(&error)))
}

/// What an earlier run wrote must not be taken for this run's word.
fn forget(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::failed(
            format!("cannot replace {}: {error}", path.display()),
        )),
        _ => Ok(()),
    }
}

/// The server's only word of readiness is the file itself, and files announce nothing.
async fn written(path: &Path) {
    while !tokio::fs::try_exists(path).await.unwrap_or(false) {
        tokio::time::sleep(LOOK).await;
    }
}
