//! A node whose disk fills up: a build that would fill it is stopped, nothing more is brought in, everybody is
//! told, and what runs there runs on. On a Docker daemon whose data lies on a small disk of its own.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::containers::TEST_LABEL;
use skep_tests::dockerd::Dockerd;
use skep_tests::{Cluster, wait, with_cluster_on};

/// Docker's disk: the test app's image and a build's need some tens of MiB.
const DISK_MIB: u32 = 320;
/// The low mark; half of it is kept for what runs. What a build writes in half a second is less.
const LOW_WATER: &str = "120MiB";
/// What an app's volume may grow to: less than half of the low mark stays.
const FILLER_MIB: u32 = 270;
/// What is left of a disk beside the filler when the build is gone from it: some more than that.
const ROOM_MIB: u64 = 280;
/// A look at the disk, and the way of a node's word to the server; on a busy machine.
const SEEN: Duration = Duration::from_secs(90);
/// The agent's last word.
const END: Duration = Duration::from_secs(30);

/// What the node says of its disk.
async fn warnings(cluster: &Cluster) -> Result<Vec<String>> {
    let nodes = cluster.api.get("/v1/nodes").await?;
    let machine = &nodes["nodes"][0]["facts"]["machine"];
    let warnings = machine["warnings"].as_array().into_iter().flatten();
    let texts = warnings.filter_map(|it| it["text"].as_str().map(str::to_owned));
    Ok(texts
        .filter(|text| text.contains("the disk under"))
        .collect())
}

/// Writes forty MiB a second until it is stopped, or there is no room.
fn greedy(run: &str) -> String {
    let write = "while busybox dd if=/dev/zero bs=1M count=8 >> /big; do busybox sleep 0.2; done";
    format!(
        "FROM scratch\nLABEL {TEST_LABEL}={run}\nCOPY busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"sh\", \"-c\", \"{write}\"]\n"
    )
}

/// Wants that a folder's build fails; all that was said.
async fn fails(cluster: &Cluster, app: &str) -> Result<String> {
    let up = ["up", app, "--project", "greedy", "--service", "greedy"];
    let failed = cluster.skep.run(&up).await?;
    ensure!(failed.code != Some(0), "{failed}");
    Ok(failed.to_string())
}

fn free_mib(path: &Path) -> Result<u64> {
    let about = rustix::fs::statvfs(path)?;
    Ok((about.f_bavail * about.f_frsize) >> 20)
}

fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let piece = vec![1; 1 << 20];
    for _ in 0..FILLER_MIB {
        if file.write_all(&piece).is_err() {
            // All of it: that will do.
            break;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_is_said_and_the_node_serves_on() {
    let daemon = Dockerd::start_small(DISK_MIB)
        .await
        .expect("a daemon on a small disk");
    let outcome = with_cluster_on(daemon.socket(), "disk", async |cluster| {
        cluster.agent.terminate(END).await?;
        let nothing = Path::new("");
        let agent = cluster.agent.like(nothing, nothing);
        let agent = agent.env("SKEP_DISK_LOW_WATER", LOW_WATER);
        agent.start().await?;
        cluster.node_ready().await?;
        let outcome = fills_up(cluster, &daemon).await;
        agent.terminate(END).await?;
        outcome
    })
    .await;
    daemon
        .remove()
        .await
        .expect("the daemon goes without a trace");
    outcome.expect("a disk that fills up");
}

async fn fills_up(cluster: &Cluster, daemon: &Dockerd) -> Result<()> {
    let (name, first) = cluster.service("web", "1", json!({})).await?;
    let app = cluster.app("greedy", "1")?;
    std::fs::copy("/bin/busybox", app.dir().join("busybox")).context("busybox-static")?;
    app.write("Dockerfile", &greedy(&cluster.run))?;
    let said = warnings(cluster).await?;
    ensure!(said.is_empty(), "{said:?}");

    // Stopped while there is room for what runs.
    let said = fails(cluster, app.path()?).await?;
    ensure!(
        said.contains("the build: this node's disk is full"),
        "{said}"
    );
    ensure!(said.contains("kept for what runs"), "{said}");
    cluster.answers(&name, "1").await?;

    // Docker removes what the build has written after it has been told to stop.
    let filler = daemon.data("filler");
    let data = filler.parent().context("a folder")?;
    wait::until_ok("what the build has written to go", SEEN, async || {
        let free = free_mib(data)?;
        ensure!(free >= ROOM_MIB, "{free} MiB are free");
        Ok(())
    })
    .await?;

    // Something else fills it: the node says so (and may have said it of the build and have taken it back), takes
    // no builds, and serves.
    fill(&filler)?;
    wait::until_ok("the node to say that its disk is full", SEEN, async || {
        let said = warnings(cluster).await?;
        ensure!(
            said.iter().any(|text| text.contains("all but full")),
            "{said:?}"
        );
        let shown = cluster.skep.run(&["node", "show", "one"]).await?.ok()?;
        shown.says(&["all but full", "docker system df"])
    })
    .await?;
    let said = fails(cluster, app.path()?).await?;
    ensure!(
        said.contains("the build: this node's disk is full"),
        "{said}"
    );
    cluster.answers(&name, "1").await?;
    // What is here can be deployed again: nothing has to come for it.
    let live = cluster
        .api
        .live(&name, &json!({ "type": "redeploy" }))
        .await?;
    ensure!(live.id != first.id, "{live:?}");
    cluster.answers(&name, "1").await?;

    std::fs::remove_file(&filler)?;
    wait::until_ok("the node to take it back", SEEN, async || {
        let said = warnings(cluster).await?;
        ensure!(said.is_empty(), "{said:?}");
        Ok(())
    })
    .await?;
    never_pulled(cluster).await
}

/// What is not there and must not be pulled fails at once, without a word to a registry.
async fn never_pulled(cluster: &Cluster) -> Result<()> {
    let name = Name::of("never");
    let spec = json!({ "image": { "pull": "never" } });
    cluster.api.put_service(&name, spec).await?;
    let asked = json!({ "type": "image", "reference": "registry.invalid/app:1" });
    let (problem, ended) = cluster.api.fails(&name, &asked).await?;
    ensure!(problem.told().contains("image.pull"), "{problem:?}");
    ensure!(!ended.told().contains("pulling"), "{}", ended.told());
    Ok(())
}
