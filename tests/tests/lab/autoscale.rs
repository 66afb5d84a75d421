//! Load says how many allocations there are: from one to several and back, to none, and from none at the
//! first request.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::http;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::load::Load;
use skep_tests::wait;

const SEEN: Duration = Duration::from_secs(60);
const RATE: u32 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_scales_a_service_up_and_down_to_none_and_wakes_it() {
    with_servers("autoscale", 1, async |cluster| -> Result<()> {
        let place = cluster.lab().add_host().await?;
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let node = Node::start(cluster.host(place), server, &token).await?;
        let outcome = play(cluster, &node).await;
        if outcome.is_err() {
            println!("--- agent\n{}", node.agent.log());
        }
        node.stop().await?;
        outcome
    })
    .await;
}

async fn play(cluster: &LabCluster, node: &Node) -> Result<()> {
    let api = &cluster.servers.server(0).api;
    wait::until_ok("the node to be ready", SEEN, async || {
        let status = api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == 1, "{status}");
        Ok(())
    })
    .await?;
    let name = Name::of("web");
    let autoscale = json!({
        "min": 1,
        "max": 4,
        "targets": ["request_rate=20"],
        "stable_window_ms": 10_000,
        "burst_window_ms": 2_000,
        "down_window_ms": 4_000,
        "down": "50% or 1/4s",
    });
    let spec = json!({
        "update": { "drain_ms": 1_000 },
        "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
        "autoscale": autoscale,
    });
    api.put_service(&name, spec).await?;
    let image = json!({ "type": "image", "reference": node.image("1").await? });
    api.live(&name, &image).await?;
    ensure!(
        shown(cluster, &name).await?["wanted"] == 1,
        "it begins with one"
    );

    let host = format!("web-production-{}.localhost", name.project);
    let load = Load::start(node.ingress, &host, RATE);
    wait::until_ok("several to carry the load", SEEN, async || {
        let shown = shown(cluster, &name).await?;
        let healthy = shown["healthy"].as_u64().context("a number")?;
        ensure!(healthy >= 3 && shown["wanted"] == healthy, "{shown}");
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    wait::until_ok("one to be left", SEEN * 2, async || {
        let shown = shown(cluster, &name).await?;
        ensure!(shown["wanted"] == 1 && shown["healthy"] == 1, "{shown}");
        Ok(())
    })
    .await?;
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    let changes = shown(cluster, &name).await?["changes"].clone();
    one_hill(&changes)?;
    println!(
        "scaled under load: {} requests, 0 failed: {changes}",
        report.served
    );

    sleeps_and_wakes(cluster, node, &name, autoscale).await
}

/// Up, then down: not up again, and each step says why.
fn one_hill(changes: &Value) -> Result<()> {
    let mut changes = changes.as_array().context("a list")?.clone();
    changes.reverse();
    let is_up = |change: &Value| change["to"].as_u64() > change["from"].as_u64();
    ensure!(changes.first().is_some_and(is_up), "{changes:?}");
    ensure!(
        changes.iter().is_sorted_by_key(|it| !is_up(it)),
        "{changes:?}"
    );
    for change in &changes {
        let reason = change["reason"].as_str().context("a reason")?;
        ensure!(reason.contains("request rate"), "{change}");
    }
    Ok(())
}

async fn sleeps_and_wakes(
    cluster: &LabCluster,
    node: &Node,
    name: &Name,
    mut autoscale: Value,
) -> Result<()> {
    autoscale["scale_to_zero"] = json!({ "idle_ms": 2_000 });
    let path = name.path("/autoscale");
    let api = &cluster.servers.server(0).api;
    let answer = api.call(Method::PUT, &path, Some(&autoscale)).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    wait::until_ok("none to be left", SEEN, async || {
        let left = node.containers.all().await?;
        ensure!(left.iter().all(|container| !container.runs), "{left:?}");
        Ok(())
    })
    .await?;
    let host = format!("web-production-{}.localhost", name.project);
    let answer = http::get(node.ingress, &host, "/").await?;
    ensure!(answer.status == 200, "the first request: {}", answer.text());
    let newest = shown(cluster, name).await?["changes"][0].clone();
    ensure!(newest["from"] == 0, "{newest}");
    Ok(())
}

async fn shown(cluster: &LabCluster, name: &Name) -> Result<Value> {
    let api = &cluster.servers.server(0).api;
    api.get(&name.path("/autoscale")).await
}
