//! Deployments that build. The leader is killed at any moment of one (fetched, built, kept, rolled out), and so is the
//! agent of the node that builds: whatever was begun ends as it has to, without help, and nothing of it goes on.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::{Api, Deployment, Name};
use skep_tests::git::Repository;
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::node::Node;
use skep_tests::lab::nodes::{Wanted, with_nodes};
use skep_tests::load::Load;
use skep_tests::process::runs;
use skep_tests::random::Random;
use skep_tests::{chaos, wait};
use tokio::time::sleep;

use crate::images::running;
use crate::pipeline::{SEEN, others, right, serves, told};

const RATE: u32 = 50;
/// Moments of a leader's death in `make test` and in `make chaos`.
const KILLS: (u32, u32) = (4, 24);
/// A build and a rollout are over within about four seconds: the last moments are after their end.
const LATEST_MS: u64 = 4_500;
/// Moments of an agent's death, each a node lost and found again.
const AGENTS: (u32, u32) = (1, 6);
/// So long the step goes on that an agent's death is in the middle of.
const STEP_S: u64 = 8;

/// What a commit becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    /// It is built, and never becomes healthy.
    Sick,
    /// It is never built.
    Broken,
}

impl Kind {
    fn ends(self) -> &'static str {
        match self {
            Self::Good => "live",
            Self::Sick | Self::Broken => "failed",
        }
    }
}

/// A service that comes from a repository.
struct Source {
    repository: Repository,
    name: Name,
    host: String,
    /// In the command line of every step, of this run alone.
    mark: String,
}

impl Source {
    fn create(dir: &Path, name: &str) -> Result<Self> {
        let name = Name::of(name);
        Ok(Self {
            repository: Repository::create(dir, "lab", "0")?,
            host: format!("{0}-production-{0}.localhost", name.project),
            mark: format!("{}-{}", name.service, std::process::id()),
            name,
        })
    }

    /// A commit whose step takes so many seconds.
    fn push(&self, version: &str, kind: Kind, step_s: &str) -> Result<String> {
        let mark = &self.mark;
        let end = match kind {
            Kind::Broken => "exit 3",
            Kind::Good | Kind::Sick => "exit 0",
        };
        let health = match kind {
            Kind::Sick => "ENV FAIL_HEALTH=1\n",
            Kind::Good | Kind::Broken => "",
        };
        let lines = format!(
            "ENV VERSION={version}\n{health}RUN busybox echo begun {mark}; busybox sleep {step_s}; {end}"
        );
        self.repository.app.set_steps(&lines)?;
        self.repository.push("main")
    }

    fn origin(&self, commit: &str) -> Result<Value> {
        let url = self.repository.url()?;
        Ok(json!({ "type": "git", "repository": url, "branch": "main", "commit": commit }))
    }

    /// No step runs, and no folder of a build is left.
    async fn nothing_is_built(&self, nodes: &[&Node]) -> Result<()> {
        wait::until_ok("nothing of a build to be left", SEEN, async || {
            ensure!(!runs(&self.mark), "a step goes on");
            for node in nodes {
                let left = std::fs::read_dir(node.path("agent/builds"))?.count();
                ensure!(left == 0, "{left} folders of builds are on {}", node.name);
            }
            Ok(())
        })
        .await
    }
}

fn spec() -> Value {
    json!({
        "health": { "path": "/healthz", "deadline_ms": 2_000 },
        "update": { "drain_ms": 200 },
        "rollout": { "keep_ms": 0 },
        "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_while_a_deployment_builds_leaves_it_right() {
    let wanted = Wanted {
        servers: 3,
        ..Wanted::nodes(1)
    };
    with_nodes("building", wanted, async |cluster, nodes| {
        cluster.servers.settled().await?;
        leaders(cluster, &nodes[0]).await
    })
    .await;
}

async fn leaders(cluster: &LabCluster, node: &Node) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = Source::create(&dir.path().join("git"), "built")?;
    let api = &cluster.servers.server(0).api;
    api.put_service(&source.name, spec()).await?;
    let first = source.push("v0", Kind::Good, "0")?;
    api.live(&source.name, &source.origin(&first)?).await?;
    let mut serving = "v0".to_owned();
    serves(node, &source.host, &serving).await?;
    let load = Load::start(node.ingress, &source.host, RATE);
    let mut random = Random::of_run("building");
    let mut wrong = Vec::new();
    let kills = chaos::count(KILLS.0, KILLS.1);
    for round in 1..=kills {
        let kind = [Kind::Good, Kind::Sick, Kind::Broken][round as usize % 3];
        let version = format!("v{round}");
        let after = Duration::from_millis(random.below(LATEST_MS));
        println!("{round}: {kind:?}, killed after {after:?}");
        let (other, leader) = others(cluster).await?;
        let api = &cluster.servers.server(other).api;
        let commit = source.push(&version, kind, "0.5")?;
        let made = api.deploy(&source.name, &source.origin(&commit)?).await?;
        // The moment is the fault.
        sleep(after).await;
        cluster.servers.kill(leader).await?;
        let ended = api.ended(&made.id).await?;
        if ended.status == "live" {
            serving = version;
        }
        if let Err(error) = is_right(node, api, &source, (&ended, kind, &serving)).await {
            let told = told(&ended);
            wrong.push(format!(
                "{kind:?}, killed after {after:?}: {error:?}\n{told}"
            ));
        }
        cluster.servers.start(leader).await?;
        cluster.servers.settled().await?;
        // Who was dead knows of it too.
        let known = cluster
            .servers
            .server(leader)
            .api
            .deployment(&made.id)
            .await?;
        ensure!(known.status == ended.status, "{known:?}\nis {ended:?}");
    }
    let report = load.stop().await;
    println!(
        "pipeline.leader_kill_build_wrong: {} of {kills}",
        wrong.len()
    );
    println!("{} requests, {} failed", report.served, report.failed());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    Ok(())
}

/// It ended as it has to, of the commit that was pushed; what is live serves, and nothing is built any more.
async fn is_right(
    node: &Node,
    api: &Api,
    source: &Source,
    (ended, kind, serving): (&Deployment, Kind, &str),
) -> Result<()> {
    ensure!(ended.status == kind.ends(), "it ended otherwise");
    if kind == Kind::Broken {
        let problem = ended.problem.clone().context("a reason")?;
        ensure!(problem.told().contains("exit code 3"), "{problem:?}");
    } else {
        ensure!(ended.commit.as_deref() == ended.origin["commit"].as_str());
    }
    right(node, api, (&source.name, &source.host), serving).await?;
    source.nothing_is_built(&[node]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_builder_that_is_killed_loses_its_build_to_another() {
    let wanted = Wanted {
        builders: 2,
        ..Wanted::nodes(2)
    };
    with_nodes("builder", wanted, async |cluster, nodes| {
        builders(cluster, nodes).await
    })
    .await;
}

async fn builders(cluster: &LabCluster, nodes: &[Node]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = Source::create(&dir.path().join("git"), "moved")?;
    let api = &cluster.servers.server(0).api;
    api.put_service(&source.name, spec()).await?;
    let first = source.push("v0", Kind::Good, "0")?;
    let live = api.live(&source.name, &source.origin(&first)?).await?;
    // The idle one of the lowest id builds, and does so again; what runs is kept away from it, so that
    // its death is the build's alone.
    let victim = builder(api, nodes, &live.id).await?.context("who built")?;
    let survivor = 1 - victim;
    let mut away = spec();
    away["placement"] = json!({ "constraints": [format!("node.name = {}", nodes[survivor].name)] });
    api.put_service(&source.name, away).await?;
    api.live(&source.name, &source.origin(&first)?).await?;
    let mut serving = "v0".to_owned();
    let at = (&source.name, source.host.as_str());
    right(&nodes[survivor], api, at, &serving).await?;
    let load = Load::start(nodes[survivor].ingress, &source.host, RATE);
    let mut random = Random::of_run("builder");
    for round in 1..=chaos::count(AGENTS.0, AGENTS.1) {
        let version = format!("v{round}");
        let commit = source.push(&version, Kind::Good, &STEP_S.to_string())?;
        let made = api.deploy(&source.name, &source.origin(&commit)?).await?;
        wait::until("the build to be given to a node", SEEN, async || {
            Ok(builder(api, nodes, &made.id)
                .await?
                .filter(|it| *it == victim))
        })
        .await?;
        let after = Duration::from_millis(random.below(STEP_S * 1_000));
        println!("{round}: killed {after:?} after it was told to build");
        sleep(after).await;
        nodes[victim].agent.kill().await?;
        serves(&nodes[survivor], &source.host, &serving).await?;
        let ended = api.ended(&made.id).await?;
        ensure!(
            ended.status == "live",
            "{:?}\n{}",
            ended.problem,
            told(&ended)
        );
        ensure!(
            builder(api, nodes, &made.id).await? == Some(survivor),
            "{}",
            told(&ended)
        );
        serving = version;
        right(&nodes[survivor], api, at, &serving).await?;
        // Whose agent is back does not build it, too.
        nodes[victim].agent.start().await?;
        wait::until_ok("the node to be ready again", SEEN, async || {
            let status = api.get("/v1/status").await?;
            ensure!(status["nodes"]["ready"] == 2, "{status}");
            Ok(())
        })
        .await?;
        source.nothing_is_built(&[&nodes[0], &nodes[1]]).await?;
    }
    let report = load.stop().await;
    println!("{} requests, {} failed", report.served, report.failed());
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_for_builds_build_and_run_nothing_else() {
    let wanted = Wanted {
        builders: 3,
        ..Wanted::nodes(3)
    };
    with_nodes("apart", wanted, async |cluster, nodes| {
        apart(cluster, nodes).await
    })
    .await;
}

async fn apart(cluster: &LabCluster, nodes: &[Node]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = Source::create(&dir.path().join("git"), "apart")?;
    let api = &cluster.servers.server(0).api;
    // Not the one that builds where all are alike.
    let (apps, own) = (&nodes[..2], 2);
    let set = json!({ "set": { "pool": "builders" } });
    let path = format!("/v1/nodes/{}/meta", nodes[own].name);
    api.put(&path, &set).await?;
    say_builds(api, "builders", "only").await?;
    let four = json!({ "replicas": 4 });
    let mut spec = spec();
    // Nothing here is to be sick.
    spec["health"]["deadline_ms"] = json!(30_000);
    api.put_service(&source.name, merged(&spec, &four)).await?;
    let deploy = async |version: &str| {
        let commit = source.push(version, Kind::Good, "0")?;
        api.deploy(&source.name, &source.origin(&commit)?).await
    };
    let made = api.ended(&deploy("v1").await?.id).await?;
    ensure!(made.status == "live", "{}", told(&made));
    ensure!(
        builder(api, nodes, &made.id).await? == Some(own),
        "{}",
        told(&made)
    );
    ensure!(running(nodes).await? == [2, 2, 0]);
    for node in apps {
        serves(node, &source.host, "v1").await?;
    }

    // What insists on it is told why not.
    let insists = Name::of("insists");
    let there = json!({ "placement": { "pool": "builders" } });
    api.put_service(&insists, merged(&spec, &there)).await?;
    let commit = source.push("v1b", Kind::Good, "0")?;
    api.deploy(&insists, &source.origin(&commit)?).await?;
    wait::until_ok("the refusal to be told", SEEN, async || {
        let why = api.get(&insists.path("/why")).await?.to_string();
        ensure!(why.contains("only for builds"), "{why}");
        Ok(())
    })
    .await?;

    // Without it the others build, unless they never do.
    nodes[own].agent.kill().await?;
    ready(api, 2).await?;
    let made = api.ended(&deploy("v2").await?.id).await?;
    let by = builder(api, nodes, &made.id).await?;
    ensure!(
        made.status == "live" && by.is_some_and(|at| at < own),
        "{by:?} {}",
        told(&made)
    );
    say_builds(api, "default", "never").await?;
    let waiting = deploy("v3").await?;
    nodes[own].agent.start().await?;
    ready(api, 3).await?;
    let made = api.ended(&waiting.id).await?;
    ensure!(made.status == "live", "{}", told(&made));
    ensure!(
        builder(api, nodes, &made.id).await? == Some(own),
        "{}",
        told(&made)
    );
    ensure!(running(nodes).await?[own] == 0);
    Ok(())
}

/// What the nodes of a pool are for.
async fn say_builds(api: &Api, pool: &str, builds: &str) -> Result<()> {
    let policy = json!({ "policy": { "builds": builds }, "meta": {} });
    api.put(&format!("/v1/pools/{pool}"), &policy).await?;
    Ok(())
}

async fn ready(api: &Api, count: u32) -> Result<()> {
    wait::until_ok("the nodes to be known", SEEN, async || {
        let status = api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == count, "{status}");
        Ok(())
    })
    .await
}

fn merged(spec: &Value, more: &Value) -> Value {
    let mut all = spec.clone();
    for (key, value) in more.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all
}

/// Who builds a deployment, by its place.
async fn builder(api: &Api, nodes: &[Node], deployment: &str) -> Result<Option<usize>> {
    let view = api.get(&format!("/v1/deployments/{deployment}")).await?;
    let name = view["node"].as_str();
    Ok(nodes
        .iter()
        .position(|node| Some(node.name.as_str()) == name))
}
