//! The private networks of environments: who resolves and reaches what, on one node and from another one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::lab::Host;
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::node::{ADMIN_PORT, Node};
use skep_tests::lab::nodes::{self, Wanted, host_of};
use skep_tests::wait;

const SEEN: Duration = Duration::from_secs(60);
/// What listens in every container of these tests: not what its service says of itself.
const PORT: u16 = 8080;
/// A request that is under way while its worker is replaced.
const HELD_MS: u32 = 20_000;

/// What all agents of these tests are told.
pub(super) const PRIVATE: &[&str] = &["--private-network", "10.202.0.0/16"];

async fn with_nodes(name: &str, test: impl AsyncFnOnce(&Api, &LabCluster, &[Node]) -> Result<()>) {
    let wanted = Wanted {
        arguments: PRIVATE,
        ..Wanted::nodes(2)
    };
    nodes::with_nodes(name, wanted, async |cluster, nodes| {
        test(&cluster.servers.server(0).api, cluster, nodes).await
    })
    .await;
}

/// What a program says that has the network of a container, and of this machine all the rest: the app's image
/// has no programs. None: it failed.
async fn in_container(node: &Node, id: &str, command: &[&str]) -> Result<(bool, String)> {
    let pid = node.containers.pid(id).await?.context("it does not run")?;
    let ended = tokio::process::Command::new("nsenter")
        .arg(format!("--net=/proc/{pid}/ns/net"))
        .args(command)
        .kill_on_drop(true)
        .output()
        .await?;
    let text = [ended.stdout, ended.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((ended.status.success(), text))
}

/// A shell's connection.
fn open(address: &str, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{address}/{port}")
}

/// A connection from a host itself.
async fn connects(host: &Host, address: &str, port: u16) -> bool {
    let script = open(address, port);
    let arguments = ["3", "bash", "-c", &script];
    host.run("timeout", &arguments).await.is_ok()
}

/// A container, where it is.
pub(super) struct Inside<'a> {
    node: &'a Node,
    id: String,
}

impl Inside<'_> {
    /// What Docker's resolver says in the container, as its programs would ask it.
    async fn resolve(&self, name: &str) -> Result<String> {
        let command = ["busybox", "nslookup", name, "127.0.0.11"];
        Ok(in_container(self.node, &self.id, &command).await?.1)
    }

    async fn address_of(&self, name: &str) -> Result<String> {
        let text = self.resolve(name).await?;
        let found = text.split_whitespace().find(|it| it.starts_with("10.201."));
        Ok(found.with_context(|| text.clone())?.to_owned())
    }

    /// The answer from there; none: no connection.
    async fn get(&self, address: &str, port: u16) -> Result<Option<String>> {
        let open = open(address, port);
        let ask = r"printf 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' >&3; cat <&3";
        let script = format!("{open} && {ask}");
        let command = ["timeout", "5", "bash", "-c", &script];
        let (well, text) = in_container(self.node, &self.id, &command).await?;
        Ok(well.then_some(text))
    }

    /// What is answered to a request that its app holds for so long; an error: it broke off.
    async fn held(&self, address: &str, ms: u32) -> Result<String> {
        let open = open(address, PORT);
        let ask = format!(
            r"printf 'GET /hold?ms={ms} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' >&3; cat <&3"
        );
        let script = format!("{open} && {ask}");
        let command = ["timeout", "60", "bash", "-c", &script];
        let (_, text) = in_container(self.node, &self.id, &command).await?;
        Ok(text)
    }

    /// A connection, whatever is said on it then.
    async fn connects(&self, address: &str, port: u16) -> Result<bool> {
        let script = open(address, port);
        let command = ["timeout", "3", "bash", "-c", &script];
        Ok(in_container(self.node, &self.id, &command).await?.0)
    }

    pub(super) async fn sees(&self, name: &str, version: &str) -> Result<()> {
        wait::until_ok(&format!("{name} at version {version}"), SEEN, async || {
            let address = self.address_of(name).await?;
            let text = self.get(&address, PORT).await?.context("no connection")?;
            ensure!(text.contains(&format!("version={version} ")), "{text}");
            Ok(())
        })
        .await
    }
}

pub(super) fn service(project: &str, service: &str) -> Name {
    Name {
        project: project.into(),
        service: service.into(),
    }
}

async fn start(api: &Api, name: &Name, kind: &str, (node, image): (&Node, &str)) -> Result<()> {
    let spec = json!({
        "type": kind,
        "replicas": 1,
        "update": { "drain_ms": 2_000 },
        "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
        "placement": { "constraints": [format!("node.name = {}", node.name)] },
    });
    api.put_service(name, spec).await?;
    let source = json!({ "type": "image", "reference": image });
    api.live(name, &source).await.map(drop)
}

/// The container of a service that has one on this node.
pub(super) async fn inside<'a>(node: &'a Node, name: &Name) -> Result<Inside<'a>> {
    let label = format!("{}-production-{}", name.service, name.project);
    let all = node.containers.docker().list_containers(None).await?;
    let found = all.into_iter().find(|one| {
        let labels = one.labels.as_ref();
        labels.and_then(|it| it.get("sh.skep.service-name")) == Some(&label)
    });
    let id = found.and_then(|one| one.id).context(label)?;
    Ok(Inside { node, id })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_addresses_are_of_their_environment_alone() {
    with_nodes("private", async |api, cluster, nodes| {
        let first = nodes[0].image("1").await?;
        let here = (&nodes[0], first.as_str());
        let (web, worker) = (service("one", "api"), service("one", "db"));
        let (near, stranger) = (service("one", "near"), service("two", "api"));
        let far = service("one", "far");
        start(api, &web, "web", here).await?;
        start(api, &worker, "worker", here).await?;
        start(api, &near, "worker", here).await?;
        start(api, &stranger, "worker", here).await?;
        start(api, &far, "worker", (&nodes[1], &first)).await?;

        let (near, far) = (
            inside(&nodes[0], &near).await?,
            inside(&nodes[1], &far).await?,
        );
        let stranger = inside(&nodes[0], &stranger).await?;
        for caller in [&near, &far] {
            for name in ["api", "api.internal", "db.internal"] {
                caller.sees(name, "1").await?;
            }
        }
        near.sees("far.internal", "1").await?;
        let absent = near.resolve("nobody.internal").await?;
        ensure!(absent.contains("NXDOMAIN"), "{absent}");

        // Of another environment: not by name, not by private address, not by the container's own.
        let refused = stranger.resolve("db.internal").await?;
        ensure!(refused.contains("NXDOMAIN"), "{refused}");
        let of_api = near.address_of("api").await?;
        let own = stranger.address_of("api").await?;
        ensure!(of_api != own, "two services share {own}");
        let target = inside(&nodes[0], &web).await?;
        let direct = nodes[0].containers.address(&target.id).await?;
        ensure!(
            near.connects(&direct, PORT).await?,
            "a neighbour is not reached"
        );
        let host = host_of(cluster, &nodes[0])?;
        // As on a machine that routes between its networks.
        host.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])
            .await?;
        let gateway = |address: &str| {
            let (net, _) = address.rsplit_once('.').unwrap_or_default();
            format!("{net}.1")
        };
        let its_own = nodes[0].containers.address(&stranger.id).await?;
        let lan = host.address().to_string();
        let outside = host_of(cluster, &nodes[1])?;
        let (own_gateway, other_gateway) = (gateway(&its_own), gateway(&direct));
        let fenced = [
            ("the container", &direct, PORT),
            ("the ingress by the gateway", &own_gateway, PORT),
            ("the ingress by the other gateway", &other_gateway, PORT),
            ("names of the other", &other_gateway, 7053),
            ("connections of the other", &other_gateway, 7077),
            ("the node's door for other nodes", &lan, 7075),
        ];
        for (what, address, port) in fenced {
            let connected = stranger.connects(address, port).await?;
            ensure!(!connected, "{what} is reached: {address}:{port}");
            // It is there, for whoever may.
            ensure!(
                connects(host, address, port).await,
                "nobody listens as {what}: {address}:{port}"
            );
        }
        let connected = stranger.connects(&of_api, PORT).await?;
        ensure!(!connected, "the private address is reached: {of_api}");
        // What it may reach answers: names, and apps by the node's public entrance.
        ensure!(stranger.connects(&own_gateway, 53).await?, "no names");
        let by_entrance = stranger.get(&lan, PORT).await?;
        let by_entrance = by_entrance.context("the node's own entrance is shut")?;
        ensure!(by_entrance.starts_with("HTTP/1.1 404"), "{by_entrance}");

        // From the LAN, where somebody has a route.
        let net = format!("{direct}/32");
        outside
            .run("ip", &["route", "add", &net, "via", &lan])
            .await?;
        ensure!(
            !connects(outside, &direct, PORT).await,
            "a container is reached from the LAN"
        );
        // Each of these probes finds a fence that is open: somebody who lets everything through before it.
        for chain in ["FORWARD", "INPUT"] {
            host.run("iptables", &["-I", chain, "-j", "ACCEPT"]).await?;
        }
        for (what, address, port) in fenced {
            let connected = stranger.connects(address, port).await?;
            ensure!(connected, "the probe of {what} finds nothing ever");
        }
        ensure!(
            connects(outside, &direct, PORT).await,
            "the probe from the LAN finds nothing ever"
        );
        for chain in ["FORWARD", "INPUT"] {
            host.run("iptables", &["-D", chain, "-j", "ACCEPT"]).await?;
        }
        outside.run("ip", &["route", "del", &net]).await?;

        // Whoever flushes the firewall is answered.
        host.run("iptables", &["-F", "FORWARD"]).await?;
        wait::until_ok("the fence to be there again", SEEN, async || {
            let rules = host.run("iptables", &["-S", "FORWARD"]).await?;
            ensure!(rules.contains("SKEP-F-"), "{rules}");
            Ok(())
        })
        .await?;

        // A new release: the address stays, and what answers there is the new one.
        let newer = nodes[0].image("3").await?;
        let source = json!({ "type": "image", "reference": newer });
        api.live(&web, &source).await?;
        near.sees("api", "3").await?;
        far.sees("api.internal", "3").await?;
        ensure!(near.address_of("api").await? == of_api, "another address");
        // The data plane keeps what it knows.
        nodes[0].agent.kill().await?;
        nodes[0].net.kill().await?;
        nodes[0].net.start().await?;
        near.sees("db", "1").await?;
        nodes[0].agent.start().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_replaced_ends_what_it_has_begun() {
    with_nodes("private drain", async |api, cluster, nodes| {
        let caller_host = host_of(cluster, &nodes[1])?;
        let image = nodes[0].image("1").await?;
        let (worker, caller) = (service("one", "db"), service("one", "caller"));
        start(api, &worker, "worker", (&nodes[0], &image)).await?;
        start(api, &caller, "worker", (&nodes[1], &image)).await?;
        let spec = json!({
            "type": "worker",
            "update": { "drain_ms": 60_000 },
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "placement": { "constraints": [format!("node.name = {}", nodes[0].name)] },
        });
        api.put_service(&worker, spec).await?;
        let caller = inside(&nodes[1], &caller).await?;
        caller.sees("db", "1").await?;
        let address = caller.address_of("db").await?;
        let newer = nodes[0].image("2").await?;
        let source = json!({ "type": "image", "reference": newer });
        // Far longer than a container is given to stop, and than its replacement takes.
        let held = caller.held(&address, HELD_MS);
        let replaced = async {
            // Under way when the worker is replaced.
            carried(caller_host).await?;
            api.live(&worker, &source).await?;
            caller.sees("db", "2").await?;
            let all = api.live_allocations(&worker).await?;
            ensure!(all.len() == 2, "the old one is gone already: {all:?}");
            Ok(())
        };
        let (text, ()) = tokio::try_join!(held, replaced)?;
        ensure!(text.starts_with("HTTP/1.1 200"), "it broke off: {text}");
        wait::until_ok("the old one to be gone", SEEN, async || {
            let all = api.live_allocations(&worker).await?;
            ensure!(all.len() == 1, "{all:?}");
            Ok(())
        })
        .await
    })
    .await;
}

/// A private connection is open on the node of this host.
async fn carried(host: &Host) -> Result<()> {
    let url = format!("http://127.0.0.1:{ADMIN_PORT}/metrics");
    wait::until_ok("a private connection", SEEN, async || {
        let metrics = host.run("busybox", &["wget", "-qO-", &url]).await?;
        let open = metrics
            .lines()
            .any(|line| line.starts_with("skep_private_connections{") && line.ends_with(" 1"));
        ensure!(open, "{metrics}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_tells_which_port_is_blocked_between_which_nodes() {
    let wanted = Wanted {
        servers: 3,
        arguments: PRIVATE,
        ..Wanted::nodes(2)
    };
    nodes::with_nodes("network check", wanted, async |cluster, nodes| {
        let check = async |place: usize| -> Result<Value> {
            let api = &cluster.servers.server(place).api;
            api.post("/v1/network/check", &json!({})).await
        };
        for place in 0..3 {
            // An agent that has just learned of its data plane's ports begins its session anew.
            wait::until_ok("all nodes to be asked", SEEN, async || {
                let found = check(place).await?;
                let is_well = found["ok"] == true && found["checked"] == 2;
                ensure!(is_well, "by server {place}: {found:#}");
                Ok(())
            })
            .await?;
        }
        let (a, b) = (host_of(cluster, &nodes[0])?, host_of(cluster, &nodes[1])?);
        let from = b.address().to_string();
        let mut rule = [
            "-I", "INPUT", "-p", "tcp", "-s", &from, "--dport", "7075", "-j", "DROP",
        ];
        a.run("iptables", &rule).await?;
        let blocked = format!(
            "node {} cannot reach {}:7075 of node {}: timed out",
            b.name(),
            a.address(),
            a.name()
        );
        for place in 0..3 {
            let found = check(place).await?;
            ensure!(found["ok"] == false && found["checked"] == 2, "{found:#}");
            let pair = &found["failing"][0];
            ensure!(pair["text"] == blocked.as_str(), "{found:#}");
            let open = format!("open TCP 7075 from {} to {}", b.name(), a.name());
            ensure!(pair["fix"] == open.as_str(), "{found:#}");
            ensure!(found["failing"][1].is_null(), "one direction: {found:#}");
        }
        rule[0] = "-D";
        a.run("iptables", &rule).await?;
        // Nobody listens any more.
        nodes[0].net.kill().await?;
        let found = check(1).await?;
        let text = found["failing"][0]["found"].as_str().unwrap_or_default();
        ensure!(text == "connection refused", "{found:#}");
        nodes[0].net.start().await?;
        // A route of a node is in the way of the pool that somebody wants.
        a.run("ip", &["route", "add", "10.99.4.0/24", "via", &from])
            .await?;
        let api = &cluster.servers.server(2).api;
        let pool = json!({ "pool": "10.99.0.0/16" });
        let refused = api
            .call(Method::PUT, "/v1/network/pool", Some(&pool))
            .await?;
        let text = refused.text();
        ensure!(
            refused.status == 409 && text.contains("10.99.4.0/24 (route of"),
            "{} {text}",
            refused.status
        );
        Ok(())
    })
    .await;
}

/// What of Docker's own is beside the fences: a container that somebody else runs, and publishes.
const FOREIGN_PORT: u16 = 9090;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fences_hold_beside_dockers_own_rules_and_leave_them_alone() {
    let wanted = Wanted {
        arguments: PRIVATE,
        docker_firewall: true,
        ..Wanted::nodes(2)
    };
    nodes::with_nodes("docker firewall", wanted, async |cluster, nodes| {
        let api = &cluster.servers.server(0).api;
        let (node, host) = (&nodes[0], host_of(cluster, &nodes[0])?);
        let outside = host_of(cluster, &nodes[1])?;
        let image = node.image("1").await?;
        let (worker, caller) = (service("one", "db"), service("one", "caller"));
        let stranger = service("two", "other");
        for name in [&worker, &caller, &stranger] {
            start(api, name, "worker", (node, &image)).await?;
        }
        let socket = format!("unix://{}", node.path("docker.sock").display());
        let publish = format!("{FOREIGN_PORT}:{PORT}");
        let foreign = [
            "-H",
            &socket,
            "run",
            "-d",
            "--restart=always",
            "-p",
            &publish,
            &image,
        ];
        host.run("docker", &foreign).await?;
        let lan = host.address().to_string();
        for round in ["at first", "after Docker was restarted"] {
            wait::until_ok("the foreign container", SEEN, async || {
                ensure!(connects(outside, &lan, FOREIGN_PORT).await, "{round}");
                Ok(())
            })
            .await?;
            let rules = host.run("iptables", &["-S", "DOCKER-USER"]).await?;
            ensure!(rules.contains("SKEP-F-"), "{round}: {rules}");
            inside(node, &caller).await?.sees("db", "1").await?;
            let target = inside(node, &worker).await?;
            let direct = node.containers.address(&target.id).await?;
            ensure!(
                connects(host, &direct, PORT).await,
                "{round}: it is not there"
            );
            let other = inside(node, &stranger).await?;
            ensure!(
                !other.connects(&direct, PORT).await?,
                "{round}: another environment is reached"
            );
            let net = format!("{direct}/32");
            outside
                .run("ip", &["route", "add", &net, "via", &lan])
                .await?;
            let reached = connects(outside, &direct, PORT).await;
            outside.run("ip", &["route", "del", &net]).await?;
            ensure!(!reached, "{round}: a container is reached from the LAN");
            node.restart_docker().await?;
            wait::until_ok("the containers to be back", SEEN, async || {
                for name in [&worker, &caller, &stranger] {
                    let it = inside(node, name).await?;
                    ensure!(node.containers.runs(&it.id).await?, "{}", it.id);
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    })
    .await;
}
