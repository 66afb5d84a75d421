//! `make bench-logs`: fifty containers that write as fast as they can, all of them through one agent and followed
//! by one who wants all of it, on a Docker daemon of the bench's own. Within what is kept no line may be lost;
//! beyond it what is missing is said, to the byte. Beside it what the agent holds while it lasts, and how long
//! another app's requests take: calm, in a flood that nobody reads, and in one that is read. Prints a table, writes
//! `target/bench/logs.json` and the section of docs/benchmarks.md; with `within` or `beyond` runs only that and
//! writes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Method;
use serde_json::json;
use skep_tests::dockerd::Dockerd;
use skep_tests::figures::{Figure, publish, quantile, table};
use skep_tests::flood::{self, Gap, Latency, Seen};
use skep_tests::process::Process;
use skep_tests::{Cluster, with_cluster_on};
use tokio_util::sync::CancellationToken;

const CONTAINERS: usize = 50;
/// Lines of each, of about 1.1 KB in Docker's files: less than two of the three files, the two that are always full.
const WITHIN: u64 = 18_000;
/// Three times what is kept.
const BEYOND: u64 = 80_000;
/// How long requests are timed while nothing else happens.
const CALM: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);
const MIB: f64 = 1024.0 * 1024.0;
const HEADING: &str = "## Logs under flood: `make bench-logs`";
const PARTS: [&str; 2] = ["within", "beyond"];

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    for word in &words {
        ensure!(PARTS.contains(&word.as_str()), "{word}: one of {PARTS:?}");
    }
    let wants = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let daemon = Dockerd::start().await?;
    let mut figures = Vec::new();
    let measured = async {
        if wants("within") {
            with_cluster_on(daemon.socket(), "within", async |cluster| {
                within(cluster, &mut figures).await
            })
            .await?;
        }
        if wants("beyond") {
            with_cluster_on(daemon.socket(), "beyond", async |cluster| {
                beyond(cluster, &mut figures).await
            })
            .await?;
        }
        anyhow::Ok(())
    };
    let measured = measured.await;
    daemon.remove().await?;
    measured?;
    println!("{}", table(&figures));
    if !words.is_empty() {
        return Ok(());
    }
    publish("logs", HEADING, &figures)
}

async fn within(cluster: &Cluster, figures: &mut Vec<Figure>) -> Result<()> {
    let (quiet, _) = cluster.service("quiet", "1", json!({})).await?;
    let host = cluster.host(&quiet);
    let calm = Latency::start(cluster.ingress, host.clone());
    tokio::time::sleep(CALM).await;
    let mut calm = calm.stop().await?;
    let idle_rss = cluster.agent.rss_bytes().await?;

    // What the writers and Docker alone cost: nobody reads.
    let size = (CONTAINERS, WITHIN);
    let unread = Latency::start(cluster.ingress, host.clone());
    let name = flood::begin(cluster, "unread", size).await?;
    flood::unread(cluster, &name, CONTAINERS).await?;
    let mut unread = unread.stop().await?;
    cluster
        .api
        .call(Method::DELETE, &name.path(""), None)
        .await?;

    let busy = Latency::start(cluster.ingress, host);
    let (seen, rss, took) = flooded(cluster, "within", size).await?;
    let mut busy = busy.stop().await?;
    flood::ensure_whole(&seen, WITHIN)?;
    let lines: u64 = seen.values().map(|seen| seen.lines).sum();
    let alone = Figure::alone;
    figures.extend([
        alone("containers that flood", CONTAINERS as f64, ""),
        alone("lines within what is kept", lines as f64, "lines"),
        alone(
            "of them lost",
            (CONTAINERS as u64 * WITHIN - lines) as f64,
            "lines",
        ),
        alone(
            "from the deployment to the last line",
            took.as_secs_f64(),
            "s",
        ),
        alone("agent's memory before", idle_rss as f64 / MIB, "MiB"),
        alone("agent's memory, the most", rss as f64 / MIB, "MiB"),
        alone(
            "another app's request, p50, calm",
            quantile(&mut calm, 0.5),
            "ms",
        ),
        alone(
            "the same in the flood, nobody reads",
            quantile(&mut unread, 0.5),
            "ms",
        ),
        alone(
            "the same in the flood, all of it is read",
            quantile(&mut busy, 0.5),
            "ms",
        ),
        alone(
            "another app's request, p99, calm",
            quantile(&mut calm, 0.99),
            "ms",
        ),
        alone(
            "the same in the flood, nobody reads",
            quantile(&mut unread, 0.99),
            "ms",
        ),
        alone(
            "the same in the flood, all of it is read",
            quantile(&mut busy, 0.99),
            "ms",
        ),
    ]);
    Ok(())
}

async fn beyond(cluster: &Cluster, figures: &mut Vec<Figure>) -> Result<()> {
    let (seen, rss, _) = flooded(cluster, "beyond", (CONTAINERS, BEYOND)).await?;
    flood::ensure_said(&seen, BEYOND)?;
    let lines: u64 = seen.values().map(|seen| seen.lines).sum();
    let gaps: Vec<&Gap> = seen.values().flat_map(|seen| &seen.gaps).collect();
    let exact = gaps.iter().filter(|gap| !gap.at_least);
    let alone = Figure::alone;
    figures.extend([
        alone(
            "lines beyond what is kept",
            (CONTAINERS as u64 * BEYOND) as f64,
            "lines",
        ),
        alone("of them read", lines as f64, "lines"),
        alone("marks", gaps.len() as f64, ""),
        alone("of them exact to the line", exact.count() as f64, ""),
        alone("missing without a word", 0.0, "lines"),
        alone("agent's memory, the most, beyond", rss as f64 / MIB, "MiB"),
    ]);
    Ok(())
}

/// A flood and all that was seen of it, the most memory that the agent had, and how long it took.
async fn flooded(
    cluster: &Cluster,
    name: &str,
    size: (usize, u64),
) -> Result<(BTreeMap<String, Seen>, u64, Duration)> {
    let begun = Instant::now();
    let over = CancellationToken::new();
    let followed = async {
        // However it ends, the watch ends with it.
        let _over = over.clone().drop_guard();
        let name = flood::begin(cluster, name, size).await?;
        flood::follow(cluster, &name, size).await
    };
    let (seen, most) = tokio::join!(followed, most_memory(&cluster.agent, &over));
    Ok((seen?, most?, begun.elapsed()))
}

/// Looks until it is over.
async fn most_memory(agent: &Process, over: &CancellationToken) -> Result<u64> {
    let mut most = 0;
    while !over.is_cancelled() {
        most = most.max(agent.rss_bytes().await?);
        tokio::time::sleep(LOOK).await;
    }
    Ok(most)
}
