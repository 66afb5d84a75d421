//! The Docker daemon itself goes away and comes back under a running agent, with its containers and without
//! (live-restore). On a daemon of the test's own: the machine's is everybody's.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::dockerd::Dockerd;
use skep_tests::load::Load;
use skep_tests::{Cluster, wait, with_cluster_on};

/// A health check of the daemon and its deadline, and what a busy machine adds.
const NOTICED: Duration = Duration::from_secs(40);
/// Containers are started again.
const HEALED: Duration = Duration::from_secs(60);
const RATE: u32 = 40;

async fn node_is(cluster: &Cluster, status: &str) -> Result<()> {
    wait::until_ok(&format!("the node to be {status}"), NOTICED, async || {
        let nodes = cluster.api.get("/v1/nodes").await?;
        if nodes["nodes"][0]["status"] != status {
            bail!("{nodes}");
        }
        Ok(())
    })
    .await
}

/// With live-restore apps outlive their daemon, and the agent takes them up as they are.
async fn restored_alive(cluster: &Cluster, daemon: &Dockerd, name: &Name) -> Result<()> {
    daemon.set_live_restore(true).await?;
    let now = async || {
        let all = cluster.containers.of_cluster(&cluster.id).await?;
        let running = all.into_iter().filter(|one| one.runs).map(|one| one.id);
        let restarts = cluster.api.live_allocations(name).await?[0].restarts;
        Ok::<_, anyhow::Error>((running.collect::<Vec<_>>(), restarts))
    };
    let before = now().await?;
    let load = Load::start(cluster.ingress, &cluster.host(name), RATE);
    daemon.stop().await?;
    node_is(cluster, "runtime_down").await?;
    daemon.start_again().await?;
    node_is(cluster, "ready").await?;
    cluster.converged(&[(name, 1)]).await?;
    let report = load.stop().await;
    ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
    let after = now().await?;
    ensure!(
        after == before && after.0.len() == 1,
        "{before:?} {after:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_was_stopped_is_told_and_healed() {
    let daemon = Dockerd::start()
        .await
        .expect("a Docker daemon of the test's own");
    let outcome = with_cluster_on(daemon.socket(), "daemon", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        cluster.converged(&[(&name, 1)]).await?;
        node_is(cluster, "ready").await?;

        daemon.stop().await?;
        node_is(cluster, "runtime_down").await?;
        cluster
            .skep
            .run(&["node", "ls"])
            .await?
            .ok()?
            .says(&["runtime"])?;
        // What needs the daemon waits and says for what.
        let made = cluster
            .api
            .deploy(&name, &json!({ "type": "redeploy" }))
            .await?;

        daemon.start_again().await?;
        node_is(cluster, "ready").await?;
        let ended = cluster.api.ended(&made.id).await?;
        assert_eq!(
            ended.status,
            "live",
            "{:?}\n{}",
            ended.problem,
            ended.told()
        );
        wait::until_ok("the app to answer", HEALED, async || {
            cluster.answers(&name, "1").await
        })
        .await?;
        cluster.converged(&[(&name, 1)]).await?;
        restored_alive(cluster, &daemon, &name).await
    })
    .await;
    daemon
        .remove()
        .await
        .expect("the daemon goes without a trace");
    outcome.expect("a daemon that was stopped");
}
