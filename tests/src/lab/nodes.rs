//! A cluster in a lab with nodes on hosts of their own: what every test of several nodes begins with.

use std::os::unix::fs::DirBuilderExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Host;
use super::cluster::{LabCluster, with_servers};
use super::node::Node;
use crate::wait;

const READY: Duration = Duration::from_secs(60);

/// What there is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Servers.
    pub servers: usize,
    /// Nodes.
    pub nodes: usize,
    /// How many of them build: the first ones.
    pub builders: usize,
    /// More arguments for every agent.
    pub arguments: &'a [&'a str],
    /// A node whose images are on a disk of so many MiB.
    pub small_disk: Option<(usize, u32)>,
    /// Docker has the firewall, too, as it does by default.
    pub docker_firewall: bool,
}

impl Wanted<'_> {
    /// One server, and so many nodes, of which the first alone builds.
    pub fn nodes(nodes: usize) -> Self {
        Self {
            servers: 1,
            nodes,
            builders: 1,
            arguments: &[],
            small_disk: None,
            docker_firewall: false,
        }
    }
}

/// Runs a test with nodes that are ready; shows what they said where it fails.
pub async fn with_nodes(
    name: &str,
    wanted: Wanted<'_>,
    test: impl AsyncFnOnce(&LabCluster, &mut [Node]) -> Result<()>,
) {
    with_servers(name, wanted.servers, async |cluster| -> Result<()> {
        let mut nodes = Vec::new();
        for at in 0..wanted.nodes {
            nodes.push(start(cluster, wanted, at).await?);
        }
        let outcome = async {
            all_ready(cluster, wanted.nodes).await?;
            test(cluster, &mut nodes).await
        };
        let outcome = outcome.await;
        for node in &nodes {
            if outcome.is_err() {
                println!("--- agent of {}\n{}", node.name, node.agent.log());
                println!("--- data plane of {}\n{}", node.name, node.net.log());
            }
            node.stop().await?;
        }
        outcome
    })
    .await;
}

async fn start(cluster: &mut LabCluster, wanted: Wanted<'_>, at: usize) -> Result<Node> {
    let server = cluster.servers.server(0).site.cluster;
    let token = cluster.servers.bootstrap().join_token.clone();
    let place = cluster.lab().add_host().await?;
    let host = cluster.host(place);
    if let Some((_, mib)) = wanted.small_disk.filter(|(node, _)| *node == at) {
        for folder in ["node", "node/agent"] {
            let mut made = std::fs::DirBuilder::new();
            let made = made.mode(0o700).recursive(true);
            made.create(host.path(folder))?;
        }
        host.small_disk("node/agent/images", mib).await?;
    }
    let mut arguments = wanted.arguments.to_vec();
    if at >= wanted.builders {
        arguments.push("--no-builds");
    }
    match wanted.docker_firewall {
        true => Node::start_with_firewall(host, server, &token, &arguments).await,
        false => Node::start_with(host, server, &token, &arguments).await,
    }
}

async fn all_ready(cluster: &LabCluster, count: usize) -> Result<()> {
    let api = &cluster.servers.server(0).api;
    wait::until_ok("all nodes to be ready", READY, async || {
        let status = api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == count, "{status}");
        Ok(())
    })
    .await
}

/// The host that a node is on: the servers' come first.
///
/// # Errors
/// It is on none of this lab.
pub fn host_of<'a>(cluster: &'a LabCluster, node: &Node) -> Result<&'a Host> {
    let found = cluster.hosts().iter().find(|host| host.name() == node.name);
    found.context("a node is on a host")
}
