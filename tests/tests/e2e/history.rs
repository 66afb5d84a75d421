//! The history on a PostgreSQL: deployments and their logs as ever, and a cluster that goes on when
//! the database does not.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::Value;
use skep_tests::api::Name;
use skep_tests::load::Load;
use skep_tests::postgres::Postgres;
use skep_tests::{Cluster, place, wait, with_cluster_set};

/// Requests a second while the database is gone.
const RATE: u32 = 50;
/// Until the history is used again once its database is back.
const RETURNS: Duration = Duration::from_secs(60);

/// Deploys the app with the command line; answers the path of the deployment's log.
async fn up(cluster: &Cluster, version: &str) -> Result<String> {
    let app = cluster.app(&format!("app-{version}"), version)?;
    let command = ["up", app.path()?, "--project", "web", "--service", "web"];
    cluster.skep.run(&command).await?.ok()?;
    let name = Name::of("web");
    cluster.answers(&name, version).await?;
    let all = cluster.api.get(&name.path("/deployments")).await?;
    let id = all["deployments"][0]["id"]
        .as_str()
        .context("a deployment")?;
    Ok(format!("/v1/deployments/{id}/logs"))
}

/// How many events of this kind there are, numbered without a gap.
async fn count(cluster: &Cluster, log: &str, kind: &str) -> Result<usize> {
    let page = cluster.api.get(log).await?;
    let events = page["events"].as_array().context("events")?;
    for (event, number) in events.iter().zip(1..) {
        if event["seq"].as_u64() != Some(number) {
            bail!("a gap in {events:?}");
        }
    }
    Ok(events.iter().filter(|event| event["kind"] == kind).count())
}

async fn is_ok(cluster: &Cluster) -> Result<Value> {
    let status = cluster.api.get("/v1/status").await?;
    Ok(status["history"]["ok"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_without_its_history_and_takes_it_up_again() {
    let address = place::free_address().expect("a port");
    let mut postgres = Postgres::start(Some(address)).expect("PostgreSQL");
    let settings = [("SKEP_HISTORY", postgres.url())];
    with_cluster_set("history", &settings, async |cluster| -> Result<()> {
        let first = up(cluster, "1").await?;
        assert!(count(cluster, &first, "log").await? > 0);
        assert!(
            !cluster.path("server/history.db").exists(),
            "it is not in a file"
        );

        // Gone: builds, deployments and traffic go on; reading the history says what is wrong.
        let load = Load::start(cluster.ingress, &cluster.host(&Name::of("web")), RATE);
        postgres.stop();
        let second = up(cluster, "2").await?;
        let problem = cluster.api.refused(Method::GET, &second, None, 503).await?;
        assert_eq!(problem.code, "unavailable");
        assert!(problem.told().contains("history"), "{problem:?}");
        problem.with_hint()?;
        assert_eq!(is_ok(cluster).await?, false);
        // A server that starts meanwhile, too.
        cluster.server.kill().await?;
        cluster.server.start().await?;
        cluster.server_answers().await?;
        cluster.node_ready().await?;
        cluster.converged(&[(&Name::of("web"), 1)]).await?;
        let report = load.stop().await;
        assert_eq!(report.failed(), 0, "{report:?}");

        // Back: by itself. What the state still knows of the time between is there as well.
        postgres.resume()?;
        let kept = wait::until_ok("the history", RETURNS, async || {
            count(cluster, &first, "log").await
        });
        assert!(kept.await? > 0);
        assert!(count(cluster, &second, "step").await? > 0);
        let third = up(cluster, "3").await?;
        assert!(count(cluster, &third, "log").await? > 0);
        assert_eq!(is_ok(cluster).await?, true);
        Ok(())
    })
    .await;
}
