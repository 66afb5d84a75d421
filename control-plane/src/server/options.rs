//! What a server is told at its start. Never reads the environment or a file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_model::id::ServerId;
use skep_model::routing::Cidr;

use crate::acme::Means;
use crate::pki::Terms;

/// How a server runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to do where the data folder is empty, or damaged.
    pub start: Start,
    /// Log, snapshots, history, local facts.
    pub data_dir: PathBuf,
    /// The operator's key of this server: outside of `data_dir`, made if missing.
    pub key_file: PathBuf,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Host name or address under which the others and the agents reach this server; none: the address
    /// that is listened on.
    pub advertise: Option<String>,
    /// The API, on TLS.
    pub api_addr: SocketAddr,
    /// The API on plain HTTP, loopback only, for a browser on the same machine.
    pub http_addr: Option<SocketAddr>,
    /// Agents, servers and operators, on mTLS.
    pub agent_addr: SocketAddr,
    /// URL of the history; none: SQLite in `data_dir`.
    pub history: Option<String>,
    /// Generated host names end in this; used when the cluster is founded.
    pub base_domain: String,
    /// Constraints of services are preferences, where nobody says otherwise; used when the cluster is
    /// founded.
    pub relaxed: bool,
    /// Where to write how to reach this server, with secrets, mode 0600, once it is ready.
    pub bootstrap: Option<PathBuf>,
    /// Further names and addresses that the server's certificate is good for.
    pub names: Vec<String>,
    /// How long certificates are good.
    pub terms: Terms,
    /// What it has for proofs in DNS.
    pub means: Means,
    /// Networks that notifications may go to though they are off limits: this server, its link, other servers.
    pub notify_allow: Vec<Cidr>,
    /// The folder with programs that providers may name to make machines; none: no program is run.
    pub provider_programs: Option<Arc<Path>>,
}

impl Options {
    pub(super) fn history_url(&self) -> String {
        let own = || format!("sqlite://{}", self.data_dir.join("history.db").display());
        self.history.clone().unwrap_or_else(own)
    }
}

/// What a start is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Go on; in an empty data folder: found a cluster.
    Run,
    /// Found a cluster; refused where there is something already.
    Init,
    /// Join a cluster; where that has been done: go on.
    Join(Join),
    /// Set the own log aside and come back as the same server under a new member id.
    Rebuild(Join),
}

/// How to join a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Join {
    /// A join token for servers: `skep-join.1....`.
    pub token: String,
    /// `host:port` where a server of the cluster is spoken to.
    pub server: String,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Join({})", self.server)
    }
}

/// A server that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its identity.
    pub server: ServerId,
    /// Its member id in the Raft group.
    pub member: u64,
    /// Where its API is.
    pub api: SocketAddr,
    /// Where its API is on plain HTTP.
    pub http: Option<SocketAddr>,
    /// Where agents, servers and operators are spoken to.
    pub cluster: SocketAddr,
}
