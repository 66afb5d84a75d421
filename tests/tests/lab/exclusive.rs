//! A service that may only ever run once: its node is cut off from the servers, its agent stops it by its
//! own clock, and only then another one takes its place. With it what else of a node one container has for
//! itself: a port and a device.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::lab::registry::Registry;
use skep_tests::wait;
use tokio::net::TcpStream;

const SEEN: Duration = Duration::from_secs(60);
/// Lost after 10 s, given up after 5 more, the grace and 30 s.
const REPLACED: Duration = Duration::from_secs(120);
const STOP_AFTER_MS: u64 = 5_000;
const PORT: u16 = 18_080;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_off_stops_by_itself_before_another_begins() {
    with_servers("exclusive", 1, async |cluster| -> Result<()> {
        let places = [
            cluster.lab().add_host().await?,
            cluster.lab().add_host().await?,
        ];
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let registry = Registry::start(cluster.host(0)).await?;
        let mut nodes = Vec::new();
        for place in places {
            let more = ["--meta", "tier=pro", "--device", "tunnel=/dev/net/tun"];
            nodes.push(Node::start_with(cluster.host(place), server, &token, &more).await?);
        }
        let outcome = play(cluster, &registry, &nodes, places).await;
        for node in &nodes {
            if outcome.is_err() {
                println!("--- agent of {}\n{}", node.name, node.agent.log());
            }
            node.stop().await?;
        }
        registry.stop().await?;
        outcome
    })
    .await;
}

async fn play(
    cluster: &LabCluster,
    registry: &Registry,
    nodes: &[Node],
    places: [usize; 2],
) -> Result<()> {
    let api = &cluster.servers.server(0).api;
    wait::until_ok("both nodes to be ready", SEEN, async || {
        let status = api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == 2, "{status}");
        Ok(())
    })
    .await?;
    let reference = registry.reference("app", "1");
    nodes[0].push("1", &reference).await?;
    let name = Name::of("ledger");
    let spec = json!({
        "replicas": 1,
        "port": PORT,
        "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
        "stop_grace_ms": 1_000,
        "placement": {
            "constraints": ["tier = pro"],
            "ports": [PORT],
            "devices": { "tunnel": 1 },
            "cut_off": { "do": "stop", "after_ms": STOP_AFTER_MS },
        },
    });
    api.put_service(&name, spec).await?;
    api.live(&name, &json!({ "type": "image", "reference": reference }))
        .await?;
    let one = only_one(cluster).await?;
    let first = nodes.iter().position(|node| one["node"] == *node.name);
    let first = first.context("it runs on neither node")?;
    ensure!(one["ports"] == json!([PORT]), "{one}");
    let address = cluster.host(places[first]).address();
    TcpStream::connect((address, PORT))
        .await
        .context("its port cannot be reached on its node")?;

    cluster.host(places[first]).cut().await?;
    let mut stopped = false;
    let outcome = wait::until_ok("another one to run", REPLACED, async || {
        let mut running = Vec::new();
        for node in nodes {
            let all = node.containers.all().await?;
            running.push(all.iter().filter(|container| container.runs).count());
        }
        // Never both.
        if running.iter().sum::<usize>() > 1 {
            return Ok(Err(format!("{running:?} run at once")));
        }
        stopped |= running[first] == 0;
        ensure!(running[1 - first] == 1, "{running:?}");
        Ok(Ok(()))
    })
    .await?;
    outcome.map_err(anyhow::Error::msg)?;
    ensure!(stopped, "the agent that was cut off stopped nothing");

    cluster.host(places[first]).mend().await?;
    wait::until_ok(
        "the node to be back with nothing to run",
        SEEN,
        async || {
            let status = api.get("/v1/status").await?;
            ensure!(status["nodes"]["ready"] == 2, "{status}");
            let left = nodes[first].containers.all().await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        },
    )
    .await?;
    let one = only_one(cluster).await?;
    ensure!(one["node"] == *nodes[1 - first].name, "{one}");
    Ok(())
}

/// The one allocation that is to run, healthy.
async fn only_one(cluster: &LabCluster) -> Result<Value> {
    let list = cluster.servers.server(0).api.get("/v1/allocations").await?;
    let list = list["allocations"].as_array().context("a list")?.clone();
    let mut wanted = list.iter().filter(|one| one["desired"] == "run");
    let (Some(one), None) = (wanted.next(), wanted.next()) else {
        anyhow::bail!("not one: {list:?}");
    };
    ensure!(one["state"] == "healthy", "{one}");
    Ok(one.clone())
}
