//! A cluster of one server, one agent and one data plane: real child processes with a folder, ports
//! and containers of their own, so that tests run beside each other. What it made it removes.

mod plan;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::api::{Api, Deployment, Name};
use crate::app::App;
use crate::containers::{Containers, default_socket};
use crate::http::{self, Answer};
use crate::process::Process;
use crate::room::Room;
use crate::skep::Skep;
use crate::{chaos, wait};

use plan::Plan;

/// Clusters at once: Docker starts about seven containers a second on two cores, whoever asks.
const CLUSTERS: u32 = 3;
static ROOM: Semaphore = Semaphore::const_new(CLUSTERS as usize);
/// Between two looks whether a process still runs.
const LOOK: Duration = Duration::from_millis(200);
/// A part that is not ready by then does not start.
const READY: Duration = Duration::from_secs(90);
/// What converges does so long before.
const CONVERGE: Duration = Duration::from_secs(90);

/// What a server writes once it is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct Bootstrap {
    /// URL of the API on TLS.
    pub api: String,
    /// Fingerprint of the cluster's CA.
    pub ca_fingerprint: String,
    /// That CA.
    pub ca_pem: String,
    /// The admin's bearer token.
    pub token: String,
    /// A token to join with.
    pub join_token: String,
    /// `host:port` where agents are taken.
    pub agents: String,
}

/// A running cluster.
pub struct Cluster {
    /// Unique to this run: prefix of names and images.
    pub run: String,
    /// The control plane.
    pub server: Process,
    /// The agent.
    pub agent: Process,
    /// The data plane.
    pub net: Process,
    /// The API, with the admin's token.
    pub api: Api,
    /// The command line, logged in.
    pub skep: Skep,
    /// The embedded ingress.
    pub ingress: SocketAddr,
    /// The same under TLS.
    pub https: SocketAddr,
    /// Admin endpoint of the data plane.
    pub net_admin: SocketAddr,
    /// Where the data plane asks for Traefik's API.
    pub traefik_api: SocketAddr,
    /// Admin endpoint of the agent.
    pub agent_admin: SocketAddr,
    /// Docker, beside Skep.
    pub containers: Containers,
    /// How to reach the server.
    pub bootstrap: Bootstrap,
    /// The cluster's id.
    pub id: String,
    dir: PathBuf,
    /// Where the agent has files of secrets; the folder `offered` of the cluster's own is what apps may
    /// have of the machine, and `shared` its storage `shared`, once a test mounts something there.
    pub memory: PathBuf,
}

/// Runs a test on a cluster of its own, on the machine's Docker daemon.
///
/// # Panics
/// When the test fails, after its logs were printed and its traces removed.
pub async fn with_cluster(name: &str, test: impl AsyncFnOnce(&Cluster) -> Result<()>) {
    with_cluster_set(name, &[], test).await;
}

/// The same with no other cluster beside it: for what fills the machine, or would be misled by whoever
/// does.
///
/// # Panics
/// As `with_cluster`.
pub async fn with_cluster_alone(name: &str, test: impl AsyncFnOnce(&Cluster) -> Result<()>) {
    if let Err(error) = run((&default_socket(), CLUSTERS), name, &[], test).await {
        panic!("{name}: {error:#}");
    }
}

/// The same with these variables in the server's environment.
///
/// # Panics
/// As `with_cluster`.
pub async fn with_cluster_set(
    name: &str,
    server: &[(&str, String)],
    test: impl AsyncFnOnce(&Cluster) -> Result<()>,
) {
    if let Err(error) = run((&default_socket(), 1), name, server, test).await {
        panic!("{name}: {error:#}");
    }
}

/// The same for what starts nothing on Docker and waits most of its time: it takes nobody's place, and keeps nobody who has to be
/// alone waiting.
///
/// # Panics
/// As `with_cluster`.
pub async fn with_cluster_that_waits(name: &str, test: impl AsyncFnOnce(&Cluster) -> Result<()>) {
    if let Err(error) = run_in_room(&default_socket(), name, &[], test).await {
        panic!("{name}: {error:#}");
    }
}

/// The same on the daemon behind `docker_socket`.
///
/// # Errors
/// The test failed; its logs were printed and its traces removed.
pub async fn with_cluster_on(
    docker_socket: &str,
    name: &str,
    test: impl AsyncFnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    run((docker_socket, 1), name, &[], test).await
}

async fn run(
    (docker_socket, room): (&str, u32),
    name: &str,
    server: &[(&str, String)],
    test: impl AsyncFnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    // With the full numbers nothing runs beside: what is counted is Skep, not the neighbours.
    let permits = if chaos::is_full() { CLUSTERS } else { room };
    let _own = ROOM.acquire_many(permits).await.expect("never closed");
    let _room = match permits {
        CLUSTERS => Room::alone().await?,
        _ => Room::shared().await?,
    };
    run_in_room(docker_socket, name, server, test).await
}

/// Whoever is beside it.
async fn run_in_room(
    docker_socket: &str,
    name: &str,
    server: &[(&str, String)],
    test: impl AsyncFnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("skep-").tempdir()?;
    let plan = Plan::make(name, dir.path(), docker_socket)?.with_server(server);
    let outcome = plan.run(test).await;
    let cleaned = plan
        .clean(docker_socket)
        .await
        .context("the traces of the test stay");
    if outcome.is_err() && std::env::var_os("SKEP_KEEP").is_some() {
        println!("kept: {}", dir.keep().display());
    }
    outcome.and(cleaned)
}

/// The first time; an agent that has ended is waited for no longer.
async fn wait_for_first(api: &Api, agent: &Process) -> Result<Value> {
    let ended = async {
        while agent.is_running().await? {
            tokio::time::sleep(LOOK).await;
        }
        bail!("the agent has ended: {}", agent.log())
    };
    tokio::select! {
        seen = wait_for_node(api) => seen,
        ended = ended => ended,
    }
}

async fn wait_for_node(api: &Api) -> Result<Value> {
    wait::until_ok("a ready node with an ingress", READY, async || {
        let status = api.get("/v1/status").await?;
        if status["nodes"]["ready"] != 1 || status["ingress_port"].is_null() {
            bail!("status {status}");
        }
        Ok(status)
    })
    .await
}

impl Cluster {
    /// A folder or file of this cluster.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A folder with the test app at this version.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn app(&self, name: &str, version: &str) -> Result<App> {
        App::create(self.path(name), &self.run, version)
    }

    /// Builds an image of the test app with Docker alone; answers its reference.
    ///
    /// # Errors
    /// The build failed.
    pub async fn image(&self, version: &str, settings: &[(&str, &str)]) -> Result<String> {
        let app = self.app(&format!("image-{version}"), version)?;
        app.set(version, settings)?;
        self.image_of(&app, version).await
    }

    /// Builds an image of the test app with a shell beside it and no entry point, so that other commands
    /// can run in it; answers its reference.
    ///
    /// # Errors
    /// There is no static busybox, or the build failed.
    pub async fn shell_image(&self, version: &str) -> Result<String> {
        let app = self.app(&format!("shell-{version}"), version)?;
        app.set_shell(version)?;
        self.image_of(&app, version).await
    }

    /// Builds an image of a folder with Docker alone; answers its reference.
    ///
    /// # Errors
    /// The build failed.
    pub async fn image_of(&self, app: &App, version: &str) -> Result<String> {
        let tag = format!("skep-e2e/{}:{version}", self.run);
        self.containers.build(app.dir(), &tag).await?;
        Ok(tag)
    }

    /// Deploys the test app's image as a service that answers; `spec` holds what is not default.
    ///
    /// # Errors
    /// It did not become live or does not answer.
    pub async fn service(
        &self,
        name: &str,
        version: &str,
        spec: Value,
    ) -> Result<(Name, Deployment)> {
        let name = Name::of(name);
        let tag = self.image(version, &[]).await?;
        self.api.put_service(&name, spec).await?;
        let live = self
            .api
            .live(&name, &json!({ "type": "image", "reference": tag }))
            .await?;
        self.answers(&name, version).await?;
        Ok((name, live))
    }

    /// Host name of a service, as generated.
    pub fn host(&self, name: &Name) -> String {
        format!("{}-production-{}.localhost", name.service, name.project)
    }

    /// A GET through the ingress.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, name: &Name, path: &str) -> Result<Answer> {
        http::get(self.ingress, &self.host(name), path).await
    }

    /// Wants that the service answers 200 with this version, now.
    ///
    /// # Errors
    /// It answers something else.
    pub async fn answers(&self, name: &Name, version: &str) -> Result<()> {
        let answer = self.get(name, "/").await?;
        if answer.status != 200 || !answer.text().contains(&format!("version={version} ")) {
            bail!(
                "wanted version {version}, got {} {}",
                answer.status,
                answer.text()
            );
        }
        Ok(())
    }

    /// The environment of the app that answers.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn environment(&self, name: &Name) -> Result<BTreeMap<String, String>> {
        self.get(name, "/env").await?.json()
    }

    /// Waits until the node is ready, as the server sees it.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn node_ready(&self) -> Result<()> {
        wait_for_node(&self.api).await.map(drop)
    }

    /// Waits until the server is ready again.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn server_answers(&self) -> Result<()> {
        wait::until_ok("the server to be ready", READY, async || {
            let answer = self.api.call(::http::Method::GET, "/readyz", None).await?;
            if answer.status != 200 {
                bail!("{} {}", answer.status, answer.text());
            }
            Ok(())
        })
        .await
    }

    /// Starts whatever part does not run.
    ///
    /// # Errors
    /// A part cannot be started.
    pub async fn start_all(&self) -> Result<()> {
        for part in [&self.net, &self.server, &self.agent] {
            if !part.is_running().await? {
                part.start().await?;
            }
        }
        Ok(())
    }

    /// What is wrong between what the server wants and what Docker has; empty: nothing.
    ///
    /// # Errors
    /// The server or Docker does not answer.
    pub async fn differences(&self, wanted: &[(&Name, usize)]) -> Result<Vec<String>> {
        let allocations = self.api.allocations().await?;
        let live: Vec<_> = allocations
            .into_iter()
            .filter(|one| one.is_live())
            .collect();
        let containers = self.containers.of_cluster(&self.id).await?;
        let mut wrong = Vec::new();
        for container in &containers {
            if !live.iter().any(|one| one.id == container.allocation) {
                wrong.push(format!(
                    "orphan: container {} of {}",
                    container.id, container.allocation
                ));
            }
        }
        for allocation in &live {
            let own = containers
                .iter()
                .filter(|one| one.allocation == allocation.id);
            let running = own.filter(|one| one.runs).count();
            if running > 1 {
                wrong.push(format!("double: {running} containers of {}", allocation.id));
            }
            if running == 0 || allocation.state != "healthy" || allocation.desired != "run" {
                wrong.push(format!(
                    "unsettled: {allocation:?}, {running} containers run"
                ));
            }
        }
        for (name, count) in wanted {
            let has = live
                .iter()
                .filter(|one| one.service == name.service)
                .count();
            if has != *count {
                wrong.push(format!(
                    "count: {} has {has} allocations, wanted {count}",
                    name.service
                ));
            }
        }
        Ok(wrong)
    }

    /// Waits until there is no difference, and nothing more than what is wanted.
    ///
    /// # Errors
    /// There still is one at the end.
    pub async fn converged(&self, wanted: &[(&Name, usize)]) -> Result<()> {
        wait::until_ok("desired and real to be the same", CONVERGE, async || {
            let wrong = self.differences(wanted).await?;
            if !wrong.is_empty() {
                bail!("{wrong:#?}");
            }
            Ok(())
        })
        .await
    }
}
