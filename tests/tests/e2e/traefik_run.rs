//! A Traefik that `skep net` runs: it may die, be asked to end or be replaced with its data plane, and no client finds a
//! door shut or a Traefik without routes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::cluster::Cluster;
use skep_tests::load::{CLIENTS, Load, Report};
use skep_tests::process::{Process, signal};
use skep_tests::{http, place, traefik, wait, with_cluster};

/// From an end to the next that serves: pauses, a start, a poll, on a machine under load.
const BACK: Duration = Duration::from_secs(90);
/// What is sent each second.
const RATE: u32 = 200;
/// A load goes on for so long after something was done: failures would show.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// The cluster's data plane again, with a Traefik at the address.
async fn net(cluster: &Cluster, web: SocketAddr) -> Result<Process> {
    let same = Path::new("");
    let net = cluster.net.like(same, same);
    Ok(net
        .env("SKEP_RUN_TRAEFIK", traefik::binary().await?)
        .env("SKEP_TRAEFIK_WEB_ADDR", web.to_string()))
}

/// A figure of the data plane's.
async fn figure(cluster: &Cluster, name: &str) -> Result<u64> {
    let answer = http::get(cluster.net_admin, "net", "/metrics").await?;
    let text = answer.text();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let value = lines.next().with_context(|| format!("no {name}"))?;
    Ok(value.trim().parse()?)
}

/// Waits until it is the `starts`th Traefik of its data plane that serves.
async fn serves(cluster: &Cluster, starts: u64) -> Result<()> {
    let what = format!("Traefik {starts} to serve");
    wait::until_ok(&what, BACK, async || {
        let up = figure(cluster, "skep_net_traefik_up ").await?;
        let started = figure(cluster, "skep_net_traefik_starts_total ").await?;
        ensure!(up == 1 && started == starts, "up {up}, started {started}");
        Ok(())
    })
    .await
}

/// The Traefiks that read the cluster's configuration.
fn running(cluster: &Cluster) -> Result<Vec<u32>> {
    let config: PathBuf = cluster.path("node/net/traefik.yml");
    let config = config.to_str().context("the path is no text")?.to_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|id| id.parse().ok());
        // One that ends meanwhile is none.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(id) = id
            && line.contains(&config)
        {
            found.push(id);
        }
    }
    Ok(found)
}

async fn only(cluster: &Cluster) -> Result<u32> {
    let all = running(cluster)?;
    ensure!(all.len() == 1, "{all:?} run");
    Ok(all[0])
}

async fn none(cluster: &Cluster) -> Result<()> {
    wait::until_ok("no Traefik to be left", BACK, async || {
        let all = running(cluster)?;
        ensure!(all.is_empty(), "{all:?} run");
        Ok(())
    })
    .await
}

/// It is Traefik that answers: to a host that nobody has, the ingress would say why.
async fn is_traefiks(web: SocketAddr) -> Result<()> {
    let answer = http::get(web, "nobody.test", "/").await?;
    ensure!(answer.status == 404, "{}", answer.status);
    let why = answer.header("x-skep-error");
    ensure!(why.is_empty(), "the ingress answers: {why}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_that_skep_runs_comes_and_goes_and_nobody_is_refused() {
    with_cluster("traefik-run", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let host = cluster.host(&name);
        cluster.net.kill().await?;
        let web = place::free_address()?;
        let first = net(cluster, web).await?;
        first.start().await?;
        serves(cluster, 1).await?;
        is_traefiks(web).await?;

        // Killed: what it had in its hands is lost, and nothing else.
        let load = Load::start(web, &host, RATE);
        tokio::time::sleep(AFTERWARDS).await;
        signal(only(cluster).await?, "KILL").await?;
        serves(cluster, 2).await?;
        only_lost(&load.stop().await, is_cut)?;

        // Asked to end by somebody else, as for an upgrade.
        let load = Load::start(web, &host, RATE);
        signal(only(cluster).await?, "TERM").await?;
        serves(cluster, 3).await?;
        tokio::time::sleep(AFTERWARDS).await;
        only_lost(&load.stop().await, is_crossed)?;

        // Replaced with its data plane.
        let old = only(cluster).await?;
        let load = Load::start(web, &host, RATE);
        let second = net(cluster, web).await?.args(["--takeover"]);
        second.start().await?;
        let status = first.ended(BACK).await?;
        ensure!(status.success(), "{status}");
        serves(cluster, 1).await?;
        tokio::time::sleep(AFTERWARDS).await;
        only_lost(&load.stop().await, is_crossed)?;
        ensure!(only(cluster).await? != old, "the old one serves");
        is_traefiks(web).await?;

        second.terminate(BACK).await?;
        ensure!(running(cluster)?.is_empty(), "it is left behind");
        // Also where nobody has the time to end it.
        first.start().await?;
        serves(cluster, 1).await?;
        first.kill().await?;
        none(cluster).await
    })
    .await;
}

/// Nothing failed but for such causes, and of them no more than each client once.
fn only_lost(report: &Report, may_be: fn(&str) -> bool) -> Result<()> {
    let is_sound = report.failures.keys().all(|cause| may_be(cause));
    ensure!(is_sound, "{report:?}");
    ensure!(report.failed() <= u64::from(CLIENTS), "{report:?}");
    Ok(())
}

/// Whether a request was sent on a kept connection while Traefik, asked to end, closed it: a server in Go does that to
/// those that are idle, and a client sends it again.
fn is_crossed(cause: &str) -> bool {
    cause.starts_with("kept connection:") && is_cut(cause)
}

/// Whether a request was on its way when a connection broke.
fn is_cut(cause: &str) -> bool {
    !cause.contains("connect:") && !cause.contains(" 404") && !cause.contains(" 50")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_no_traefik_is_refused_at_the_start() {
    with_cluster("traefik-not", async |cluster| {
        cluster.net.kill().await?;
        let net = net(cluster, place::free_address()?).await?;
        let net = net.env("SKEP_RUN_TRAEFIK", "/bin/true");
        net.start().await?;
        let status = net.ended(BACK).await?;
        ensure!(!status.success(), "{status}");
        ensure!(net.log().contains("it is not a Traefik"), "{}", net.log());
        Ok(())
    })
    .await;
}
