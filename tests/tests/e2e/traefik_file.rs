//! Traefik told by a file: what users say is no template to it, and the cutover waits for its own word.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::traefik::Traefik;
use skep_tests::{http, wait, with_cluster};
use tokio_util::sync::CancellationToken;

/// The file's change, seen at once, and Traefik's throttle; with room for a machine under load.
const FOLLOWS: Duration = Duration::from_secs(90);
/// Less than the data plane gives a Traefik that does not say what it uses (60 s), far less than
/// the time after which old containers end all the same.
const ACKNOWLEDGED: Duration = Duration::from_secs(50);
/// What Traefik runs where it finds it.
const TEMPLATE: &str = r#"{{ env "HOME" }} {{{{ `x` }}"#;

/// Asks until stopped; how many answers were not 200.
async fn load(traefik: &Traefik, stop: &CancellationToken) -> Result<(u32, u32)> {
    let (all, bad) = (AtomicU32::new(0), AtomicU32::new(0));
    while !stop.is_cancelled() {
        let answer = http::get(traefik.entrance, "braces.test", "/").await;
        all.fetch_add(1, Ordering::Relaxed);
        if !answer.is_ok_and(|answer| answer.status == 200) {
            bad.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok((all.into_inner(), bad.into_inner()))
}

async fn serves(traefik: &Traefik, version: &str) -> Result<()> {
    let wanted = format!("version={version} ");
    wait::until_ok(&wanted, FOLLOWS, async || {
        let answer = http::get(traefik.entrance, "braces.test", "/").await?;
        let text = answer.text();
        ensure!(
            answer.status == 200 && text.contains(&wanted),
            "{} {text}",
            answer.status
        );
        let said = answer.header("x-template");
        ensure!(said == TEMPLATE, "{said}");
        Ok(())
    })
    .await
    .with_context(|| traefik.log())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_reads_a_file_literally_and_says_what_it_uses() {
    with_cluster("traefik-file", async |cluster| {
        let file = cluster.path("routes.yml");
        let same = Path::new("");
        let net = cluster.net.like(same, same);
        let net = net.env("SKEP_TRAEFIK_FILE", &file);
        cluster.net.kill().await?;
        net.start().await?;

        let changes = json!({ "response": { "set": { "X-Template": TEMPLATE } } });
        let routes = json!([{ "host": "braces.test", "headers": changes }]);
        let spec = json!({ "routes": routes, "update": { "drain_ms": 1_000 } });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let traefik = Traefik::start_on_file(&cluster.path(""), &file, cluster.traefik_api).await?;
        serves(&traefik, "1").await?;
        let mode = std::fs::metadata(&file)?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "the file is open: {mode:o}");
        let polled = http::get(cluster.net_admin, "net", "/v1/traefik").await?;
        ensure!(polled.status == 409, "polled: {}", polled.status);

        // The old container ends when Traefik's API shows the new routes under the name of its file provider.
        let stop = CancellationToken::new();
        let update = async {
            let image = cluster.image("2", &[]).await?;
            let began = Instant::now();
            let source = json!({ "type": "image", "reference": image });
            cluster.api.live(&name, &source).await?;
            serves(&traefik, "2").await?;
            let old = wait::until_ok("the old container to end", ACKNOWLEDGED, async || {
                let running = cluster.containers.of_cluster(&cluster.id).await?;
                ensure!(running.len() == 1, "{} run", running.len());
                Ok(())
            })
            .await;
            stop.cancel();
            old.with_context(|| format!("after {:?}", began.elapsed()))
        };
        let (updated, loaded) = tokio::join!(update, load(&traefik, &stop));
        updated?;
        let (all, bad) = loaded?;
        ensure!(all > 0 && bad == 0, "{bad} of {all} failed");
        traefik.stop().await
    })
    .await;
}
