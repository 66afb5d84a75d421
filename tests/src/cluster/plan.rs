//! Everything of a cluster that is known before anything runs, how its parts are started, and what
//! is removed or shown at its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::FutureExt;

use super::{Bootstrap, Cluster, READY, wait_for_first};
use crate::api::Api;
use crate::containers::Containers;
use crate::process::Process;
use crate::skep::Skep;
use crate::{place, wait};

/// Lines of each log that a failed test prints.
const LOG_LINES: usize = 80;

/// Everything that is known before anything runs.
pub(super) struct Plan {
    run: String,
    dir: PathBuf,
    parts: BTreeMap<&'static str, SocketAddr>,
    docker_socket: String,
    server: Vec<(String, String)>,
}

impl Plan {
    pub(super) fn make(name: &str, dir: &Path, docker_socket: &str) -> Result<Self> {
        let unique = dir
            .file_name()
            .and_then(|name| name.to_str())
            .context("a folder with a name")?;
        let unique = unique.trim_start_matches("skep-").to_ascii_lowercase();
        let mut parts = BTreeMap::new();
        for part in [
            "api",
            "http",
            "agents",
            "ingress",
            "https",
            "net_admin",
            "traefik",
            "traefik_api",
            "agent_admin",
        ] {
            parts.insert(part, place::free_address()?);
        }
        for folder in ["config", "node"] {
            // Private, as the parts want their folders.
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(dir.join(folder))?;
        }
        Ok(Self {
            run: format!("{name}-x{unique}"),
            dir: dir.to_owned(),
            parts,
            docker_socket: docker_socket.to_owned(),
            server: Vec::new(),
        })
    }

    /// The same with these variables in the server's environment.
    pub(super) fn with_server(mut self, variables: &[(&str, String)]) -> Self {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        self.server = owned.collect();
        self
    }

    fn address(&self, part: &str) -> String {
        self.parts[part].to_string()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn process(&self, name: &str, options: &[(&str, String)]) -> Result<Process> {
        let arguments = options
            .iter()
            .flat_map(|(name, value)| [(*name).to_owned(), value.clone()]);
        let process = Process::new(
            name,
            &place::skep_binary()?,
            self.dir.join(format!("{name}.log")),
        )
        .args([name, "--exit-with-parent"])
        .args(arguments)
        .env("NO_COLOR", "1");
        Ok(process)
    }

    /// Where the agent has files of secrets: in memory on every machine.
    fn memory(&self) -> PathBuf {
        Path::new("/dev/shm").join(&self.run)
    }

    fn server(&self) -> Result<Process> {
        let server = self.process(
            "server",
            &[
                ("--data-dir", self.path("server")),
                ("--key-file", self.path("operator.key")),
                ("--bootstrap", self.path("bootstrap.json")),
                ("--api-addr", self.address("api")),
                ("--http-addr", self.address("http")),
                ("--agent-addr", self.address("agents")),
                ("--base-domain", "localhost".to_owned()),
            ],
        )?;
        let set = |server: Process, (name, value): &(String, String)| server.env(name, value);
        Ok(self.server.iter().fold(server, set))
    }

    fn net(&self) -> Result<Process> {
        self.process(
            "net",
            &[
                ("--data-dir", self.path("node/net")),
                ("--socket", self.path("node/net.sock")),
                ("--ingress-addr", self.address("ingress")),
                ("--https-addr", self.address("https")),
                ("--admin-addr", self.address("net_admin")),
                ("--mesh-addr", "127.0.0.1:0".to_owned()),
                ("--traefik-port", self.parts["traefik"].port().to_string()),
                ("--traefik-tcp-port", "0".to_owned()),
                ("--traefik-api", self.address("traefik_api")),
            ],
        )
    }

    fn agent(&self, join_token: &str) -> Result<Process> {
        let agent = self.process(
            "agent",
            &[
                ("--data-dir", self.path("node/agent")),
                ("--net-socket", self.path("node/net.sock")),
                ("--server", self.address("agents")),
                ("--metrics-addr", self.address("agent_admin")),
                ("--docker-socket", self.docker_socket.clone()),
                ("--name", "one".to_owned()),
                ("--secrets-dir", self.memory().display().to_string()),
                ("--allow-host-path", self.path("offered")),
                (
                    "--shared-storage",
                    format!("shared={}", self.path("shared")),
                ),
                (
                    "--builder",
                    format!(
                        "script={}",
                        place::root().join("tests/fixtures/builder.sh").display()
                    ),
                ),
            ],
        )?;
        Ok(agent.env("SKEP_JOIN_TOKEN", join_token))
    }

    pub(super) async fn run(&self, test: impl AsyncFnOnce(&Cluster) -> Result<()>) -> Result<()> {
        let cluster = match self.start().await {
            Ok(cluster) => cluster,
            Err(error) => {
                self.print_logs();
                return Err(error.context("the cluster did not start"));
            }
        };
        let outcome = AssertUnwindSafe(test(&cluster)).catch_unwind().await;
        let outcome =
            outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(&*panic))));
        if outcome.is_err() {
            self.print_logs();
        }
        for part in [&cluster.agent, &cluster.server, &cluster.net] {
            part.kill().await?;
        }
        outcome
    }

    async fn start(&self) -> Result<Cluster> {
        let (net, server) = (self.net()?, self.server()?);
        net.start().await?;
        server.start().await?;
        let bootstrap = self.read_bootstrap(&server).await?;
        let agent = self.agent(&bootstrap.join_token)?;
        agent.start().await?;
        let api = Api::new(self.parts["http"], &bootstrap.token);
        let status = wait_for_first(&api, &agent).await?;
        let id = status["cluster"]
            .as_str()
            .context("the cluster has an id")?
            .to_owned();
        std::fs::write(self.dir.join("cluster.id"), &id)?;
        let skep = Skep::new(&place::skep_binary()?, &self.dir.join("config"));
        let login = [
            "login",
            "--server",
            &bootstrap.api,
            "--fingerprint",
            &bootstrap.ca_fingerprint,
        ];
        skep.run_with_token(&bootstrap.token, &login).await?.ok()?;
        Ok(Cluster {
            run: self.run.clone(),
            id,
            ingress: self.parts["ingress"],
            https: self.parts["https"],
            net_admin: self.parts["net_admin"],
            traefik_api: self.parts["traefik_api"],
            agent_admin: self.parts["agent_admin"],
            containers: Containers::connect(&self.docker_socket).await?,
            dir: self.dir.clone(),
            memory: self.memory(),
            server,
            agent,
            net,
            api,
            skep,
            bootstrap,
        })
    }

    async fn read_bootstrap(&self, server: &Process) -> Result<Bootstrap> {
        let path = self.dir.join("bootstrap.json");
        wait::until(
            "the server's bootstrap file",
            READY,
            async || match std::fs::read(&path) {
                Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
                Err(_) if server.is_running().await? => Ok(None),
                Err(_) => bail!("the server has ended"),
            },
        )
        .await
    }

    /// The cluster's id is read from the file that it leaves: a test may fail before it is known.
    pub(super) async fn clean(&self, docker_socket: &str) -> Result<()> {
        match std::fs::remove_dir_all(self.memory()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let Ok(containers) = Containers::connect(docker_socket).await else {
            // A daemon of the test's own, gone with all that it had.
            return Ok(());
        };
        let id = std::fs::read_to_string(self.dir.join("cluster.id")).ok();
        containers.clean(id.as_deref(), &self.run).await
    }

    fn print_logs(&self) {
        for part in ["server", "agent", "net"] {
            let log =
                std::fs::read_to_string(self.dir.join(format!("{part}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("--- {} {part}, last lines of {}", self.run, lines.len());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                println!("{line}");
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
