//! `skep net`: the data plane of a node as a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use skep_node_agent::net;

use super::Common;
use crate::failure::{Failure, chain};

/// Run the data plane of this node: ingress and Traefik's endpoint
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  skep net --data-dir /var/lib/skep/net --socket /run/skep/net.sock --ingress-addr 0.0.0.0:80

It serves the last table that the agent gave it, with or without the agent. When it listens, it prints
a line of JSON with its addresses.")]
pub(crate) struct Args {
    /// Private folder for the route table and its key
    #[arg(long, value_name = "DIR", env = "SKEP_NET_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// Socket on which the agent finds it, in a private folder
    #[arg(long, value_name = "PATH", env = "SKEP_NET_SOCKET")]
    pub(crate) socket: PathBuf,
    /// Address that apps are served on
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_INGRESS_ADDR",
        default_value = "127.0.0.1:8000"
    )]
    pub(crate) ingress_addr: SocketAddr,
    /// Address of Traefik's endpoint, metrics and health
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_NET_ADMIN_ADDR",
        default_value = "127.0.0.1:7073"
    )]
    pub(crate) admin_addr: SocketAddr,
    /// Address that other nodes reach this node's containers at, under mutual TLS
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_MESH_ADDR",
        default_value = "0.0.0.0:7075"
    )]
    pub(crate) mesh_addr: SocketAddr,
    /// Bearer token of that endpoint; needed where it is not a loopback address
    #[arg(
        long,
        value_name = "TOKEN",
        env = "SKEP_NET_ADMIN_TOKEN",
        hide_env_values = true
    )]
    pub(crate) admin_token: Option<String>,
    /// Take over from the data plane that runs, without a connection lost; it ends when it has finished
    /// what it has begun
    #[arg(long)]
    pub(crate) takeover: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Runs the data plane until it is asked to end.
///
/// # Errors
/// It cannot start or go on.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let common = args.common.clone();
    let options = net::Options {
        data_dir: args.data_dir,
        socket: args.socket,
        ingress_addr: args.ingress_addr,
        admin_addr: args.admin_addr,
        admin_token: args.admin_token,
        mesh_addr: args.mesh_addr,
        takeover: args.takeover,
    };
    super::run(&common, async |shutdown| {
        let ready = |addresses: net::Addresses| {
            let words = json!({
                "ready": true,
                "ingress": addresses.ingress.to_string(),
                "admin": addresses.admin.to_string(),
                "mesh": addresses.mesh.to_string(),
            });
            if let Err(failure) = args.common.announce(&words) {
                tracing::error!(%failure, "readiness cannot be told");
            }
        };
        net::run(options, ready, shutdown)
            .await
            .map_err(|error| Failure::failed(chain(&error)))
    })
}
