//! Load brings allocations and takes them away again while requests go on: not one is lost on the way,
//! and there it stops. What is deployed while a service sleeps is tried.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::load::Load;
use skep_tests::{Cluster, wait, with_cluster, with_cluster_alone};

/// Windows of ten seconds, several periods and starts, on a busy machine.
const SEEN: Duration = Duration::from_secs(120);
/// As many allocations as the busy load needs at least, at ten requests a second each.
const NEEDED: u64 = 4;
const MOST: u64 = 6;
const BUSY: u32 = 38;
const CALM: u32 = 3;
/// Calm requests after the last change during which there must be no other: twenty seconds of them.
const WATCHED: u64 = 60;

async fn show(cluster: &Cluster, name: &Name) -> Result<Value> {
    let arguments = ["autoscale", "show", "--json", &name.service];
    let scope = ["--project", &name.project];
    let all = [&arguments[..], &scope].concat();
    cluster.skep.run(&all).await?.json()
}

/// Waits until so many are wanted and healthy.
async fn has(cluster: &Cluster, name: &Name, fits: impl Fn(u64) -> bool) -> Result<u64> {
    wait::until_ok("allocations to follow the load", SEEN, async || {
        let shown = show(cluster, name).await?;
        let wanted = shown["wanted"].as_u64().context("a number")?;
        ensure!(fits(wanted) && shown["healthy"] == wanted, "{shown}");
        Ok(wanted)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_on_the_way_down_and_there_it_stops() {
    with_cluster_alone("autoscale", async |cluster| -> Result<()> {
        let autoscale = json!({
            "max": MOST, "targets": ["request_rate=10"], "down": "100%/10s",
            "stable_window_ms": 10_000, "burst_window_ms": 4_000, "down_window_ms": 10_000,
        });
        let update = json!({ "drain_ms": 2_000 });
        let spec = json!({ "autoscale": autoscale, "update": update, "stop_grace_ms": 2_000 });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let host = cluster.host(&name);

        let load = Load::start(cluster.ingress, &host, BUSY);
        let grown = has(cluster, &name, |wanted| wanted >= NEEDED).await?;
        ensure!(grown <= MOST, "{grown}");
        let busy = load.stop().await;

        let load = Load::start(cluster.ingress, &host, CALM);
        has(cluster, &name, |wanted| wanted == 1).await?;
        let until = load.so_far().served + WATCHED;
        wait::until_ok("it to be served by one", SEEN, async || {
            let (shown, served) = (show(cluster, &name).await?, load.so_far().served);
            assert_eq!(shown["wanted"], 1, "it stops there: {shown}");
            ensure!(served >= until, "{served} of {until}");
            Ok(())
        })
        .await?;
        let calm = load.stop().await;
        assert_eq!((busy.failed(), calm.failed()), (0, 0), "{busy:?} {calm:?}");

        let scope = [name.service.as_str(), "--project", &name.project];
        let arguments = [&["autoscale", "history"], &scope[..]].concat();
        let text = cluster.skep.run(&arguments).await?.ok()?;
        let text = text.says(&["1 -> ", "-> 1", "request rate", "target 10/s each"])?;
        println!(
            "autoscale: {} and {} requests served\n{}",
            busy.served, calm.served, text.stdout
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_release_does_not_become_live_because_the_service_sleeps() {
    with_cluster("asleep", async |cluster| -> Result<()> {
        let autoscale =
            json!({ "targets": ["in_flight=5"], "scale_to_zero": { "idle_ms": 4_000 } });
        let spec = json!({
            "autoscale": autoscale, "update": { "drain_ms": 1_000 }, "stop_grace_ms": 1_000,
            "health": { "path": "/healthz", "deadline_ms": 5_000 },
        });
        let (name, _) = cluster.service("web", "1", spec).await?;
        has(cluster, &name, |wanted| wanted == 0).await?;
        let broken = cluster.image("2", &[("FAIL_HEALTH", "1")]).await?;
        let request = json!({ "type": "image", "reference": broken });
        cluster.api.fails(&name, &request).await?;
        // The first request still wakes what was good.
        cluster.answers(&name, "1").await
    })
    .await;
}
