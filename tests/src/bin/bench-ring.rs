//! `make bench-ring`: the ring's figures, from release builds on real Docker: how long a deployment
//! takes beside Docker alone, what the parts use when idle, and what fails under updates and kills.
//! Prints a table, writes `target/bench/ring.json` and the section of docs/benchmarks.md; with names
//! of parts (`idle`, `overhead`, `rolling`, `crash`) runs only these and writes nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use skep_tests::alone::{first_200, run_alone};
use skep_tests::api::Name;
use skep_tests::figures::{Figure, p50, publish, table};
use skep_tests::load::Load;
use skep_tests::random::Random;
use skep_tests::{Cluster, crash, wait, with_cluster};

/// Deployments and plain runs, one after the other.
const PAIRS: usize = 20;
/// Between two measurements that concern Docker.
const SETTLE: Duration = Duration::from_secs(1);
/// Before the memory is read, with nothing to do.
const IDLE: Duration = Duration::from_secs(30);
const ROLLOUTS: usize = 10;
/// What the show asks for; the load's target is a tenth more.
const RATE: u32 = 500;
const KILLS: u32 = 20;
const KILL_RATE: u32 = 100;
/// From creation to the first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;
/// Where this program writes in docs/benchmarks.md.
const HEADING: &str = "## The ring: `make bench-ring`";

#[tokio::main]
async fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    let mut figures = Vec::new();
    if is_wanted("idle") {
        with_cluster("idle", async |cluster| idle(cluster, &mut figures).await).await;
    }
    if is_wanted("overhead") {
        with_cluster("overhead", async |cluster| {
            overhead(cluster, &mut figures).await
        })
        .await;
    }
    if is_wanted("rolling") {
        with_cluster("rolling", async |cluster| {
            rolling(cluster, &mut figures).await
        })
        .await;
    }
    if is_wanted("crash") {
        with_cluster("crash", async |cluster| kills(cluster, &mut figures).await).await;
    }
    println!("{}", table(&figures));
    if !wanted.is_empty() {
        return Ok(());
    }
    publish("ring", HEADING, &figures)
}

/// With one service running, as a node has it.
async fn idle(cluster: &Cluster, figures: &mut Vec<Figure>) -> Result<()> {
    let (name, _) = cluster.service("web", "1", json!({})).await?;
    cluster.converged(&[(&name, 1)]).await?;
    tokio::time::sleep(IDLE).await;
    let parts = [
        ("agent.idle_rss_mib", &cluster.agent),
        ("server.idle_rss_mib", &cluster.server),
        ("net.idle_rss_mib", &cluster.net),
    ];
    for (metric, part) in parts {
        figures.push(Figure::alone(
            metric,
            part.rss_bytes().await? as f64 / MIB,
            "MiB",
        ));
    }
    Ok(())
}

/// The same image, deployed by Skep and run by Docker alone, in turns: what one has to suffer on
/// this machine the other suffers, too.
async fn overhead(cluster: &Cluster, figures: &mut Vec<Figure>) -> Result<()> {
    let image = cluster.image("1", &[]).await?;
    let (mut by_skep, mut by_docker) = (Vec::new(), Vec::new());
    for turn in 0..2 * PAIRS {
        // Docker is still cleaning up after a removal when it says that it is done.
        tokio::time::sleep(SETTLE).await;
        // A B, B A, A B, ...: neither always comes after the other.
        if matches!(turn % 4, 0 | 3) {
            by_docker.push(run_alone(cluster, &image).await?.as_secs_f64() * 1000.0);
            continue;
        }
        let name = Name::of(&format!("app{turn}"));
        by_skep.push(deploy(cluster, &name, &image).await?);
        let removed = cluster
            .api
            .call(::http::Method::DELETE, &name.path(""), None)
            .await?;
        ensure!(removed.status < 300, "{}", removed.text());
        cluster.converged(&[]).await?;
    }
    println!("skep {by_skep:.0?}\ndocker {by_docker:.0?}");
    let (skep, docker) = (p50(&mut by_skep), p50(&mut by_docker));
    println!(
        "deployment to first 200: {skep:.0} ms; Docker alone: {docker:.0} ms (p50 of {PAIRS})"
    );
    let figure = Figure::alone("ring.deploy_overhead_ms_p50", skep - docker, "ms");
    figures.push(figure.beside("docker create+start to first 200, ms", docker));
    Ok(())
}

/// From the API call that deploys to the first 200 through the ingress.
async fn deploy(cluster: &Cluster, name: &Name, image: &str) -> Result<f64> {
    cluster
        .api
        .put_service(name, json!({ "update": { "drain_ms": 0 } }))
        .await?;
    let begun = Instant::now();
    cluster
        .api
        .deploy(name, &json!({ "type": "image", "reference": image }))
        .await?;
    first_200(cluster.ingress, &cluster.host(name), FIRST_ANSWER).await?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

async fn rolling(cluster: &Cluster, figures: &mut Vec<Figure>) -> Result<()> {
    let spec = json!({ "replicas": 2, "update": { "drain_ms": 2000 }, "stop_grace_ms": 2000 });
    let (name, _) = cluster.service("web", "0", spec).await?;
    let images = [
        cluster.image("1", &[]).await?,
        cluster.image("2", &[]).await?,
    ];
    let load = Load::start(cluster.ingress, &cluster.host(&name), RATE + RATE / 10);
    for image in images.iter().cycle().take(ROLLOUTS) {
        cluster
            .api
            .live(&name, &json!({ "type": "image", "reference": image }))
            .await?;
    }
    wait::until_ok("the rate", FIRST_ANSWER, async || {
        ensure!(load.so_far().rate() >= f64::from(RATE));
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    println!(
        "{ROLLOUTS} updates: {} requests at {:.0}/s, {:?}",
        report.served,
        report.rate(),
        report.failures
    );
    figures.push(Figure::alone(
        "ring.rolling_failed_requests",
        report.failed() as f64,
        "requests",
    ));
    Ok(())
}

async fn kills(cluster: &Cluster, figures: &mut Vec<Figure>) -> Result<()> {
    let mut random = Random::of_run("crash");
    let found = crash::rounds(cluster, &mut random, KILLS, KILL_RATE).await?;
    println!(
        "{KILLS} kills: {} requests, {:?}",
        found.requests.served, found.requests.failures
    );
    println!("{:#?}", found.strays);
    figures.push(Figure::alone(
        "ring.crash_orphans",
        found.strays.len() as f64,
        "containers",
    ));
    figures.push(Figure::alone(
        "ring.crash_failed_requests",
        found.requests.failed() as f64,
        "requests",
    ));
    Ok(())
}
