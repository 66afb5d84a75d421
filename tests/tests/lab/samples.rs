//! What a node measures reaches the leader whose ever session it is, and every server shows it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::load::Load;
use skep_tests::wait;

const SEEN: Duration = Duration::from_secs(60);
const RATE: u32 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_heard_by_a_follower_are_known_everywhere_and_after_a_new_election() {
    with_servers("samples", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let place = cluster.lab().add_host().await?;
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let node = Node::start(cluster.host(place), server, &token).await?;
        let outcome = measure(cluster, &node).await;
        if outcome.is_err() {
            println!("--- agent\n{}--- net\n{}", node.agent.log(), node.net.log());
        }
        node.stop().await?;
        outcome
    })
    .await;
}

/// Where the node's session is; agents choose for themselves.
async fn place_of_session(cluster: &LabCluster) -> Result<usize> {
    for place in 0..3 {
        let api = &cluster.servers.server(place).api;
        let nodes = &api.get("/v1/status").await?["nodes"];
        if nodes["connected"] == 1 && nodes["ready"] == 1 {
            return Ok(place);
        }
    }
    anyhow::bail!("no server has the node, ready")
}

/// Makes another server lead than the one with the session.
async fn lead_elsewhere(cluster: &LabCluster) -> Result<()> {
    let session = place_of_session(cluster).await?;
    if cluster.servers.leader().await? == session {
        let api = &cluster.servers.server(session).api;
        let group = cluster.servers.seen_by(session).await?;
        let voters = group.with_role("voter");
        let other = voters.first().context("another voter")?;
        let path = format!("/v1/servers/{other}/leader");
        let answer = api.call(Method::POST, &path, None).await?;
        ensure!(answer.status == 204, "{}", answer.text());
    }
    let leader = cluster.servers.leader().await?;
    ensure!(
        leader != place_of_session(cluster).await?,
        "the same server"
    );
    Ok(())
}

async fn measure(cluster: &LabCluster, node: &Node) -> Result<()> {
    let name = Name::of("web");
    let api = |place: usize| &cluster.servers.server(place).api;
    wait::until_ok("a leader that has not the session", SEEN, async || {
        lead_elsewhere(cluster).await
    })
    .await?;
    api(0).put_service(&name, json!({})).await?;
    let image = json!({ "type": "image", "reference": node.image("1").await? });
    api(0).live(&name, &image).await?;
    let host = format!("web-production-{}.localhost", name.project);
    let load = Load::start(node.ingress, &host, RATE);
    let seen_by = async |place: usize| {
        wait::until_ok("the load to be seen", SEEN, async || {
            let query = format!("/v1/samples?project={}&allocations=true", name.project);
            let found = api(place).get(&query).await?;
            let of: &Value = &found["services"][0];
            let seen = of["request_rate"].as_f64().context("a rate")?;
            let sent = load.so_far().rate();
            ensure!(seen > sent * 0.5 && seen < sent * 1.5, "{seen} of {sent}");
            ensure!(of["missing"] == 0 && of["cpu_millis"].is_u64(), "{of}");
            Ok(())
        })
        .await
        .with_context(|| format!("server {place}"))
    };
    for place in 0..3 {
        seen_by(place).await?;
    }
    let old = cluster.servers.leader().await?;
    cluster.servers.kill(old).await?;
    let others: Vec<usize> = (0..3).filter(|place| *place != old).collect();
    cluster.servers.leader_among(&others).await?;
    for place in others {
        seen_by(place).await?;
    }
    cluster.servers.start(old).await?;
    load.stop().await;
    Ok(())
}
