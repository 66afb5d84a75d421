//! Where work goes when nodes come, are emptied and die, or their Docker hangs: two nodes with Docker of their
//! own and a registry from which both can pull.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::docker_proxy::{DockerProxy, Mood};
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::lab::registry::Registry;
use skep_tests::load::Load;
use skep_tests::wait;

const SEEN: Duration = Duration::from_secs(60);
/// A silent node is lost after 8 s, and what ran there is replaced at once.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// Found wedged after 20 s, and what may be replaced is after a minute more.
const MOVED: Duration = Duration::from_secs(180);
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
    both_ready(cluster).await?;
    let api = &cluster.servers.server(0).api;
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
    .await?;
    wedged(cluster, nodes, &host).await
}

/// The second node's Docker hangs, and answers pings alone: what runs there serves on until the first node has
/// taken its place.
async fn wedged(cluster: &LabCluster, nodes: &[Node], host: &str) -> Result<()> {
    let daemon = nodes[1].path("docker.sock");
    let proxy = DockerProxy::start(daemon.to_str().context("a path")?)?;
    let agent = nodes[1].agent.like(&daemon, proxy.socket());
    agent.start().await?;
    both_ready(cluster).await?;
    let admin = async |state: &str| {
        let body = json!({ "state": state, "deadline_ms": 60_000 });
        put(cluster, &nodes[0].name, "admin", &body).await
    };
    admin("draining").await?;
    counts(cluster, [0, 2], SEEN).await?;
    put(
        cluster,
        &nodes[0].name,
        "admin",
        &json!({ "state": "eligible" }),
    )
    .await?;

    let load = Load::balanced(&[nodes[0].ingress, nodes[1].ingress], host, RATE);
    proxy.set(Mood::Wedged);
    wait::until_ok("both to be replaced", MOVED, async || {
        let now = healthy_on(cluster, &nodes[0].name).await?;
        ensure!(now == 2, "{now} run on the node that works");
        Ok(())
    })
    .await?;
    let status = cluster.servers.server(0).api.get("/v1/nodes").await?;
    ensure!(status["nodes"][1]["status"] == "runtime_wedged", "{status}");
    // Nobody could stop what runs there: as soon as somebody can, there are as many as are wanted.
    proxy.set(Mood::Well);
    wait::until_ok("two altogether", SEEN, async || {
        let mut running = 0;
        for node in nodes {
            let all = node.containers.all().await?;
            running += all.iter().filter(|container| container.runs).count();
        }
        let healthy: usize = healthy(cluster).await?.iter().sum();
        ensure!(
            (running, healthy) == (2, 2),
            "{running} run, {healthy} are healthy"
        );
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    agent.kill().await
}

/// Waits until so many are healthy on each node.
async fn counts(cluster: &LabCluster, wanted: [usize; 2], within: Duration) -> Result<()> {
    wait::until_ok(&format!("{wanted:?} on the nodes"), within, async || {
        let now = healthy(cluster).await?;
        ensure!(now == wanted, "{now:?}");
        Ok(())
    })
    .await
}

async fn both_ready(cluster: &LabCluster) -> Result<()> {
    wait::until_ok("both nodes to be ready", SEEN, async || {
        let status = cluster.servers.server(0).api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == 2, "{status}");
        Ok(())
    })
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
