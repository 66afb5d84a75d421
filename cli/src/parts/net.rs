//! `skep net`: the data plane of a node as a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use skep_model::routing::Cidr;
use skep_node_agent::net;

use super::Common;
use crate::failure::{Failure, chain};

/// Run the data plane of this node: ingress and Traefik's endpoint
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  skep net --data-dir /var/lib/skep/net --socket /run/skep/net.sock --ingress-addr 0.0.0.0:80
  skep net ... --https-addr 0.0.0.0:443 --certificates /etc/skep/certificates --https-redirect
  skep net ... --run-traefik /usr/local/bin/traefik --traefik-web-addr 0.0.0.0:80

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
    #[command(flatten)]
    pub(crate) edge: Edge,
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
    /// Port of the addresses in 127.64.0.0/10 that Traefik on this machine is given for containers
    #[arg(
        long,
        value_name = "PORT",
        env = "SKEP_TRAEFIK_PORT",
        default_value_t = 7076
    )]
    pub(crate) traefik_port: u16,
    /// The same for connections of TCP routes
    #[arg(
        long,
        value_name = "PORT",
        env = "SKEP_TRAEFIK_TCP_PORT",
        default_value_t = 7078
    )]
    pub(crate) traefik_tcp_port: u16,
    /// Address of that Traefik's API: it is asked which routes it uses, instead of being given time
    #[arg(long, value_name = "ADDR", env = "SKEP_TRAEFIK_API")]
    pub(crate) traefik_api: Option<SocketAddr>,
    /// Write that Traefik's configuration to this file, for its file provider with `watch: true`, instead of having it
    /// polled (/v1/traefik is then refused): a .yml in a folder that is there, which only this user can read
    #[arg(long, value_name = "PATH", env = "SKEP_TRAEFIK_FILE")]
    pub(crate) traefik_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) supervised: Supervised,
    /// Bearer token of the endpoint that Traefik polls; needed where it is not a loopback address
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

/// A Traefik of its own.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Supervised {
    /// Run this Traefik (3.7.12 or newer), with a configuration of its own; while it is away the ingress serves its
    /// addresses. --traefik-api then says where its API is to be [any port of 127.0.0.1 if nothing is said]
    #[arg(
        long,
        value_name = "PATH",
        env = "SKEP_RUN_TRAEFIK",
        requires = "traefik_web_addr",
        conflicts_with = "traefik_file"
    )]
    run_traefik: Option<PathBuf>,
    /// Address that the Traefik of --run-traefik serves apps on
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_TRAEFIK_WEB_ADDR",
        requires = "run_traefik"
    )]
    traefik_web_addr: Option<SocketAddr>,
    /// Address that it serves apps on under TLS, with the certificates of the cluster; needs --admin-token
    #[arg(
        long,
        value_name = "ADDR",
        env = "SKEP_TRAEFIK_HTTPS_ADDR",
        requires_all = ["run_traefik", "admin_token"]
    )]
    traefik_https_addr: Option<SocketAddr>,
}

impl Supervised {
    fn wanted(self) -> Option<net::Supervised> {
        Some(net::Supervised {
            program: self.run_traefik?,
            web_addr: self.traefik_web_addr?,
            https_addr: self.traefik_https_addr,
        })
    }
}

/// What the ingress does beside serving apps.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Edge {
    /// Address that apps are served on under TLS; without it they are not
    #[arg(long, value_name = "ADDR", env = "SKEP_HTTPS_ADDR")]
    https_addr: Option<SocketAddr>,
    /// Folder of certificates: NAME.crt with the chain and NAME.key, both PEM; read again at SIGHUP
    #[arg(
        long,
        value_name = "DIR",
        env = "SKEP_CERTIFICATES",
        requires = "https_addr"
    )]
    certificates: Option<PathBuf>,
    /// Send plain requests to https, at this port [443 if none is given]; certificate authorities'
    /// challenges are served
    #[arg(
        long,
        value_name = "PORT",
        env = "SKEP_HTTPS_REDIRECT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "443",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    https_redirect: Option<u16>,
    /// Proxies in front that are believed who the client is: networks, as 10.0.0.0/8, and `cloudflare`
    #[arg(
        long,
        value_name = "NETWORK,...",
        env = "SKEP_TRUSTED_PROXIES",
        value_delimiter = ','
    )]
    trusted_proxies: Vec<net::Proxies>,
    /// Connections of trusted proxies begin with a header of the PROXY protocol
    #[arg(long, env = "SKEP_PROXY_PROTOCOL", requires = "trusted_proxies")]
    proxy_protocol: bool,
    /// Networks of this node itself or its link, as 127.0.0.0/8, that routes may ask by `forward_auth` all the same
    #[arg(
        long,
        value_name = "NETWORK,...",
        env = "SKEP_FORWARD_AUTH_ALLOW",
        value_delimiter = ','
    )]
    forward_auth_allow: Vec<Cidr>,
    /// Write a line of JSON for each request to this file
    #[arg(long, value_name = "PATH", env = "SKEP_ACCESS_LOG")]
    access_log: Option<PathBuf>,
    /// Write the queries of requests too: they may hold secrets
    #[arg(long, env = "SKEP_ACCESS_LOG_QUERY", requires = "access_log")]
    access_log_query: bool,
}

impl From<Edge> for net::Edge {
    fn from(given: Edge) -> Self {
        Self {
            https_addr: given.https_addr,
            certificates: given.certificates,
            https_redirect: given.https_redirect,
            trusted_proxies: given.trusted_proxies,
            proxy_protocol: given.proxy_protocol,
            forward_auth_allow: given.forward_auth_allow,
            access_log: given.access_log,
            access_log_query: given.access_log_query,
        }
    }
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
        traefik_port: args.traefik_port,
        traefik_tcp_port: args.traefik_tcp_port,
        traefik_api: args.traefik_api,
        traefik_file: args.traefik_file,
        run_traefik: args.supervised.wanted(),
        edge: args.edge.into(),
        takeover: args.takeover,
    };
    super::run(&common, async |shutdown| {
        let ready = |addresses: net::Addresses| {
            let words = json!({
                "ready": true,
                "ingress": addresses.ingress.to_string(),
                "https": addresses.https.map(|it| it.to_string()),
                "admin": addresses.admin.to_string(),
                "mesh": addresses.mesh.to_string(),
                "traefik_port": addresses.traefik_port,
                "traefik_tcp_port": addresses.traefik_tcp_port,
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
