//! Logs of deployments and of apps: every line once, wherever the reader was cut off.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::http::{Event, Events};
use skep_tests::{Cluster, with_cluster};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

/// For a follower to see what it waits for.
const FOLLOW: Duration = Duration::from_secs(60);

/// Events up to the end of the stream, or to `most`.
async fn read(events: &mut Events, most: usize) -> Result<Vec<Event>> {
    let mut all = Vec::new();
    while all.len() < most
        && let Some(event) = events.next().await?
    {
        all.push(event);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_log_resumes_without_gap_or_repeat() {
    with_cluster("buildlog", async |cluster| {
        let app = cluster.app("app", "1")?;
        cluster
            .skep
            .run(&["up", app.path()?, "--project", "log", "--service", "log"])
            .await?
            .ok()?;
        let all = cluster
            .api
            .get(&Name::of("log").path("/deployments"))
            .await?;
        let id = all["deployments"][0]["id"]
            .as_str()
            .context("a deployment")?
            .to_owned();
        let path = format!("/v1/deployments/{id}/logs");

        // Pages: numbered from 1 without a gap, and the same whatever their size.
        let whole = cluster.api.get(&path).await?["events"]
            .as_array()
            .context("events")?
            .clone();
        let numbers: Vec<u64> = whole
            .iter()
            .filter_map(|event| event["seq"].as_u64())
            .collect();
        assert_eq!(numbers, (1..=whole.len() as u64).collect::<Vec<_>>());
        assert!(
            whole.iter().any(|event| event["kind"] == "log"),
            "{whole:?}"
        );
        let mut paged: Vec<Value> = Vec::new();
        loop {
            let after = paged
                .last()
                .and_then(|event| event["seq"].as_u64())
                .unwrap_or(0);
            let page = cluster
                .api
                .get(&format!("{path}?after={after}&limit=3"))
                .await?;
            let events = page["events"].as_array().context("events")?;
            if events.is_empty() {
                break;
            }
            paged.extend(events.iter().cloned());
        }
        assert_eq!(paged, whole);

        // Streams: cut off after each event in turn, resumed by its id, ended by the status.
        let mut streamed = Vec::new();
        let mut last: Option<String> = None;
        while streamed.len() < whole.len() {
            let mut events = cluster.api.events(&path, last.as_deref()).await?;
            let some = read(&mut events, 2).await?;
            let lines = some.into_iter().filter(|event| event.kind != "end");
            for event in lines {
                last = Some(event.id.clone());
                streamed.push(serde_json::from_str::<Value>(&event.data)?);
            }
        }
        assert_eq!(streamed, whole);
        let mut rest = cluster.api.events(&path, last.as_deref()).await?;
        let end = read(&mut rest, 10).await?;
        assert_eq!(end.len(), 1, "{end:?}");
        assert_eq!(
            (end[0].kind.as_str(), end[0].data.contains("\"live\"")),
            ("end", true),
            "{end:?}"
        );

        // From disk it reads the same.
        cluster.server.kill().await?;
        cluster.server.start().await?;
        cluster.node_ready().await?;
        assert_eq!(cluster.api.get(&path).await?["events"], Value::Array(whole));
        Ok(())
    })
    .await;
}

/// The number in `line N`, which the test app counts up.
fn counted(event: &Event) -> Result<Option<u64>> {
    let line: Value = serde_json::from_str(&event.data).with_context(|| event.data.clone())?;
    let text = line["text"].as_str().unwrap_or_default();
    Ok(text
        .strip_prefix("line ")
        .and_then(|number| number.parse().ok()))
}

async fn counts(cluster: &Cluster, path: &str, last: Option<&str>) -> Result<(Vec<u64>, String)> {
    let mut events = cluster.api.events(path, last).await?;
    let (mut numbers, mut id) = (Vec::new(), String::new());
    while numbers.len() < 40 {
        let Some(event) = events.next().await? else {
            bail!("the stream ended")
        };
        if let Some(number) = counted(&event)? {
            numbers.push(number);
            id = event.id;
        }
    }
    Ok((numbers, id))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apps_log_follows_and_resumes() {
    with_cluster("applog", async |cluster| {
        let name = Name::of("talk");
        let image = cluster.image("1", &[("LOG_LINES_PER_S", "100")]).await?;
        cluster.api.put_service(&name, json!({})).await?;
        cluster
            .api
            .live(&name, &json!({ "type": "image", "reference": image }))
            .await?;

        // Cut off twice, once with the agent killed in between: the numbers have no gap.
        let path = name.path("/logs?follow=true&tail=0");
        let (mut numbers, last) = counts(cluster, &path, None).await?;
        assert_eq!(numbers[0], 1);
        let (more, last) = counts(cluster, &path, Some(&last)).await?;
        numbers.extend(more);
        cluster.agent.kill().await?;
        cluster.agent.start().await?;
        cluster.node_ready().await?;
        let (more, _) = counts(cluster, &path, Some(&last)).await?;
        numbers.extend(more);
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());

        // The command line: the newest lines, and what follows.
        let some = cluster
            .skep
            .run(&["logs", "talk", "--tail", "5"])
            .await?
            .ok()?;
        assert_eq!(some.stdout.lines().count(), 5, "{some}");
        let mut following = cluster.skep.spawn(&["logs", "talk", "-f", "--tail", "1"])?;
        let stdout = following.stdout.take().context("a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        for _ in 0..20 {
            let line = timeout(FOLLOW, lines.next_line())
                .await??
                .context("it ended")?;
            assert!(line.contains("line "), "{line}");
        }
        following.kill().await?;
        Ok(())
    })
    .await;
}
