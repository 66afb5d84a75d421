//! `git push` where servers and nodes die. What git was told is there is built, whoever dies then; what it was not
//! told may be there or not, and can be pushed again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::app::App;
use skep_tests::git::git;
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::node::Node;
use skep_tests::lab::nodes::{Wanted, with_nodes};
use skep_tests::random::Random;
use skep_tests::skep::{Ended, Skep};
use skep_tests::wait;

use crate::pipeline::{SEEN, others, serves};

/// A node that is lost, a build that is given to another, and its step.
const MOVED: Duration = Duration::from_secs(120);
/// A history that takes a while to get through.
const LARGE: usize = 64 << 20;

/// A repository, and a git that trusts the cluster.
struct Work {
    app: App,
    name: Name,
    host: String,
    skep: Skep,
    ca: PathBuf,
    token: String,
}

impl Work {
    fn create(dir: &Path, cluster: &LabCluster) -> Result<Self> {
        let app = App::create(dir.join("work"), "lab", "v0")?;
        git(
            app.dir(),
            &["init", "--quiet", "--initial-branch=main", "."],
        )?;
        let ca = dir.join("ca.pem");
        std::fs::write(&ca, &cluster.servers.bootstrap().ca_pem)?;
        Ok(Self {
            app,
            name: Name::of("pushed"),
            host: "pushed-production-pushed.localhost".to_owned(),
            // Its git alone is run.
            skep: Skep::new(Path::new("skep"), dir),
            ca,
            token: cluster.servers.bootstrap().token.clone(),
        })
    }

    /// A commit that becomes this version, after so many seconds.
    fn commit(&self, version: &str, step_s: u64) -> Result<String> {
        let lines =
            format!("ENV VERSION={version}\nRUN busybox echo {version}; busybox sleep {step_s}");
        self.app.set_steps(&lines)?;
        let dir = self.app.dir();
        git(dir, &["add", "--all"])?;
        git(dir, &["commit", "--quiet", "--message", version])?;
        git(dir, &["rev-parse", "HEAD"])
    }

    async fn push(&self, cluster: &LabCluster, server: usize) -> Result<Ended> {
        let at = cluster.servers.server(server).site.api;
        let (token, path) = (&self.token, "git/pushed/production/pushed");
        let url = format!("https://git:{token}@{at}/{path}");
        let trust = format!("http.sslCAInfo={}", self.ca.display());
        let arguments = [
            "-c",
            &trust,
            "-c",
            "pack.compression=0",
            "push",
            &url,
            "main",
        ];
        self.skep.git(self.app.dir(), &arguments).await
    }

    async fn newest(&self, api: &Api) -> Result<Value> {
        let all = api.get(&self.name.path("/deployments")).await?;
        Ok(all["deployments"][0].clone())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_built_whoever_dies_then() {
    let wanted = Wanted {
        servers: 3,
        builders: 2,
        ..Wanted::nodes(2)
    };
    with_nodes("gitpush", wanted, async |cluster, nodes| {
        cluster.servers.settled().await?;
        let dir = tempfile::tempdir()?;
        let work = Work::create(dir.path(), cluster)?;
        first(cluster, nodes, &work).await?;
        leader_dies(cluster, nodes, &work).await?;
        builder_dies(cluster, nodes, &work).await
    })
    .await;
}

async fn first(cluster: &LabCluster, nodes: &[Node], work: &Work) -> Result<()> {
    let api = &cluster.servers.server(0).api;
    let spec = json!({ "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 } });
    api.put_service(&work.name, spec).await?;
    work.commit("v1", 0)?;
    let pushed = work.push(cluster, 1).await?.ok()?;
    pushed.says(&["kept on the nodes"])?;
    wait::until_ok("the first to serve", SEEN, async || {
        serves(&nodes[0], &work.host, "v1").await
    })
    .await
}

async fn builder_dies(cluster: &LabCluster, nodes: &[Node], work: &Work) -> Result<()> {
    let api = &cluster.servers.server(0).api;
    let commit = work.commit("v3", 6)?;
    work.push(cluster, 1)
        .await?
        .ok()?
        .says(&["kept on the nodes"])?;
    let at = wait::until_ok("the build to be given to a node", SEEN, async || {
        let newest = work.newest(api).await?;
        let name = newest["node"].as_str().context("nobody builds")?;
        nodes
            .iter()
            .position(|node| node.name == name)
            .context("one of ours")
    });
    let victim = at.await?;
    nodes[victim].agent.kill().await?;
    // The other has it, too, and is the only one that can.
    let survivor = &nodes[1 - victim];
    wait::until_ok("the other to serve it", MOVED, async || {
        serves(survivor, &work.host, "v3").await
    })
    .await?;
    let newest = work.newest(api).await?;
    ensure!(
        newest["commit"] == *commit && newest["node"] == *survivor.name,
        "{newest}"
    );
    Ok(())
}

async fn ready(api: &Api) -> Result<()> {
    wait::until_ok("both nodes to be ready", SEEN, async || {
        let status = api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == 2, "{status}");
        Ok(())
    })
    .await
}

/// The leader is killed while a pack is on its way through another server.
async fn leader_dies(cluster: &LabCluster, nodes: &[Node], work: &Work) -> Result<()> {
    let mut random = Random::new(11);
    let noise: Vec<u8> = (0..LARGE / 8)
        .flat_map(|_| random.next_u64().to_le_bytes())
        .collect();
    std::fs::write(work.app.dir().join("large.bin"), noise)?;
    let commit = work.commit("v2", 0)?;
    let (other, leader) = others(cluster).await?;
    let api = &cluster.servers.server(other).api;
    let before = work.newest(api).await?;
    let killed = async {
        let coming = async || {
            let stores = nodes
                .iter()
                .filter_map(|it| std::fs::read_dir(it.path("agent/pushed")).ok());
            let inside = stores
                .flatten()
                .flatten()
                .flat_map(|it| std::fs::read_dir(it.path()).into_iter().flatten());
            let is_coming = |name: String| name.starts_with("incoming-");
            let mut names = inside
                .flatten()
                .map(|it| it.file_name().to_string_lossy().into_owned());
            ensure!(names.any(is_coming), "nothing comes");
            Ok(())
        };
        wait::until_ok("the pack to come", SEEN, coming).await?;
        cluster.servers.kill(leader).await
    };
    let (pushed, killed) = tokio::join!(work.push(cluster, other), killed);
    let pushed = pushed?;
    println!("with the leader killed: {pushed}");
    killed?;
    cluster.servers.start(leader).await?;
    cluster.servers.settled().await?;
    ready(api).await?;
    let newest = work.newest(api).await?;
    if pushed.code == Some(0) {
        ensure!(
            newest["commit"] == *commit,
            "acknowledged, and it is {newest}"
        );
    } else {
        // Told as failed: it is there whole, or not at all.
        ensure!(
            newest["commit"] == *commit || newest["id"] == before["id"],
            "{newest}"
        );
        work.push(cluster, other).await?.ok()?;
    }
    wait::until_ok("the push to serve", SEEN, async || {
        serves(&nodes[0], &work.host, "v2").await
    })
    .await
}
