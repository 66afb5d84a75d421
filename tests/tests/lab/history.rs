//! The histories of three servers, each a file of its own: whoever is asked shows the same, whoever is
//! away; a file that is lost is made anew and filled again. And the way from files to a PostgreSQL.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::place::skep_binary;
use skep_tests::postgres::Postgres;
use skep_tests::servers::agents::{Agents, BUILD_LINES, Behavior};
use skep_tests::servers::join_node;
use skep_tests::wait;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Until what one server wrote is at the others.
const COPIED: Duration = Duration::from_secs(60);
/// Until a file that is gone is noticed, and another one is full.
const RENEWED: Duration = Duration::from_secs(90);
/// A server that does not answer by then is left for the next one.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a server may take to end in order.
const STOP: Duration = Duration::from_secs(60);
const READY: Duration = Duration::from_secs(60);

/// A node at the server `place` whose builds write something.
async fn builder(cluster: &LabCluster, place: usize) -> Result<Agents> {
    let bootstrap = cluster.servers.bootstrap();
    let address = cluster.servers.server(place).site.cluster;
    let joined = join_node(address, &bootstrap.ca_pem, &bootstrap.join_token, "builder");
    let behavior = Behavior {
        has_build_logs: true,
        ..Behavior::default()
    };
    let agents = Agents::start(address, vec![joined.await?], behavior);
    wait::until_ok("the node", READY, async || {
        let nodes = cluster.servers.server(place).api.get("/v1/nodes").await?;
        ensure!(nodes["nodes"][0]["status"] == "ready", "{nodes}");
        Ok(())
    })
    .await?;
    Ok(agents)
}

/// Deploys an image through a server; answers the path of the deployment's log.
async fn deploy(cluster: &LabCluster, place: usize, name: &Name) -> Result<String> {
    let api = &cluster.servers.server(place).api;
    api.put_service(name, json!({})).await?;
    let image = json!({ "type": "image", "reference": "registry.invalid/web:1" });
    let deployment = api.live(name, &image).await?;
    Ok(format!("/v1/deployments/{}/logs", deployment.id))
}

async fn page(cluster: &LabCluster, place: usize, log: &str) -> Result<Value> {
    cluster.servers.server(place).api.get(log).await
}

/// Texts of a page's events of one kind.
fn texts(page: &Value, kind: &str) -> Vec<String> {
    let events = page["events"].as_array().into_iter().flatten();
    let these = events.filter(|event| event["kind"] == kind);
    these
        .filter_map(|event| event["text"].as_str().map(str::to_owned))
        .collect()
}

/// What a server's audit trail says was done, oldest first.
async fn audit(cluster: &LabCluster, place: usize) -> Result<Vec<String>> {
    let answer = cluster.servers.server(place).api.get("/v1/audit").await?;
    let entries = answer["entries"].as_array().context("entries")?;
    let done = entries
        .iter()
        .rev()
        .map(|entry| format!("{} {}", entry["action"], entry["resource"]));
    Ok(done.collect())
}

/// Waits until these servers' audit trails are the same, of more than `least` entries.
async fn same_audit(cluster: &LabCluster, places: &[usize], least: usize) -> Result<usize> {
    wait::until_ok("one audit trail", RENEWED, async || {
        let first = audit(cluster, places[0]).await?;
        ensure!(first.len() > least, "{first:?}");
        for place in &places[1..] {
            let other = audit(cluster, *place).await?;
            ensure!(first == other, "{first:?}\n{place}: {other:?}");
        }
        Ok(first.len())
    })
    .await
}

/// Waits until a server shows the log as it was shown before, and all of it.
async fn same_log(cluster: &LabCluster, place: usize, (log, whole): (&str, &Value)) -> Result<()> {
    wait::until_ok("the log through another server", COPIED, async || {
        let seen = page(cluster, place, log).await?;
        ensure!(seen["events"] == whole["events"], "{seen}\nnot {whole}");
        ensure!(seen["problems"].is_null(), "{seen}");
        Ok(())
    })
    .await
}

fn remove_history(cluster: &LabCluster, place: usize) -> Result<()> {
    let data = &cluster.servers.server(place).site.data;
    std::fs::remove_file(data.join("history.db"))?;
    for beside in ["history.db-wal", "history.db-shm"] {
        // Gone already after an orderly end.
        let _ = std::fs::remove_file(data.join(beside));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_shows_the_history_and_a_lost_one_is_filled_again() {
    with_servers("history", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        // The builder is at one server, the calls go to another.
        let agents = builder(cluster, 0).await?;
        let name = Name::of("web");
        let log = deploy(cluster, 1, &name).await?;
        let whole = page(cluster, 0, &log).await?;
        ensure!(texts(&whole, "log") == BUILD_LINES, "{whole}");
        for place in [1, 2] {
            same_log(cluster, place, (&log, &whole)).await?;
        }
        let entries = same_audit(cluster, &[0, 1, 2], 1).await?;

        // Its holder dies: the rest is there, and it is said where the log is.
        cluster.servers.kill(0).await?;
        let holder = cluster.servers.server(0).site.name.clone();
        for place in [1, 2] {
            let seen = wait::until_ok("an answer", READY, async || {
                page(cluster, place, &log).await
            });
            let seen = seen.await?;
            ensure!(texts(&seen, "step") == texts(&whole, "step"), "{seen}");
            ensure!(texts(&seen, "log").is_empty(), "{seen}");
            let problem = seen["problems"][0]["message"]
                .as_str()
                .context("a problem")?;
            ensure!(problem.contains(&holder), "{problem}");
        }
        same_audit(cluster, &[1, 2], entries - 1).await?;
        cluster
            .servers
            .set_meta(1, "builder", "while", "away")
            .await?;

        // One more loses its file meanwhile: it comes from the one that is left, then all are there.
        cluster.servers.kill(2).await?;
        remove_history(cluster, 2)?;
        cluster.servers.start(2).await?;
        let entries = same_audit(cluster, &[1, 2], entries).await?;
        cluster.servers.start(0).await?;
        cluster.servers.settled().await?;
        same_audit(cluster, &[1, 2, 0], entries - 1).await?;
        same_log(cluster, 2, (&log, &whole)).await?;

        // A file that goes away under a running server.
        remove_history(cluster, 1)?;
        wait::until_ok("another file", RENEWED, async || {
            let file = cluster.servers.server(1).site.data.join("history.db");
            ensure!(file.exists(), "it is not there");
            Ok(())
        })
        .await?;
        same_audit(cluster, &[0, 1, 2], entries - 1).await?;
        let seen = page(cluster, 1, &log).await?;
        ensure!(texts(&seen, "step") == texts(&whole, "step"), "{seen}");
        drop(agents);
        Ok(())
    })
    .await;
}

/// Asks for something all the time, of whichever server answers, until told to stop; answers how often
/// nobody did.
async fn ask_on(apis: Vec<Api>, node: String, stop: CancellationToken) -> Result<(u64, u64)> {
    let (mut asked, mut failed) = (0, 0);
    while !stop.is_cancelled() {
        asked += 1;
        let set = json!({ "set": { "asked": asked.to_string() } });
        let mut is_done = false;
        // As the command line does: a server that is going is left for the next one.
        for api in &apis {
            if let Ok(Ok(_)) =
                timeout(ANSWER, api.put(&format!("/v1/nodes/{node}/meta"), &set)).await
            {
                is_done = true;
                break;
            }
        }
        failed += u64::from(!is_done);
    }
    Ok((asked, failed))
}

async fn carry(cluster: &LabCluster, place: usize, to: &str) -> Result<String> {
    let file = cluster.servers.server(place).site.data.join("history.db");
    let output = Command::new(skep_binary()?)
        .args(["server", "history", "copy", "--json", "--from"])
        .arg(file)
        .env("SKEP_HISTORY", to)
        .output()
        .await?;
    let (out, err) = (output.stdout, output.stderr);
    let said = String::from_utf8_lossy(&out).into_owned();
    ensure!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&err)
    );
    Ok(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_files_to_postgres_under_load_with_no_failed_request() {
    let postgres = Postgres::start(None).expect("PostgreSQL");
    let url = postgres.url();
    with_servers("to-postgres", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let agents = builder(cluster, 0).await?;
        let log = deploy(cluster, 1, &Name::of("web")).await?;
        let whole = page(cluster, 0, &log).await?;
        ensure!(texts(&whole, "log") == BUILD_LINES, "{whole}");
        let entries = same_audit(cluster, &[0, 1, 2], 1).await?;
        let stop = CancellationToken::new();
        let apis = cluster
            .servers
            .all()
            .iter()
            .map(|server| server.api.clone());
        let load = tokio::spawn(ask_on(apis.collect(), "builder".into(), stop.clone()));
        for place in 0..3 {
            let process = &cluster.servers.server(place).process;
            let status = process.terminate(STOP).await?;
            ensure!(status.success(), "{status}");
            cluster.servers.set_env(place, "SKEP_HISTORY", &url);
            cluster.servers.start(place).await?;
            cluster.servers.settled().await?;
        }
        for place in 0..3 {
            carry(cluster, place, &url).await?;
        }
        stop.cancel();
        let (asked, failed) = load.await??;
        ensure!(failed == 0 && asked > 10, "{failed} of {asked} failed");
        same_audit(cluster, &[0, 1, 2], entries).await?;
        for place in 0..3 {
            let seen = page(cluster, place, &log).await?;
            ensure!(seen["events"] == whole["events"], "{seen}\nnot {whole}");
            ensure!(seen["problems"].is_null(), "{seen}");
        }
        // Once more brings nothing.
        for place in 0..3 {
            let again: Value = serde_json::from_str(&carry(cluster, place, &url).await?)?;
            ensure!(again["events"] == 0 && again["entries"] == 0, "{again}");
        }
        drop(agents);
        Ok(())
    })
    .await;
}
