//! The private networks of environments: who resolves and reaches what, on one node and from another one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::{Api, Name};
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::wait;

const SEEN: Duration = Duration::from_secs(60);
/// What listens in every container of these tests: not what its service says of itself.
const PORT: u16 = 8080;

async fn with_nodes(name: &str, test: impl AsyncFnOnce(&Api, &LabCluster, &[Node]) -> Result<()>) {
    with_servers(name, 1, async |cluster| -> Result<()> {
        let server = cluster.servers.server(0).site.cluster;
        let token = cluster.servers.bootstrap().join_token.clone();
        let mut nodes = Vec::new();
        for at in 0..2 {
            let place = cluster.lab().add_host().await?;
            let arguments: &[&str] = match at {
                0 => &["--private-network", "10.202.0.0/16"],
                _ => &["--private-network", "10.202.0.0/16", "--no-builds"],
            };
            nodes.push(Node::start_with(cluster.host(place), server, &token, arguments).await?);
        }
        let api = &cluster.servers.server(0).api;
        let outcome = async {
            wait::until_ok("all nodes to be ready", SEEN, async || {
                let status = api.get("/v1/status").await?;
                ensure!(status["nodes"]["ready"] == 2, "{status}");
                Ok(())
            })
            .await?;
            test(api, cluster, &nodes).await
        };
        let outcome = outcome.await;
        for node in &nodes {
            if outcome.is_err() {
                println!("--- agent of {}\n{}", node.name, node.agent.log());
                println!("--- data plane of {}\n{}", node.name, node.net.log());
            }
            node.stop().await?;
        }
        outcome
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

/// A container, where it is.
struct Inside<'a> {
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

    /// A connection, whatever is said on it then.
    async fn connects(&self, address: &str, port: u16) -> Result<bool> {
        let script = open(address, port);
        let command = ["timeout", "3", "bash", "-c", &script];
        Ok(in_container(self.node, &self.id, &command).await?.0)
    }

    async fn sees(&self, name: &str, version: &str) -> Result<()> {
        wait::until_ok(&format!("{name} at version {version}"), SEEN, async || {
            let address = self.address_of(name).await?;
            let text = self.get(&address, PORT).await?.context("no connection")?;
            ensure!(text.contains(&format!("version={version} ")), "{text}");
            Ok(())
        })
        .await
    }
}

fn service(project: &str, service: &str) -> Name {
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
async fn inside<'a>(node: &'a Node, name: &Name) -> Result<Inside<'a>> {
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
        let host = cluster
            .hosts()
            .iter()
            .find(|host| host.name() == nodes[0].name)
            .context("a node is on a host")?;
        // As on a machine that routes between its networks.
        host.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])
            .await?;
        let gateway = |address: &str| {
            let (net, _) = address.rsplit_once('.').unwrap_or_default();
            format!("{net}.1")
        };
        let its_own = nodes[0].containers.address(&stranger.id).await?;
        let lan = host.address().to_string();
        for (what, address, port) in [
            ("the private address", of_api.as_str(), PORT),
            ("the container", &direct, PORT),
            ("the ingress by the gateway", &gateway(&its_own), PORT),
            ("the ingress by the other gateway", &gateway(&direct), PORT),
            ("names of the other", &gateway(&direct), 7053),
            ("connections of the other", &gateway(&direct), 7077),
            ("the node's address", &lan, PORT),
            ("names on the node's address", &lan, 7053),
        ] {
            let connected = stranger.connects(address, port).await?;
            ensure!(!connected, "{what} is reached: {address}:{port}");
        }
        // What it may reach answers.
        ensure!(stranger.connects(&gateway(&its_own), 53).await?, "no names");

        // From the LAN, where somebody has a route.
        let outside = cluster
            .hosts()
            .iter()
            .find(|host| host.name() == nodes[1].name)
            .context("a node is on a host")?;
        let net = format!("{direct}/32");
        outside
            .run("ip", &["route", "add", &net, "via", &lan])
            .await?;
        let script = open(&direct, PORT);
        let reached = ["3", "bash", "-c", &script];
        let reached = outside.run("timeout", &reached).await.is_ok();
        outside.run("ip", &["route", "del", &net]).await?;
        ensure!(!reached, "a container is reached from the LAN");

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
