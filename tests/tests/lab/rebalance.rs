//! Two services on nodes of their own are brought together under load: no request is lost, a node is
//! empty, and nothing goes back.

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
const RATE: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_loses_no_request_empties_a_node_and_is_not_undone() {
    with_servers("moves", 1, async |cluster| -> Result<()> {
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
    let reference = registry.reference("app", "1");
    nodes[0].push("1", &reference).await?;
    let names = [Name::of("web"), Name::of("api")];
    for (at, name) in names.iter().enumerate() {
        admin(cluster, &nodes[1 - at].name, "cordoned").await?;
        let spec = json!({
            "update": { "drain_ms": 2_000 },
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
        });
        api.put_service(name, spec).await?;
        let image = json!({ "type": "image", "reference": reference });
        api.live(name, &image).await?;
        admin(cluster, &nodes[1 - at].name, "eligible").await?;
    }
    let advised = wait::until_ok("a move to be advised", SEEN, async || {
        let shown = api.get("/v1/rebalance").await?;
        ensure!(
            shown["emptied"]
                .as_array()
                .is_some_and(|all| all.len() == 1),
            "{shown}"
        );
        Ok(shown)
    })
    .await?;
    let moved = advised["moves"][0]["service"]
        .as_str()
        .context("its name")?;
    let moved = names
        .iter()
        .find(|name| moved.starts_with(&format!("{}/", name.project)))
        .context("one of both")?;

    let host = format!("{}-production-{}.localhost", moved.service, moved.project);
    let load = Load::balanced(&[nodes[0].ingress, nodes[1].ingress], &host, RATE);
    let begun = api.call(Method::POST, "/v1/rebalance/run", None).await?;
    ensure!(begun.status == 200, "{}", begun.text());
    wait::until_ok("one node to be empty", SEEN, async || {
        let mut running = Vec::new();
        for node in nodes {
            let all = node.containers.all().await?;
            running.push(all.iter().filter(|container| container.runs).count());
        }
        running.sort_unstable();
        ensure!(running == [0, 2], "{running:?}");
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    println!("moved under load: {} requests, 0 failed", report.served);
    let shown = api.get("/v1/rebalance").await?;
    let nothing = [&shown["moves"], &shown["under_way"]];
    ensure!(nothing.iter().all(|list| **list == json!([])), "{shown}");
    Ok(())
}

async fn admin(cluster: &LabCluster, node: &str, state: &str) -> Result<()> {
    let path = format!("/v1/nodes/{node}/admin");
    let body: Value = json!({ "state": state });
    let api = &cluster.servers.server(0).api;
    let answer = api.call(Method::PUT, &path, Some(&body)).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(())
}
