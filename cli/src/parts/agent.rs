//! `skep agent`: the agent of a node as a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use skep_model::name;
use skep_model::node::check_meta;
use skep_model::problem::Problem;
use skep_model::storage::check_path;
use skep_node_agent::{Agent, Devices};

use super::Common;
use crate::failure::{Failure, chain};

/// Where Docker listens if nobody says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The name of a node whose machine's name suggests none.
const NODE: &str = "node";

/// Run the agent of this node
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  SKEP_JOIN_TOKEN=$(cat join.token) skep agent --server skep.example.com:7072 \\
    --data-dir /var/lib/skep/agent --net-socket /run/skep/net.sock

The join token is needed once: afterwards the node has a certificate of its own, which it renews.
Containers go on when the agent ends, unless --stop-on-exit says otherwise.")]
pub(crate) struct Args {
    /// Private folder: credentials, ledger, builds under way
    #[arg(long, value_name = "DIR", env = "SKEP_AGENT_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where a server takes agents: HOST:PORT, or several, separated by commas
    #[arg(long, value_name = "HOST:PORT", env = "SKEP_SERVER")]
    pub(crate) server: String,
    /// Join token, for the first start; better given by the environment than as an argument
    #[arg(
        long = "join",
        value_name = "TOKEN",
        env = "SKEP_JOIN_TOKEN",
        hide_env_values = true
    )]
    pub(crate) join_token: Option<String>,
    /// The node's name in the cluster [default: the machine's]
    #[arg(long, value_name = "NAME", env = "SKEP_NODE_NAME")]
    pub(crate) name: Option<String>,
    /// Docker's socket [default: what DOCKER_HOST says, else /var/run/docker.sock]
    #[arg(long, value_name = "PATH", env = "SKEP_DOCKER_SOCKET")]
    pub(crate) docker_socket: Option<PathBuf>,
    /// Socket of this node's data plane (`skep net`)
    #[arg(long, value_name = "PATH", env = "SKEP_NET_SOCKET")]
    pub(crate) net_socket: PathBuf,
    /// Loopback address of metrics and health; port 0: any
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_AGENT_METRICS_ADDR",
        default_value = "127.0.0.1:0"
    )]
    pub(crate) metrics_addr: SocketAddr,
    /// Take no builds
    #[arg(long, env = "SKEP_AGENT_NO_BUILDS")]
    pub(crate) no_builds: bool,
    /// Metadata for constraints, such as `rack=b2`; may be given several times, or separated by commas
    #[arg(long, value_name = "KEY=VALUE", env = "SKEP_AGENT_META", value_delimiter = ',', value_parser = pair)]
    pub(crate) meta: Vec<(String, String)>,
    /// A device that apps may ask for by name, such as `gpu=/dev/dri/renderD128`; once for each
    #[arg(long, value_name = "NAME=PATH", env = "SKEP_AGENT_DEVICES", value_delimiter = ',', value_parser = device)]
    pub(crate) device: Vec<(String, PathBuf)>,
    /// A folder of this machine that apps may be given, with all within it; may be given several times
    #[arg(long, value_name = "DIR", env = "SKEP_AGENT_ALLOW_HOST_PATHS", value_delimiter = ',', value_parser = host_path)]
    pub(crate) allow_host_path: Vec<PathBuf>,
    /// Where secrets are files while apps use them: must be in memory (tmpfs)
    #[arg(
        long,
        value_name = "DIR",
        env = "SKEP_AGENT_SECRETS_DIR",
        default_value = "/run/skep/secrets"
    )]
    pub(crate) secrets_dir: PathBuf,
    /// Stop the containers at the end, and start them again at the next start
    #[arg(long)]
    pub(crate) stop_on_exit: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Runs the agent until it is asked to end.
///
/// # Errors
/// It cannot start or go on.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let options = skep_node_agent::Options {
        data_dir: args.data_dir,
        server: args.server,
        join_token: args.join_token,
        name: node_name(args.name)?,
        docker_socket: docker_socket(args.docker_socket, std::env::var("DOCKER_HOST").ok())?,
        net_socket: args.net_socket,
        metrics_addr: args.metrics_addr,
        stop_on_exit: args.stop_on_exit,
        builder: !args.no_builds,
        meta: args.meta.into_iter().collect(),
        devices: devices(args.device),
        host_paths: args.allow_host_path,
        secrets_dir: args.secrets_dir,
    };
    super::run(&args.common, async |shutdown| {
        let stop = |error: &skep_node_agent::Error| Failure::failed(chain(error));
        let agent = match Agent::start(options, &shutdown).await {
            Ok(agent) => agent,
            // Asked to end while it waited for a server to join.
            Err(_) if shutdown.is_cancelled() => return Ok(()),
            Err(error) => return Err(stop(&error)),
        };
        args.common.announce(&json!({
            "ready": true,
            "node": agent.node(),
            "metrics": agent.metrics_addr().map(|address| address.to_string()),
        }))?;
        agent.run(shutdown).await.map_err(|error| stop(&error))
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is accepted")?;
    check_meta(key, value).map_err(|problem| problem.message)?;
    Ok((key.to_owned(), value.to_owned()))
}

fn device(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = pair(text)?;
    let path = PathBuf::from(path);
    match path.starts_with("/dev") && path.exists() {
        true => Ok((name, path)),
        false => Err(format!(
            "{} is not a device of this machine",
            path.display()
        )),
    }
}

fn host_path(text: &str) -> Result<PathBuf, String> {
    check_path("allow-host-path", text).map_err(|problem| problem.message)?;
    Ok(PathBuf::from(text))
}

fn devices(given: Vec<(String, PathBuf)>) -> Devices {
    let mut devices = Devices::new();
    for (name, path) in given {
        let paths = devices.entry(name).or_default();
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    devices
}

fn node_name(given: Option<String>) -> Result<String, Problem> {
    if let Some(given) = given {
        name::check("name", &given)?;
        return Ok(given);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(name::suggest(host.trim()).unwrap_or_else(|| NODE.to_owned()))
}

fn docker_socket(given: Option<PathBuf>, docker_host: Option<String>) -> Result<PathBuf, Problem> {
    if let Some(given) = given {
        return Ok(given);
    }
    match docker_host.filter(|host| !host.is_empty()) {
        None => Ok(PathBuf::from(DOCKER_SOCKET)),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(PathBuf::from(path)),
            None => Err(Problem::invalid(
                "DOCKER_HOST",
                format!("`{}` is not a local socket", host.escape_debug()),
            )
            .hint("unix:///path/to/docker.sock: the agent runs on the machine of its Docker")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_is_found_as_its_own_client_finds_it() {
        let socket = |given: Option<&str>, host: Option<&str>| {
            docker_socket(given.map(PathBuf::from), host.map(str::to_owned))
        };
        assert_eq!(socket(None, None), Ok(DOCKER_SOCKET.into()));
        assert_eq!(
            socket(None, Some("unix:///tmp/d.sock")),
            Ok("/tmp/d.sock".into())
        );
        assert_eq!(socket(Some("/a"), Some("tcp://b")), Ok("/a".into()));
        let problem = socket(None, Some("tcp://10.0.0.1:2375")).expect_err("remote");
        assert_eq!(problem.field.as_deref(), Some("DOCKER_HOST"));
    }

    #[test]
    fn metadata_and_devices_are_checked_where_they_are_typed() {
        assert_eq!(pair("rack=b=2"), Ok(("rack".to_owned(), "b=2".to_owned())));
        assert!(pair("rack").is_err() && pair("Rack=1").is_err());
        let null = device("gpu=/dev/null").expect("there is one");
        assert!(device("gpu=/dev/no-such").is_err() && device("gpu=/etc/passwd").is_err());
        let devices = devices(vec![null.clone(), null]);
        assert_eq!(devices["gpu"], [PathBuf::from("/dev/null")]);
    }

    #[test]
    fn a_node_has_a_name_that_is_accepted() {
        let name = node_name(None).expect("a name");
        assert_eq!(name::check("name", &name), Ok(()));
        assert!(node_name(Some("No Name".into())).is_err());
    }
}
