//! `make bench-agent`: what an agent uses and how fast it is, on a Docker daemon of the bench's own.
//! `use`: memory and CPU time of the agent and the data plane, idle and with 100 containers. `start`:
//! 200 containers from the call that deploys them to the last one running, beside the Docker API driven
//! raw (at whichever of 1, 4, 8, 16 calls in flight is fastest) and Docker Swarm, on the same daemon.
//! `heal`: a killed container until it runs again. Prints a table, writes `target/bench/agent.json` and
//! the section of docs/benchmarks.md; with names of parts runs only these and writes nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use futures_util::StreamExt as _;
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::containers::{Containers, TEST_LABEL};
use skep_tests::dockerd::Dockerd;
use skep_tests::figures::{Figure, p50, publish, table};
use skep_tests::process::Process;
use skep_tests::{Cluster, wait, with_cluster_on};
use tokio::process::Command;

const CROWD: usize = 200;
const SAMPLED: usize = 100;
/// Enough to tell which number in flight is the fastest.
const TRIAL: usize = 40;
const IN_FLIGHT: [usize; 4] = [1, 4, 8, 16];
const KILLS: usize = 20;
/// Before anything is measured, and for how long CPU time is.
const REST: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(600);
const CPU_MILLIS: u32 = 5;
const MEMORY_BYTES: u64 = 16 << 20;
const MIB: f64 = 1024.0 * 1024.0;
/// Where this program writes in docs/benchmarks.md.
const HEADING: &str = "## The agent: `make bench-agent`";
const PARTS: [&str; 3] = ["use", "start", "heal"];

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    for word in &words {
        ensure!(PARTS.contains(&word.as_str()), "{word}: one of {PARTS:?}");
    }
    let wants = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let daemon = Dockerd::start().await?;
    let mut figures = Vec::new();
    let measured = async {
        if wants("use") {
            with_cluster_on(daemon.socket(), "use", async |cluster| {
                used(cluster, &mut figures).await
            })
            .await?;
        }
        if wants("start") {
            start(&daemon, &mut figures).await?;
        }
        if wants("heal") {
            with_cluster_on(daemon.socket(), "heal", async |cluster| {
                heal(cluster, &mut figures).await
            })
            .await?;
        }
        anyhow::Ok(())
    };
    let measured = measured.await;
    daemon.remove().await?;
    measured?;
    println!("{}", table(&figures));
    if !words.is_empty() {
        return Ok(());
    }
    publish("agent", HEADING, &figures)
}

/// Busybox alone, which sleeps.
async fn busybox(containers: &Containers, tag: &str, run: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = Path::new("/bin/busybox");
    std::fs::copy(program, folder.path().join("busybox"))
        .with_context(|| format!("{}: install busybox-static", program.display()))?;
    let recipe = format!(
        "FROM scratch\nCOPY busybox /busybox\nLABEL {TEST_LABEL}={run}\nCMD [\"/busybox\", \"sleep\", \"1000000\"]\n"
    );
    std::fs::write(folder.path().join("Dockerfile"), recipe)?;
    containers.build(folder.path(), tag).await
}

/// Deploys so many of them as one service; answers when the call was made.
async fn crowd(cluster: &Cluster, name: &str, replicas: usize) -> Result<Instant> {
    let tag = format!("{}-busybox:1", cluster.run);
    busybox(&cluster.containers, &tag, &cluster.run).await?;
    let name = Name::of(name);
    let resources = json!({ "cpu_millis": CPU_MILLIS, "memory_bytes": MEMORY_BYTES });
    let spec = json!({ "type": "worker", "replicas": replicas, "resources": resources, "stop_grace_ms": 1 });
    cluster.api.put_service(&name, spec).await?;
    let begun = Instant::now();
    let image = json!({ "type": "image", "reference": tag });
    cluster.api.deploy(&name, &image).await?;
    Ok(begun)
}

async fn running(cluster: &Cluster) -> Result<usize> {
    let found = cluster.containers.of_cluster(&cluster.id).await?;
    Ok(found.iter().filter(|container| container.runs).count())
}

async fn all_run(cluster: &Cluster, count: usize) -> Result<()> {
    wait::until("all to run", PATIENCE, async || {
        Ok((running(cluster).await? == count).then_some(()))
    })
    .await
}

/// Resident MiB and percent of one core, after a rest.
async fn use_of(process: &Process) -> Result<(f64, f64)> {
    tokio::time::sleep(REST).await;
    let (cpu, begun) = (process.cpu_time().await?, Instant::now());
    tokio::time::sleep(REST).await;
    let used = process.cpu_time().await? - cpu;
    let percent = 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok((process.rss_bytes().await? as f64 / MIB, percent))
}

async fn used(cluster: &Cluster, figures: &mut Vec<Figure>) -> Result<()> {
    let (idle, _) = use_of(&cluster.agent).await?;
    let net = cluster.net.rss_bytes().await? as f64 / MIB;
    crowd(cluster, "crowd", SAMPLED).await?;
    all_run(cluster, SAMPLED).await?;
    let (rss, cpu) = use_of(&cluster.agent).await?;
    figures.extend([
        Figure::alone("agent.empty_rss_mib", idle, "MiB"),
        Figure::alone("net.empty_rss_mib", net, "MiB"),
        Figure::alone("agent.rss_100_mib", rss, "MiB"),
        Figure::alone("agent.cpu_100_percent", cpu, "% of a core"),
    ]);
    Ok(())
}

async fn start(daemon: &Dockerd, figures: &mut Vec<Figure>) -> Result<()> {
    let containers = Containers::connect(daemon.socket()).await?;
    let run = format!("raw{}", std::process::id());
    let tag = format!("{run}-busybox:1");
    busybox(&containers, &tag, &run).await?;
    let mut best = (IN_FLIGHT[0], f64::INFINITY);
    for in_flight in IN_FLIGHT {
        let took = raw(&containers, &tag, TRIAL, in_flight).await?;
        println!("raw, {in_flight} in flight: {TRIAL} in {took:.2} s");
        if took < best.1 {
            best = (in_flight, took);
        }
    }
    let by_hand = raw(&containers, &tag, CROWD, best.0).await?;
    println!("raw, {} in flight: {CROWD} in {by_hand:.2} s", best.0);
    let by_swarm = swarm(daemon, &containers, &tag).await?;
    println!("swarm: {CROWD} in {by_swarm:.2} s");
    let mut by_skep = 0.0;
    with_cluster_on(daemon.socket(), "start", async |cluster| {
        let begun = crowd(cluster, "crowd", CROWD).await?;
        all_run(cluster, CROWD).await?;
        by_skep = begun.elapsed().as_secs_f64();
        Ok(())
    })
    .await?;
    // Noise comes and goes: what was measured before and after counts, both.
    let again = raw(&containers, &tag, CROWD, best.0).await?;
    println!("skep: {CROWD} in {by_skep:.2} s; raw again: {again:.2} s");
    let raw = f64::midpoint(by_hand, again);
    figures.extend([
        Figure::alone("agent.start200_s", by_skep, "s").beside("Docker API raw, s", raw),
        Figure::alone("agent.start200_ratio", by_skep / raw, "times"),
        Figure::alone("agent.start200_swarm_ratio", by_skep / by_swarm, "times")
            .beside("Swarm, s", by_swarm),
    ]);
    containers.clean(None, &run).await
}

/// Seconds that the API alone takes to make and start so many; they are gone afterwards.
async fn raw(containers: &Containers, tag: &str, count: usize, in_flight: usize) -> Result<f64> {
    let docker = containers.docker();
    let begun = Instant::now();
    let ids: Vec<Result<String>> = futures_util::stream::iter(0..count)
        .map(|_| raw_one(docker, tag))
        .buffer_unordered(in_flight)
        .collect()
        .await;
    let took = begun.elapsed().as_secs_f64();
    for id in ids {
        containers.remove(&id?).await?;
    }
    Ok(took)
}

async fn raw_one(docker: &Docker, tag: &str) -> Result<String> {
    let body = ContainerCreateBody {
        image: Some(tag.to_owned()),
        host_config: Some(HostConfig {
            memory: Some(i64::try_from(MEMORY_BYTES)?),
            nano_cpus: Some(i64::from(CPU_MILLIS) * 1_000_000),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None, body).await?.id;
    docker.start_container(&id, None).await?;
    Ok(id)
}

/// Seconds that Swarm takes on the same daemon, as its only node.
async fn swarm(daemon: &Dockerd, containers: &Containers, tag: &str) -> Result<f64> {
    docker(daemon, &["swarm", "init", "--advertise-addr", "127.0.0.1"]).await?;
    let count = CROWD.to_string();
    let memory = format!("{MEMORY_BYTES}b");
    let cpus = format!("{}", f64::from(CPU_MILLIS) / 1_000.0);
    let begun = Instant::now();
    docker(
        daemon,
        &[
            "service",
            "create",
            "--detach",
            "--no-resolve-image",
            "--name",
            "crowd",
            "--replicas",
            &count,
            "--limit-memory",
            &memory,
            "--limit-cpu",
            &cpus,
            tag,
        ],
    )
    .await?;
    let is_swarms = ("label", vec!["com.docker.swarm.service.name=crowd"]);
    let filters = std::collections::HashMap::from([is_swarms]);
    wait::until("Swarm's containers to run", PATIENCE, async || {
        let options = bollard::query_parameters::ListContainersOptionsBuilder::default()
            .filters(&filters)
            .build();
        let found = containers.docker().list_containers(Some(options)).await?;
        Ok((found.len() == CROWD).then_some(()))
    })
    .await?;
    let took = begun.elapsed().as_secs_f64();
    docker(daemon, &["service", "rm", "crowd"]).await?;
    wait::until("Swarm's containers to go", PATIENCE, async || {
        let found = containers.docker().list_containers(None).await?;
        Ok(found.is_empty().then_some(()))
    })
    .await?;
    docker(daemon, &["swarm", "leave", "--force"]).await?;
    Ok(took)
}

async fn docker(daemon: &Dockerd, arguments: &[&str]) -> Result<()> {
    let host = format!("unix://{}", daemon.socket());
    let output = Command::new("docker")
        .args(["-H", &host])
        .args(arguments)
        .output()
        .await
        .context("docker: install docker-cli")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {arguments:?}: {said}");
    Ok(())
}

/// Another container each time: one that ends again and again is given a rest before it starts.
async fn heal(cluster: &Cluster, figures: &mut Vec<Figure>) -> Result<()> {
    crowd(cluster, "crowd", KILLS).await?;
    all_run(cluster, KILLS).await?;
    let all = cluster.containers.of_cluster(&cluster.id).await?;
    let mut took = Vec::new();
    for victim in &all {
        let before = cluster.containers.pid(&victim.id).await?;
        ensure!(before.is_some(), "it ran before it was killed");
        let begun = Instant::now();
        cluster.containers.kill(&victim.id).await?;
        wait::until("it to run again", PATIENCE, async || {
            let now = cluster.containers.pid(&victim.id).await?;
            let is_whole = now != before && running(cluster).await? == KILLS;
            Ok(is_whole.then_some(()))
        })
        .await?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    println!("healed in ms: {took:.0?}");
    figures.push(
        Figure::alone("agent.heal_ms_p50", p50(&mut took), "ms")
            .beside("Swarm, recorded elsewhere, ms", 5_700.0),
    );
    Ok(())
}
