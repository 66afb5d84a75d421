//! Certificates at scaled lifetimes: a cluster that was off for longer than they live comes back by
//! itself, and the cluster's CA is replaced under a running app without a failed request.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use skep_tests::load::Load;
use skep_tests::{Cluster, wait, with_cluster_set};

const LIFETIME: Duration = Duration::from_secs(12);
const RATE: u32 = 50;
const BACK: Duration = Duration::from_secs(60);
/// What a part gets to end by itself.
const STOP: Duration = Duration::from_secs(60);
/// What the agent says at the beginning of each session.
const SESSION: &str = "in session with a server";
/// What it says when it has slept for too long.
const RUN_OUT: &str = "the certificate has run out: renewing it by its key";

fn short_lives() -> Vec<(&'static str, String)> {
    let lifetime = format!("{}s", LIFETIME.as_secs());
    vec![("SKEP_CERTIFICATE_LIFETIME", lifetime)]
}

fn said(cluster: &Cluster, text: &str) -> usize {
    cluster.agent.log().matches(text).count()
}

async fn ready_nodes(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.skep.run(&["node", "ls", "--json"]).await?.json()?;
    let nodes = nodes.as_array().cloned().unwrap_or_default();
    ensure!(
        nodes.len() == 1 && nodes[0]["status"] == "ready",
        "{nodes:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_for_longer_than_certificates_live_it_comes_back_by_itself() {
    with_cluster_set("asleep", &short_lives(), async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        // Renewed again and again, and nothing that is connected notices.
        let sessions = said(cluster, SESSION);
        wait::until_ok("two renewals", 4 * LIFETIME, async || {
            match said(cluster, "the certificate is renewed") {
                0 | 1 => bail!("not yet"),
                _ => Ok(()),
            }
        })
        .await?;
        assert_eq!(said(cluster, SESSION), sessions, "the session went on");

        for part in [&cluster.agent, &cluster.server] {
            part.terminate(STOP).await?;
        }
        // Nothing can be waited for but time itself: everything is off.
        tokio::time::sleep(LIFETIME + Duration::from_secs(3)).await;
        cluster.start_all().await?;
        // The server remembers a ready node until the node has been silent for too long: what tells
        // that it came back is its own word.
        wait::until_ok("the agent to renew by its key", BACK, async || {
            ensure!(said(cluster, RUN_OUT) > 0, "not asked for");
            Ok(())
        })
        .await?;
        cluster.node_ready().await?;
        cluster.converged(&[(&name, 1)]).await?;
        let times = said(cluster, RUN_OUT);

        // The agent alone, switched on while its server already waits.
        cluster.agent.kill().await?;
        tokio::time::sleep(LIFETIME + Duration::from_secs(3)).await;
        cluster.agent.start().await?;
        wait::until_ok(
            "its certificate to be renewed by its key",
            BACK,
            async || {
                ensure!(said(cluster, RUN_OUT) > times, "not asked for");
                cluster.node_ready().await
            },
        )
        .await?;
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

async fn ca(cluster: &Cluster) -> Result<Value> {
    cluster.skep.run(&["ca", "show", "--json"]).await?.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_is_replaced_under_a_running_app() {
    with_cluster_set("rotation", &[], async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let before = cluster.bootstrap.ca_fingerprint.clone();
        assert_eq!(ca(cluster).await?["trusted"][0]["fingerprint"], before);
        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);
        let sessions = said(cluster, SESSION);

        let rotate = |step| ["ca", "rotate", "--step", step];
        cluster.skep.run(&rotate("finish")).await?.code(1)?;
        cluster.skep.run(&rotate("begin")).await?.ok()?;
        cluster.skep.run(&rotate("activate")).await?.ok()?;
        let auto = ["ca", "rotate", "--auto", "--timeout", "60s"];
        cluster
            .skep
            .run(&auto)
            .await?
            .says(&["nothing is being replaced"])?;
        assert_eq!(said(cluster, SESSION), sessions, "the session went on");

        // The context follows; what knows the old CA alone is refused, and told why.
        let now = ca(cluster).await?;
        assert_ne!(now["trusted"][0]["fingerprint"], before);
        assert_eq!(now["trusted"].as_array().map(Vec::len), Some(1));
        ready_nodes(cluster).await?;
        let login = [
            "login",
            "--server",
            &cluster.bootstrap.api,
            "--fingerprint",
            &before,
        ];
        cluster
            .skep
            .run_with_token(&cluster.bootstrap.token, &login)
            .await?
            .says(&["if its CA was replaced since, a new token or login is needed"])?;

        // Both sides come back under the new CA alone.
        for part in [&cluster.agent, &cluster.server] {
            part.kill().await?;
        }
        for part in [&cluster.server, &cluster.agent] {
            part.start().await?;
        }
        wait::until_ok("the node to be back", BACK, async || {
            ensure!(said(cluster, SESSION) > sessions, "no session yet");
            ready_nodes(cluster).await
        })
        .await?;
        let report = load.stop().await;
        assert_eq!(report.failed(), 0, "{report:?}");
        Ok(())
    })
    .await;
}
