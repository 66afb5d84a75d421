//! The first request of a service that sleeps, beside its container's own start; and a hundred of them at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use serde_json::json;
use skep_tests::alone::run_alone;
use skep_tests::api::Name;
use skep_tests::figures::{Figure, p50};
use skep_tests::{Cluster, http, wait};
use tokio::time::sleep;

use super::{ROUNDS, SEEN};

const AT_ONCE: usize = 100;
/// Docker is still cleaning up after a removal when it says that it is done.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) async fn wake(cluster: &Cluster) -> Result<Vec<Figure>> {
    let image = cluster.image("1", &[]).await?;
    let autoscale = json!({ "targets": ["in_flight=50"], "scale_to_zero": { "idle_ms": 4_000 }, "down": "100%/1s",
        "stable_window_ms": 10_000, "burst_window_ms": 4_000, "down_window_ms": 10_000,
    });
    let spec = json!({
        "autoscale": autoscale, "update": { "drain_ms": 0 }, "stop_grace_ms": 1_000,
    });
    let (name, _) = cluster.service("web", "1", spec).await?;
    let host = cluster.host(&name);
    let (mut woken, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        asleep(cluster, &name).await?;
        let begun = Instant::now();
        let answer = http::get(cluster.ingress, &host, "/").await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        woken.push(begun.elapsed().as_secs_f64() * 1e3);
        asleep(cluster, &name).await?;
        alone.push(run_alone(cluster, &image).await?.as_secs_f64() * 1e3);
    }
    asleep(cluster, &name).await?;
    let first = join_all((0..AT_ONCE).map(|_| http::get(cluster.ingress, &host, "/"))).await;
    let failed = first
        .iter()
        .filter(|it| !matches!(it, Ok(answer) if answer.status == 200));
    let failed = failed.count() as f64;
    println!("woken after {woken:.0?} ms; the container alone {alone:.0?} ms");
    let (woken, alone) = (p50(&mut woken), p50(&mut alone));
    Ok(vec![
        Figure::alone("traffic.wake_overhead_ms", woken - alone, "ms")
            .beside("docker create+start to first 200, ms", alone),
        Figure::alone("failed of 100 first requests at once", failed, "requests"),
    ])
}

async fn asleep(cluster: &Cluster, name: &Name) -> Result<()> {
    wait::until_ok("the service to sleep", SEEN, async || {
        let live = cluster.api.live_allocations(name).await?;
        ensure!(live.is_empty(), "{live:?}");
        Ok(())
    })
    .await?;
    sleep(SETTLE).await;
    Ok(())
}
