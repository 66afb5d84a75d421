//! One machine that runs everything grows to three servers and nodes of their own, then its history
//! goes to PostgreSQL: step by step as `docs/operations.md` has it, under load, without a failed
//! request.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::lab::cluster::with_lab;
use skep_tests::lab::node::Node;
use skep_tests::lab::{Host, Lab};
use skep_tests::load::Load;
use skep_tests::postgres::Postgres;
use skep_tests::servers::{Servers, Site};
use skep_tests::{http, place, wait};

const SEEN: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);
const RATE: u32 = 50;
/// Where the machine listens while it is alone: the defaults.
const ALONE: ([u8; 4], u16) = ([127, 0, 0, 1], 7072);
const POSTGRES_PORT: u16 = 5432;

/// What grows.
struct World {
    servers: Servers,
    /// On the first machine.
    first: Node,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_machine_grows_to_three_servers_with_nodes_of_their_own_and_postgresql() {
    with_lab("growth", async |lab| -> Result<()> {
        let mut world = World::one_machine(lab).await?;
        let outcome = world.grow(lab).await;
        if outcome.is_err() {
            world.servers.print_logs();
            println!("--- agent\n{}", world.first.agent.log());
            println!("--- net\n{}", world.first.net.log());
        }
        world.first.stop().await?;
        outcome
    })
    .await;
}

/// The command line on a machine.
async fn skep(host: &Host, token: Option<&str>, arguments: &[&str]) -> Result<String> {
    let config = host.path("config");
    let config = format!("SKEP_CONFIG_DIR={}", config.display());
    let token = token.map(|token| format!("SKEP_TOKEN={token}"));
    let binary = place::skep_binary()?;
    let binary = binary.to_str().context("the path is no text")?;
    let mut all = vec![config.as_str()];
    all.extend(token.as_deref());
    all.push(binary);
    all.extend(arguments);
    host.run("env", &all).await
}

impl World {
    /// Server, agent and data plane on one machine, as the defaults have it: on loopback.
    async fn one_machine(lab: &mut Lab) -> Result<Self> {
        let place = lab.add_host().await?;
        let host = lab.host(place);
        let site = Site::on(host);
        let process = site
            .process("server", &place::skep_binary()?)
            .args(["server", "--exit-with-parent", "--server-name", &site.name])
            .args([Path::new("--data-dir"), &site.data])
            .args([Path::new("--key-file"), &site.path("operator.key")])
            .args([Path::new("--bootstrap"), &site.path("bootstrap.json")])
            .env("NO_COLOR", "1");
        let servers = Servers::found(site, process).await?;
        let token = &servers.bootstrap().join_token;
        let first = Node::start(host, SocketAddr::from(ALONE), token).await?;
        let (api, ca) = (
            &servers.bootstrap().api,
            &servers.bootstrap().ca_fingerprint,
        );
        let login = ["login", "--server", api, "--fingerprint", ca];
        skep(host, Some(&servers.bootstrap().token), &login).await?;
        wait::until_ok("the node to be ready", SEEN, async || {
            let nodes = skep(host, None, &["node", "ls"]).await?;
            ensure!(nodes.contains("ready"), "{nodes}");
            Ok(())
        })
        .await?;
        let image = first.image("1").await?;
        let deploy = ["deploy", "--image", &image, "--project", "web"];
        skep(host, None, &[&deploy[..], &["--service", "web"]].concat()).await?;
        Ok(Self { servers, first })
    }

    async fn grow(&mut self, lab: &mut Lab) -> Result<()> {
        let name = Name::of("web");
        let host = host_of(&name);
        answers(self.first.ingress, &host, "1").await?;
        let load = Load::start(self.first.ingress, &host, RATE);
        self.be_reached(lab.host(0)).await?;
        for _ in 0..2 {
            self.join_server(lab).await?;
        }
        let group = self.servers.settled().await?;
        ensure!(group.count("voter") == 2, "{group:?}");
        self.deploy("2").await?;

        let second = self.join_node(lab).await?;
        let outcome = self.separate(lab, &second, load).await;
        if outcome.is_err() {
            println!("--- second agent\n{}", second.agent.log());
        }
        second.stop().await?;
        outcome
    }

    /// Servers and apps part, while the first machine's apps are asked.
    async fn separate(&mut self, lab: &mut Lab, second: &Node, load: Load) -> Result<()> {
        self.leave_the_first_machine(lab).await?;
        self.deploy("3").await?;
        self.move_history(lab).await?;
        self.use_the_new_node(lab.host(0), second).await?;
        // From here on through a load balancer that tries both nodes.
        let both = [self.first.ingress, second.ingress];
        let balanced = Load::balanced(&both, &host_of(&Name::of("web")), RATE);
        nothing_failed("the first machine", load).await?;
        self.empty_the_first_machine(lab.host(0), second).await?;
        nothing_failed("both", balanced).await
    }

    /// The app in another version, while it is asked; answers the deployment.
    async fn deploy(&self, version: &str) -> Result<String> {
        let name = Name::of("web");
        let image = json!({ "type": "image", "reference": self.first.image(version).await? });
        let servers = self.servers.all();
        let last = servers.last().context("a server")?;
        let live = last.api.live(&name, &image).await?;
        answers(self.first.ingress, &host_of(&name), version).await?;
        Ok(live.id)
    }

    /// So many nodes are there, each in session with a server.
    async fn ready(&self, count: u64) -> Result<()> {
        wait::until_ok("the nodes to be ready", SEEN, async || {
            for server in self.servers.all() {
                let status = server.api.get("/v1/status").await?;
                let nodes = &status["nodes"];
                ensure!(
                    nodes["ready"] == count && nodes["connected"] == count,
                    "{status}"
                );
            }
            Ok(())
        })
        .await
    }

    /// 1. Restarted with addresses that the others can reach.
    async fn be_reached(&mut self, host: &Host) -> Result<()> {
        let address = host.address().to_string();
        let restarted = self.servers.restart_as(0, |server| {
            server
                .args(["--api-addr", "0.0.0.0:7070", "--agent-addr", "0.0.0.0:7072"])
                .args(["--advertise", &address])
        });
        restarted.await?;
        self.servers.settled().await.map(drop)
    }

    /// 2. One server more, with one command.
    async fn join_server(&mut self, lab: &mut Lab) -> Result<()> {
        let place = lab.add_host().await?;
        self.servers.join(Site::on(lab.host(place))).await
    }

    /// 3. A node of its own, which finds a server that did not found the cluster.
    async fn join_node(&self, lab: &mut Lab) -> Result<Node> {
        let place = lab.add_host().await?;
        let server = self.servers.server(1);
        let token = server.api.post("/v1/tokens", &json!({})).await?;
        let token = token["token"].as_str().context("a token")?;
        let node = Node::start(lab.host(place), server.site.cluster, token).await?;
        self.ready(2).await?;
        Ok(node)
    }

    /// 4. The first machine is left to its apps: another server takes its place.
    async fn leave_the_first_machine(&mut self, lab: &mut Lab) -> Result<()> {
        self.join_server(lab).await?;
        self.servers.settled().await?;
        let first = lab.host(0);
        let name = first.name().to_owned();
        skep(first, None, &["server", "leave", &name, "--yes"]).await?;
        self.servers.left(0).await?;
        let group = self.servers.settled().await?;
        ensure!(group.server(&name).is_err(), "{group:?}");
        self.ready(2).await?;
        // What it was started with leads nowhere any more; it has learned where the servers are.
        self.first.agent.restart_as(STOP, |agent| agent).await?;
        self.ready(2).await
    }

    /// 6. New work is built and runs on the new node, once the first machine builds no more and takes no new work.
    async fn use_the_new_node(&mut self, host: &Host, second: &Node) -> Result<()> {
        let no_builds = self
            .first
            .agent
            .restart_as(STOP, |agent| agent.args(["--no-builds"]));
        no_builds.await?;
        self.ready(2).await?;
        skep(host, None, &["node", "cordon", host.name()]).await?;
        let name = Name::of("api");
        let api = &self.servers.server(0).api;
        api.put_service(&name, json!({})).await?;
        let image = json!({ "type": "image", "reference": second.image("1").await? });
        api.live(&name, &image).await?;
        answers(second.ingress, &host_of(&name), "1").await?;
        Ok(())
    }

    /// Later: what it runs goes live elsewhere first, then the node is removed.
    async fn empty_the_first_machine(&mut self, host: &Host, second: &Node) -> Result<()> {
        let name = Name::of("web");
        let image = json!({ "type": "image", "reference": second.image("5").await? });
        self.servers.server(0).api.live(&name, &image).await?;
        answers(second.ingress, &host_of(&name), "5").await?;
        wait::until_ok("the first machine to be empty", SEEN, async || {
            let left = self.first.containers.all().await?;
            ensure!(left.iter().all(|one| !one.runs), "{left:?}");
            Ok(())
        })
        .await?;
        for part in [&self.first.agent, &self.first.net] {
            part.terminate(STOP).await?;
        }
        wait::until_ok("the node to be lost and removed", SEEN, async || {
            skep(host, None, &["node", "rm", host.name(), "--yes"]).await
        })
        .await?;
        self.ready(1).await
    }

    /// 5. One server after the other, its history elsewhere.
    async fn move_history(&mut self, lab: &Lab) -> Result<()> {
        let address = SocketAddr::from((lab.machine(), POSTGRES_PORT));
        let postgres = tokio::task::spawn_blocking(move || Postgres::start(Some(address)));
        let postgres = postgres.await??;
        for place in 0..self.servers.all().len() {
            let url = postgres.url();
            let moved = |server: skep_tests::process::Process| server.args(["--history", &url]);
            self.servers.restart_as(place, moved).await?;
            self.servers.settled().await?;
        }
        let made = self.deploy("4").await?;
        // Whoever is asked knows it: the history is one.
        for server in self.servers.all() {
            let log = server
                .api
                .get(&format!("/v1/deployments/{made}/logs"))
                .await?;
            let events = log["events"].as_array().context("events")?;
            ensure!(!events.is_empty(), "{} knows nothing", server.site.name);
            let status = server.api.get("/v1/status").await?;
            ensure!(status["history"]["ok"] == true, "{status}");
        }
        Ok(())
    }
}

async fn nothing_failed(what: &str, load: Load) -> Result<()> {
    let report = load.stop().await;
    println!("growth, through {what}: {report:?}");
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    Ok(())
}

fn host_of(name: &Name) -> String {
    format!("{}-production-{}.localhost", name.service, name.project)
}

async fn answers(ingress: SocketAddr, host: &str, version: &str) -> Result<()> {
    let answer = http::get(ingress, host, "/").await?;
    let wanted = format!("version={version} ");
    ensure!(
        answer.status == 200 && answer.text().contains(&wanted),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}
