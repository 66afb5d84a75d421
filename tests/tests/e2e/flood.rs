//! Apps that write as fast as they can: nothing is lost of what is kept, what is beyond is said, and
//! nobody else notices. And logs that are shipped survive the receiver's end and the agent's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::load::Load;
use skep_tests::receiver::Receiver;
use skep_tests::{Cluster, wait, with_cluster, with_cluster_alone};

/// For a flood to be over and read, on a busy machine.
const LONG: Duration = Duration::from_secs(120);
/// Lines of about 1.1 KB in Docker's files: 22 MB of the 30 that are kept.
const WITHIN: u64 = 20_000;
/// Ten times what is kept.
const BEYOND: u64 = 270_000;
/// Two files of the three are always full.
const KEPT: u64 = 19_000;
/// What the agent may hold: a reader's buffers, whatever is written.
const AGENT_RSS_MAX: u64 = 160 << 20;
const RATE: u32 = 50;

async fn flooding(cluster: &Cluster, name: &str, lines: u64) -> Result<Name> {
    let service = Name::of(name);
    let image = cluster
        .image(name, &[("LOG_FLOOD_LINES", &lines.to_string())])
        .await?;
    cluster.api.put_service(&service, json!({})).await?;
    let image = json!({ "type": "image", "reference": image });
    cluster.api.live(&service, &image).await?;
    Ok(service)
}

/// What a follower saw of a flood.
#[derive(Debug, Default)]
struct Seen {
    lines: u64,
    /// Numbers that did not follow on the one before, without a word on it.
    unsaid: Vec<(u64, u64)>,
    /// Marks, and the bytes that they say are missing.
    marks: u64,
    lost_bytes: u64,
}

async fn follow(cluster: &Cluster, name: &Name) -> Result<Seen> {
    let mut events = cluster
        .api
        .events(&name.path("/logs?follow=true&tail=0"), None)
        .await?;
    let (mut seen, mut last, mut is_said) = (Seen::default(), None, true);
    loop {
        let Some(event) = events.next().await? else {
            bail!("the stream ended: {seen:?}")
        };
        let line: Value = serde_json::from_str(&event.data)?;
        if let Some(bytes) = line["lost"]["bytes"].as_u64() {
            (seen.marks, seen.lost_bytes) = (seen.marks + 1, seen.lost_bytes + bytes);
            is_said = true;
            continue;
        }
        let text = line["text"].as_str().unwrap_or_default();
        if text == "flood over" {
            return Ok(seen);
        }
        let number = text
            .split(' ')
            .nth(1)
            .filter(|_| text.starts_with("flood "));
        let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
            continue;
        };
        seen.lines += 1;
        if let Some(last) = last.filter(|last| last + 1 != number && !is_said) {
            seen.unsaid.push((last, number));
        }
        (last, is_said) = (Some(number), false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_loses_nothing_of_what_is_kept_and_disturbs_nobody() {
    with_cluster_alone("flood", async |cluster| {
        let (quiet, _) = cluster.service("quiet", "1", json!({})).await?;
        let status = cluster.api.get("/v1/status").await?;
        let port = status["ingress_port"].as_u64().context("a port")?;
        let ingress = ([127, 0, 0, 1], u16::try_from(port)?).into();
        let load = Load::start(ingress, &cluster.host(&quiet), RATE);

        // Within what is kept, whoever reads gets every line.
        let name = flooding(cluster, "within", WITHIN).await?;
        let seen = tokio::time::timeout(LONG, follow(cluster, &name)).await??;
        ensure!(seen.lines == WITHIN && seen.marks == 0, "{seen:?}");
        ensure!(seen.unsaid.is_empty(), "{seen:?}");
        // Found where it is, and nothing else sent.
        let path = name.path("/logs?tail=0&grep=flood%20(7%7C19999)%20");
        let found = cluster.api.call(Method::GET, &path, None).await?.text();
        ensure!(found.lines().count() == 2, "{found}");

        // Beyond it lines are missing, and in their place stands that they are.
        let name = Name::of("beyond");
        cluster.api.put_service(&name, json!({})).await?;
        let deployed = flooding(cluster, "beyond", BEYOND);
        let (deployed, seen) =
            tokio::join!(deployed, tokio::time::timeout(LONG, follow(cluster, &name)));
        deployed?;
        let seen = seen??;
        println!(
            "beyond: {} of {BEYOND} lines, {} marks for {} bytes",
            seen.lines, seen.marks, seen.lost_bytes
        );
        ensure!(seen.unsaid.is_empty(), "{seen:?}");
        ensure!(seen.lines >= KEPT, "{seen:?}");

        let report = load.stop().await;
        println!("quiet: {report:?}");
        ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
        let rss = cluster.agent.rss_bytes().await?;
        println!("agent: {} KiB resident", rss >> 10);
        ensure!(rss < AGENT_RSS_MAX, "{rss}");
        Ok(())
    })
    .await;
}

fn shipped(receiver: &Receiver, service: &str) -> Vec<u64> {
    let lines = receiver.lines();
    let own = lines
        .iter()
        .filter(|(labels, ..)| labels["service"] == service);
    let numbers = own.filter_map(|(_, _, text)| text.strip_prefix("line ")?.parse().ok());
    let mut numbers: Vec<u64> = numbers.collect();
    // Sent again after a cut: at least once is what is promised.
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shipped_logs_survive_the_receivers_end_and_the_agents() {
    with_cluster("shipping", async |cluster| {
        let receiver = Receiver::start().await?;
        cluster.agent.terminate(LONG).await?;
        let nothing = Path::new("");
        let agent = cluster.agent.like(nothing, nothing).env(
            "SKEP_AGENT_SHIP_LOGS_TO",
            format!("loki=http://{}", receiver.address),
        );
        agent.start().await?;
        cluster.node_ready().await?;
        let name = Name::of("talk");
        let image = cluster.image("1", &[("LOG_LINES_PER_S", "100")]).await?;
        cluster.api.put_service(&name, json!({})).await?;
        let image = json!({ "type": "image", "reference": image });
        cluster.api.live(&name, &image).await?;
        let until = async |least: usize| {
            wait::until_ok("lines to be shipped", LONG, async || {
                let numbers = shipped(&receiver, "talk");
                ensure!(numbers.len() >= least, "{} lines", numbers.len());
                Ok(numbers)
            })
            .await
        };
        until(50).await?;
        let labels = receiver.lines().pop().context("a line")?.0;
        for label in ["project", "environment", "allocation", "node", "stream"] {
            ensure!(
                labels[label].as_str().is_some_and(|it| !it.is_empty()),
                "{labels}"
            );
        }

        // The receiver goes, and in the middle of it the agent.
        receiver.set_away(true);
        wait::until_ok("the receiver to be missed", LONG, async || {
            ensure!(receiver.refused() > 1, "{}", receiver.refused());
            Ok(())
        })
        .await?;
        agent.kill().await?;
        let before = shipped(&receiver, "talk").len();
        agent.start().await?;
        cluster.node_ready().await?;
        receiver.set_away(false);
        let numbers = until(before + 100).await?;
        ensure!(
            numbers == (1..=numbers.len() as u64).collect::<Vec<_>>(),
            "a line is missing: {numbers:?}"
        );
        agent.terminate(LONG).await?;
        Ok(())
    })
    .await;
}
