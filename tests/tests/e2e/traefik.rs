//! Traefik v3 itself in front: it takes what `skep net` provides, follows updates, and keeps its
//! routes when the net starts again from disk.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use skep_tests::http::Answer;
use skep_tests::traefik::Traefik;
use skep_tests::{http, wait, with_cluster};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A poll of the provider, and Traefik's own throttle of 2 s between configurations.
const FOLLOWS: Duration = Duration::from_secs(90);
/// Longer than any answer takes.
const ANSWERS: Duration = Duration::from_secs(2);
/// Closer than Traefik's own polls.
const WATCH: Duration = Duration::from_millis(50);

/// Whether a body would wipe every route (`{}`, `null`) or be rejected whole (an empty map in it).
fn is_harmful(body: &Value) -> bool {
    match body {
        Value::Null => true,
        Value::Object(map) => {
            map.is_empty()
                || map
                    .values()
                    .any(|value| value.is_object() && is_harmful(value))
        }
        _ => false,
    }
}

/// Reads the provider until stopped: every 200 must be a configuration that Traefik takes.
async fn watch(provider: SocketAddr, stop: CancellationToken) -> Result<u32> {
    let mut seen = 0;
    while !stop.is_cancelled() {
        if let Ok(answer) = http::get(provider, "net", "/v1/traefik").await {
            match answer.status {
                200 if is_harmful(&answer.json()?) => bail!("served: {}", answer.text()),
                200 => seen += 1,
                503 => {}
                other => bail!("status {other}: {}", answer.text()),
            }
        }
        tokio::time::sleep(WATCH).await;
    }
    Ok(seen)
}

/// A GET through Traefik. It may hang for as long as Traefik dials a container that has gone.
async fn get(traefik: &Traefik, host: &str) -> Result<Answer> {
    timeout(ANSWERS, http::get(traefik.entrance, host, "/")).await?
}

async fn through(traefik: &Traefik, host: &str, version: &str) -> Result<()> {
    let answer = get(traefik, host).await?;
    if answer.status != 200 || !answer.text().contains(&format!("version={version} ")) {
        bail!(
            "wanted version {version}, got {} {}",
            answer.status,
            answer.text()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_follows_and_keeps() {
    with_cluster("traefik", async |cluster| {
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch(cluster.net_admin, stop.clone()));
        let provider = format!("http://{}/v1/traefik", cluster.net_admin);
        let traefik = Traefik::start(&cluster.path(""), &provider, cluster.traefik_api).await?;

        let spec = json!({ "replicas": 2, "update": { "drain_ms": 3000 } });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let host = cluster.host(&name);
        let serves = async |version: &str| {
            let what = format!("version {version} through Traefik");
            wait::until_ok(&what, FOLLOWS, async || {
                through(&traefik, &host, version).await
            })
            .await
        };
        serves("1").await.with_context(|| traefik.log())?;

        let image = cluster.image("2", &[]).await?;
        cluster
            .api
            .live(&name, &json!({ "type": "image", "reference": image }))
            .await?;
        serves("2").await?;

        // The net alone, from its disk: the same configuration before any agent speaks, each time.
        cluster.agent.kill().await?;
        cluster.server.kill().await?;
        let from_disk = async || -> Result<Answer> {
            cluster.net.kill().await?;
            cluster.net.start().await?;
            wait::until_ok("the net", FOLLOWS, async || {
                http::get(cluster.net_admin, "net", "/v1/traefik").await
            })
            .await
        };
        let before = from_disk().await?;
        assert!(before.text().contains(&host), "{}", before.text());
        let after = from_disk().await?;
        assert_eq!((after.status, after.text()), (200, before.text()));
        serves("2").await?;

        // A service that goes, goes from Traefik as well, and nothing harmful is served for that.
        cluster.start_all().await?;
        cluster.node_ready().await?;
        cluster.skep.run(&["rm", "web", "--yes"]).await?.ok()?;
        wait::until_ok("the route to go", FOLLOWS, async || {
            let answer = get(&traefik, &host).await?;
            if !matches!(answer.status, 404 | 503) {
                bail!("{} {}", answer.status, answer.text());
            }
            Ok(())
        })
        .await?;
        stop.cancel();
        let seen = watching.await??;
        assert!(seen > 0, "the provider never answered 200");
        traefik.stop().await
    })
    .await;
}
