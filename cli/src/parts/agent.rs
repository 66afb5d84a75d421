//! `skep agent`: the agent of a node as a process.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use skep_model::manifest::parse_bytes;
use skep_model::name;
use skep_model::network::Pool;
use skep_model::node::check_meta;
use skep_model::problem::Problem;
use skep_model::storage::check_path;
use skep_node_agent::{Agent, Budget, Devices, ImageOptions, LogDestination, LowWater};

use super::{Common, doctor};
use crate::failure::{Failure, chain};

/// Where Docker listens if nobody says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// The name of a node whose machine's name suggests none.
const NODE: &str = "node";
/// The program that plans builds.
const NIXPACKS: &str = "nixpacks";

/// The agent, and what goes before it.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Part {
    /// Run the agent (what `skep agent` alone does)
    Run(Box<Args>),
    /// Examine whether this machine can be a node, and say what to fix
    Doctor(Box<doctor::Args>),
}

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
    /// A storage that other nodes have as well, and where it is mounted here, such as `ceph=/mnt/pve/ceph`: the name is the same
    /// on all of them; once for each
    #[arg(long, value_name = "NAME=DIR", env = "SKEP_AGENT_SHARED_STORAGE", value_delimiter = ',', value_parser = storage)]
    pub(crate) shared_storage: Vec<(String, PathBuf)>,
    /// Where secrets are files while apps use them: must be in memory (tmpfs)
    #[arg(
        long,
        value_name = "DIR",
        env = "SKEP_AGENT_SECRETS_DIR",
        default_value = "/run/skep/secrets"
    )]
    pub(crate) secrets_dir: PathBuf,
    /// A program of yours that makes, snapshots, clones and removes the folders of volumes, by the means of
    /// your filesystem [default: plain folders and `cp --reflink=auto`]
    #[arg(long, value_name = "PROGRAM", env = "SKEP_AGENT_VOLUME_COMMAND")]
    pub(crate) volume_command: Option<PathBuf>,
    /// Port of the image registry for this node's Docker, on the loopback; 0: any
    #[arg(
        long,
        value_name = "PORT",
        env = "SKEP_REGISTRY_PORT",
        default_value_t = 0
    )]
    pub(crate) registry_port: u16,
    /// Where other nodes get images from this one, under mTLS; port 0: any
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_PEER_LISTEN",
        default_value = "0.0.0.0:0"
    )]
    pub(crate) peer_listen: SocketAddr,
    /// What other nodes dial for that [default: the address that leads to the server]
    #[arg(long, value_name = "HOST[:PORT]", env = "SKEP_ADVERTISE_ADDRESS")]
    pub(crate) advertise_address: Option<String>,
    /// Disk for images, in the store and in Docker each: bytes such as 10GiB, or a share such as 10%
    #[arg(long, value_name = "SIZE", env = "SKEP_IMAGE_BUDGET", default_value_t)]
    pub(crate) image_budget: Budget,
    /// Free space on the disk of images below which what nobody needs is removed and the node warns; below half
    /// of it nothing is pulled or built. Bytes or a share [default: 10%, at most 10GiB]
    #[arg(long, value_name = "SIZE", env = "SKEP_DISK_LOW_WATER")]
    pub(crate) disk_low_water: Option<Budget>,
    /// Memory that apps may be placed on, such as `8GiB`, where the machine does not tell [default: all of
    /// it]
    #[arg(long, value_name = "SIZE", env = "SKEP_AGENT_MEMORY", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// Join without examining the machine (`skep dev` tells by other means)
    #[arg(long, hide = true)]
    pub(crate) unexamined: bool,
    /// The data folder was moved here from another machine for good: use it
    #[arg(long)]
    pub(crate) moved: bool,
    /// What the logs of all containers may take on this node, in MiB; a hundredth of it for each
    #[arg(
        long,
        value_name = "MIB",
        env = "SKEP_AGENT_LOG_BUDGET",
        default_value_t = 3_000
    )]
    pub(crate) log_budget: u64,
    /// Where the logs of apps are shipped to, such as `loki=http://10.0.0.9:3100` or
    /// `otlp=https://collector:4318`; may be given several times
    #[arg(
        long,
        value_name = "KIND=URL",
        env = "SKEP_AGENT_SHIP_LOGS_TO",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub(crate) ship_logs_to: Vec<LogDestination>,
    /// Give each environment a network of its own on this node, out of this pool, such as `10.202.0.0/16`: names
    /// of services are answered there, and no other environment gets in. Needs iptables, as root
    #[arg(long, value_name = "NETWORK", env = "SKEP_PRIVATE_NETWORK", value_parser = pool)]
    pub(crate) private_network: Option<Pool>,
    /// A program of yours that builds services with `builder = "exec:NAME"`; once for each
    #[arg(long, value_name = "NAME=PROGRAM", env = "SKEP_AGENT_BUILDERS", value_delimiter = ',', value_parser = builder)]
    pub(crate) builder: Vec<(String, PathBuf)>,
    /// The program that plans builds of folders without a Dockerfile [default: `nixpacks` on the PATH, where
    /// there is one]
    #[arg(long, value_name = "PROGRAM", env = "SKEP_AGENT_NIXPACKS", value_parser = program)]
    pub(crate) nixpacks: Option<PathBuf>,
    /// Stop the containers at the end, and start them again at the next start
    #[arg(long)]
    pub(crate) stop_on_exit: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Runs the agent until it is asked to end, or examines the machine.
///
/// # Errors
/// It cannot start or go on; the machine cannot be a node.
pub(crate) fn run(part: Part) -> Result<(), Failure> {
    match part {
        Part::Run(args) => run_agent(*args),
        Part::Doctor(args) => doctor::run(*args),
    }
}

fn run_agent(args: Args) -> Result<(), Failure> {
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
        images: ImageOptions {
            registry_port: args.registry_port,
            peer_listen: args.peer_listen,
            advertise: args.advertise_address,
            budget: args.image_budget,
            low_water: LowWater(args.disk_low_water),
        },
        devices: devices(args.device),
        host_paths: args.allow_host_path,
        shared_storage: args.shared_storage.into_iter().collect(),
        secrets_dir: args.secrets_dir,
        volume_command: args.volume_command,
        memory_bytes: args.memory,
        moved: args.moved,
        log_budget_bytes: args.log_budget.saturating_mul(1 << 20),
        ship_logs_to: args.ship_logs_to,
        private_network: args.private_network,
        tools: skep_node_agent::build::Tools {
            nixpacks: nixpacks(args.nixpacks),
            programs: args.builder.into_iter().collect(),
        },
    };
    super::run(&args.common, async |shutdown| {
        let stop = |error: &skep_node_agent::Error| Failure::failed(chain(error));
        if !args.unexamined && !Agent::has_identity(&options.data_dir) {
            doctor::admit(&examined(&options), &shutdown).await?;
        }
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

fn examined(options: &skep_node_agent::Options) -> skep_node_agent::doctor::Options {
    skep_node_agent::doctor::Options {
        docker_socket: options.docker_socket.clone(),
        net_socket: Some(options.net_socket.clone()),
        data_dir: Some(options.data_dir.clone()),
        server: Some(options.server.clone()),
        join_token: options.join_token.clone(),
        memory_bytes: options.memory_bytes,
        nixpacks: options.tools.nixpacks.clone(),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is accepted")?;
    check_meta(key, value).map_err(|problem| problem.message)?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes("--memory", text).map_err(|problem| problem.to_string())
}

fn pool(text: &str) -> Result<Pool, String> {
    text.parse().map_err(|problem: Problem| problem.to_string())
}

fn builder(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PROGRAM is accepted")?;
    name::check("builder", name).map_err(|problem| problem.to_string())?;
    Ok((name.to_owned(), program(path)?))
}

/// A program of this machine.
pub(super) fn program(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() && is_program(&path) {
        true => Ok(path),
        false => Err(format!("{text} is not the absolute path of a program")),
    }
}

fn is_program(path: &Path) -> bool {
    let is_executable =
        |it: std::fs::Metadata| it.is_file() && it.permissions().mode() & 0o111 != 0;
    path.metadata().is_ok_and(is_executable)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&folders).map(|folder| folder.join(name));
    places.find(|path| path.is_absolute() && is_program(path))
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

fn storage(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=DIR is accepted")?;
    name::check("shared-storage", name).map_err(|problem| problem.to_string())?;
    check_path("shared-storage", path).map_err(|problem| problem.message)?;
    Ok((name.to_owned(), PathBuf::from(path)))
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

/// The program that plans builds, where it is not named.
pub(super) fn nixpacks(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| on_path(NIXPACKS))
}

pub(super) fn docker_socket(
    given: Option<PathBuf>,
    docker_host: Option<String>,
) -> Result<PathBuf, Problem> {
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
    fn shared_storage_has_a_name_and_a_folder() {
        let given = storage("ceph=/mnt/pve/ceph").expect("fine");
        assert_eq!(given, ("ceph".to_owned(), "/mnt/pve/ceph".into()));
        for wrong in ["/mnt", "A b=/mnt", "ceph=mnt", "ceph=/", "ceph=/a/../b"] {
            assert!(storage(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn builders_are_programs() {
        let given = builder("make=/bin/sh").expect("a program");
        assert_eq!(given, ("make".to_owned(), PathBuf::from("/bin/sh")));
        for wrong in [
            "/bin/sh",
            "A b=/bin/sh",
            "x=sh",
            "x=/etc/passwd",
            "x=/no/such",
        ] {
            assert!(builder(wrong).is_err(), "{wrong}");
        }
        assert!(on_path("sh").is_some() && on_path("no-such-program").is_none());
    }

    #[test]
    fn a_node_has_a_name_that_is_accepted() {
        let name = node_name(None).expect("a name");
        assert_eq!(name::check("name", &name), Ok(()));
        assert!(node_name(Some("No Name".into())).is_err());
    }
}
