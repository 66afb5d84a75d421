//! Everything comes back from disk: the cluster as it was, its containers adopted, its routes served
//! before anybody else is up.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Method;
use serde_json::json;
use skep_tests::containers::{ALLOCATION_LABEL, CLUSTER_LABEL};
use skep_tests::load::Load;
use skep_tests::{Cluster, wait, with_cluster};

const BACK: Duration = Duration::from_secs(90);
const RATE: u32 = 50;
/// For as many changes as a snapshot is worth.
const SNAPSHOT: Duration = Duration::from_secs(150);
/// What a part gets to end by itself.
const STOP: Duration = Duration::from_secs(60);

async fn running(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let all = cluster.containers.of_cluster(&cluster.id).await?;
    Ok(all
        .into_iter()
        .filter(|one| one.runs)
        .map(|one| one.id)
        .collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_altogether_it_is_what_it_was() {
    with_cluster("restart", async |cluster| {
        let (one, _) = cluster
            .service("one", "1", json!({ "replicas": 2 }))
            .await?;
        let (two, _) = cluster.service("two", "2", json!({})).await?;
        cluster.converged(&[(&one, 2), (&two, 1)]).await?;
        let containers = running(cluster).await?;
        let services = cluster.api.get("/v1/services").await?;
        for part in [&cluster.server, &cluster.agent, &cluster.net] {
            part.kill().await?;
        }
        assert_eq!(running(cluster).await?, containers, "apps outlive Skep");

        // The net alone serves from its own disk.
        cluster.net.start().await?;
        for (name, version) in [(&one, "1"), (&two, "2")] {
            wait::until_ok("the net to serve", BACK, async || {
                cluster.answers(name, version).await
            })
            .await?;
        }
        let load = Load::start(cluster.ingress, &cluster.host(&one), RATE);

        // The agent without a server keeps things running, also what is killed meanwhile.
        cluster.agent.start().await?;
        let victim = cluster
            .containers
            .of_cluster(&cluster.id)
            .await?
            .into_iter()
            .find(|container| container.labels.values().any(|value| value.contains("two")));
        if let Some(victim) = victim {
            cluster.containers.kill(&victim.id).await?;
        }
        wait::until_ok("the agent alone to start it again", BACK, async || {
            cluster.answers(&two, "2").await
        })
        .await?;

        cluster.server.start().await?;
        cluster.node_ready().await?;
        cluster.converged(&[(&one, 2), (&two, 1)]).await?;
        let adopted = running(cluster).await?;
        assert!(
            adopted.intersection(&containers).count() >= 2,
            "{containers:?} {adopted:?}"
        );
        let now = cluster.api.get("/v1/services").await?;
        for index in 0..2 {
            assert_eq!(
                now["services"][index]["spec"],
                services["services"][index]["spec"]
            );
            assert_eq!(
                now["services"][index]["live"],
                services["services"][index]["live"]
            );
        }
        let report = load.stop().await;
        assert_eq!(report.failed(), 0, "{report:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_and_agent_stop_as_asked_and_apps_go_on() {
    with_cluster("graceful", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let containers = running(cluster).await?;
        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);
        for part in [&cluster.agent, &cluster.server] {
            let status = part.terminate(STOP).await?;
            assert!(status.success(), "{}: {status}", part.name());
        }
        assert_eq!(running(cluster).await?, containers);
        cluster.start_all().await?;
        cluster.node_ready().await?;
        cluster.converged(&[(&name, 1)]).await?;
        assert_eq!(running(cluster).await?, containers);
        let report = load.stop().await;
        assert_eq!(report.failed(), 0, "{report:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_and_doubles_go_and_strangers_stay() {
    with_cluster("strays", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        cluster.converged(&[(&name, 1)]).await?;
        let own = cluster.containers.of_cluster(&cluster.id).await?;
        let real = own.first().context("a container")?;
        cluster.agent.kill().await?;
        let with = |label: &str, value: &str| {
            let mut labels = real.labels.clone();
            labels.insert(label.to_owned(), value.to_owned());
            labels
        };
        // An allocation that nobody knows, a second container of one that lives, and one that
        // belongs to another cluster.
        let nobodys = "00000000000000000000000000";
        let orphan = cluster
            .containers
            .copy(&real.id, with(ALLOCATION_LABEL, nobodys))
            .await?;
        let double = cluster
            .containers
            .copy(&real.id, real.labels.clone())
            .await?;
        let stranger = cluster
            .containers
            .copy(&real.id, with(CLUSTER_LABEL, nobodys))
            .await?;
        let told = cluster.differences(&[(&name, 1)]).await?.join("\n");
        assert!(told.contains("orphan") && told.contains("double"), "{told}");

        cluster.agent.start().await?;
        cluster.node_ready().await?;
        let settled = cluster.converged(&[(&name, 1)]).await;
        let strangers_run = cluster.containers.runs(&stranger).await?;
        cluster.containers.remove(&stranger).await?;
        settled?;
        assert!(strangers_run, "a container of another cluster was touched");
        let left = [
            cluster.containers.runs(&orphan).await?,
            cluster.containers.runs(&double).await?,
        ];
        assert!(left != [true, true], "{left:?}");
        cluster.answers(&name, "1").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_takes_the_place_of_the_log() {
    with_cluster("snapshot", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let path = name.path("/variables");
        let snapshots = cluster.path("server/raft/snapshots");
        // Each change carries the whole of the service: the log grows by its size.
        let large = "x".repeat(60_000);
        let mut round = 0u32;
        wait::until("a snapshot", SNAPSHOT, async || {
            round += 1;
            let set = json!([{ "name": "LARGE", "value": large }, { "name": "ROUND", "value": round.to_string() }]);
            cluster.api.call(Method::PATCH, &path, Some(&json!({ "set": set, "redeploy": false }))).await?;
            let files = std::fs::read_dir(&snapshots).map(Iterator::count).unwrap_or(0);
            Ok((files > 0).then_some(()))
        })
        .await?;
        // What comes after the snapshot is in the log alone.
        let last = json!({ "set": [{ "name": "LAST", "value": "kept" }], "redeploy": false });
        let answer = cluster.api.call(Method::PATCH, &path, Some(&last)).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());

        for _ in 0..2 {
            let before = cluster.api.get(&path).await?;
            cluster.server.kill().await?;
            cluster.server.start().await?;
            cluster.node_ready().await?;
            assert_eq!(cluster.api.get(&path).await?, before);
            cluster.answers(&name, "1").await?;
        }
        let variables = cluster.api.get(&path).await?.to_string();
        assert!(variables.contains("kept") && variables.contains(&format!("\"{round}\"")), "round {round}");
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}
