//! The lease of a data plane: a node that no server hears leaves the load balancers and serves on, and where the
//! servers are gone, none does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::lab::Host;
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::node::{ADMIN_PORT, Node};
use skep_tests::lab::nodes::{Wanted, host_of, with_nodes};
use skep_tests::{http, wait};

/// Far above a lease, and what it takes to notice its end.
const SEEN: Duration = Duration::from_secs(60);
const SERVERS: usize = 3;
const READY: &str = "/.well-known/skep/ready";

/// Two nodes with an app on both; the first is the one that is cut off.
struct World<'a> {
    cluster: &'a LabCluster,
    nodes: &'a [Node],
    host: String,
}

impl World<'_> {
    /// What an ingress answers where load balancers ask.
    async fn ready(&self, at: usize) -> Result<u16> {
        let answer = http::get(self.nodes[at].ingress, &self.host, READY).await?;
        Ok(answer.status)
    }

    async fn becomes(&self, at: usize, status: u16) -> Result<()> {
        let name = &self.nodes[at].name;
        let what = format!("{name} to answer {status} to load balancers");
        wait::until_ok(&what, SEEN, async || {
            let now = self.ready(at).await?;
            ensure!(now == status, "{now}");
            Ok(())
        })
        .await
    }

    async fn serves(&self, at: usize) -> Result<()> {
        app_answers(self.nodes[at].ingress, &self.host).await
    }

    fn host(&self, at: usize) -> Result<&Host> {
        host_of(self.cluster, &self.nodes[at])
    }

    /// Waits until the servers count on a node, or do not.
    async fn holds(&self, at: usize, is_held: bool) -> Result<()> {
        let host = self.host(at)?;
        let url = format!("http://127.0.0.1:{ADMIN_PORT}/metrics");
        let line = format!("skep_net_lease_held {}", u8::from(is_held));
        wait::until_ok(&format!("{line} at {}", host.name()), SEEN, async || {
            let metrics = host.run("busybox", &["wget", "-qO-", &url]).await?;
            ensure!(metrics.lines().any(|it| it == line), "{metrics}");
            Ok(())
        })
        .await
    }

    /// The first node's agent reaches no server any more; the nodes reach each other.
    async fn cut(&self) -> Result<()> {
        for place in 0..SERVERS {
            let server = self.cluster.host(place).address();
            self.host(0)?.cut_from(server).await?;
        }
        Ok(())
    }
}

async fn app_answers(ingress: SocketAddr, host: &str) -> Result<()> {
    let answer = http::get(ingress, host, "/").await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_heard_is_not_ready_and_without_servers_all_are() {
    let wanted = Wanted {
        servers: SERVERS,
        ..Wanted::nodes(2)
    };
    with_nodes("lease", wanted, async |cluster, nodes| {
        let name = Name::of("web");
        let world = World {
            cluster,
            nodes,
            host: format!("web-production-{}.localhost", name.project),
        };
        let api = &cluster.servers.server(0).api;
        let image = nodes[0].image("1").await?;
        let spec = json!({
            "replicas": 2,
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "placement": { "max_per": ["1 per node.name"] },
        });
        api.put_service(&name, spec).await?;
        api.live(&name, &json!({ "type": "image", "reference": image }))
            .await?;
        for at in [0, 1] {
            wait::until_ok("the app", SEEN, async || world.serves(at).await).await?;
            world.becomes(at, 200).await?;
        }
        alone(&world).await?;
        without_servers(&world).await
    })
    .await;
}

/// One node is cut from every server, and comes back.
async fn alone(world: &World<'_>) -> Result<()> {
    world.cut().await?;
    world.becomes(0, 503).await?;
    ensure!(world.ready(1).await? == 200, "the other one is heard");
    for at in [0, 1] {
        world.serves(at).await?;
    }
    world.host(0)?.mend().await?;
    world.becomes(0, 200).await?;
    world.holds(0, true).await
}

/// The servers end while one node is cut from them: its lease is the first to run out, so that the other one has
/// nobody to be behind of; and when the other one has none either, both are as good.
async fn without_servers(world: &World<'_>) -> Result<()> {
    world.cut().await?;
    world.becomes(0, 503).await?;
    let servers = &world.cluster.servers;
    for place in 0..SERVERS {
        servers.kill(place).await?;
    }
    for at in [0, 1] {
        world.holds(at, false).await?;
    }
    // It has asked the other one again, and that one has none.
    world.becomes(0, 200).await?;
    ensure!(world.ready(1).await? == 200, "none is worse than another");
    for at in [0, 1] {
        world.holds(at, false).await?;
        world.serves(at).await?;
    }
    servers.start_all().await?;
    world.host(0)?.mend().await?;
    for at in [0, 1] {
        world.holds(at, true).await?;
        world.becomes(at, 200).await?;
    }
    Ok(())
}
