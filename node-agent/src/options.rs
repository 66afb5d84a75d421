//! What an agent is told at its start. Never reads the environment or a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use skep_model::network::Pool;

use crate::logs::ship::Destination;
use crate::plan::Devices;

/// [`Options::log_budget_bytes`] where nobody says otherwise: 30 MiB for each of a hundred containers.
pub(crate) const LOG_BUDGET_BYTES: u64 = 3_000 << 20;

/// The options of one agent.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of its own (made with mode 0700): credentials, node key, ledger, builds under way.
    pub data_dir: PathBuf,
    /// Where a server takes agents: `host:port`, or several, separated by commas. Others are learned
    /// from the servers themselves.
    pub server: String,
    /// Needed for the first start alone: `skep-join.1....`.
    pub join_token: Option<String>,
    /// The node's name in the cluster; used when it joins.
    pub name: String,
    /// Docker's socket, usually `/var/run/docker.sock`.
    pub docker_socket: PathBuf,
    /// Socket of the node's data plane (`skep net`).
    pub net_socket: PathBuf,
    /// Where `/metrics` and `/healthz` are served: a loopback address; port 0: any free one.
    pub metrics_addr: SocketAddr,
    /// Stop the containers when the agent ends, and start them again with it (`skep dev`).
    pub stop_on_exit: bool,
    /// Take builds.
    pub builder: bool,
    /// What the node says of itself for constraints, key to value; operators may say otherwise.
    pub meta: BTreeMap<String, String>,
    /// How it keeps images, and hands them to other nodes.
    pub images: crate::images::Options,
    /// The data folder is this machine's from now on, whoever's it was.
    pub moved: bool,
    /// An operator's word on the node's memory, in bytes; none: as found out.
    pub memory_bytes: Option<u64>,
    /// Devices that containers may be given, each to one at a time.
    pub devices: Devices,
    /// Folders of the node that apps may be given, with all within them.
    pub host_paths: Vec<PathBuf>,
    /// Storages that other nodes have as well, by a name that is the same on all of them, and where each is mounted here.
    pub shared_storage: BTreeMap<String, PathBuf>,
    /// Where secrets are files while containers use them: in memory, never on a disk.
    pub secrets_dir: PathBuf,
    /// An operator's program that makes, copies and removes the folders of volumes; none: `cp` does.
    pub volume_command: Option<PathBuf>,
    /// What the logs of all containers may take on this node, in bytes. Each gets a hundredth of it, in
    /// three files, of at least 1 MiB each; one that exists keeps what it was made with.
    pub log_budget_bytes: u64,
    /// From where the bridges of environments get their networks; none: this node has no private networks,
    /// and all containers are on Docker's own bridge.
    pub private_network: Option<Pool>,
    /// Where the logs of apps are shipped to.
    pub ship_logs_to: Vec<Destination>,
    /// The programs that build, beside Docker.
    pub tools: crate::build::Tools,
}

impl Options {
    /// The addresses in [`Options::server`].
    pub(crate) fn servers(&self) -> Vec<String> {
        let addresses = self.server.split(',').map(str::trim);
        addresses.map(str::to_owned).collect()
    }
}
