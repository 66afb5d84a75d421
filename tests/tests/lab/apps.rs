//! An app on a node of its own serves while the servers have their troubles, and the node's stream
//! goes over to another server.

use std::time::Duration;

use ::http::Method;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::faults::Fault;
use skep_tests::lab::node::Node;
use skep_tests::load::Load;
use skep_tests::{http, wait};

const SEEN: Duration = Duration::from_secs(60);
const RATE: u32 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_serve_while_servers_die_one_after_the_other() {
    with_servers("apps", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let place = cluster.lab().add_host().await?;
        let (server, token) = {
            let leader = cluster.servers.leader().await?;
            let token = cluster.servers.bootstrap().join_token.clone();
            (cluster.servers.server(leader).site.cluster, token)
        };
        let node = Node::start(cluster.host(place), server, &token).await?;
        let outcome = serve_under_faults(cluster, &node).await;
        if outcome.is_err() {
            println!("--- agent\n{}--- net\n{}", node.agent.log(), node.net.log());
        }
        node.stop().await?;
        outcome
    })
    .await;
}

async fn serve_under_faults(cluster: &LabCluster, node: &Node) -> Result<()> {
    let name = Name::of("web");
    let api = |place: usize| &cluster.servers.server(place).api;
    wait::until_ok("the node to be ready", SEEN, async || {
        let nodes = api(0).get("/v1/nodes").await?;
        ensure!(nodes["nodes"][0]["status"] == "ready", "{nodes}");
        Ok(())
    })
    .await?;
    api(1)
        .put_service(&name, json!({ "update": { "drain_ms": 500 } }))
        .await?;
    for (at, version) in ["1", "2"].into_iter().enumerate() {
        let image = json!({ "type": "image", "reference": node.image(version).await? });
        api(at).live(&name, &image).await?;
    }
    let host = format!("web-production-{}.localhost", name.project);
    answers(node, &host, "2").await?;
    let load = Load::start(node.ingress, &host, RATE);
    for fault in [Fault::Kill, Fault::Freeze, Fault::CutFromPeers] {
        let victim = match fault {
            // Whoever holds the node's stream, and goes on holding it if it does not know better.
            Fault::CutFromPeers => holder(cluster).await?,
            _ => cluster.servers.leader().await?,
        };
        fault.befall(cluster, victim).await?;
        let others: Vec<usize> = (0..3).filter(|place| *place != victim).collect();
        cluster.servers.leader_among(&others).await?;
        // The node hears of new work through whoever is left.
        let image = json!({ "type": "image", "reference": node.image("3").await? });
        api(others[0]).live(&name, &image).await?;
        answers(node, &host, "3").await?;
        let image = json!({ "type": "image", "reference": node.image("2").await? });
        api(others[1]).live(&name, &image).await?;
        fault
            .undo(cluster, victim)
            .await
            .with_context(|| format!("{fault:?}"))?;
    }
    let report = load.stop().await;
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    Ok(())
}

/// The server that the node's session is with.
async fn holder(cluster: &LabCluster) -> Result<usize> {
    wait::until_ok("a session", SEEN, async || {
        for (place, server) in cluster.servers.all().iter().enumerate() {
            let page = server.api.call(Method::GET, "/metrics", None).await?;
            if page.text().contains("\nskep_agents_connected 1\n") {
                return Ok(place);
            }
        }
        bail!("nobody holds it")
    })
    .await
}

async fn answers(node: &Node, host: &str, version: &str) -> Result<()> {
    let answer = http::get(node.ingress, host, "/").await?;
    let wanted = format!("version={version} ");
    ensure!(
        answer.status == 200 && answer.text().contains(&wanted),
        "{}",
        answer.text()
    );
    Ok(())
}
