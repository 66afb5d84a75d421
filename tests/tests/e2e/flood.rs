//! Apps that write as fast as they can: nothing is lost of what is kept, what is beyond is said, and
//! nobody else notices. And logs that are shipped survive the receiver's end and the agent's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::flood;
use skep_tests::load::Load;
use skep_tests::receiver::Receiver;
use skep_tests::{wait, with_cluster, with_cluster_alone};

/// For a flood to be over and read, on a busy machine.
const LONG: Duration = Duration::from_secs(120);
/// Apps that flood at once.
const APPS: usize = 10;
/// Lines of each, of about 1.1 KB in Docker's files: what is kept of each is ten times that.
const WITHIN: u64 = 2_000;
/// Ten times what is kept, of one.
const BEYOND: u64 = 270_000;
/// Two files of the three are always full.
const KEPT: u64 = 19_000;
/// What the agent may hold: a reader's buffers, whatever is written.
const AGENT_RSS_MAX: u64 = 160 << 20;
const RATE: u32 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_loses_nothing_of_what_is_kept_and_disturbs_nobody() {
    with_cluster_alone("flood", async |cluster| {
        let (quiet, _) = cluster.service("quiet", "1", json!({})).await?;
        let status = cluster.api.get("/v1/status").await?;
        let port = status["ingress_port"].as_u64().context("a port")?;
        let ingress = ([127, 0, 0, 1], u16::try_from(port)?).into();
        let load = Load::start(ingress, &cluster.host(&quiet), RATE);

        // Within what is kept, whoever reads gets every line of everybody.
        let size = (APPS, WITHIN);
        let name = flood::begin(cluster, "within", size).await?;
        let seen = flood::follow(cluster, &name, size).await?;
        ensure!(seen.len() == APPS, "{} of {APPS}", seen.len());
        flood::ensure_whole(&seen, WITHIN)?;
        // Found where it is, and nothing else sent: two lines of each.
        let path = name.path("/logs?tail=0&grep=flood%20(7%7C1999)%20");
        let found = cluster.api.call(Method::GET, &path, None).await?.text();
        ensure!(found.lines().count() == 2 * APPS, "{found}");

        // Beyond it lines are missing, and in their place stands how much of them.
        let size = (1, BEYOND);
        let name = flood::begin(cluster, "beyond", size).await?;
        let seen = flood::follow(cluster, &name, size).await?;
        flood::ensure_said(&seen, BEYOND)?;
        for seen in seen.values() {
            println!("beyond: {} of {BEYOND} lines, {:?}", seen.lines, seen.gaps);
            ensure!(seen.lines >= KEPT, "{seen:?}");
        }

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
