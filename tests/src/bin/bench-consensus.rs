//! `make bench-consensus`: what a durable write costs on three servers, beside etcd's three members
//! and one bare fdatasync on the same disk in the same run; how long writes stand still when the
//! leader is killed; what clients lose under faults. Prints a table, writes
//! `target/bench/consensus.json` and the section of docs/benchmarks.md; with names of parts
//! (`writes`, `failover`, `faults`) runs only these and writes nothing. `SKEP_CHAOS=full` does the
//! full number of kills and faults.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use skep_model::id::NodeId;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::control_client::ControlClient;
use skep_proto::v1::write_request::Kind;
use skep_tests::etcd::Etcd;
use skep_tests::figures::{Figure, p50, publish, quantile, table};
use skep_tests::lab::cluster::try_with_servers;
use skep_tests::random::Random;
use skep_tests::servers::{Operator, Servers, Site, grpc_tls, join_node};
use skep_tests::writer::{self, Done, Job, Target};
use skep_tests::{chaos, place, register, tls};
use tonic::transport::Channel;

const SERVERS: usize = 3;
/// Each way of writing is measured so often, in turns with the others.
const TURNS: usize = 4;
const TURN: Duration = Duration::from_secs(5);
const IN_FLIGHT: u64 = 256;
/// HTTP/2 servers take a hundred or two calls at once on a connection.
const CONNECTIONS: usize = 4;
const SYNCS: usize = 2_000;
const RECORD_BYTES: usize = 256;
const KILLS: u32 = 10;
const KILLS_FULL: u32 = 50;
const FAULTS: u32 = 20;
const FAULTS_FULL: u32 = 500;
/// A write that is not answered by then is asked of somebody else.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries at a server that refuses at once.
const RETRY: Duration = Duration::from_millis(5);
/// Where this program writes in docs/benchmarks.md.
const HEADING: &str = "## Consensus: `make bench-consensus`";

#[tokio::main]
async fn main() -> Result<()> {
    if writer::is_asked_for() {
        return writer::main().await;
    }
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    // Below the build's folder: all data on one real disk, which /tmp may not be.
    let base = place::target_dir().join("bench");
    std::fs::create_dir_all(&base)?;
    let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&base)?;
    let mut figures = Vec::new();
    if is_wanted("writes") || is_wanted("failover") {
        let servers = three(dir.path()).await?;
        let measured = async {
            if is_wanted("writes") {
                writes(&servers, dir.path(), &mut figures).await?;
            }
            if is_wanted("failover") {
                failover(&servers, &mut figures).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = measured.await {
            servers.print_logs();
            return Err(error);
        }
    }
    if is_wanted("faults") {
        faults(&mut figures).await?;
    }
    println!("{}", table(&figures));
    if !wanted.is_empty() {
        return Ok(());
    }
    publish("consensus", HEADING, &figures)
}

async fn three(dir: &Path) -> Result<Servers> {
    let site = |place: usize| Site::loopback(dir, &format!("server{place}"));
    let sites = (0..SERVERS).map(site).collect::<Result<Vec<_>>>()?;
    let servers = Servers::start_at(sites).await?;
    servers.settled().await?;
    Ok(servers)
}

/// A node whose metadata are written; answers its id as bytes.
async fn node(servers: &Servers) -> Result<Vec<u8>> {
    let (bootstrap, first) = (servers.bootstrap(), servers.server(0).site.cluster);
    let joined = join_node(first, &bootstrap.ca_pem, &bootstrap.join_token, "bench").await?;
    let id: NodeId = joined.id.parse()?;
    Ok(id_bytes(id.as_u128()))
}

async fn writes(servers: &Servers, dir: &Path, figures: &mut Vec<Figure>) -> Result<()> {
    let operator = servers.operator().await?;
    let leader = servers.server(servers.leader().await?).site.cluster;
    let skep = Job {
        target: Target::SkepUnary,
        address: leader,
        ca_pem: operator.ca_pem,
        certificate_pem: operator.certificate_pem,
        key_pem: operator.key_pem,
        node: node(servers).await?,
        connections: CONNECTIONS,
        in_flight: IN_FLIGHT,
        measure_ms: u64::try_from(TURN.as_millis())?,
        per_s: None,
    };
    let etcd = Etcd::start(&dir.join("etcd")).await?;
    let reach = etcd.reach().await?;
    let peer = Job {
        target: Target::EtcdUnary,
        address: reach.leader,
        ca_pem: reach.ca_pem,
        certificate_pem: reach.certificate_pem,
        key_pem: reach.key_pem,
        node: Vec::new(),
        ..skep.clone()
    };
    let alone = |job: &Job| Job {
        in_flight: 1,
        connections: 1,
        ..job.clone()
    };
    let stream = Job {
        target: Target::SkepStream,
        connections: 1,
        ..skep.clone()
    };
    let jobs = [alone(&skep), alone(&peer), skep, peer, stream];
    let (mut syncs, mut done) = (Vec::new(), vec![Vec::<Done>::new(); jobs.len()]);
    for _ in 0..TURNS {
        let path = dir.join("sync");
        syncs.extend(tokio::task::spawn_blocking(move || fdatasyncs(&path)).await??);
        for (job, done) in jobs.iter().zip(&mut done) {
            let one = writer::run_apart(job).await?;
            println!("{:?}, {} in flight: {one:?}", job.target, job.in_flight);
            done.push(one);
        }
    }
    etcd.stop().await?;
    let middle = |place: usize, of: fn(&Done) -> f64| {
        p50(&mut done[place].iter().map(of).collect::<Vec<_>>())
    };
    let latency = |place| middle(place, |one| one.p50_ms);
    let rate = |place| middle(place, |one| one.per_s);
    figures.extend([
        Figure::alone("consensus.fdatasync_ms_p50", p50(&mut syncs), "ms"),
        Figure::alone("consensus.latency_ms_p50", latency(0), "ms").beside("etcd", latency(1)),
        Figure::alone("consensus.unary_per_s_256", rate(2), "writes/s").beside("etcd", rate(3)),
        Figure::alone("consensus.writes_per_s_256", rate(4), "writes/s").beside("etcd", rate(3)),
    ]);
    Ok(())
}

/// Appends as many bytes as a command has, and waits until they are on the disk; milliseconds each.
fn fdatasyncs(path: &Path) -> Result<Vec<f64>> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let record = [7u8; RECORD_BYTES];
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&record)?;
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// A server that is not killed, as an operator's client reaches it.
#[derive(Clone)]
struct Survivor {
    client: ControlClient<Channel>,
    node: Vec<u8>,
}

impl Survivor {
    async fn connect(
        servers: &Servers,
        place: usize,
        operator: &Operator,
        node: &[u8],
    ) -> Result<Self> {
        let shown = tls::Shown {
            chain_pem: &operator.certificate_pem,
            key_pem: &operator.key_pem,
        };
        let config = grpc_tls(&operator.ca_pem, Some(shown))?;
        let channel = tls::channel(servers.server(place).site.cluster, config).await?;
        Ok(Self {
            client: ControlClient::new(channel),
            node: node.to_vec(),
        })
    }

    /// Writes until a write is acknowledged.
    async fn until_written(mut self, value: String) {
        loop {
            let request = v1::WriteRequest {
                id: 0,
                key: Vec::new(),
                kind: Some(Kind::SetNodeMeta(v1::SetNodeMeta {
                    node: self.node.clone(),
                    set: [("failover".to_owned(), value.clone())].into(),
                    unset: Vec::new(),
                })),
            };
            let reply = tokio::time::timeout(PATIENCE, self.client.write(request)).await;
            if let Ok(Ok(reply)) = reply
                && reply.get_ref().problem.is_none()
            {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn failover(servers: &Servers, figures: &mut Vec<Figure>) -> Result<()> {
    let (operator, node) = (servers.operator().await?, node(servers).await);
    // The node may be there from the part before.
    let node = match node {
        Ok(node) => node,
        Err(_) => existing_node(servers).await?,
    };
    let kills = chaos::count(KILLS, KILLS_FULL);
    let mut took = Vec::new();
    for kill in 0..kills {
        let leader = servers.leader().await?;
        let mut survivors = Vec::new();
        for place in (0..SERVERS).filter(|place| *place != leader) {
            survivors.push(Survivor::connect(servers, place, &operator, &node).await?);
        }
        servers.kill(leader).await?;
        let begun = Instant::now();
        let mut tries = tokio::task::JoinSet::new();
        for (place, survivor) in survivors.into_iter().enumerate() {
            tries.spawn(survivor.until_written(format!("{kill}-{place}")));
        }
        tokio::time::timeout(10 * PATIENCE, tries.join_next())
            .await
            .context("writes are not accepted again")?;
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        println!("kill {kill} of server {leader}: {ms:.0} ms");
        took.push(ms);
        tries.shutdown().await;
        servers.start(leader).await?;
        servers.settled().await?;
    }
    println!("failover p50 {:.0} ms of {kills} kills", p50(&mut took));
    figures.push(Figure::alone(
        "consensus.failover_ms_p99",
        quantile(&mut took, 0.99),
        "ms",
    ));
    Ok(())
}

async fn existing_node(servers: &Servers) -> Result<Vec<u8>> {
    let nodes = servers.server(0).api.get("/v1/nodes").await?;
    let id = nodes["nodes"][0]["id"].as_str().context("a node")?;
    Ok(id_bytes(id.parse::<NodeId>()?.as_u128()))
}

async fn faults(figures: &mut Vec<Figure>) -> Result<()> {
    let mut found = None;
    try_with_servers(SERVERS, async |cluster| {
        cluster.servers.settled().await?;
        let mut random = Random::of_run("chaos");
        let count = chaos::count(FAULTS, FAULTS_FULL);
        found = Some(register::chaos::rounds(cluster, &mut random, count).await?);
        Ok(())
    })
    .await?;
    let outcome = found.context("it ran")?;
    println!(
        "{} faults, {} of the leader, {} writes acknowledged: {}",
        outcome.faults, outcome.leaders, outcome.acknowledged, outcome.verdict
    );
    ensure!(outcome.acknowledged > 0, "nothing was acknowledged");
    let (lost, violations) = (outcome.verdict.lost.len(), outcome.verdict.violations.len());
    figures.extend([
        Figure::alone("consensus.lost_writes", lost as f64, "writes"),
        Figure::alone("consensus.violations", violations as f64, "registers"),
        Figure::alone("consensus.faults", f64::from(outcome.faults), "faults"),
    ]);
    Ok(())
}
