//! The death of a physical host: two of six nodes are gone in the same moment. No service has all of its
//! replicas there, each has one that is well at every moment, and all have their number again on what lives.
//! The time is printed, and judged against its goal. And a host that is emptied for maintenance: nothing is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{try_join, try_join_all};
use hyper::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::lab::Host;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::lab::registry::Registry;
use skep_tests::load::Load;
use skep_tests::{chaos, wait};

const SEEN: Duration = Duration::from_secs(120);
/// From the cut until every service has its number of healthy replicas, where all hosts die in turn on a release build.
const GOAL: Duration = Duration::from_secs(15);
/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(100);
const SERVERS: usize = 3;
const HOSTS: usize = 3;
/// Nodes on each of them.
const EACH: usize = 2;
const SERVICES: [(&str, usize); 4] = [("pair", 2), ("twin", 2), ("trio", 3), ("three", 3)];
const RATE: u32 = 50;

struct World<'a> {
    cluster: &'a LabCluster,
    places: Vec<usize>,
    nodes: Vec<Node>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_takes_no_service_with_it() {
    with_servers("host-death", SERVERS, async |cluster| -> Result<()> {
        let mut places = Vec::new();
        for _ in 0..HOSTS * EACH {
            places.push(cluster.lab().add_host().await?);
        }
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let registry = Registry::start(cluster.host(0)).await?;
        let mut nodes = Vec::new();
        for (at, place) in places.iter().enumerate() {
            let host = format!("host={}", host_of(at));
            let arguments = ["--meta", &*host];
            let place = cluster.host(*place);
            nodes.push(Node::start_with(place, server, &token, &arguments).await?);
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

/// The physical host of a node.
fn host_of(node: usize) -> String {
    format!("pve{}", node / EACH)
}

async fn play(world: &World<'_>, registry: &Registry) -> Result<()> {
    let reference = registry.reference("app", "1");
    world.nodes[0].push("1", &reference).await?;
    let image = json!({ "type": "image", "reference": reference });
    world.all_there().await?;
    // Once on each, so that no node has to pull when it matters.
    let primer = Name::of("primer");
    let spread = json!({ "max_per": ["1 per node.name"] });
    for replicas in [HOSTS * EACH, 0] {
        world.put(&primer, replicas, spread.clone()).await?;
        if replicas > 0 {
            world.api().await?.live(&primer, &image).await?;
        }
    }
    for (name, replicas) in SERVICES {
        // Nothing is said of hosts.
        world.put(&Name::of(name), replicas, json!({})).await?;
        world.api().await?.live(&Name::of(name), &image).await?;
    }
    let mut slowest = Duration::ZERO;
    for host in 0..chaos::count(1, HOSTS as u32) as usize {
        world.whole().await?;
        let died = world.die(host).await;
        slowest = slowest.max(died.with_context(|| format!("host {host}"))?);
        world.come_back(host).await?;
    }
    world.whole().await?;
    world.maintained().await.context("maintenance")?;
    println!("the slowest of them was whole again after {slowest:.1?}");
    ensure!(
        !chaos::is_full() || slowest <= GOAL,
        "the goal is {GOAL:?}, and it took {slowest:?}"
    );
    Ok(())
}

impl World<'_> {
    /// Of the server that leads.
    async fn api(&self) -> Result<&Api> {
        let leader = self.cluster.servers.leader().await?;
        Ok(&self.cluster.servers.server(leader).api)
    }

    async fn put(&self, name: &Name, replicas: usize, placement: Value) -> Result<()> {
        let spec = json!({
            "replicas": replicas,
            "placement": placement,
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "stop_grace_ms": 1_000,
        });
        self.api().await?.put_service(name, spec).await.map(drop)
    }

    /// The places of a physical host's nodes.
    fn on(&self, host: usize) -> std::ops::Range<usize> {
        host * EACH..(host + 1) * EACH
    }

    fn lab_host(&self, node: usize) -> &Host {
        self.cluster.host(self.places[node])
    }

    async fn all_there(&self) -> Result<()> {
        wait::until_ok("all nodes to be ready", SEEN, async || {
            let status = self.api().await?.get("/v1/status").await?;
            ensure!(status["nodes"]["ready"] == HOSTS * EACH, "{status}");
            Ok(())
        })
        .await
    }

    /// All nodes are there and can be testified for, and each service has its number, no more, and none of
    /// them all on one host.
    async fn whole(&self) -> Result<()> {
        self.all_there().await?;
        wait::until_ok("all to be well", SEEN, async || {
            let page = self
                .api()
                .await?
                .call(Method::GET, "/metrics", None)
                .await?;
            let wanted = format!("\nskep_nodes_witnessed {}\n", HOSTS * EACH);
            let is_known = page.text().contains(&wanted);
            ensure!(is_known, "not all can be testified for");
            let there = self.replicas().await?;
            for (name, wanted) in SERVICES {
                let on = there.get(name).map_or(&[][..], Vec::as_slice);
                ensure!(on.len() == wanted, "{name} is on {on:?}");
                let hosts: BTreeSet<String> = on.iter().map(|node| host_of(*node)).collect();
                ensure!(hosts.len() >= 2, "all of {name} on {hosts:?}");
            }
            Ok(())
        })
        .await
    }

    /// By service: the nodes of its healthy replicas that are meant to run.
    async fn replicas(&self) -> Result<BTreeMap<String, Vec<usize>>> {
        let list = self.api().await?.get("/v1/allocations").await?;
        let mut there = BTreeMap::<String, Vec<usize>>::new();
        for one in list["allocations"].as_array().context("a list")? {
            if one["desired"] != "run" || one["state"] != "healthy" {
                continue;
            }
            let service = one["service"].as_str().context("its service")?;
            let node = self.nodes.iter().position(|node| one["node"] == *node.name);
            let node = node.context("a node of the lab")?;
            there.entry(service.to_owned()).or_default().push(node);
        }
        Ok(there)
    }

    /// Both nodes of a host are gone at once. Answers how long it took until all that is wanted is healthy on
    /// other hosts.
    async fn die(&self, host: usize) -> Result<Duration> {
        let gone = self.on(host);
        let living = (0..self.nodes.len()).filter(|at| !gone.contains(at));
        let entrances: Vec<_> = living.map(|at| self.nodes[at].ingress).collect();
        let before = self.replicas().await?;
        let hit = SERVICES.iter().filter(|(name, _)| {
            let on = before.get(*name).into_iter().flatten();
            on.filter(|node| gone.contains(*node)).count() > 0
        });
        let hit = hit.count();
        ensure!(
            hit > 0,
            "nothing ran on {}: {before:?}",
            host_of(gone.start)
        );
        let load = Load::balanced(&entrances, "trio-production-trio.localhost", RATE);
        let begun = Instant::now();
        try_join(
            try_join_all(gone.clone().map(|at| self.lab_host(at).cut())),
            try_join_all(gone.clone().map(|at| self.nodes[at].agent.kill())),
        )
        .await?;
        let took = self.replaced(&gone, begun).await;
        let report = load.stop().await;
        let took = took?;
        println!(
            "proxmox.host_death_s {:.2}: {} of {} services had replicas on {}, 0 lost; of {} requests {} failed: {:?}",
            took.as_secs_f64(),
            hit,
            SERVICES.len(),
            host_of(gone.start),
            report.served + report.failed(),
            report.failed(),
            report.failures,
        );
        Ok(took)
    }

    /// Looks until every service has its number on living nodes; at every look one of each is left.
    async fn replaced(&self, gone: &std::ops::Range<usize>, begun: Instant) -> Result<Duration> {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let there = self.replicas().await?;
            let mut missing = Vec::new();
            for (name, wanted) in SERVICES {
                let on = there.get(name).into_iter().flatten();
                let left = on.filter(|node| !gone.contains(*node)).count();
                ensure!(left > 0, "nothing of {name} is left: {there:?}");
                if left < wanted {
                    missing.push((name, left));
                }
            }
            if missing.is_empty() {
                return Ok(begun.elapsed());
            }
            ensure!(begun.elapsed() < SEEN, "still missing: {missing:?}");
        }
    }

    /// All nodes of a host are emptied at once; meanwhile no request fails, and every service keeps its number. Then
    /// the host is taken back.
    async fn maintained(&self) -> Result<()> {
        let gone = self.on(0);
        let entrances: Vec<_> = self.nodes.iter().map(|node| node.ingress).collect();
        let load = Load::balanced(&entrances, "trio-production-trio.localhost", RATE);
        let path = format!("/v1/hosts/{}/drain", host_of(gone.start));
        let plan = self.api().await?.post(&path, &json!({})).await?;
        let emptied = tokio::time::timeout(SEEN, self.emptied(&gone)).await;
        let report = load.stop().await;
        emptied.with_context(|| format!("it is not empty: {plan}"))??;
        ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
        let shown = self.api().await?.get("/v1/hosts").await?;
        let is_drained = |host: &&Value| host["maintenance"]["cause"] == "operator";
        let hosts = shown["hosts"].as_array().context("a list")?;
        ensure!(hosts.iter().filter(is_drained).count() == 1, "{shown}");
        let ended = self.api().await?.call(Method::DELETE, &path, None).await?;
        ensure!(ended.status == 204, "{}", ended.text());
        println!("a host emptied: {} requests, 0 failed", report.served);
        self.all_there().await
    }

    /// Looks until nothing of a service is on these nodes; at every look each service has its number.
    async fn emptied(&self, nodes: &std::ops::Range<usize>) -> Result<()> {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let there = self.replicas().await?;
            for (name, wanted) in SERVICES {
                let well = there.get(name).map_or(0, Vec::len);
                ensure!(well >= wanted, "{well} of {name} are left: {there:?}");
            }
            if !there.values().flatten().any(|node| nodes.contains(node)) {
                return Ok(());
            }
        }
    }

    async fn come_back(&self, host: usize) -> Result<()> {
        for at in self.on(host) {
            self.lab_host(at).mend().await?;
            self.nodes[at].agent.start().await?;
        }
        Ok(())
    }
}
