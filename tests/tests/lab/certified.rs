//! One certificate on every node, whoever proved its host; and the leader that is killed in the middle of its order.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::{Api, Name};
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::{INGRESS_PORT, Node};
use skep_tests::pebble::{Pebble, Ways};
use skep_tests::wait;
use tokio::net::TcpListener;
use tokio::time::timeout;

const SEEN: Duration = Duration::from_secs(150);
const NODES: usize = 2;
const HOST: &str = "shop.pebble.test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_shows_the_one_certificate_though_its_leader_died_ordering_it() {
    with_servers("certified", 3, async |cluster| -> Result<()> {
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let place = cluster.lab().add_host().await?;
            nodes.push(Node::start(cluster.host(place), server, &token).await?);
        }
        let outcome = play(cluster, &nodes).await;
        for node in &nodes {
            if outcome.is_err() {
                println!("--- agent of {}\n{}", node.name, node.agent.log());
            }
            node.stop().await?;
        }
        outcome
    })
    .await;
}

/// A service at [`HOST`].
async fn deploy(api: &Api, nodes: &[Node]) -> Result<()> {
    wait::until_ok("all nodes to be ready", SEEN, async || {
        let status = api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == NODES, "{status}");
        Ok(())
    })
    .await?;
    let image = nodes[0].image("1").await?;
    let name = Name::of("web");
    let spec = json!({
        "routes": [{ "host": HOST }],
        "placement": { "constraints": [format!("node.name != {}", nodes[1].name)] },
        "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
    });
    api.put_service(&name, spec).await?;
    api.live(&name, &json!({ "type": "image", "reference": image }))
        .await?;
    Ok(())
}

async fn play(cluster: &LabCluster, nodes: &[Node]) -> Result<()> {
    cluster.servers.settled().await?;
    let leader = cluster.servers.leader().await?;
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    let api = &cluster.servers.server(others[0]).api;
    deploy(api, nodes).await?;

    // The authority looks at this machine first, and gets no answer there.
    let machine = cluster.machine();
    let stalled = TcpListener::bind((machine.ip(), INGRESS_PORT)).await?;
    let std::net::IpAddr::V4(at) = machine.ip() else {
        anyhow::bail!("a lab has IPv4");
    };
    let ways = Ways {
        at: Some(at),
        ..Ways::default()
    };
    let dir = cluster.host(0).path("pebble");
    let pebble = Pebble::start(&dir, (INGRESS_PORT, 1), ways).await?;
    pebble.resolve(HOST, at).await?;
    let issuer = json!({
        "directory": pebble.directory, "root": std::fs::read_to_string(&pebble.root)?,
        "terms_agreed": true, "challenge": "http-01",
    });
    let set = api
        .call(http::Method::PUT, "/v1/issuer", Some(&issuer))
        .await?;
    ensure!(set.status == 200, "{} {}", set.status, set.text());
    let asking = timeout(SEEN, stalled.accept())
        .await
        .context("the authority asks")??;
    cluster.servers.kill(leader).await?;
    // It is led to the second node from now on; what it asked before fails.
    let std::net::IpAddr::V4(second) = nodes[1].ingress.ip() else {
        anyhow::bail!("a lab has IPv4");
    };
    pebble.resolve(HOST, second).await?;
    drop((asking, stalled));

    let shown = wait::until_ok("a certificate on each node", SEEN, async || {
        let mut shown = Vec::new();
        for node in nodes {
            shown.push(pebble.trusts(node.https, HOST).await?);
        }
        Ok(shown)
    });
    let shown = shown.await.with_context(|| pebble.log())?;
    assert_eq!(shown[0], shown[1], "the same, serial and all");
    check_counts(&pebble)?;
    let answers = nodes[0].https;
    pebble.trusts(answers, HOST).await?;
    pebble.stop().await?;
    cluster.servers.start(leader).await
}

/// The dead leader's order and the next one's, and one certificate.
fn check_counts(pebble: &Pebble) -> Result<()> {
    let log = pebble.log();
    let orders = log.matches("Added order").count();
    let issued = log.matches("Issued certificate").count();
    // Good nonces are refused at times: an order may fail by that, and is made anew.
    ensure!(
        (2..=3).contains(&orders) && issued == 1,
        "{orders} orders, {issued} certificates: {log}"
    );
    Ok(())
}
