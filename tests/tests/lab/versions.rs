//! Two versions side by side: `skep` as it is, and the one that stands for the next version, which
//! understands one feature level more. Servers and agents are replaced one at a time under writes and
//! requests, and nothing is lost; what is older stops before it does harm.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::http::Method;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::load::Load;
use skep_tests::process::Process;
use skep_tests::random::Random;
use skep_tests::register::check;
use skep_tests::register::clients::{Access, Clients};
use skep_tests::register::recorder::Recorder;
use skep_tests::servers::Group;
use skep_tests::{http, place, wait};

const SEEN: Duration = Duration::from_secs(60);
/// What a server that must not run gets to say so and end.
const REFUSED: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);
const RATE: u32 = 40;
const REGISTERS: usize = 4;
const CLIENTS: u64 = 4;
/// Acknowledged writes between two steps, at least.
const ENOUGH: u64 = 20;
/// A metadata key that only the next level knows the rule of.
const NEXT_KEY: &str = "next.rack";

/// Both binaries.
struct Versions {
    now: PathBuf,
    next: PathBuf,
}

impl Versions {
    fn find() -> Result<Self> {
        Ok(Self {
            now: place::skep_binary()?,
            next: place::next_binary()?,
        })
    }

    fn upgrade(&self, process: Process) -> Process {
        process.like(&self.now, &self.next)
    }

    fn downgrade(&self, process: Process) -> Process {
        process.like(&self.next, &self.now)
    }
}

/// What a server knows of levels: the cluster's, and each server's own.
async fn levels(cluster: &LabCluster, at: usize) -> Result<(u64, Vec<u64>)> {
    let servers = cluster.servers.server(at).api.get("/v1/servers").await?;
    let own = |server: &Value| server["feature_level"].as_u64();
    let all = servers["servers"].as_array().context("servers")?;
    let all: Option<Vec<u64>> = all.iter().map(own).collect();
    let level = servers["feature_level"].as_u64().context("a level")?;
    Ok((level, all.context("the level of each")?))
}

async fn settled(cluster: &LabCluster) -> Result<Group> {
    cluster.servers.settled().await
}

/// Clients of the registers, and all that they were told.
struct Writers {
    access: Access,
    recorder: Arc<Recorder>,
    random: Random,
}

impl Writers {
    fn new(cluster: &LabCluster, node: &str) -> Self {
        Self {
            access: cluster.servers.access(node),
            recorder: Arc::new(Recorder::new(REGISTERS)),
            random: Random::of_run("versions"),
        }
    }

    /// Lets them work while `step` is done; nothing that they were told may be untrue afterwards.
    async fn during(&mut self, step: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let Self {
            access,
            recorder,
            random,
        } = self;
        let clients = Clients::start(access, recorder, REGISTERS, CLIENTS, random);
        let goes_on = async || {
            let before = recorder.acknowledged();
            wait::until_ok("writes to go on", SEEN, async || {
                let written = recorder.acknowledged() - before;
                ensure!(written >= ENOUGH, "{written} writes were acknowledged");
                Ok(())
            })
            .await
        };
        goes_on().await?;
        step().await?;
        goes_on().await?;
        clients.rest(access.servers[0]).await?;
        let window = recorder.close();
        let verdict = tokio::task::spawn_blocking(move || check::judge(&window)).await?;
        ensure!(verdict.is_good(), "{verdict:?}");
        Ok(())
    }
}

/// A write that only the next level knows.
async fn set_next(cluster: &LabCluster, at: usize, node: &str, value: &str) -> Result<()> {
    cluster.servers.set_meta(at, node, NEXT_KEY, value).await
}

/// It is refused, and the refusal names who holds the level back and nobody else.
async fn next_is_refused(
    cluster: &LabCluster,
    at: usize,
    node: &str,
    (older, newer): (&[&str], &[&str]),
) -> Result<()> {
    let path = format!("/v1/nodes/{node}/meta");
    let body = json!({ "set": { NEXT_KEY: "early" } });
    let api = &cluster.servers.server(at).api;
    let problem = api.refused(Method::PUT, &path, Some(&body), 409).await?;
    let told = problem.told();
    ensure!(told.contains("needs feature level"), "{told}");
    ensure!(older.iter().all(|name| told.contains(name)), "{told}");
    ensure!(!newer.iter().any(|name| told.contains(name)), "{told}");
    problem.with_hint().map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_agents_are_upgraded_one_at_a_time_and_nothing_is_lost() {
    with_servers("versions", 3, async |cluster| -> Result<()> {
        settled(cluster).await?;
        let registers = cluster.register_node().await?;
        let place = cluster.lab().add_host().await?;
        let bootstrap = cluster.servers.bootstrap().clone();
        let server = cluster.servers.server(0).site.cluster;
        let mut node = Node::start(cluster.host(place), server, &bootstrap.join_token).await?;
        let outcome = upgrade_all(cluster, &mut node, &registers).await;
        if outcome.is_err() {
            println!("--- agent\n{}--- net\n{}", node.agent.log(), node.net.log());
        }
        node.stop().await?;
        outcome
    })
    .await;
}

async fn upgrade_all(cluster: &mut LabCluster, node: &mut Node, registers: &str) -> Result<()> {
    let versions = Versions::find()?;
    let (name, host) = serve(cluster, node).await?;
    let container = running(node).await?;
    let load = Load::start(node.ingress, &host, RATE);
    let mut writers = Writers::new(cluster, registers);
    let (level, own) = levels(cluster, 0).await?;
    ensure!(own == [level; 3], "{own:?}");

    for place in 0..3 {
        let upgraded = writers.during(async || {
            let upgrade = |server| versions.upgrade(server);
            cluster.servers.restart_as(place, upgrade).await?;
            settled(cluster).await.map(drop)
        });
        upgraded.await?;
        if place < 2 {
            // Mixed: all works, the level waits, and what is new says for whom.
            ensure!(levels(cluster, place).await?.0 == level);
            let names = ["h0", "h1", "h2"];
            let (newer, older) = names.split_at(place + 1);
            next_is_refused(cluster, place, registers, (older, newer)).await?;
        }
    }
    let raised = wait::until_ok("the level to rise", SEEN, async || {
        let (now, own) = levels(cluster, 0).await?;
        ensure!(now == level + 1 && own == [level + 1; 3], "{now} {own:?}");
        set_next(cluster, 1, registers, "b2").await
    });
    raised.await?;
    for at in 0..3 {
        let read = cluster.servers.meta(at, registers, NEXT_KEY).await?;
        ensure!(read == "b2", "server {at} answers {read}");
    }

    // An agent of the version before is served by the new servers; then it is replaced, too, after its data
    // plane, which hands over.
    deploy(cluster, node, &name, "2").await?;
    ensure!(running(node).await? != container);
    let container = running(node).await?;
    let net = versions.upgrade(node.net.like(Path::new(""), Path::new("")));
    let successor = net.args(["--takeover"]);
    successor.start().await?;
    let older = std::mem::replace(&mut node.net, successor);
    let status = older.ended(SEEN).await?;
    ensure!(status.success(), "the older data plane: {status}");
    node.agent
        .restart_as(STOP, |agent| versions.upgrade(agent))
        .await?;
    ready(cluster, node).await?;
    ensure!(running(node).await? == container, "the app was restarted");
    deploy(cluster, node, &name, "3").await?;

    older_refuses(cluster, &versions, registers).await?;
    let report = load.stop().await;
    let written = writers.recorder.acknowledged();
    println!("versions: {written} writes, {report:?}");
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    Ok(())
}

/// The older binary on data of the newer level, and as a new server of such a cluster: it says what is
/// wrong, ends, and has changed nothing.
async fn older_refuses(cluster: &mut LabCluster, versions: &Versions, node: &str) -> Result<()> {
    let downgraded = cluster
        .servers
        .restart_as(2, |server| versions.downgrade(server));
    downgraded.await?;
    let old = &cluster.servers.server(2).process;
    let status = old.ended(REFUSED).await.with_context(|| old.log())?;
    ensure!(!status.success(), "{status}");
    let log = old.log();
    let last: Vec<&str> = log.lines().rev().take(10).collect();
    ensure!(
        last.iter()
            .any(|line| line.contains("start the newer version of skep")),
        "{last:#?}"
    );
    // The others go on, at their level.
    for at in 0..2 {
        set_next(cluster, at, node, &format!("without {at}")).await?;
    }
    // Nothing of its data is harmed: the newer version takes it up again.
    let upgraded = cluster
        .servers
        .restart_as(2, |server| versions.upgrade(server));
    upgraded.await?;
    settled(cluster).await?;
    let read = cluster.servers.meta(2, node, NEXT_KEY).await?;
    ensure!(read == "without 1", "{read}");

    // A new server of the older version is not let in, and is told why.
    let joined = cluster.join().await.err().context("it was let in")?;
    let told = format!("{joined:#}");
    ensure!(told.contains("understands feature levels up to"), "{told}");
    ensure!(cluster.servers.seen_by(0).await?.servers.len() == 3);
    Ok(())
}

async fn ready(cluster: &LabCluster, node: &Node) -> Result<()> {
    wait::until_ok("the node to be ready", SEEN, async || {
        let nodes = cluster.servers.server(0).api.get("/v1/nodes").await?;
        let all = nodes["nodes"].as_array().context("nodes")?;
        let own = all.iter().find(|one| one["name"] == node.name.as_str());
        ensure!(own.context("joined")?["status"] == "ready", "{nodes}");
        Ok(())
    })
    .await
}

/// The app, live; its name and host name.
async fn serve(cluster: &LabCluster, node: &Node) -> Result<(Name, String)> {
    ready(cluster, node).await?;
    let name = Name::of("web");
    let api = &cluster.servers.server(0).api;
    api.put_service(&name, json!({ "update": { "drain_ms": 500 } }))
        .await?;
    let host = format!("web-production-{}.localhost", name.project);
    deploy(cluster, node, &name, "1").await?;
    Ok((name, host))
}

async fn deploy(cluster: &LabCluster, node: &Node, name: &Name, version: &str) -> Result<()> {
    let image = json!({ "type": "image", "reference": node.image(version).await? });
    cluster.servers.server(1).api.live(name, &image).await?;
    let host = format!("web-production-{}.localhost", name.project);
    let answer = http::get(node.ingress, &host, "/").await?;
    let wanted = format!("version={version} ");
    ensure!(answer.text().contains(&wanted), "{}", answer.text());
    Ok(())
}

/// The one container of the app that runs.
async fn running(node: &Node) -> Result<String> {
    wait::until_ok("one container", SEEN, async || {
        let all = node.containers.all().await?;
        let mut runs = all.into_iter().filter(|one| one.runs);
        let only = runs.next().context("none runs")?;
        ensure!(runs.next().is_none(), "more than one runs");
        Ok(only.id)
    })
    .await
}
