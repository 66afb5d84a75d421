//! Ready images, and what can be done with a service that runs: roll back, restart, redeploy, scale,
//! stop, remove.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::{Cluster, wait, with_cluster};

/// Stopping and removing containers.
const GONE: Duration = Duration::from_secs(60);

async fn ids(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let containers = cluster.containers.of_cluster(&cluster.id).await?;
    Ok(containers
        .into_iter()
        .filter(|one| one.runs)
        .map(|one| one.id)
        .collect())
}

async fn none_left(cluster: &Cluster) -> Result<()> {
    wait::until_ok("the last container to go", GONE, async || {
        let left = cluster.containers.of_cluster(&cluster.id).await?;
        if !left.is_empty() {
            bail!("{left:#?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_follow_each_other_and_come_back() {
    with_cluster("images", async |cluster| {
        let name = Name::of("api");
        for version in ["1", "2"] {
            let image = cluster.image(version, &[]).await?;
            let arguments = [
                "deploy",
                "--image",
                &image,
                "--project",
                "api",
                "--service",
                "api",
            ];
            cluster
                .skep
                .run(&arguments)
                .await?
                .ok()?
                .says(&["builder: image", &cluster.host(&name)])?;
            cluster.answers(&name, version).await?;
        }
        cluster.converged(&[(&name, 1)]).await?;

        // Back to the release before, without a build; and to one that is named.
        cluster.skep.run(&["rollback", "api"]).await?.ok()?;
        cluster.answers(&name, "1").await?;
        let releases = cluster.api.get(&name.path("/releases")).await?;
        let live: Vec<_> = releases["releases"]
            .as_array()
            .context("a list")?
            .iter()
            .filter(|one| one["live"] == true)
            .map(|one| one["number"].clone())
            .collect();
        assert_eq!(live, [1], "{releases}");
        let back = cluster
            .api
            .live(&name, &json!({ "type": "rollback", "release": 2 }))
            .await?;
        assert!(!back.told().contains("building"), "{}", back.told());
        cluster.answers(&name, "2").await?;
        let problem = cluster.skep.run(&["rollback", "api", "99"]).await?;
        problem.code(2)?.says(&["99", "hint:"])?;

        // Restart: the same release in new containers. Redeploy: a new release of the same image.
        cluster.converged(&[(&name, 1)]).await?;
        let before = ids(cluster).await?;
        cluster.skep.run(&["restart", "api"]).await?.ok()?;
        cluster.converged(&[(&name, 1)]).await?;
        let after = ids(cluster).await?;
        assert!(before.is_disjoint(&after), "{before:?} {after:?}");
        let redeployed = cluster
            .api
            .live(&name, &json!({ "type": "redeploy" }))
            .await?;
        assert_eq!(redeployed.release, Some(3));
        cluster.answers(&name, "2").await?;

        // An image that nobody has.
        let request = json!({ "type": "image", "reference": "localhost:1/nobody/has-this:1" });
        let (missing, _) = cluster.api.fails(&name, &request).await?;
        assert_eq!(missing.code, "image_failed");
        assert!(missing.message.contains("nobody/has-this"), "{missing:?}");
        cluster.answers(&name, "2").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_grows_shrinks_stops_and_goes() {
    with_cluster("scale", async |cluster| {
        let (name, _) = cluster
            .service("web", "1", json!({ "update": { "drain_ms": 1000 } }))
            .await?;
        cluster.skep.run(&["scale", "web", "3"]).await?.ok()?;
        cluster.converged(&[(&name, 3)]).await?;
        let mut answering = BTreeSet::new();
        wait::until("all three to answer", GONE, async || {
            answering.insert(cluster.get(&name, "/").await?.text());
            Ok((answering.len() == 3).then_some(()))
        })
        .await?;
        cluster.skep.run(&["scale", "web", "1"]).await?.ok()?;
        cluster.converged(&[(&name, 1)]).await?;
        cluster.answers(&name, "1").await?;

        // More than fits: the reason names the resource and the shortfall, what runs goes on.
        let big = json!({ "resources": { "memory_bytes": 1u64 << 49 } });
        cluster.api.put_service(&name, big).await?;
        let (unplaceable, _) = cluster
            .api
            .fails(&name, &json!({ "type": "redeploy" }))
            .await?;
        assert_eq!(unplaceable.code, "unplaceable");
        assert!(unplaceable.told().contains("memory"), "{unplaceable:?}");
        cluster.answers(&name, "1").await?;

        // Stopped: no containers, and an answer that says why; the next deployment starts it again.
        cluster.api.put_service(&name, json!({})).await?;
        cluster.skep.run(&["stop", "web"]).await?.ok()?;
        none_left(cluster).await?;
        let answer = cluster.get(&name, "/").await?;
        assert!(
            matches!(answer.status, 404 | 503),
            "{} {}",
            answer.status,
            answer.text()
        );
        assert!(
            !answer.header("x-skep-error").is_empty(),
            "{:?}",
            answer.headers
        );
        cluster.skep.run(&["redeploy", "web"]).await?.ok()?;
        cluster.answers(&name, "1").await?;

        cluster.skep.run(&["rm", "web", "--yes"]).await?.ok()?;
        none_left(cluster).await?;
        wait::until_ok("the service to be gone", GONE, async || {
            cluster
                .api
                .refused(Method::GET, &name.path(""), None, 404)
                .await
        })
        .await?;
        cluster
            .skep
            .run(&["ps", "web"])
            .await?
            .code(1)?
            .says(&["web"])?;
        Ok(())
    })
    .await;
}
