//! Repositories that are asked: a push that no forge tells of is deployed, and nothing is said or deployed twice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::git::{NO_COMMIT, Repository, git};
use skep_tests::webhook::{Delivery, push_body};
use skep_tests::{Cluster, wait, with_cluster};

/// A pause of ten seconds, a build and a rollout.
const DEPLOYED: Duration = Duration::from_secs(90);
/// A pause of ten seconds and a question.
const ASKED: Duration = Duration::from_secs(90);

/// A service of a repository that is asked every 10 s, live at version 1.
async fn polled(cluster: &Cluster, name: &Name) -> Result<Repository> {
    let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
    repository.push("main")?;
    let source = json!({ "type": "git", "repository": repository.url()?, "branch": "main" });
    let pushes = json!({ "poll_ms": 10_000 });
    let spec = json!({ "source": source, "pushes": pushes });
    cluster.api.put_service(name, spec).await?;
    cluster.api.live(name, &json!({ "type": "source" })).await?;
    Ok(repository)
}

async fn deployments(cluster: &Cluster, name: &Name) -> Result<Vec<Value>> {
    let page = cluster.api.get(&name.path("/deployments")).await?;
    let all = page["deployments"].as_array();
    Ok(all.with_context(|| page.to_string())?.clone())
}

async fn problem(cluster: &Cluster, name: &Name) -> Result<Option<String>> {
    let view = cluster.api.get(&name.path("")).await?;
    Ok(view["source_problem"]["message"]
        .as_str()
        .map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_nobody_tells_of_is_deployed_once() {
    with_cluster("polled", async |cluster| {
        let name = Name::of("polled");
        let repository = polled(cluster, &name).await?;
        let made = cluster.api.post(&name.path("/webhook"), &json!({})).await?;
        repository.app.set("2", &[])?;
        let second = repository.push("main")?;
        wait::until_ok("the second version", DEPLOYED, async || {
            cluster.answers(&name, "2").await
        })
        .await?;
        let all = deployments(cluster, &name).await?;
        assert_eq!(all.len(), 2, "{all:?}");
        ensure!(all.iter().any(|it| it["trigger"] == "poll"), "{all:?}");

        // A forge that tells of it late makes nothing; what it tells of first is not found a second time.
        let (path, secret) = (
            made["path"].as_str().context("path")?,
            made["secret"].as_str().context("secret")?,
        );
        let tell = async |id: &str, commit: &str| {
            let body = push_body("main", NO_COMMIT, commit)?;
            let delivery = Delivery::signed("push", id, body, secret);
            delivery.post(cluster.api.address(), path).await
        };
        assert_eq!(tell("late", &second).await?.status, 200);
        repository.app.set("3", &[])?;
        let third = repository.push("main")?;
        tell("first", &third).await?;
        wait::until_ok("the third version", DEPLOYED, async || {
            cluster.answers(&name, "3").await
        })
        .await?;
        // The next thing that is found shows that the third was looked at.
        let bare = std::path::Path::new(repository.url()?);
        git(bare, &["update-ref", "-d", "refs/heads/main"])?;
        let said = wait::until("the end of the branch", ASKED, async || {
            problem(cluster, &name).await
        })
        .await?;
        assert_eq!(said, "the repository has no branch `main`");
        let all = deployments(cluster, &name).await?;
        assert_eq!(all.len(), 3, "{all:?}");
        let told = cluster
            .skep
            .run(&["status", "polled/production/polled"])
            .await?
            .ok()?;
        told.says(&["no branch `main`"])?;
        cluster.answers(&name, "3").await?;

        // It is back where it was: nothing is to be done, and nothing is wrong.
        git(
            repository.app.dir(),
            &["push", "--quiet", "origin", "HEAD:refs/heads/main"],
        )?;
        wait::until("the branch", ASKED, async || {
            Ok(problem(cluster, &name).await?.is_none().then_some(()))
        })
        .await?;
        assert_eq!(deployments(cluster, &name).await?.len(), 3);
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}
