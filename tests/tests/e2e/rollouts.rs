//! Rollouts in phases on real containers: who answers in each, what promote and abort do, and that no
//! request fails for it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::cluster::Cluster;
use skep_tests::load::Load;
use skep_tests::{wait, with_cluster};

const RATE: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(60);

async fn act(cluster: &Cluster, name: &Name, action: &str) -> Result<Value> {
    let body = json!({ "action": action });
    cluster.api.post(&name.path("/rollout"), &body).await
}

/// Once the new release has this many healthy allocations in this phase.
async fn reaches(cluster: &Cluster, name: &Name, phase: &str, healthy: u64) -> Result<()> {
    let what = format!("{healthy} healthy in the phase {phase}");
    wait::until(&what, PATIENCE, async || {
        let view = cluster.api.get(&name.path("/rollout")).await?;
        let rollout = &view["rollout"];
        let is_there = rollout["phase"]["type"] == phase
            && rollout["new"]["healthy"].as_u64() == Some(healthy);
        Ok(is_there.then_some(()))
    })
    .await
}

/// Until every one of several requests in a row is answered by this version: while the ingress still has the table of
/// before, which is a moment after the API has said so, some are and some are not.
async fn all_answer(cluster: &Cluster, name: &Name, version: &str) -> Result<()> {
    wait::until_ok("the table", PATIENCE, async || {
        for _ in 0..10 {
            cluster.answers(name, version).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_moves_at_once_and_comes_back_at_once() {
    with_cluster("bluegreen", async |cluster| -> Result<()> {
        let rollout = json!({ "strategy": "blue_green", "promote": "manual", "keep_ms": 600_000 });
        let spec = json!({ "replicas": 2, "rollout": rollout, "update": { "drain_ms": 2000 },
            "stop_grace_ms": 2000 });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let next = cluster.image("2", &[]).await?;
        let request = json!({ "type": "image", "reference": next });
        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);

        let tried = cluster.api.deploy(&name, &request).await?;
        reaches(cluster, &name, "trial", 2).await?;
        all_answer(cluster, &name, "1").await?;
        act(cluster, &name, "promote").await?;
        all_answer(cluster, &name, "2").await?;
        assert_eq!(cluster.api.live_allocations(&name).await?.len(), 4);
        act(cluster, &name, "abort").await?;
        all_answer(cluster, &name, "1").await?;
        assert_eq!(cluster.api.ended(&tried.id).await?.status, "canceled");
        cluster.converged(&[(&name, 2)]).await?;

        let moved = cluster.api.deploy(&name, &request).await?;
        reaches(cluster, &name, "trial", 2).await?;
        act(cluster, &name, "promote").await?;
        act(cluster, &name, "promote").await?;
        assert_eq!(cluster.api.ended(&moved.id).await?.status, "live");
        all_answer(cluster, &name, "2").await?;
        cluster.converged(&[(&name, 2)]).await?;
        let report = load.stop().await;
        assert_eq!(report.failed(), 0, "{report:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_waits_beside_the_live_release_until_it_is_promoted() {
    with_cluster("canary", async |cluster| -> Result<()> {
        let rollout = json!({ "strategy": "canary", "steps": [{ "percent": 50 }] });
        let spec = json!({ "replicas": 2, "rollout": rollout, "update": { "drain_ms": 1000 },
            "stop_grace_ms": 2000 });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let next = cluster.image("2", &[]).await?;
        let request = json!({ "type": "image", "reference": next });
        let made = cluster.api.deploy(&name, &request).await?;
        reaches(cluster, &name, "canary", 1).await?;
        assert_eq!(cluster.api.live_allocations(&name).await?.len(), 3);
        act(cluster, &name, "pause").await?;
        let promote = json!({ "action": "promote" });
        let refused = cluster.api.post(&name.path("/rollout"), &promote).await;
        assert!(refused.is_err(), "paused");
        act(cluster, &name, "resume").await?;
        act(cluster, &name, "promote").await?;
        assert_eq!(cluster.api.ended(&made.id).await?.status, "live");
        all_answer(cluster, &name, "2").await?;
        cluster.converged(&[(&name, 2)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_serves_errors_goes_back_by_itself_and_a_good_one_does_not() {
    with_cluster("analysis", async |cluster| -> Result<()> {
        // Nobody promotes it: it stays until it is judged.
        let rollout = json!({ "strategy": "canary", "steps": [{ "percent": 50 }] });
        let spec = json!({ "replicas": 2, "rollout": rollout, "update": { "drain_ms": 1000 },
            "stop_grace_ms": 2000 });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);
        let deploy = async |version: &str, settings: &[(&str, &str)]| -> Result<_> {
            let image = cluster.image(version, settings).await?;
            let request = json!({ "type": "image", "reference": image });
            cluster.api.deploy(&name, &request).await
        };

        let bad = deploy("2", &[("FAIL_REQUESTS", "1")]).await?;
        let ended = cluster.api.ended(&bad.id).await?;
        let problem = ended.problem.as_ref().context("why")?;
        assert_eq!(
            (ended.status.as_str(), problem.code.as_str()),
            ("failed", "regressed"),
            "{}",
            ended.told()
        );
        assert!(problem.told().contains("requests failed"), "{problem:?}");
        all_answer(cluster, &name, "1").await?;
        cluster.converged(&[(&name, 2)]).await?;
        let report = load.stop().await;
        assert!(report.failed() > 0, "what nobody was served is not judged");
        assert!(
            report.failures.keys().all(|cause| cause.contains("500")),
            "{report:?}"
        );
        println!(
            "{} of {} requests failed before it went back",
            report.failed(),
            report.served
        );

        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);
        let good = deploy("3", &[]).await?;
        reaches(cluster, &name, "canary", 1).await?;
        let wanted = 300;
        let compared = async || {
            let view = cluster.api.get(&name.path("/rollout")).await?;
            let both = &view["rollout"]["compared"];
            let requests = |which: &str| both[which]["requests"].as_u64().unwrap_or(0);
            ensure!(
                requests("new") >= wanted && requests("live") >= wanted,
                "{view}"
            );
            ensure!(both["new"]["failed"] == 0, "{both}");
            Ok(())
        };
        wait::until_ok("both releases to have had requests", PATIENCE, compared).await?;
        act(cluster, &name, "promote").await?;
        assert_eq!(cluster.api.ended(&good.id).await?.status, "live");
        all_answer(cluster, &name, "3").await?;
        let report = load.stop().await;
        assert_eq!(report.failed(), 0, "{report:?}");
        Ok(())
    })
    .await;
}
