//! Processes that are killed in the middle: the cluster converges, nothing is doubled or forgotten,
//! and no request notices.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::random::Random;
use skep_tests::{chaos, crash, wait, with_cluster};

const BACK: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_converges() {
    with_cluster("crash", async |cluster| -> Result<()> {
        let mut random = Random::of_run("crash");
        let rate = chaos::count(50, 100);
        let found = crash::rounds(cluster, &mut random, chaos::count(3, 20), rate).await?;
        assert_eq!(found.strays, Vec::<String>::new());
        assert_eq!(found.requests.failed(), 0, "{:?}", found.requests);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_upload_says_upload_again() {
    with_cluster("lost", async |cluster| -> Result<()> {
        let name = Name::of("lost");
        cluster.api.put_service(&name, json!({})).await?;
        // The builder has the beginning of the folder when it is killed: the rest cannot follow.
        let made = cluster
            .api
            .deploy(&name, &json!({ "type": "upload" }))
            .await?;
        let upload = made.origin["upload"].as_str().context("an upload")?;
        let gzip_magic = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        let sending = cluster.api.begin_upload(upload, &gzip_magic).await?;
        // Where it unpacks what comes: made once the two have met.
        let builds = cluster.path("node/agent/builds");
        let of_this = format!("build-{}-", made.id);
        wait::until("a node to receive", BACK, async || {
            let all = std::fs::read_dir(&builds).into_iter().flatten().flatten();
            let mut its = all.filter(|it| it.file_name().to_string_lossy().starts_with(&of_this));
            Ok(its.any(|it| it.path().join("src").is_dir()).then_some(()))
        })
        .await?;
        cluster.agent.kill().await?;
        cluster.agent.start().await?;
        let ended = cluster.api.ended(&made.id).await?;
        assert_eq!(ended.status, "failed", "{}", ended.told());
        let problem = ended.problem.context("a reason")?;
        assert!(problem.told().contains("upload again"), "{problem:?}");
        drop(sending);
        Ok(())
    })
    .await;
}
