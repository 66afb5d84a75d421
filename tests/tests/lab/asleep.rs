//! A whole cluster that was off for longer than its certificates live: three servers and a node,
//! started in any order, come back by themselves, and the app's container never notices.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::lab::cluster::{LabCluster, with_servers_set};
use skep_tests::lab::node::Node;
use skep_tests::process::Process;
use skep_tests::random::Random;
use skep_tests::{chaos, http, wait};

const LIFETIME: Duration = Duration::from_secs(12);
/// How much longer it is off.
const LONGER: Duration = Duration::from_secs(3);
const SEEN: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);
/// What the agent says when it has slept for too long.
const RUN_OUT: &str = "the certificate has run out: renewing it by its key";
const FULL_ROUNDS: u32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_and_a_node_come_back_in_any_order_after_their_certificates_ran_out() {
    let lifetime = format!("{}s", LIFETIME.as_secs());
    let variables = vec![("SKEP_CERTIFICATE_LIFETIME", lifetime)];
    with_servers_set("asleep", 3, variables, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let place = cluster.lab().add_host().await?;
        let token = cluster.servers.bootstrap().join_token.clone();
        let server = cluster.servers.server(1).site.cluster;
        let node = Node::start(cluster.host(place), server, &token).await?;
        let outcome = sleep_and_wake(cluster, &node).await;
        if outcome.is_err() {
            println!("--- agent\n{}--- net\n{}", node.agent.log(), node.net.log());
        }
        node.stop().await?;
        outcome
    })
    .await;
}

async fn sleep_and_wake(cluster: &LabCluster, node: &Node) -> Result<()> {
    let name = Name::of("web");
    ready(cluster, node).await?;
    let api = &cluster.servers.server(2).api;
    api.put_service(&name, json!({})).await?;
    let image = json!({ "type": "image", "reference": node.image("1").await? });
    api.live(&name, &image).await?;
    let before = containers(node).await?;
    ensure!(before.len() == 1, "{before:?}");

    let mut random = Random::of_run("asleep");
    for round in 0..chaos::count(1, FULL_ROUNDS) {
        let mut parts: Vec<&Process> = vec![&node.agent, &node.net];
        let servers = cluster.servers.all().iter();
        parts.extend(servers.map(|server| &server.process));
        let woken = node.agent.log().matches(RUN_OUT).count();
        for part in &parts {
            part.terminate(STOP).await?;
        }
        // Nothing can be waited for but time itself: everything is off.
        tokio::time::sleep(LIFETIME + LONGER).await;
        while !parts.is_empty() {
            let next = usize::try_from(random.below(parts.len() as u64))?;
            let part = parts.swap_remove(next);
            println!("round {round}: {} starts", part.name());
            part.start().await?;
        }
        cluster.servers.settled().await?;
        ready(cluster, node).await?;
        ensure!(node.agent.log().matches(RUN_OUT).count() > woken);
        wait::until_ok("the app to answer", SEEN, async || {
            let host = format!("web-production-{}.localhost", name.project);
            let answer = http::get(node.ingress, &host, "/").await?;
            ensure!(answer.status == 200, "{}", answer.status);
            let live = cluster
                .servers
                .server(0)
                .api
                .live_allocations(&name)
                .await?;
            let is_well = live.len() == 1 && live[0].state == "healthy";
            ensure!(is_well, "{live:?}");
            Ok(())
        })
        .await?;
        let after = containers(node).await?;
        ensure!(after == before, "{before:?} became {after:?}");
    }
    Ok(())
}

async fn ready(cluster: &LabCluster, node: &Node) -> Result<()> {
    wait::until_ok("the node to be ready", SEEN, async || {
        let status = cluster.servers.server(0).api.get("/v1/status").await?;
        // Connected anywhere, as any server knows.
        let nodes = &status["nodes"];
        ensure!(nodes["ready"] == 1 && nodes["connected"] == 1, "{status}");
        let nodes = cluster.servers.server(0).api.get("/v1/nodes").await?;
        ensure!(nodes["nodes"][0]["name"] == node.name.as_str(), "{nodes}");
        Ok(())
    })
    .await
}

/// Every container with when it was started.
async fn containers(node: &Node) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for container in node.containers.all().await? {
        let docker = node.containers.docker();
        let found = docker.inspect_container(&container.id, None).await?;
        let started = found.state.and_then(|state| state.started_at);
        all.push((container.id, started.context("it was started")?.to_string()));
    }
    Ok(all)
}
