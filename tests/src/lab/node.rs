//! A node on a host of a lab: a dockerd of its own, the data plane and the agent. Its containers are
//! on a bridge that only this host has; its ingress is reached from every other host and from the
//! machine.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Host;
use crate::app::App;
use crate::containers::Containers;
use crate::process::Process;
use crate::{place, wait};

/// Of the data plane's endpoint for Traefik, on the host's loopback.
pub const ADMIN_PORT: u16 = 7_073;
/// Where apps are served in clear.
pub const INGRESS_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;
/// The same on every host: none sees another's.
const BRIDGE_ADDRESS: &str = "172.30.0.1/24";
/// Loading its state and making its containerd.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

/// A node, running.
pub struct Node {
    /// Its name in the cluster: its host's.
    pub name: String,
    /// Where its ingress listens.
    pub ingress: SocketAddr,
    /// The same under TLS.
    pub https: SocketAddr,
    /// Its Docker.
    pub containers: Containers,
    /// The agent.
    pub agent: Process,
    /// The data plane.
    pub net: Process,
    dockerd: Process,
    dir: PathBuf,
}

impl Node {
    /// Starts a daemon, a data plane and an agent on a host; the agent joins at `server`.
    ///
    /// # Errors
    /// One does not start; tells what it said.
    pub async fn start(host: &Host, server: SocketAddr, join_token: &str) -> Result<Self> {
        Self::start_with(host, server, join_token, &[]).await
    }

    /// The same, with more arguments for the agent.
    ///
    /// # Errors
    /// One does not start; tells what it said.
    pub async fn start_with(
        host: &Host,
        server: SocketAddr,
        join_token: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        // Its containers are spoken to by this host alone.
        let bare = ["--iptables=false", "--ip-masq=false", "--ip-forward=false"];
        Self::start_on(host, server, join_token, (arguments, &bare)).await
    }

    /// The same, with a Docker that writes its own rules into the firewall of the host, as it does
    /// everywhere by default.
    ///
    /// # Errors
    /// One does not start; tells what it said.
    pub async fn start_with_firewall(
        host: &Host,
        server: SocketAddr,
        join_token: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::start_on(host, server, join_token, (arguments, &[])).await
    }

    async fn start_on(
        host: &Host,
        server: SocketAddr,
        join_token: &str,
        (arguments, of_docker): (&[&str], &[&str]),
    ) -> Result<Self> {
        let dir = host.path("node");
        // A disk of its own may have been put there.
        let mut folder = std::fs::DirBuilder::new();
        folder.mode(0o700).recursive(true).create(&dir)?;
        let socket = dir.join("docker.sock");
        let dockerd = dockerd(host, &dir, &socket).args(of_docker);
        dockerd.start().await?;
        let socket_text = socket.to_str().context("the path is no text")?;
        let containers = wait::until_ok("a dockerd on the host", START, async || {
            let containers = Containers::connect(socket_text).await?;
            containers.docker().info().await?;
            Ok(containers)
        });
        let containers = containers.await.with_context(|| dockerd.log())?;
        let ingress = SocketAddr::from((host.address(), INGRESS_PORT));
        let (net, agent) = parts(host, &dir, &socket, server)?;
        net.start().await?;
        let agent = agent.env("SKEP_JOIN_TOKEN", join_token).args(arguments);
        agent.start().await?;
        Ok(Self {
            name: host.name().to_owned(),
            ingress,
            https: SocketAddr::from((host.address(), HTTPS_PORT)),
            containers,
            agent,
            net,
            dockerd,
            dir,
        })
    }

    /// A file or folder of the node's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Builds an image of the test app on this node's Docker; answers its reference.
    ///
    /// # Errors
    /// The build failed.
    pub async fn image(&self, version: &str) -> Result<String> {
        self.image_with(version, &[]).await
    }

    /// The same with these variables of the test app.
    ///
    /// # Errors
    /// The build failed.
    pub async fn image_with(&self, version: &str, settings: &[(&str, &str)]) -> Result<String> {
        let app = App::create(self.dir.join(format!("app-{version}")), "lab", version)?;
        app.set(version, settings)?;
        let tag = format!("skep-lab/{}:{version}", self.name);
        self.containers.build(app.dir(), &tag).await?;
        Ok(tag)
    }

    /// Builds an image of the test app under this name and pushes it to its registry.
    ///
    /// # Errors
    /// Building or pushing failed.
    pub async fn push(&self, version: &str, reference: &str) -> Result<()> {
        let app = App::create(self.dir.join(format!("app-{version}")), "lab", version)?;
        self.containers.build(app.dir(), reference).await?;
        self.containers.push(reference).await
    }

    /// Ends its Docker, the containers with it, and starts it again.
    ///
    /// # Errors
    /// It does not end, or does not come back.
    pub async fn restart_docker(&self) -> Result<()> {
        self.dockerd.terminate(STOP).await?;
        self.dockerd.start().await?;
        wait::until_ok("dockerd to be back", START, async || {
            self.containers.docker().info().await?;
            Ok(())
        })
        .await
    }

    /// Ends it, its containers with it.
    ///
    /// # Errors
    /// Something does not end.
    pub async fn stop(&self) -> Result<()> {
        self.agent.kill().await?;
        self.net.kill().await?;
        self.dockerd.terminate(STOP).await.map(drop)
    }
}

fn dockerd(host: &Host, dir: &Path, socket: &Path) -> Process {
    let folder = |name: &str| dir.join(name).into_os_string();
    host.process("dockerd", Path::new("dockerd"))
        .args(["--data-root".into(), folder("docker")])
        .args(["--exec-root".into(), folder("docker-run")])
        .args(["--pidfile".into(), folder("docker.pid")])
        .args(["--host", &format!("unix://{}", socket.display())])
        .args(["--bip", BRIDGE_ADDRESS])
        // Registries of the lab speak without TLS.
        .args(["--insecure-registry", &format!("{}/24", host.address())])
}

fn parts(host: &Host, dir: &Path, docker: &Path, server: SocketAddr) -> Result<(Process, Process)> {
    let binary = place::skep_binary()?;
    let path = |name: &str| dir.join(name).into_os_string();
    let part = |name: &str| {
        let process = host.process(name, &binary);
        process
            .args([name, "--exit-with-parent"])
            .env("NO_COLOR", "1")
    };
    let net = part("net")
        .args(["--data-dir".into(), path("net")])
        .args(["--socket".into(), path("net.sock")])
        // Its own command line asks it on loopback.
        .args(["--ingress-addr", &format!("0.0.0.0:{INGRESS_PORT}")])
        .args(["--https-addr", &format!("0.0.0.0:{HTTPS_PORT}")])
        .args(["--admin-addr", &format!("127.0.0.1:{ADMIN_PORT}")]);
    let agent = part("agent")
        .args(["--data-dir".into(), path("agent")])
        .args(["--net-socket".into(), path("net.sock")])
        .args(["--server", &server.to_string(), "--name", host.name()])
        .args([Path::new("--docker-socket"), docker]);
    Ok((net, agent))
}
