//! Traffic that enters at one node and is for another: three nodes, of which the last runs none of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::node::Node;
use skep_tests::lab::nodes::{Wanted, host_of, with_nodes};
use skep_tests::load::{CLIENTS, Load, Report};
use skep_tests::traefik::Traefik;
use skep_tests::{chaos, http, place, wait};

const SEEN: Duration = Duration::from_secs(60);
/// What a process that was asked to end may take.
const ENDS: Duration = Duration::from_secs(60);
/// A silent node is lost after 8 s.
const GIVEN_UP: Duration = Duration::from_secs(90);
const SAMPLE_RATE: u32 = 150;
/// By each of four entrances: 1,000 a second by the embedded ingresses and by the Traefiks.
const FULL_RATE: u32 = 500;
const FULL_SECONDS: u32 = 600;

async fn answers(entrance: std::net::SocketAddr, host: &str, version: &str) -> Result<()> {
    wait::until_ok(&format!("version {version}"), SEEN, async || {
        let answer = http::get(entrance, host, "/").await?;
        let text = answer.text();
        ensure!(
            answer.status == 200 && text.contains(&format!("version={version} ")),
            "{} {text}",
            answer.status
        );
        Ok(())
    })
    .await
}

/// A body that is larger than every buffer on the way, there and back.
async fn echoes(entrance: SocketAddr, host: &str) -> Result<()> {
    let body = bytes::Bytes::from(vec![b'x'; 8 << 20]);
    let echoed = http::post(entrance, host, "/echo", body.clone()).await?;
    ensure!(
        echoed.status == 200 && echoed.body == body,
        "{} {}",
        echoed.status,
        echoed.body.len()
    );
    Ok(())
}

/// Requests by every entrance, counted by what happened meanwhile.
struct Loads {
    all: Vec<(String, Load, Report)>,
}

impl Loads {
    fn start(entrances: &[(String, SocketAddr)], host: &str, rate: u32) -> Self {
        let start = |(name, entrance): &(String, SocketAddr)| {
            let load = Load::start(*entrance, host, rate);
            (name.clone(), load, Report::default())
        };
        Self {
            all: entrances.iter().map(start).collect(),
        }
    }

    /// What became of the requests since the last step.
    fn step(&mut self, what: &str) {
        for (name, load, before) in &mut self.all {
            let now = load.so_far();
            let (served, failed) = (now.served - before.served, now.failed() - before.failed());
            println!("{what}, by {name}: {served} requests, {failed} failed");
            *before = now;
        }
    }

    async fn stop(self) -> Result<()> {
        let mut bad = Vec::new();
        for (name, load, _) in self.all {
            let report = load.stop().await;
            println!(
                "in all, by {name}: {} requests, {:.0}/s, {} failed, the slowest took {:?}",
                report.served,
                report.rate(),
                report.failed(),
                report.slowest
            );
            if report.failed() > 0 || report.served == 0 {
                bad.push((name, report));
            }
        }
        ensure!(bad.is_empty(), "{bad:#?}");
        Ok(())
    }
}

/// What is done to a cluster under load, and how much of it.
struct Soak<'a> {
    cluster: &'a LabCluster,
    nodes: &'a mut [Node],
    name: Name,
    host: String,
    images: Vec<String>,
    /// The first nodes run the service, the others take requests.
    apps: usize,
    rolled: usize,
}

impl Soak<'_> {
    fn api(&self) -> &Api {
        &self.cluster.servers.server(0).api
    }

    async fn roll(&mut self) -> Result<()> {
        self.rolled += 1;
        let image = &self.images[self.rolled % self.images.len()];
        let request = json!({ "type": "image", "reference": image });
        self.api().live(&self.name, &request).await.map(drop)
    }

    async fn scale(&self, replicas: u32) -> Result<()> {
        self.api()
            .put_service(&self.name, self.spec(replicas))
            .await?;
        wait::until_ok("so many to serve, and no more", SEEN, async || {
            let all = self.api().live_allocations(&self.name).await?;
            let healthy = all.iter().filter(|it| it.state == "healthy").count();
            let count = replicas as usize;
            ensure!(healthy == count && all.len() == count, "{all:?}");
            Ok(())
        })
        .await
    }

    fn spec(&self, replicas: u32) -> Value {
        let entrances = &self.nodes[self.apps..];
        let elsewhere = entrances
            .iter()
            .map(|node| format!("node.name != {}", node.name));
        json!({
            "replicas": replicas,
            "update": { "drain_ms": 2_000 },
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "placement": { "constraints": elsewhere.collect::<Vec<_>>() },
        })
    }

    /// A node is emptied, and takes work again.
    async fn drain(&self, at: usize) -> Result<()> {
        let node = &self.nodes[at];
        let path = format!("/v1/nodes/{}/admin", node.name);
        let drain = json!({ "state": "draining", "deadline_ms": 60_000 });
        self.api().put(&path, &drain).await?;
        wait::until_ok("the drained node to be empty", SEEN, async || {
            let left = node.containers.all().await?;
            ensure!(!left.iter().any(|container| container.runs), "{left:?}");
            Ok(())
        })
        .await?;
        let eligible = json!({ "state": "eligible" });
        self.api().put(&path, &eligible).await.map(drop)
    }

    /// The data plane of a node is replaced by that of the next version while a request is under way there.
    async fn replace_net(&mut self, at: usize) -> Result<()> {
        let (now, next) = (place::skep_binary()?, place::next_binary()?);
        let last = self.nodes.len() - 1;
        let entrance = self.nodes[last].ingress;
        let node = &mut self.nodes[at];
        let mut net = node.net.like(&now, &next);
        if !net.has_argument("--takeover") {
            net = net.args(["--takeover"]);
        }
        let held = async {
            let answer = http::get(entrance, &self.host, "/hold?ms=3000").await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        };
        let replaced = async {
            // Under way when the processes change.
            tokio::time::sleep(Duration::from_millis(500)).await;
            net.start().await
        };
        tokio::try_join!(held, replaced)?;
        let older = std::mem::replace(&mut node.net, net);
        // Nothing holds it any more.
        let status = older.ended(ENDS).await?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    /// An agent dies and comes back as that of the next version.
    async fn replace_agent(&mut self, at: usize) -> Result<()> {
        let (now, next) = (place::skep_binary()?, place::next_binary()?);
        let connected = async |count: usize| {
            wait::until_ok("the agents' sessions", SEEN, async || {
                let status = self.cluster.servers.server(0).api.get("/v1/status").await?;
                ensure!(status["nodes"]["connected"] == count, "{status}");
                Ok(())
            })
            .await
        };
        let count = self.nodes.len();
        let node = &mut self.nodes[at];
        node.agent.kill().await?;
        connected(count - 1).await?;
        node.agent = node.agent.like(&now, &next);
        node.agent.start().await?;
        connected(count).await
    }

    /// The leader dies, and comes back when another one leads; of a single server there is no other.
    async fn lose_leader(&mut self) -> Result<()> {
        let leader = self.cluster.servers.leader().await?;
        self.cluster.servers.kill(leader).await?;
        let count = self.cluster.servers.all().len();
        if count > 1 {
            let others: Vec<usize> = (0..count).filter(|place| *place != leader).collect();
            self.cluster.servers.leader_among(&others).await?;
        }
        self.cluster.servers.start(leader).await?;
        wait::until_ok("the servers to roll again", SEEN, async || {
            self.api().get("/v1/status").await.map(drop)
        })
        .await?;
        self.cluster.servers.settled().await?;
        self.roll().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_serves_what_runs_elsewhere_and_no_request_fails() {
    let is_full = chaos::is_full();
    let (servers, apps) = if is_full { (3, 3) } else { (1, 1) };
    let wanted = Wanted {
        servers,
        ..Wanted::nodes(apps + 2)
    };
    with_nodes("mesh", wanted, async |cluster, nodes| {
        let mut images = Vec::new();
        for version in ["1", "2"] {
            images.push(nodes[0].image(version).await?);
        }
        let name = Name::of("web");
        let mut entrances = Vec::new();
        let mut traefiks = Vec::new();
        for node in &nodes[apps..] {
            entrances.push((
                format!("the embedded ingress of {}", node.name),
                node.ingress,
            ));
            // One is enough to see whether it works.
            if is_full || traefiks.is_empty() {
                let traefik = Traefik::start_beside(host_of(cluster, node)?).await?;
                entrances.push((format!("Traefik on {}", node.name), traefik.entrance));
                traefiks.push(traefik);
            }
        }
        let host = format!("web-production-{}.localhost", name.project);
        let mut soak = Soak {
            cluster,
            nodes,
            host: host.clone(),
            name,
            images,
            apps,
            rolled: 0,
        };
        soak.api().put_service(&soak.name, soak.spec(2)).await?;
        soak.roll().await?;
        for (_, entrance) in &entrances {
            answers(*entrance, &host, "2").await?;
            echoes(*entrance, &host).await?;
        }

        let begun = Instant::now();
        let mut loads = Loads::start(&entrances, &host, chaos::count(SAMPLE_RATE, FULL_RATE));
        let mut rolls = chaos::count(3, 20);
        loop {
            for _ in 0..rolls {
                soak.roll().await?;
            }
            loads.step(&format!("{rolls} rolling deployments"));
            if is_full {
                soak.scale(4).await?;
                soak.scale(2).await?;
                loads.step("two more replicas, and two fewer");
                soak.drain(soak.rolled % apps).await?;
                loads.step("a node drained");
                soak.replace_net(apps).await?;
                loads.step("the data plane of an entrance replaced");
            }
            soak.replace_net(0).await?;
            loads.step("the data plane of a node with the service replaced");
            soak.replace_agent(0).await?;
            loads.step("an agent killed and replaced");
            soak.lose_leader().await?;
            loads.step("the leading server killed");
            rolls = 5;
            if begun.elapsed() >= Duration::from_secs(chaos::count(0, FULL_SECONDS).into()) {
                break;
            }
        }
        for traefik in &traefiks {
            if loads
                .all
                .iter()
                .any(|(_, load, _)| load.so_far().failed() > 0)
            {
                println!("--- Traefik\n{}", traefik.log());
            }
        }
        loads.stop().await?;
        for traefik in &traefiks {
            traefik.stop().await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_node_that_vanishes_only_what_was_sent_to_it_fails() {
    with_nodes("mesh-death", Wanted::nodes(3), async |cluster, nodes| {
        let api = &cluster.servers.server(0).api;
        let image = nodes[0].image("1").await?;
        let name = Name::of("web");
        let spec = json!({
            "replicas": 2,
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "placement": {
                "max_per": ["1 per node.name"],
                "constraints": [format!("node.name != {}", nodes[2].name)],
            },
        });
        api.put_service(&name, spec).await?;
        api.live(&name, &json!({ "type": "image", "reference": image }))
            .await?;
        let host = format!("web-production-{}.localhost", name.project);
        answers(nodes[2].ingress, &host, "1").await?;
        let load = Load::start(nodes[2].ingress, &host, SAMPLE_RATE);
        wait::until_ok("both nodes to be in use", SEEN, async || {
            let served = load.so_far().served;
            ensure!(served >= u64::from(SAMPLE_RATE), "{served} requests");
            Ok(())
        })
        .await?;
        host_of(cluster, &nodes[1])?.cut().await?;
        wait::until_ok("the node to be given up", GIVEN_UP, async || {
            let status = api.get("/v1/status").await?;
            ensure!(status["nodes"]["ready"] == 2, "{status}");
            Ok(())
        })
        .await?;
        let report = load.stop().await;
        println!(
            "a node vanished: {} requests, {} failed: {:?}; the slowest took {:?}",
            report.served,
            report.failed(),
            report.failures,
            report.slowest
        );
        // Each client waits for one answer at a time.
        ensure!(report.failed() <= u64::from(CLIENTS), "{report:?}");
        host_of(cluster, &nodes[1])?.mend().await
    })
    .await;
}
