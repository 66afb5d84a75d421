//! Where work goes when nodes come, are emptied and die: two nodes with Docker of their own and a
//! registry from which both can pull.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::lab::registry::Registry;
use skep_tests::load::Load;
use skep_tests::wait;

const SEEN: Duration = Duration::from_secs(60);
/// A silent node is lost after 8 s, and what ran there is replaced at once.
const GIVEN_UP: Duration = Duration::from_secs(60);
const RATE: u32 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_keep_apart_a_drain_loses_no_request_and_a_dead_node_is_replaced() {
    with_servers("places", 1, async |cluster| -> Result<()> {
        let places = [
            cluster.lab().add_host().await?,
            cluster.lab().add_host().await?,
        ];
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let registry = Registry::start(cluster.host(0)).await?;
        let mut nodes = Vec::new();
        for place in places {
            nodes.push(Node::start(cluster.host(place), server, &token).await?);
        }
        let outcome = play(cluster, &registry, &nodes).await;
        for node in &nodes {
            if outcome.is_err() {
                println!("--- agent of {}\n{}", node.name, node.agent.log());
            }
            node.stop().await?;
        }
        if outcome.is_err() {
            println!("--- registry\n{}", registry.log());
        }
        registry.stop().await?;
        outcome
    })
    .await;
}

async fn play(cluster: &LabCluster, registry: &Registry, nodes: &[Node]) -> Result<()> {
    let api = &cluster.servers.server(0).api;
    wait::until_ok("both nodes to be ready", SEEN, async || {
        let status = api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == 2, "{status}");
        Ok(())
    })
    .await?;
    for (node, host) in nodes.iter().zip(["a", "b"]) {
        put(cluster, &node.name, "meta", &json!({"set": {"host": host}})).await?;
    }
    let reference = registry.reference("app", "1");
    nodes[0].push("1", &reference).await?;
    let name = Name::of("web");
    let spec = json!({
        "replicas": 2,
        "update": { "drain_ms": 2_000 },
        "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
        "placement": { "spread": ["host"] },
    });
    api.put_service(&name, spec).await?;
    let image = json!({ "type": "image", "reference": reference });
    api.live(&name, &image).await?;
    ensure!(
        healthy(cluster).await? == [1, 1],
        "replicas are on one host"
    );

    let host = format!("web-production-{}.localhost", name.project);
    let load = Load::balanced(&[nodes[0].ingress, nodes[1].ingress], &host, RATE);
    let drain = json!({"state": "draining", "deadline_ms": 60_000});
    put(cluster, &nodes[0].name, "admin", &drain).await?;
    wait::until_ok("the drained node to be empty", SEEN, async || {
        let now = healthy(cluster).await?;
        ensure!(now == [0, 2], "{now:?}");
        let left = nodes[0].containers.all().await?;
        ensure!(!left.iter().any(|container| container.runs), "{left:?}");
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    println!("drained under load: {} requests, 0 failed", report.served);

    put(
        cluster,
        &nodes[0].name,
        "admin",
        &json!({"state": "eligible"}),
    )
    .await?;
    nodes[1].agent.kill().await?;
    wait::until_ok(
        "the dead node's work to be replaced",
        GIVEN_UP,
        async || {
            let now = healthy_on(cluster, &nodes[0].name).await?;
            ensure!(now == 2, "{now} run on the node that is left");
            Ok(())
        },
    )
    .await
}

async fn put(cluster: &LabCluster, node: &str, what: &str, body: &Value) -> Result<()> {
    let path = format!("/v1/nodes/{node}/{what}");
    let api = &cluster.servers.server(0).api;
    let answer = api.call(Method::PUT, &path, Some(body)).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(())
}

/// Healthy allocations that are to run, by node, in the order of the nodes' names.
async fn healthy(cluster: &LabCluster) -> Result<Vec<usize>> {
    let nodes = cluster.servers.server(0).api.get("/v1/nodes").await?;
    let mut counts = Vec::new();
    for node in nodes["nodes"].as_array().context("nodes")? {
        let name = node["name"].as_str().context("a name")?;
        counts.push(healthy_on(cluster, name).await?);
    }
    Ok(counts)
}

async fn healthy_on(cluster: &LabCluster, node: &str) -> Result<usize> {
    let list = cluster.servers.server(0).api.get("/v1/allocations").await?;
    let list = list["allocations"].as_array().context("a list")?.clone();
    let is_there =
        |one: &Value| one["node"] == node && one["state"] == "healthy" && one["desired"] == "run";
    Ok(list.iter().filter(|one| is_there(one)).count())
}
