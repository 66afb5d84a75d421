//! The wall clock of a node is set under its agent, forward and back by days: nothing is stopped, begun anew or
//! forgotten for it, and what ends is started again as ever.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::lab::Clock;
use skep_tests::load::Load;
use skep_tests::{Cluster, wait, with_cluster};
use tokio::process::Command;

const BACK: Duration = Duration::from_secs(60);
const RATE: u32 = 40;
/// More than a certificate lives, and than a job may take.
const DAYS: i64 = 2;
const DAY_S: i64 = 24 * 3_600;
const JOB_DEADLINE_MS: u64 = DAY_S as u64 * 1_000;

/// The container of a service that runs, by Docker's own word.
async fn running(cluster: &Cluster, service: &str) -> Result<String> {
    let all = cluster.containers.of_cluster(&cluster.id).await?;
    let mut own = all
        .into_iter()
        .filter(|one| one.runs && one.labels.values().any(|value| value.contains(service)));
    let found = own
        .next()
        .with_context(|| format!("{service} does not run"))?;
    ensure!(own.next().is_none(), "{service} runs twice");
    Ok(found.id)
}

/// Ends a container behind the agent's back, and wants another one.
async fn is_started_again(cluster: &Cluster, service: &str) -> Result<()> {
    let before = running(cluster, service).await?;
    cluster.containers.kill(&before).await?;
    wait::until_ok("it to be started again", BACK, async || {
        ensure!(running(cluster, service).await? != before, "not yet");
        Ok(())
    })
    .await
}

async fn date(days: i64) -> Result<String> {
    let asked = Command::new("date")
        .args(["-u", "+%F", "-d", &format!("{days} days")])
        .output();
    Ok(String::from_utf8(asked.await?.stdout)?.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_stops_nothing() {
    with_cluster("clock", async |cluster| {
        let (web, _) = cluster.service("web", "1", json!({})).await?;
        let (unlucky, _) = cluster.service("unlucky", "1", json!({})).await?;
        let job = Name::of("patient");
        let run = json!({ "mode": "batch", "deadline_ms": JOB_DEADLINE_MS });
        cluster
            .api
            .put_service(&job, json!({ "type": "worker", "run": run }))
            .await?;
        let image = json!({ "type": "image", "reference": cluster.image("job", &[]).await? });
        cluster.api.live(&job, &image).await?;

        cluster.agent.terminate(BACK).await?;
        let clock = Clock::new(cluster.path("clock"))?;
        let nothing = Path::new("");
        let mut agent = cluster.agent.like(nothing, nothing);
        for (name, value) in clock.environment()? {
            agent.set_env(name, value);
        }
        agent.start().await?;
        cluster.node_ready().await?;
        let kept = async || -> Result<[String; 2]> {
            Ok([
                running(cluster, "web").await?,
                running(cluster, "patient").await?,
            ])
        };
        let before = wait::until_ok("the job to run", BACK, kept).await?;
        let load = Load::start(cluster.ingress, &cluster.host(&web), RATE);
        for days in [DAYS, -DAYS] {
            clock.step(days * DAY_S)?;
            // With the clock as it is now, as its log shows.
            wait::until_ok("the agent to see it", BACK, async || {
                is_started_again(cluster, "unlucky").await?;
                ensure!(agent.log().contains(&date(days).await?), "not yet");
                Ok(())
            })
            .await?;
            ensure!(kept().await? == before, "{days} days");
        }

        // One that begins with such a clock trusts no certificate, and keeps what it has all the same.
        agent.kill().await?;
        clock.step(DAYS * DAY_S)?;
        agent.start().await?;
        is_started_again(cluster, "unlucky").await?;
        ensure!(kept().await? == before, "a start with a wrong clock");

        clock.step(0)?;
        cluster.node_ready().await?;
        let path = format!("/v1/jobs?project={}&service={}", job.project, job.service);
        let jobs = cluster.api.get(&path).await?;
        ensure!(jobs["jobs"][0]["status"] == "running", "{jobs}");
        wait::until_ok("both to be healthy", BACK, async || {
            for name in [&web, &unlucky] {
                let live = cluster.api.live_allocations(name).await?;
                ensure!(live.len() == 1 && live[0].state == "healthy", "{live:?}");
            }
            Ok(())
        })
        .await?;
        let report = load.stop().await;
        ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
        agent.kill().await
    })
    .await;
}
