//! How the death of a machine is noticed: by its silence, or sooner where other nodes had reached it and
//! hear nothing of it any more; and what is no death: an agent that is killed, a link to the server that
//! is cut, witnesses that are cut off themselves. What came back has its duplicates stopped. Nothing is
//! measured to pass; the times are printed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::lab::registry::Registry;
use skep_tests::wait;

const SEEN: Duration = Duration::from_secs(90);
const NODES: usize = 3;

/// Nodes with one service of one replica between them.
struct World<'a> {
    cluster: &'a LabCluster,
    places: Vec<usize>,
    nodes: Vec<Node>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_gone_is_told_from_one_that_is_only_silent() {
    with_servers("death", 1, async |cluster| -> Result<()> {
        let mut places = Vec::new();
        for _ in 0..NODES {
            places.push(cluster.lab().add_host().await?);
        }
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let registry = Registry::start(cluster.host(0)).await?;
        let mut nodes = Vec::new();
        for place in &places {
            nodes.push(Node::start(cluster.host(*place), server, &token).await?);
        }
        let world = World {
            cluster,
            places,
            nodes,
        };
        let outcome = play(&world, &registry).await;
        for node in &world.nodes {
            if outcome.is_err() {
                println!("--- agent of {}\n{}", node.name, node.agent.log());
            }
            node.stop().await?;
        }
        registry.stop().await?;
        outcome
    })
    .await;
}

async fn play(world: &World<'_>, registry: &Registry) -> Result<()> {
    world.whole().await?;
    let reference = registry.reference("app", "1");
    world.nodes[0].push("1", &reference).await?;
    let name = Name::of("web");
    let image = json!({ "type": "image", "reference": reference });
    // Once on each, so that no node has to pull when it matters.
    for replicas in [NODES, 1] {
        let spec = json!({
            "replicas": replicas,
            "placement": { "max_per": ["1 per node.name"] },
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "stop_grace_ms": 1_000,
        });
        world.api().put_service(&name, spec).await?;
        world.api().live(&name, &image).await?;
    }

    killed_agent(world)
        .await
        .context("an agent that is killed")?;
    cut_off(world, None)
        .await
        .context("a machine that is cut off")?;
    let again = (&name, &image);
    cut_off(world, Some(again))
        .await
        .context("a machine that dies")?;
    cut_from_server(world)
        .await
        .context("a link to the server that is cut")?;
    blind_witnesses(world)
        .await
        .context("witnesses that are cut off")
}

/// Its machine lives and its container runs on: silence is waited for, and nobody testifies.
async fn killed_agent(world: &World<'_>) -> Result<()> {
    let victim = world.victim().await?;
    let begun = Instant::now();
    world.nodes[victim].agent.kill().await?;
    let by = world.lost(victim).await?;
    let lost = begun.elapsed();
    ensure!(
        by.is_empty(),
        "{by:?} testified against a machine that lives"
    );
    world.replaced(victim).await?;
    tell("agent killed, machine alive", lost, begun);
    world.nodes[victim].agent.start().await?;
    world.whole().await
}

/// Nothing comes in or out any more. With what is to be deployed while it is dead: its agent is gone as well, and
/// its stream has closed.
async fn cut_off(world: &World<'_>, deployed: Option<(&Name, &Value)>) -> Result<()> {
    let dies = deployed.is_some();
    let victim = world.victim().await?;
    let begun = Instant::now();
    if dies {
        world.nodes[victim].agent.kill().await?;
    }
    world.host(victim).cut().await?;
    let by = world.lost(victim).await?;
    let lost = begun.elapsed();
    world.replaced(victim).await?;
    let what = match dies {
        true => "stream closed, machine gone",
        false => "machine gone, no stream closed",
    };
    tell(what, lost, begun);
    let others = world.nodes.iter().map(|node| node.name.clone());
    let victims = &world.nodes[victim].name;
    let others: BTreeSet<String> = others.filter(|name| name != victims).collect();
    ensure!(by == others, "{by:?} testified, not {others:?}");
    // What it had of the older release is waited for by nobody.
    if let Some((name, image)) = deployed {
        world.api().live(name, image).await?;
    }
    world.host(victim).mend().await?;
    if dies {
        world.nodes[victim].agent.start().await?;
    }
    world.whole().await
}

/// For docs/benchmarks.md: nothing is judged by it.
fn tell(what: &str, lost: Duration, begun: Instant) {
    let replaced = begun.elapsed();
    println!("cluster.node_death_s, {what}: lost after {lost:.2?}, replaced after {replaced:.2?}");
}

/// The server hears nothing of it, and the others do.
async fn cut_from_server(world: &World<'_>) -> Result<()> {
    let victim = world.victim().await?;
    let server = world.cluster.host(0).address();
    world.host(victim).cut_from(server).await?;
    let by = world.lost(victim).await?;
    ensure!(
        by.is_empty(),
        "{by:?} testified against a machine that they reach"
    );
    world.replaced(victim).await?;
    world.host(victim).mend().await?;
    world.whole().await
}

/// No node reaches another one: what they do not hear of the victim says nothing.
async fn blind_witnesses(world: &World<'_>) -> Result<()> {
    let victim = world.victim().await?;
    for (at, place) in world.places.iter().enumerate() {
        for other in &world.places[at + 1..] {
            let other = world.cluster.host(*other).address();
            world.cluster.host(*place).cut_from(other).await?;
        }
    }
    world.nodes[victim].agent.kill().await?;
    let by = world.lost(victim).await?;
    ensure!(by.is_empty(), "{by:?} testified, and reach nobody");
    world.replaced(victim).await?;
    for at in 0..NODES {
        world.host(at).mend().await?;
    }
    world.nodes[victim].agent.start().await?;
    world.whole().await
}

impl World<'_> {
    fn api(&self) -> &Api {
        &self.cluster.servers.server(0).api
    }

    fn host(&self, at: usize) -> &skep_tests::lab::Host {
        self.cluster.host(self.places[at])
    }

    /// All nodes are ready, each is known by the others, and what runs, runs once.
    async fn whole(&self) -> Result<()> {
        wait::until_ok("all to be well", SEEN, async || {
            let status = self.api().get("/v1/status").await?;
            ensure!(status["nodes"]["ready"] == NODES, "{status}");
            let page = self.api().call(Method::GET, "/metrics", None).await?;
            let wanted = format!("\nskep_nodes_witnessed {NODES}\n");
            ensure!(
                page.text().contains(&wanted),
                "not all can be testified for"
            );
            let running = self.running().await?;
            ensure!(running.iter().sum::<usize>() <= 1, "{running:?} run");
            Ok(())
        })
        .await
    }

    /// How many containers run on each node.
    async fn running(&self) -> Result<Vec<usize>> {
        let mut counts = Vec::new();
        for node in &self.nodes {
            let all = node.containers.all().await?;
            counts.push(all.iter().filter(|one| one.runs).count());
        }
        Ok(counts)
    }

    /// The node on which the one container runs.
    async fn victim(&self) -> Result<usize> {
        wait::until_ok("one container", SEEN, async || {
            let running = self.running().await?;
            ensure!(running.iter().sum::<usize>() == 1, "{running:?} run");
            running.iter().position(|count| *count == 1).context("one")
        })
        .await
    }

    /// Waits until a node is lost; answers who testified against it.
    async fn lost(&self, victim: usize) -> Result<BTreeSet<String>> {
        wait::until_ok("the node to be lost", SEEN, async || {
            let found = self.api().get("/v1/nodes").await?;
            let nodes = found["nodes"].as_array().context("a list")?;
            let name = &self.nodes[victim].name;
            let node = nodes.iter().find(|node| node["name"] == **name);
            let node = node.context("it is there")?;
            ensure!(node["status"] == "lost", "{}", node["status"]);
            let by = node["witnesses"].as_array().cloned().unwrap_or_default();
            Ok(by
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect())
        })
        .await
    }

    /// Waits until what ran on a node is healthy on another one.
    async fn replaced(&self, victim: usize) -> Result<()> {
        wait::until_ok("its work elsewhere", SEEN, async || {
            let list = self.api().get("/v1/allocations").await?;
            let all = list["allocations"].as_array().context("a list")?;
            let is_good = |one: &Value| {
                one["desired"] == "run"
                    && one["state"] == "healthy"
                    && one["node"] != *self.nodes[victim].name
            };
            ensure!(all.iter().any(is_good), "{list}");
            Ok(())
        })
        .await
    }
}
