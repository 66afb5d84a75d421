//! `skep dev`: all of it from one command, and nothing left when it ends.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use skep_tests::app::App;
use skep_tests::containers::{Containers, default_socket};
use skep_tests::process::{Process, signal};
use skep_tests::skep::Skep;
use skep_tests::{http, place, wait};

const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path of text")?.to_owned())
}

fn dev(dir: &Path) -> Result<Process> {
    let process = Process::new("dev", &place::skep_binary()?, dir.join("dev.log"));
    let arguments = ["dev", "--data-dir", &text(&dir.join("data"))?].map(str::to_owned);
    let ports = ["--api-port", "0", "--ingress-port", "0"].map(str::to_owned);
    Ok(process
        .args(arguments)
        .args(ports)
        .env("SKEP_CONFIG_DIR", dir.join("config").as_os_str()))
}

async fn ready(dir: &Path, process: &Process) -> Result<Value> {
    wait::until("skep dev", READY, async || {
        if !process.is_running().await? {
            bail!("it has ended: {}", process.log());
        }
        let file = std::fs::read(dir.join("data/dev.json")).ok();
        Ok(file.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    })
    .await
}

async fn serves(announced: &Value, version: &str) -> Result<()> {
    let ingress = announced["ingress"].as_str().context("an ingress")?;
    let address = ingress.trim_start_matches("http://").parse()?;
    let answer = http::get(address, "app-production-app.localhost", "/").await?;
    if answer.status != 200 || !answer.text().contains(&format!("version={version} ")) {
        bail!("{} {}", answer.status, answer.text());
    }
    Ok(())
}

async fn tour(dir: &Path, run: &str) -> Result<()> {
    let skep = Skep::new(&place::skep_binary()?, &dir.join("config"));
    let process = dev(dir)?;
    process.start().await?;
    let announced = ready(dir, &process).await?;
    let app = App::create(dir.join("app"), run, "1")?;
    skep.run(&["up", app.path()?, "--service", "app"])
        .await?
        .ok()?;
    serves(&announced, "1").await?;

    // A second one on the same folder says so instead of breaking the first.
    let second = skep
        .run(&["dev", "--data-dir", &text(&dir.join("data"))?])
        .await?;
    anyhow::ensure!(second.code != Some(0), "{second}");
    second.says(&["error:"])?;
    serves(&announced, "1").await?;

    // Ctrl-C: everything stops, the app too; it is there again with the next one.
    let containers = Containers::connect(&default_socket()).await?;
    let status = skep.run(&["status", "--json"]).await?.json()?;
    let cluster = status["cluster"]["cluster"].as_str().map(str::to_owned);
    signal(process.pid().await.context("it runs")?, "INT").await?;
    wait::until("skep dev to end", STOP, async || {
        Ok((!process.is_running().await?).then_some(()))
    })
    .await?;
    if let Some(cluster) = &cluster {
        let left = containers.of_cluster(cluster).await?;
        anyhow::ensure!(left.iter().all(|one| !one.runs), "{left:?}");
    }
    let again = dev(dir)?;
    std::fs::remove_file(dir.join("data/dev.json")).ok();
    again.start().await?;
    let announced = ready(dir, &again).await?;
    wait::until_ok("the app to be back", READY, async || {
        serves(&announced, "1").await
    })
    .await?;

    // kill -9 of the one: the parts notice and end.
    skep.run(&["rm", "app", "--yes"]).await?.ok()?;
    let api = announced["http"]
        .as_str()
        .context("an address")?
        .trim_start_matches("http://")
        .parse()?;
    again.kill().await?;
    wait::until("the parts to end", STOP, async || {
        Ok(http::get(api, "x", "/healthz").await.err())
    })
    .await?;
    containers.clean(cluster.as_deref(), run).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_runs_all_of_it_and_leaves_nothing() {
    let dir = tempfile::Builder::new()
        .prefix("skep-dev-")
        .tempdir()
        .expect("a temporary folder");
    let config = dir.path().join("config");
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(config)
        .expect("a folder");
    let run = format!("dev-x{}", std::process::id());
    if let Err(error) = tour(dir.path(), &run).await {
        let log = std::fs::read_to_string(dir.path().join("dev.log")).unwrap_or_default();
        panic!("{error:?}\n{log}");
    }
}
