//! Traffic that enters at one node and is for another: three nodes, of which the last runs none of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::{Api, Name};
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::load::{CLIENTS, Load, Report};
use skep_tests::traefik::Traefik;
use skep_tests::{chaos, http, wait};

const SEEN: Duration = Duration::from_secs(60);
/// What a process that was asked to end may take.
const ENDS: Duration = Duration::from_secs(60);
/// A silent node is lost after 8 s.
const GIVEN_UP: Duration = Duration::from_secs(30);
const RATE: u32 = 150;

async fn with_nodes(name: &str, test: impl AsyncFnOnce(&Api, &LabCluster, &[Node]) -> Result<()>) {
    with_servers(name, 1, async |cluster| -> Result<()> {
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let mut nodes = Vec::new();
        for at in 0..3 {
            let place = cluster.lab().add_host().await?;
            let arguments: &[&str] = if at == 0 { &[] } else { &["--no-builds"] };
            nodes.push(Node::start_with(cluster.host(place), server, &token, arguments).await?);
        }
        let api = &cluster.servers.server(0).api;
        let outcome = async {
            wait::until_ok("all nodes to be ready", SEEN, async || {
                let status = api.get("/v1/status").await?;
                ensure!(status["nodes"]["ready"] == 3, "{status}");
                Ok(())
            })
            .await?;
            test(api, cluster, &nodes).await
        };
        let outcome = outcome.await;
        for node in &nodes {
            if outcome.is_err() {
                println!("--- agent of {}\n{}", node.name, node.agent.log());
                println!("--- data plane of {}\n{}", node.name, node.net.log());
            }
            node.stop().await?;
        }
        outcome
    })
    .await;
}

/// The host of a lab that a node is on: the servers come first.
fn host_of<'a>(cluster: &'a LabCluster, node: &Node) -> Result<&'a skep_tests::lab::Host> {
    let found = cluster.hosts().iter().find(|host| host.name() == node.name);
    found.context("a node is on a host")
}

async fn answers(entrance: std::net::SocketAddr, host: &str, version: &str) -> Result<()> {
    wait::until_ok(&format!("version {version}"), SEEN, async || {
        let answer = http::get(entrance, host, "/").await?;
        let text = answer.text();
        ensure!(
            answer.status == 200 && text.contains(&format!("version={version} ")),
            "{} {text}",
            answer.status
        );
        Ok(())
    })
    .await
}

fn nothing_failed(what: &str, report: &Report) -> Result<()> {
    println!(
        "{what}: {} requests, {} failed",
        report.served,
        report.failed()
    );
    ensure!(
        report.failed() == 0 && report.served > 0,
        "{what}: {report:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_serves_what_runs_elsewhere_and_no_request_fails() {
    with_nodes("mesh", async |api, cluster, nodes| {
        let mut images = Vec::new();
        for version in ["1", "2"] {
            images.push(nodes[0].image(version).await?);
        }
        let deploy = |at: usize| json!({ "type": "image", "reference": images[at] });
        let name = Name::of("web");
        let spec = json!({
            "replicas": 2,
            "update": { "drain_ms": 2_000 },
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "placement": { "constraints": [format!("node.name = {}", nodes[0].name)] },
        });
        api.put_service(&name, spec).await?;
        api.live(&name, &deploy(0)).await?;
        let host = format!("web-production-{}.localhost", name.project);
        let beside = host_of(cluster, &nodes[2])?;
        let traefik = Traefik::start_beside(beside).await?;
        let entrances = [nodes[1].ingress, nodes[2].ingress, traefik.entrance];
        for entrance in entrances {
            answers(entrance, &host, "1")
                .await
                .with_context(|| traefik.log())?;
        }
        // A body that is larger than every buffer on the way, there and back.
        let body = bytes::Bytes::from(vec![b'x'; 8 << 20]);
        let echoed = http::post(nodes[2].ingress, &host, "/echo", body.clone()).await?;
        ensure!(
            echoed.status == 200 && echoed.body == body,
            "{}",
            echoed.body.len()
        );

        let loads = entrances.map(|entrance| Load::start(entrance, &host, RATE));
        let rolls = chaos::count(3, 20);
        for roll in 0..rolls as usize {
            api.live(&name, &deploy((roll + 1) % 2)).await?;
        }
        // The data plane of the node that runs it is replaced while a request is under way there.
        let net = nodes[0]
            .net
            .like(Path::new(""), Path::new(""))
            .args(["--takeover"]);
        let held = async {
            let answer = http::get(nodes[2].ingress, &host, "/hold?ms=3000").await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        };
        let replaced = async {
            // Under way when the processes change.
            tokio::time::sleep(Duration::from_millis(500)).await;
            net.start().await
        };
        tokio::try_join!(held, replaced)?;
        // Its agent dies, and comes back.
        nodes[0].agent.kill().await?;
        nodes[0].agent.start().await?;
        // So does the only server.
        cluster.servers.server(0).process.kill().await?;
        cluster.servers.server(0).process.start().await?;
        wait::until_ok("the server to roll again", SEEN, async || {
            api.live(&name, &deploy(0)).await.map(drop)
        })
        .await?;
        for (load, what) in loads
            .into_iter()
            .zip(["second node", "third node", "Traefik"])
        {
            let report = load.stop().await;
            nothing_failed(&format!("{rolls} rolls and more, by the {what}"), &report)
                .with_context(|| traefik.log())?;
        }
        traefik.stop().await?;
        // Nothing holds the older one any more.
        let status = nodes[0].net.ended(ENDS).await?;
        ensure!(status.success(), "{status}");
        net.kill().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_node_that_vanishes_only_what_was_sent_to_it_fails() {
    with_nodes("mesh-death", async |api, cluster, nodes| {
        let image = nodes[0].image("1").await?;
        let name = Name::of("web");
        let spec = json!({
            "replicas": 2,
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "placement": {
                "max_per": ["1 per node.name"],
                "constraints": [format!("node.name != {}", nodes[2].name)],
            },
        });
        api.put_service(&name, spec).await?;
        api.live(&name, &json!({ "type": "image", "reference": image }))
            .await?;
        let host = format!("web-production-{}.localhost", name.project);
        answers(nodes[2].ingress, &host, "1").await?;
        let load = Load::start(nodes[2].ingress, &host, RATE);
        wait::until_ok("both nodes to be in use", SEEN, async || {
            let served = load.so_far().served;
            ensure!(served >= u64::from(RATE), "{served} requests");
            Ok(())
        })
        .await?;
        host_of(cluster, &nodes[1])?.cut().await?;
        wait::until_ok("the node to be given up", GIVEN_UP, async || {
            let status = api.get("/v1/status").await?;
            ensure!(status["nodes"]["ready"] == 2, "{status}");
            Ok(())
        })
        .await?;
        let report = load.stop().await;
        println!(
            "a node vanished: {} requests, {} failed: {:?}; the slowest took {:?}",
            report.served,
            report.failed(),
            report.failures,
            report.slowest
        );
        // Each client waits for one answer at a time.
        ensure!(report.failed() <= u64::from(CLIENTS), "{report:?}");
        host_of(cluster, &nodes[1])?.mend().await
    })
    .await;
}
