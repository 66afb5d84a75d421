//! `skep server`: the control plane as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use skep_control_plane::acme::Means;
use skep_control_plane::pki::Terms;
use skep_control_plane::server;
use skep_identity::ca;
use skep_model::name;
use skep_model::problem::Problem;
use skep_model::routing::Cidr;
use tokio_util::sync::CancellationToken;

use super::Common;
use crate::failure::{Failure, chain};
use crate::output::time;

/// Name of a server whose machine has none that is accepted.
const SERVER: &str = "server";

/// The running part of `skep server`.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Part {
    /// Run the server; in an empty data folder it founds a cluster (what `skep server` alone does)
    #[command(after_help = "\
Examples:
  skep server --data-dir /var/lib/skep --key-file /etc/skep/operator.key \\
    --api-addr 0.0.0.0:7070 --agent-addr 0.0.0.0:7072 --advertise skep1.example.com
  skep server --data-dir /var/lib/skep --key-file /etc/skep/operator.key \\
    --bootstrap /run/skep/bootstrap.json

As soon as it is ready a line of JSON on stdout says so. With --bootstrap, how to reach the server and
its tokens are written there (mode 0600) before.")]
    Run(Box<Args>),
    /// Found a cluster and run its first server; refused where there is data already
    Init(Box<Args>),
    /// Join a cluster and run; once joined, the same command, or `skep server`, goes on
    #[command(after_help = "\
Example, with a token from `skep token create --role server`:
  SKEP_JOIN_TOKEN=$(cat join.token) skep server join --server skep1.example.com:7072 \\
    --data-dir /var/lib/skep --key-file /etc/skep/operator.key \\
    --api-addr 0.0.0.0:7070 --agent-addr 0.0.0.0:7072 --advertise skep2.example.com

Each server has an operator's key file of its own. Two servers are no safer than one: the second one
begins to count when the third one has caught up.")]
    Join(Box<JoinArgs>),
    /// Come back after the log was lost or damaged: the same server, its data from the others
    #[command(after_help = "\
The damaged log is set aside beside the new one, never deleted.")]
    Rebuild(Box<JoinArgs>),
}

impl Part {
    /// The words of these commands.
    pub(crate) const NAMES: [&str; 4] = ["run", "init", "join", "rebuild"];

    fn split(self) -> (Args, server::Start) {
        match self {
            Self::Run(args) => (*args, server::Start::Run),
            Self::Init(args) => (*args, server::Start::Init),
            Self::Join(args) => (args.run, server::Start::Join(args.with.into())),
            Self::Rebuild(args) => (args.run, server::Start::Rebuild(args.with.into())),
        }
    }
}

/// How to join, and then how to run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JoinArgs {
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    run: Args,
}

/// Which cluster.
#[derive(Debug, Clone, clap::Args)]
struct With {
    /// Join token for servers; better given by the environment than as an argument
    #[arg(
        long,
        value_name = "TOKEN",
        env = "SKEP_JOIN_TOKEN",
        hide_env_values = true
    )]
    token: String,
    /// A server of the cluster, where agents dial it: HOST:PORT
    #[arg(long, value_name = "HOST:PORT", env = "SKEP_SERVER")]
    server: String,
}

impl From<With> for server::Join {
    fn from(with: With) -> Self {
        Self {
            token: with.token,
            server: with.server,
        }
    }
}

/// How a server runs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Folder of the log, the snapshots and the history
    #[arg(long, value_name = "DIR", env = "SKEP_SERVER_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// The operator's key, outside of the data folder; made if missing
    #[arg(long, value_name = "FILE", env = "SKEP_KEY_FILE")]
    pub(crate) key_file: PathBuf,
    /// The server's name in the cluster [default: the machine's]
    #[arg(long, value_name = "NAME", env = "SKEP_SERVER_NAME")]
    pub(crate) server_name: Option<String>,
    /// Host name or address under which servers and agents reach this one [default: the address that
    /// is listened on]
    #[arg(long, value_name = "HOST", env = "SKEP_ADVERTISE")]
    pub(crate) advertise: Option<String>,
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
    /// Address that agents and the other servers dial (mTLS)
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
    /// Let constraints of services on nodes be preferences, as a machine of one node needs it; used when
    /// the cluster is founded (`skep relax` changes it)
    #[arg(long, env = "SKEP_RELAXED")]
    pub(crate) relaxed: bool,
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
    /// How long certificates of servers and nodes are good; renewed after two thirds of it
    #[arg(
        long,
        value_name = "SPAN",
        env = "SKEP_CERTIFICATE_LIFETIME",
        default_value = "24h",
        value_parser = lifetime
    )]
    pub(crate) certificate_lifetime: Duration,
    /// How long after its end a node's certificate is still good for renewing it, for machines that
    /// were switched off
    #[arg(
        long,
        value_name = "SPAN",
        env = "SKEP_RENEWABLE_AFTER_END",
        default_value = "90d",
        value_parser = time::parse_span
    )]
    pub(crate) renewable_after_end: Duration,
    /// Program that may write records in DNS for proofs of hosts (`--dns exec`), run as PROGRAM
    /// present|cleanup NAME VALUE; none may by default
    #[arg(long, value_name = "PATH", env = "SKEP_ACME_EXEC", value_parser = program)]
    pub(crate) acme_exec: Option<PathBuf>,
    /// DNS server that is asked where records for proofs of hosts go; repeatable [default: those of
    /// /etc/resolv.conf]
    #[arg(
        long = "acme-resolver",
        value_name = "IP:PORT",
        env = "SKEP_ACME_RESOLVERS",
        value_delimiter = ','
    )]
    pub(crate) acme_resolvers: Vec<SocketAddr>,
    /// Network that notifications may go to though it is off limits (servers, their link, loopback);
    /// repeatable; the same on every server
    #[arg(
        long = "notify-allow",
        value_name = "NETWORK",
        env = "SKEP_NOTIFY_ALLOW",
        value_delimiter = ','
    )]
    pub(crate) notify_allow: Vec<Cidr>,
    /// Folder with the programs that may make machines for pools (`skep provider set --program`): root's or this user's
    /// own, not writable by others; none may by default
    #[arg(long, value_name = "DIR", env = "SKEP_PROVIDER_PROGRAMS", value_parser = folder)]
    pub(crate) provider_programs: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}

fn program(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() && path.is_file() {
        true => Ok(path),
        false => Err("the absolute path of a program that is there".to_owned()),
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() && path.is_dir() {
        true => Ok(path),
        false => Err("the absolute path of a folder that is there".to_owned()),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = time::parse_span(text)?;
    if ca::LIFETIMES.contains(&lifetime) {
        return Ok(lifetime);
    }
    Err("between 10s and 90d, the same on every server".to_owned())
}

/// Runs the server until it is asked to end.
///
/// # Errors
/// It cannot start, or a part of it failed.
pub(crate) fn run(part: Part) -> Result<(), Failure> {
    let (args, start) = part.split();
    let common = args.common.clone();
    super::run(&common, |shutdown| serve(args, start, shutdown))
}

async fn serve(
    args: Args,
    start: server::Start,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    if let Some(path) = &args.bootstrap {
        forget(path)?;
    }
    let options = server::Options {
        start,
        data_dir: args.data_dir,
        key_file: args.key_file,
        name: server_name(args.server_name)?,
        advertise: args.advertise,
        api_addr: args.api_addr,
        http_addr: args.http_addr,
        agent_addr: args.agent_addr,
        history: args.history,
        base_domain: args.base_domain,
        relaxed: args.relaxed,
        bootstrap: args.bootstrap.clone(),
        names: args.names,
        terms: Terms {
            lifetime: args.certificate_lifetime,
            renewable_after_end: args.renewable_after_end,
        },
        means: Means {
            exec: args.acme_exec,
            resolvers: args.acme_resolvers,
        },
        notify_allow: args.notify_allow,
        provider_programs: args.provider_programs.map(Into::into),
    };
    let ready = |ready: server::Ready| {
        let words = json!({
            "ready": true,
            "server": ready.server,
            "member": ready.member,
            "api": format!("https://{}", ready.api),
            "http": ready.http.map(|address| format!("http://{address}")),
            "agents": ready.cluster.to_string(),
            "bootstrap": args.bootstrap,
        });
        if let Err(failure) = args.common.announce(&words) {
            tracing::error!(%failure, "readiness cannot be told");
        }
    };
    server::run(options, ready, shutdown)
        .await
        .map_err(|error| Failure::failed(chain(&error)))
}

/// The given name, else the machine's.
///
/// # Errors
/// The given one is not accepted.
pub(crate) fn server_name(given: Option<String>) -> Result<String, Problem> {
    if let Some(given) = given {
        name::check("server-name", &given)?;
        return Ok(given);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(name::suggest(host.trim()).unwrap_or_else(|| SERVER.to_owned()))
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
