//! The leader is killed at any moment of a deployment: whatever was begun ends as it has to, without help.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::{Api, Deployment, Name};
use skep_tests::chaos;
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::node::Node;
use skep_tests::lab::nodes::{Wanted, with_nodes};
use skep_tests::load::Load;
use skep_tests::random::Random;
use skep_tests::{http, wait};
use tokio::time::sleep;

pub(crate) const SEEN: Duration = Duration::from_secs(60);
const RATE: u32 = 50;
/// Moments in `make test` and in `make chaos`.
const KILLS: (u32, u32) = (4, 30);
/// A deployment is over within about two seconds: the last moments are after its end.
const LATEST_MS: u64 = 2_500;

/// What is deployed.
struct Release {
    version: &'static str,
    image: String,
    /// How it ends.
    ends: &'static str,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_at_any_moment_of_a_deployment_leaves_it_right() {
    let wanted = Wanted {
        servers: 3,
        ..Wanted::nodes(1)
    };
    with_nodes("pipeline", wanted, async |cluster, nodes| {
        cluster.servers.settled().await?;
        play(cluster, &nodes[0]).await
    })
    .await;
}

async fn play(cluster: &LabCluster, node: &Node) -> Result<()> {
    let api = &cluster.servers.server(0).api;
    let releases = [
        Release {
            version: "1",
            image: node.image("1").await?,
            ends: "live",
        },
        Release {
            version: "2",
            image: node.image("2").await?,
            ends: "live",
        },
        Release {
            version: "sick",
            image: node.image_with("sick", &[("FAIL_HEALTH", "1")]).await?,
            ends: "failed",
        },
    ];
    let name = Name::of("web");
    let spec = |strategy: &str| {
        json!({
            "health": { "path": "/healthz", "deadline_ms": 2_000 },
            "update": { "drain_ms": 200 },
            "rollout": { "strategy": strategy, "keep_ms": 0 },
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
        })
    };
    api.put_service(&name, spec("rolling")).await?;
    api.live(&name, &image(&releases[0])).await?;
    let host = format!("web-production-{}.localhost", name.project);
    let mut serving = releases[0].version;
    serves(node, &host, serving).await?;
    let load = Load::start(node.ingress, &host, RATE);
    let mut random = Random::of_run("pipeline");
    let mut wrong = Vec::new();
    let kills = chaos::count(KILLS.0, KILLS.1);
    for round in 0..kills {
        // Each kind of release under each kind of rollout, in turn.
        let release = &releases[(round as usize + 1) % releases.len()];
        let strategy = ["rolling", "blue_green"][(round as usize / releases.len()) % 2];
        let after = Duration::from_millis(random.below(LATEST_MS));
        let what = format!(
            "{strategy} of `{}`, killed after {after:?}",
            release.version
        );
        println!("{round}: {what}");
        let (other, leader) = others(cluster).await?;
        let api = &cluster.servers.server(other).api;
        api.put_service(&name, spec(strategy)).await?;
        let made = api.deploy(&name, &image(release)).await?;
        // The moment is the fault.
        sleep(after).await;
        cluster.servers.kill(leader).await?;
        let ended = api.ended(&made.id).await.with_context(|| what.clone())?;
        if ended.status == "live" {
            serving = release.version;
        }
        let came = right(node, api, (&name, &host), serving).await;
        if ended.status != release.ends || came.is_err() {
            wrong.push(format!("{what}: {came:?}\n{}", told(&ended)));
        }
        cluster.servers.start(leader).await?;
        cluster.servers.settled().await?;
    }
    let report = load.stop().await;
    println!("pipeline.leader_kill_wrong: {} of {kills}", wrong.len());
    println!("{} requests, {} failed", report.served, report.failed());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    Ok(())
}

fn image(release: &Release) -> Value {
    json!({ "type": "image", "reference": release.image })
}

/// A server that is not the leader, and the leader.
pub(crate) async fn others(cluster: &LabCluster) -> Result<(usize, usize)> {
    let leader = cluster.servers.leader().await?;
    Ok(((leader + 1) % 3, leader))
}

/// One allocation is left, which serves `version`.
pub(crate) async fn right(
    node: &Node,
    api: &Api,
    (name, host): (&Name, &str),
    version: &str,
) -> Result<()> {
    wait::until_ok("one allocation, of what is live", SEEN, async || {
        let live = api.live_allocations(name).await?;
        ensure!(
            live.len() == 1 && live[0].state == "healthy",
            "{} allocations: {live:?}",
            live.len()
        );
        serves(node, host, version).await
    })
    .await
}

pub(crate) async fn serves(node: &Node, host: &str, version: &str) -> Result<()> {
    let answer = http::get(node.ingress, host, "/").await?;
    let wanted = format!("version={version} ");
    ensure!(
        answer.status == 200 && answer.text().contains(&wanted),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

pub(crate) fn told(deployment: &Deployment) -> String {
    format!("it is {}\n{}", deployment.status, deployment.told())
}
