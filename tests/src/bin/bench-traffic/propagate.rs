//! From an allocation that the server knows to be healthy to its first request by the embedded ingress, and to
//! its address in Traefik's own API, among many routes of other services.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::figures::{Figure, p50, quantile};
use skep_tests::traefik::Traefik;
use skep_tests::{Cluster, http, wait};
use tokio::time::sleep;

use super::{ROUTES, SEEN};

/// Hosts of one service, beside its generated name.
const HOSTS: usize = 49;
/// Deployments that are watched; enough for a p99.
const ROLLS: usize = 100;
/// Often enough for what takes tens of milliseconds, and no load of its own on the processes that are watched.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The same of Traefik's API, where changes take hundreds.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// What building one up may take on the way to many.
const AT_ONCE: usize = 4;

pub(super) async fn propagate(cluster: &Cluster) -> Result<Vec<Figure>> {
    let images = [
        cluster.image("1", &[]).await?,
        cluster.image("2", &[]).await?,
    ];
    many(cluster, &images[0]).await?;
    let name = Name::of("web");
    let spec = json!({ "update": { "drain_ms": 0 }, "stop_grace_ms": 1_000 });
    cluster.api.put_service(&name, spec).await?;
    let deploy = |at: usize| json!({ "type": "image", "reference": images[at % 2] });
    cluster.api.live(&name, &deploy(0)).await?;
    cluster.answers(&name, "1").await?;
    let (mut embedded, mut traefik) = (Vec::new(), Vec::new());
    for turn in 1..=ROLLS {
        let old = only(cluster, &name).await?;
        let request = deploy(turn);
        let (_, known, answered) = tokio::try_join!(
            cluster.api.live(&name, &request),
            healthy(cluster, &name, &old),
            answers(cluster, &name, &old),
        )?;
        embedded.push(ms(known, answered));
    }
    let [embedded_p50, embedded] = of(&mut embedded);
    println!("embedded: p50 {embedded_p50:.1} ms, p99 {embedded:.1} ms");
    let provider = format!("http://{}/v1/traefik", cluster.net_admin);
    let beside = Traefik::start(&cluster.path(""), &provider, cluster.traefik_api).await?;
    let label = cluster.host(&name);
    let label = label.split('.').next().context("a label")?;
    servers(beside.api, label, "").await?;
    for turn in 1..=ROLLS {
        let old = only(cluster, &name).await?;
        let before = servers(beside.api, label, "").await?;
        let request = deploy(turn);
        let (_, known, shown) = tokio::try_join!(
            cluster.api.live(&name, &request),
            healthy(cluster, &name, &old),
            async {
                servers(beside.api, label, &before).await?;
                Ok(Instant::now())
            },
        )?;
        traefik.push(ms(known, shown));
    }
    beside.stop().await?;
    let [traefik_p50, traefik] = of(&mut traefik);
    println!("Traefik: p50 {traefik_p50:.0} ms, p99 {traefik:.0} ms");
    Ok(vec![
        Figure::alone("traffic.propagate_ms_p99", embedded, "ms"),
        Figure::alone("traffic.propagate_traefik_ms_p99", traefik, "ms"),
    ])
}

/// Services that have routes and, stopped, no containers.
async fn many(cluster: &Cluster, image: &str) -> Result<()> {
    let services = ROUTES.div_ceil(HOSTS + 1);
    stream::iter(0..services)
        .map(async |number| {
            let name = Name::of(&format!("many{number}"));
            let host = |at: usize| json!({ "host": format!("s{number}-h{at}.propagate.test") });
            let routes: Vec<_> = (0..HOSTS).map(host).collect();
            let spec = json!({ "routes": routes, "update": { "drain_ms": 0 }, "stop_grace_ms": 0 });
            cluster.api.put_service(&name, spec).await?;
            let request = json!({ "type": "image", "reference": image });
            cluster.api.live(&name, &request).await?;
            cluster.api.post(&name.path("/stop"), &json!({})).await
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    wait::until_ok("all of them to be stopped", SEEN, async || {
        let all = cluster.api.allocations().await?;
        let left = all.iter().filter(|one| one.is_live()).count();
        ensure!(left == 0, "{left} run");
        Ok(())
    })
    .await
}

/// The median and the 99th of a hundred.
fn of(measured: &mut [f64]) -> [f64; 2] {
    [p50(measured), quantile(measured, 0.99)]
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

async fn only(cluster: &Cluster, name: &Name) -> Result<String> {
    wait::until_ok("one allocation", SEEN, async || {
        let live = cluster.api.live_allocations(name).await?;
        ensure!(live.len() == 1, "{live:?}");
        Ok(live[0].id.clone())
    })
    .await
}

/// When the server knows another allocation than `old` to be healthy.
async fn healthy(cluster: &Cluster, name: &Name, old: &str) -> Result<Instant> {
    let begun = Instant::now();
    loop {
        let live = cluster.api.live_allocations(name).await?;
        if live
            .iter()
            .any(|one| one.id != old && one.state == "healthy")
        {
            return Ok(Instant::now());
        }
        ensure!(begun.elapsed() < SEEN, "never healthy: {live:?}");
        sleep(LOOK_EVERY).await;
    }
}

/// When another allocation than `old` answers.
async fn answers(cluster: &Cluster, name: &Name, old: &str) -> Result<Instant> {
    let (begun, host) = (Instant::now(), cluster.host(name));
    loop {
        let answer = http::get(cluster.ingress, &host, "/").await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        if !answer.text().contains(old) {
            return Ok(Instant::now());
        }
        ensure!(begun.elapsed() < SEEN, "only {old} answers");
        sleep(LOOK_EVERY).await;
    }
}

/// What Traefik's API shows of a service's servers, once that is not `before`.
async fn servers(api: SocketAddr, service: &str, before: &str) -> Result<String> {
    let begun = Instant::now();
    let path = format!("/api/http/services/{service}@http");
    loop {
        if let Ok(answer) = http::get(api, "traefik", &path).await
            && answer.status == 200
        {
            let shown: Value = answer.json()?;
            let now = shown["loadBalancer"]["servers"].to_string();
            if now != before {
                return Ok(now);
            }
        }
        if begun.elapsed() > SEEN {
            bail!("Traefik does not follow");
        }
        sleep(ASK_EVERY).await;
    }
}
