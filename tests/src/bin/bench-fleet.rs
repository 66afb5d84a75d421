//! `make bench-fleet`: one server with 5,000 simulated agents. `steady`: 100,000 allocations, spread
//! over all of them, that run and are sampled, what the server uses for them. `million`: 1,000,000
//! allocations by best fit, which fill nineteen of twenty nodes, from the first call of the API until
//! the server has committed and acknowledged the last one's health; `spread`: the same where each next
//! replica goes to another node. `death`: an agent falls silent, until the last of its work is healthy
//! elsewhere. Prints a table, writes `target/bench/fleet.json` and the section of docs/benchmarks.md;
//! with names of parts runs only these, with a number makes all but the last that many times smaller;
//! both write nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::figures::{Figure, p50, publish, table};
use skep_tests::process::{Process, signal};
use skep_tests::servers::agents::program::{self, TOKEN_USES, progress};
use skep_tests::servers::{Servers, Site};
use skep_tests::{place, wait};
use tokio::task::JoinSet;

const AGENTS: usize = 5_000;
const STEADY: usize = 100_000;
const MILLION: usize = 1_000_000;
/// The most that a service may have.
const REPLICAS: usize = 1_000;
/// Services that are made at once: more would only wait for each other.
const AT_ONCE: usize = 16;
/// Everything of one step, on two processors that everything shares.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// After the last allocation is healthy, before the server's use is measured, and for how long.
const REST: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(30);
/// Nodes that stay, nodes that die at once, allocations on all of them, and how often it is done.
const SURVIVORS: usize = 4;
const DOOMED: usize = 2;
const SPREAD: usize = 60;
const DEATHS: usize = 5;
/// A million on five thousand nodes fit just so: of 8 cores and 16 GiB each.
const CPU_MILLIS: u32 = 38;
const MEMORY_BYTES: u64 = 32 << 20;
const MIB: f64 = 1024.0 * 1024.0;
/// Nomad's C1M, on five large servers; recorded by its authors.
const NOMAD: (&str, f64) = ("Nomad's C1M, recorded elsewhere", 267.0);
/// Where this program writes in docs/benchmarks.md.
const HEADING: &str = "## A fleet: `make bench-fleet`";

#[tokio::main]
async fn main() -> Result<()> {
    if program::is_asked_for() {
        return program::main(std::env::args_os().skip(1)).await;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let divisor = words.iter().find_map(|word| word.parse().ok());
    let wants = |part: &str| {
        let named = |word: &String| word.parse::<usize>().is_err();
        !words.iter().any(named) || words.iter().any(|word| word == part)
    };
    let mut figures = Vec::new();
    for part in [Part::Steady, Part::Million, Part::Spread] {
        if wants(part.name()) {
            on_fleet(divisor.unwrap_or(1), part, &mut figures).await?;
        }
    }
    if wants("death") {
        death(&mut figures).await?;
    }
    println!("{}", table(&figures));
    if !words.is_empty() {
        return Ok(());
    }
    publish("fleet", HEADING, &figures)
}

/// What is done with a fleet of thousands.
#[derive(Clone, Copy)]
enum Part {
    Steady,
    Million,
    Spread,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Million => "million",
            Self::Spread => "spread",
        }
    }

    fn allocations(self) -> usize {
        match self {
            Self::Steady => STEADY,
            Self::Million | Self::Spread => MILLION,
        }
    }

    fn placement(self) -> Value {
        match self {
            Self::Steady | Self::Spread => json!({ "strategy": "spread" }),
            Self::Million => json!({}),
        }
    }
}

/// A server and its agents.
struct Fleet {
    servers: Servers,
    agents: Process,
    size: usize,
}

async fn on_fleet(divisor: usize, part: Part, figures: &mut Vec<Figure>) -> Result<()> {
    let base = place::target_dir().join("bench");
    std::fs::create_dir_all(&base)?;
    let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&base)?;
    let has_samples = matches!(part, Part::Steady);
    let fleet = Fleet::start(dir.path(), AGENTS / divisor, has_samples).await?;
    let measured = async {
        let allocations = part.allocations() / divisor;
        let took = fleet.place(allocations, &part.placement()).await?;
        let (peer, recorded) = NOMAD;
        let took = |name| Figure::alone(name, took.as_secs_f64(), "s");
        match part {
            Part::Steady => {
                figures.push(took("cluster.place_100k_s"));
                fleet.steady(figures).await?;
            }
            Part::Million => {
                figures.push(took("cluster.million_s").beside(peer, recorded));
                let rss = fleet.rss_mib().await?;
                figures.push(Figure::alone("cluster.server_rss_mib_million", rss, "MiB"));
            }
            Part::Spread => figures.push(took("cluster.million_spread_s")),
        }
        Ok(())
    };
    let measured = measured.await;
    if measured.is_err() {
        fleet.servers.print_logs();
    }
    measured
}

impl Fleet {
    async fn start(dir: &Path, size: usize, has_samples: bool) -> Result<Self> {
        let servers = Servers::start_at(vec![Site::loopback(dir, "server0")?]).await?;
        let server = servers.server(0);
        let ca = dir.join("ca.pem");
        std::fs::write(&ca, &servers.bootstrap().ca_pem)?;
        let mut arguments = vec![
            format!("--server={}", server.site.cluster),
            format!("--agents={size}"),
        ];
        for _ in 0..size.div_ceil(TOKEN_USES) {
            let request = json!({ "role": "node", "uses": TOKEN_USES });
            let token = server.api.post("/v1/tokens", &request).await?;
            let token = token["token"].as_str().context("a token")?;
            arguments.push(format!("--token={token}"));
        }
        if !has_samples {
            arguments.push("--without-samples".to_owned());
        }
        let agents = program::apart(dir.join("agents.log"), &ca, arguments)?;
        let begun = Instant::now();
        agents.start().await?;
        let fleet = Self {
            servers,
            agents,
            size,
        };
        fleet.ready(size).await?;
        println!(
            "{size} nodes joined and ready after {:.0?}",
            begun.elapsed()
        );
        Ok(fleet)
    }

    /// More agents, in a process of their own.
    async fn more(&self, dir: &Path, first: usize, count: usize) -> Result<Process> {
        let server = self.servers.server(0);
        let request = json!({ "role": "node", "uses": count });
        let token = server.api.post("/v1/tokens", &request).await?;
        let token = token["token"].as_str().context("a token")?;
        let arguments = vec![
            format!("--server={}", server.site.cluster),
            format!("--agents={count}"),
            format!("--first={first}"),
            format!("--token={token}"),
        ];
        let agents = program::apart(dir.join("more.log"), &dir.join("ca.pem"), arguments)?;
        agents.start().await?;
        self.ready(first + count).await?;
        Ok(agents)
    }

    /// Waits for so many nodes to take work.
    async fn ready(&self, size: usize) -> Result<()> {
        let api = &self.servers.server(0).api;
        wait::until("every node to be ready", PATIENCE, async || {
            ensure!(self.agents.is_running().await?, "{}", self.agents.log());
            let status = api.get("/v1/status").await?;
            Ok((status["nodes"]["ready"] == size).then_some(()))
        })
        .await
    }

    /// How long it takes until so many are acknowledged to be healthy.
    async fn place(&self, allocations: usize, placement: &Value) -> Result<Duration> {
        let cpu = self.servers.server(0).process.cpu_time().await?;
        let begun = Instant::now();
        let deploying = deploy_all(self.servers.server(0).api.clone(), allocations, placement);
        let healthy = wait::until("all to be healthy", PATIENCE, async || {
            let so_far = progress(&self.agents)?.healthy;
            Ok((so_far >= allocations).then_some(so_far))
        });
        let (deployed, healthy) = tokio::join!(deploying, healthy);
        deployed?;
        let extra = healthy? - allocations;
        if extra > 0 {
            // Agents without processor time are silent, and what they run is replaced.
            println!("{extra} were placed a second time: this machine is too busy to tell much");
        }
        let took = begun.elapsed();
        let cpu = self.servers.server(0).process.cpu_time().await? - cpu;
        println!(
            "{allocations} allocations healthy after {took:.1?}, the server's CPU time {cpu:.1?}, {} agents in session",
            progress(&self.agents)?.connected
        );
        Ok(took)
    }

    async fn rss_mib(&self) -> Result<f64> {
        Ok(self.servers.server(0).process.rss_bytes().await? as f64 / MIB)
    }

    async fn steady(&self, figures: &mut Vec<Figure>) -> Result<()> {
        tokio::time::sleep(REST).await;
        let process = &self.servers.server(0).process;
        let (cpu, begun) = (process.cpu_time().await?, Instant::now());
        tokio::time::sleep(WATCH).await;
        let used = process.cpu_time().await? - cpu;
        let cores = used.as_secs_f64() / begun.elapsed().as_secs_f64();
        ensure!(
            progress(&self.agents)?.connected == self.size,
            "all are in session"
        );
        figures.extend([
            Figure::alone("cluster.server_cores_100k", cores, "cores"),
            Figure::alone("cluster.server_rss_mib_100k", self.rss_mib().await?, "MiB"),
        ]);
        Ok(())
    }
}

/// A fleet of a few nodes, of which some fall silent at once, again and again.
async fn death(figures: &mut Vec<Figure>) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..DEATHS {
        let dir = tempfile::tempdir()?;
        let fleet = Fleet::start(dir.path(), SURVIVORS, true).await?;
        let doomed = fleet.more(dir.path(), SURVIVORS, DOOMED).await?;
        let placement = json!({ "spread": ["node.name"] });
        deploy(&fleet.servers.server(0).api, 0, SPREAD, placement).await?;
        let healthy = async || {
            let (here, there) = (progress(&fleet.agents)?.healthy, progress(&doomed)?.healthy);
            Ok((here + there >= SPREAD).then_some(here))
        };
        let here = wait::until("all to be healthy", PATIENCE, healthy).await?;
        ensure!(here < SPREAD, "nothing was placed on the nodes that die");
        let pid = doomed.pid().await.context("they run")?;
        signal(pid, "STOP").await?;
        let begun = Instant::now();
        wait::until("its work elsewhere", PATIENCE, async || {
            Ok((progress(&fleet.agents)?.healthy >= SPREAD).then_some(()))
        })
        .await?;
        took.push(begun.elapsed().as_secs_f64());
    }
    println!("dead nodes' work replaced after s: {took:.1?}");
    let worst = took.iter().copied().fold(0.0, f64::max);
    figures.extend([
        Figure::alone("cluster.node_death_s", p50(&mut took), "s"),
        Figure::alone("cluster.node_death_s_max", worst, "s"),
    ]);
    Ok(())
}

/// Services of so many allocations together, each deployed.
async fn deploy_all(api: Api, allocations: usize, placement: &Value) -> Result<()> {
    let count = allocations.div_ceil(REPLICAS);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (api, next, placement) = (api.clone(), next.clone(), placement.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                let replicas = REPLICAS.min(allocations - number * REPLICAS);
                deploy(&api, number, replicas, placement.clone()).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn deploy(api: &Api, number: usize, replicas: usize, placement: Value) -> Result<()> {
    let name = Name::of(&format!("s{number}"));
    let resources = json!({ "cpu_millis": CPU_MILLIS, "memory_bytes": MEMORY_BYTES });
    let spec = json!({
        "type": "worker",
        "replicas": replicas,
        "resources": resources,
        "placement": placement,
    });
    api.put_service(&name, spec).await?;
    let image = json!({ "type": "image", "reference": "registry.invalid/bench:1" });
    let deployment = api.deploy(&name, &image).await?;
    if deployment.ended && deployment.status != "live" {
        bail!("{:?}: {}", deployment.problem, deployment.told());
    }
    Ok(())
}
