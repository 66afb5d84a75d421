//! Apps that misbehave and callers that may not: each gets a reason with advice, and the release
//! that serves goes on serving, which requests all the while prove.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Deployment, Name, Problem};
use skep_tests::load::Load;
use skep_tests::{Cluster, wait, with_cluster};

/// Enough to notice a gap, little enough to leave the machine to the others.
const RATE: u32 = 50;
const HEALS: Duration = Duration::from_secs(90);
/// For a leak of 2 MiB a second to reach 32 MiB, on a busy machine.
const LEAKED: Duration = Duration::from_secs(90);

/// Deploys the test app told to misbehave, and wants a failure.
async fn fails(
    cluster: &Cluster,
    name: &Name,
    tag: &str,
    settings: &[(&str, &str)],
) -> Result<(Problem, Deployment)> {
    let image = cluster.image(tag, settings).await?;
    cluster
        .api
        .fails(name, &json!({ "type": "image", "reference": image }))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_leaves_the_old_one_serving() {
    with_cluster("faults", async |cluster| {
        let spec = json!({
            "health": { "path": "/healthz", "deadline_ms": 3000 },
            "restart": { "attempts": 2, "delay_ms": 50, "window_ms": 60000, "max_delay_ms": 1000 },
            "update": { "drain_ms": 1000 },
        });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);

        let (exits, failed) = fails(cluster, &name, "exits", &[("EXIT_AT_ONCE", "3")]).await?;
        assert_eq!(exits.code, "crashed");
        assert!(exits.message.contains("code 3"), "{exits:?}");
        assert!(
            failed.told().contains("told to exit at once with 3"),
            "{}",
            failed.told()
        );

        let (sick, failed) = fails(cluster, &name, "sick", &[("FAIL_HEALTH", "1")]).await?;
        assert_eq!(sick.code, "never_healthy");
        assert!(
            sick.told().contains("500") && sick.told().contains("/healthz"),
            "{sick:?}"
        );
        assert!(failed.told().contains("listening on"), "{}", failed.told());

        let (slow, _) = fails(cluster, &name, "slow", &[("START_DELAY_MS", "60000")]).await?;
        assert_eq!(slow.code, "never_healthy");

        let image = cluster.image("odd", &[]).await?;
        let mut spec: Value = cluster.api.get(&name.path("")).await?["spec"].clone();
        spec["command"] = json!(["/no-such-program"]);
        cluster.api.put_service(&name, spec.clone()).await?;
        // The entry point stays the image's own, so that the argument is merely odd for it or,
        // where a command replaces it, cannot be started at all: either way nothing breaks.
        let made = cluster
            .api
            .deploy(&name, &json!({ "type": "image", "reference": image }))
            .await?;
        cluster.api.ended(&made.id).await?;

        let report = load.stop().await;
        assert_eq!(report.failed(), 0, "{report:?}");
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_end_are_started_again_or_made_to_end() {
    with_cluster("restarts", async |cluster| {
        let spec = json!({
            "stop_grace_ms": 1000, "update": { "drain_ms": 500 }, "restart": { "delay_ms": 50 },
        });
        let (name, _) = cluster.service("web", "1", spec).await?;

        // Killed behind Skep's back: started again, counted, and served as before.
        let all = cluster.containers.of_cluster(&cluster.id).await?;
        for container in all.iter().filter(|one| one.runs) {
            cluster.containers.kill(&container.id).await?;
        }
        wait::until_ok("the container to be started again", HEALS, async || {
            let live = cluster.api.live_allocations(&name).await?;
            if live.len() != 1 || live[0].restarts != 1 || live[0].state != "healthy" {
                bail!("{live:?}");
            }
            cluster.answers(&name, "1").await
        })
        .await?;
        cluster.converged(&[(&name, 1)]).await?;

        // The app crashes on request: the same.
        let _ = cluster.get(&name, "/crash").await?;
        wait::until_ok("the app to come back", HEALS, async || {
            let live = cluster.api.live_allocations(&name).await?;
            if live.iter().all(|one| one.restarts != 2) {
                bail!("{live:?}");
            }
            cluster.answers(&name, "1").await
        })
        .await?;

        // One that ignores SIGTERM: replaced all the same, killed after its grace.
        let stubborn = cluster
            .image("stubborn", &[("IGNORE_SIGTERM", "1")])
            .await?;
        cluster
            .api
            .live(&name, &json!({ "type": "image", "reference": stubborn }))
            .await?;
        cluster.converged(&[(&name, 1)]).await?;
        let next = cluster.image("next", &[]).await?;
        cluster
            .api
            .live(&name, &json!({ "type": "image", "reference": next }))
            .await?;
        cluster.answers(&name, "next").await?;
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_and_who_exceeds_them_is_told_so() {
    with_cluster("limits", async |cluster| {
        let spec = json!({
            "resources": { "memory_bytes": 32 << 20, "cpu_millis": 50, "cpu_limit_millis": 500 },
            "restart": { "attempts": 1, "delay_ms": 50, "max_delay_ms": 1000 },
        });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let all = cluster.containers.of_cluster(&cluster.id).await?;
        let container = all.first().context("a container")?;
        assert_eq!(
            cluster.containers.limits(&container.id).await?,
            (32 << 20, 500_000_000)
        );

        // Slowly enough for its agent to know what is usual.
        let leaks = cluster.image("leaks", &[("LEAK_MIB_PER_S", "2")]).await?;
        cluster
            .api
            .deploy(&name, &json!({ "type": "image", "reference": leaks }))
            .await?;
        // Begun anew, and each time it is said why.
        wait::until_ok("the leak to be told", LEAKED, async || {
            let all = cluster.api.allocations().await?;
            let again = all.iter().find(|one| one.restarts > 0);
            let again = again.context("none was begun anew")?;
            let problem = again.problem.as_ref().context("no reason")?;
            let told = problem.told();
            ensure!(
                told.contains("out of memory at 32 MiB; p95 was "),
                "{again:?}"
            );
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_the_right_token_gets_nothing() {
    with_cluster("tokens", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let deploy = json!({ "type": "restart" });
        for token in [
            "",
            "wrong",
            &cluster.bootstrap.token[1..],
            &cluster.bootstrap.join_token,
        ] {
            let api = Api::new(cluster.api.address(), token);
            let problem = api
                .refused(Method::POST, &name.path("/deployments"), Some(&deploy), 401)
                .await?;
            assert_eq!(problem.code, "unauthenticated");
            problem.with_hint()?;
            api.refused(Method::DELETE, &name.path(""), None, 401)
                .await?;
        }
        let (url, pin) = (
            cluster.bootstrap.api.as_str(),
            cluster.bootstrap.ca_fingerprint.as_str(),
        );
        let login = [
            "login",
            "--server",
            url,
            "--fingerprint",
            pin,
            "--name",
            "other",
        ];
        cluster
            .skep
            .run_with_token("wrong", &login)
            .await?
            .code(3)?
            .says(&["error:", "hint:"])?;
        // Another server's certificate is not accepted, whatever it answers.
        let login = [
            "login",
            "--server",
            url,
            "--fingerprint",
            &"0".repeat(64),
            "--name",
            "other",
        ];
        cluster
            .skep
            .run_with_token(&cluster.bootstrap.token, &login)
            .await?
            .code(3)?
            .says(&["fingerprint"])?;
        cluster.skep.run(&["ps"]).await?.ok()?;

        // No server at all.
        cluster.server.kill().await?;
        cluster.skep.run(&["ps"]).await?.code(3)?.says(&["hint:"])?;
        cluster.answers(&name, "1").await
    })
    .await;
}
