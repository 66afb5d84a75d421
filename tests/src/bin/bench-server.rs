//! `make bench-server`: a server with a large state: 1,000,000 commands that end in 10,000 nodes and
//! 100,000 allocations, made through the paths that nodes and operators use. How long a restart takes
//! until it is ready, what it keeps in memory without agents and on disk, and how a new server
//! catches up while writes go on. Prints a table, writes `target/bench/server.json` and the section
//! of docs/benchmarks.md; a number as argument makes everything that many times smaller and writes
//! nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use skep_model::id::NodeId;
use skep_proto::convert::id_bytes;
use skep_tests::api::Name;
use skep_tests::figures::{Figure, publish, table};
use skep_tests::servers::agents::{Agents, Behavior, join_all};
use skep_tests::servers::{Operator, Servers, Site};
use skep_tests::writer::{self, Job, Target};
use skep_tests::{place, wait};

const NODES: usize = 10_000;
const ALLOCATIONS: usize = 100_000;
const COMMANDS: u64 = 1_000_000;
/// The most that a service may have.
const REPLICAS: usize = 1_000;
const IN_FLIGHT: u64 = 512;
/// Each step of making the state, on two processors that everything shares.
const MAKING: Duration = Duration::from_secs(1_800);
const READY: Duration = Duration::from_secs(60);
/// A server frees what it read in while it became ready.
const REST: Duration = Duration::from_secs(2);
/// Writes that go on while another server catches up.
const PACE_PER_S: u64 = 500;
const PACED: Duration = Duration::from_secs(6);
const MIB: f64 = 1024.0 * 1024.0;
/// Uses of one join token.
const TOKEN_USES: usize = 1_000;
/// Where this program writes in docs/benchmarks.md.
const HEADING: &str = "## A large state: `make bench-server`";

#[tokio::main]
async fn main() -> Result<()> {
    if writer::is_asked_for() {
        return writer::main().await;
    }
    let smaller: Option<usize> = std::env::args()
        .nth(1)
        .map(|text| text.parse())
        .transpose()?;
    let divisor = smaller.unwrap_or(1).max(1);
    let base = place::target_dir().join("bench");
    std::fs::create_dir_all(&base)?;
    let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&base)?;
    let mut servers = Servers::start_at(vec![Site::loopback(dir.path(), "server0")?]).await?;
    let mut figures = Vec::new();
    let measured = measure(&mut servers, dir.path(), divisor, &mut figures).await;
    if let Err(error) = measured {
        servers.print_logs();
        return Err(error);
    }
    println!("{}", table(&figures));
    if smaller.is_some() {
        return Ok(());
    }
    publish("server", HEADING, &figures)
}

async fn measure(
    servers: &mut Servers,
    dir: &Path,
    divisor: usize,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let node = make_state(servers, divisor).await?;
    let operator = servers.operator().await?;
    write_out(servers, &operator, &node, COMMANDS / divisor as u64).await?;
    servers.kill(0).await?;
    let restarted = Instant::now();
    servers.start(0).await?;
    ready(servers).await?;
    figures.push(Figure::alone(
        "server.restart_ready_s",
        restarted.elapsed().as_secs_f64(),
        "s",
    ));
    tokio::time::sleep(REST).await;
    let rss = servers.server(0).process.rss_bytes().await?;
    figures.push(Figure::alone(
        "server.rss_mib_100k",
        rss as f64 / MIB,
        "MiB",
    ));
    let disk = size_of(&servers.server(0).site.data)?;
    let snapshots = size_of(&servers.server(0).site.data.join("raft/snapshots"))?;
    println!("snapshots {:.0} MiB", snapshots as f64 / MIB);
    figures.push(Figure::alone(
        "server.data_dir_mib",
        disk as f64 / MIB,
        "MiB",
    ));
    catch_up(servers, dir, &operator, &node, figures).await
}

/// Nodes, sessions, services, allocations; answers the id of a node.
async fn make_state(servers: &Servers, divisor: usize) -> Result<Vec<u8>> {
    let (nodes, allocations) = (NODES / divisor, ALLOCATIONS / divisor);
    let (server, api) = (servers.server(0).site.cluster, &servers.server(0).api);
    let mut members = Vec::new();
    let begun = Instant::now();
    while members.len() < nodes {
        let count = (nodes - members.len()).min(TOKEN_USES);
        let request = json!({ "role": "node", "uses": count });
        let token = api.post("/v1/tokens", &request).await?;
        let token = token["token"].as_str().context("a token")?;
        let first = members.len();
        members.extend(join_all(server, &servers.bootstrap().ca_pem, token, first, count).await?);
    }
    println!("{nodes} nodes joined after {:.0?}", begun.elapsed());
    let node: NodeId = members.first().context("a node")?.id.parse()?;
    let agents = Agents::start(server, members, Behavior::default());
    wait::until("every node to be ready", MAKING, async || {
        let status = api.get("/v1/status").await?;
        Ok((status["nodes"]["ready"] == nodes).then_some(()))
    })
    .await?;
    println!("all in session after {:.0?}", begun.elapsed());
    let mut left = allocations;
    let mut services = Vec::new();
    while left > 0 {
        let replicas = left.min(REPLICAS);
        let name = Name::of(&format!("s{}", services.len()));
        let resources = json!({ "cpu_millis": 50, "memory_bytes": 64 << 20 });
        let spec = json!({ "type": "worker", "replicas": replicas, "resources": resources });
        api.put_service(&name, spec).await?;
        let image = json!({ "type": "image", "reference": "registry.invalid/bench:1" });
        services.push(api.deploy(&name, &image).await?.id);
        left -= replicas;
    }
    for deployment in &services {
        wait::until("a deployment to be live", MAKING, async || {
            let deployment = api.deployment(deployment).await?;
            if deployment.ended && deployment.status != "live" {
                bail!("{:?}: {}", deployment.problem, deployment.told());
            }
            Ok(deployment.ended.then_some(()))
        })
        .await?;
    }
    println!(
        "{} allocations healthy after {:.0?}, {} nodes in session",
        agents.healthy(),
        begun.elapsed(),
        agents.connected()
    );
    Ok(id_bytes(node.as_u128()))
}

fn job(servers: &Servers, operator: &Operator, node: &[u8]) -> Job {
    Job {
        target: Target::SkepStream,
        address: servers.server(0).site.cluster,
        ca_pem: operator.ca_pem.clone(),
        certificate_pem: operator.certificate_pem.clone(),
        key_pem: operator.key_pem.clone(),
        node: node.to_vec(),
        connections: 1,
        in_flight: IN_FLIGHT,
        measure_ms: 2_000,
        per_s: None,
    }
}

/// Fills the log up to its number of commands.
async fn write_out(
    servers: &Servers,
    operator: &Operator,
    node: &[u8],
    commands: u64,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let group = servers.seen_by(0).await?;
        let report = group.servers.first().and_then(|one| one.report.clone());
        let report = report.context("its report")?;
        let index = report["commit_index"].as_u64().context("its index")?;
        if index >= commands {
            println!("{index} entries after {:.0?} more", begun.elapsed());
            return Ok(());
        }
        ensure!(begun.elapsed() < MAKING, "{index} entries only");
        writer::run_apart(&job(servers, operator, node)).await?;
    }
}

async fn ready(servers: &Servers) -> Result<()> {
    let api = &servers.server(0).api;
    wait::until_ok("the server to be ready", READY, async || {
        let answer = api.call(http::Method::GET, "/readyz", None).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    })
    .await
}

/// A second server, which has everything before it, while writes go on at a steady pace.
async fn catch_up(
    servers: &mut Servers,
    dir: &Path,
    operator: &Operator,
    node: &[u8],
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let paced = Job {
        in_flight: 64,
        measure_ms: u64::try_from(PACED.as_millis())?,
        per_s: Some(PACE_PER_S),
        ..job(servers, operator, node)
    };
    let alone = writer::run_apart(&paced).await?;
    let site = Site::loopback(dir, "server1")?;
    let warm = Duration::from_millis(paced.measure_ms) / writer::WARM_SHARE;
    let beside = tokio::spawn(async move { writer::run_apart(&paced).await });
    tokio::time::sleep(warm).await;
    let begun = Instant::now();
    servers.join(site).await?;
    servers.settled().await?;
    let took = begun.elapsed().as_secs_f64();
    let beside = beside.await??;
    println!("alone {alone:?}\nbeside {beside:?}");
    figures.extend([
        Figure::alone("server.catch_up_s", took, "s"),
        Figure::alone("server.catch_up_write_ms_p50", beside.p50_ms, "ms")
            .beside("before, ms", alone.p50_ms),
        Figure::alone("server.catch_up_write_ms_p99", beside.p99_ms, "ms")
            .beside("before, ms", alone.p99_ms),
    ]);
    Ok(())
}

/// Bytes on disk below a folder; a file that goes meanwhile is none.
fn size_of(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += size_of(&entry.path())?,
            Ok(metadata) => bytes += metadata.blocks() * 512,
            Err(_) => {}
        }
    }
    Ok(bytes)
}
