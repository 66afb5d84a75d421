//! Rolling updates under load, with Traefik itself in front: not one request fails, though Traefik
//! polls, applies in its own time, and tells nobody what it still sends to whom.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use skep_tests::load::Load;
use skep_tests::traefik::Traefik;
use skep_tests::{chaos, http, wait, with_cluster};

/// What is sent each second.
const RATE: u32 = 200;
/// A poll of the provider, and Traefik's own throttle of 2 s between configurations.
const FOLLOWS: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_through_traefik_fails_while_releases_replace_each_other() {
    with_cluster("traefik-rolling", async |cluster| -> Result<()> {
        let provider = format!("http://{}/v1/traefik", cluster.net_admin);
        let traefik = Traefik::start(&cluster.path(""), &provider, cluster.traefik_api).await?;
        // Both limits of a service are below what Traefik takes to follow: it is waited for all
        // the same.
        let spec = json!({ "replicas": 2, "update": { "drain_ms": 1000 }, "stop_grace_ms": 1000 });
        let (name, _) = cluster.service("web", "0", spec).await?;
        let host = cluster.host(&name);
        let serves = async |version: &str| {
            let what = format!("version {version} through Traefik");
            wait::until_ok(&what, FOLLOWS, async || {
                let answer = http::get(traefik.entrance, &host, "/").await?;
                if answer.status != 200 || !answer.text().contains(&format!("version={version} ")) {
                    bail!("{} {}", answer.status, answer.text());
                }
                Ok(())
            })
            .await
            .with_context(|| traefik.log())
        };
        serves("0").await?;
        let mut images = Vec::new();
        for version in ["1", "2"] {
            images.push(cluster.image(version, &[]).await?);
        }
        let updates = chaos::count(3, 10);
        let load = Load::start(traefik.entrance, &host, RATE);
        for round in 0..updates {
            let version = round as usize % images.len();
            let request = json!({ "type": "image", "reference": images[version] });
            cluster.api.live(&name, &request).await?;
            serves(&(version + 1).to_string()).await?;
        }
        cluster.converged(&[(&name, 2)]).await?;
        let report = load.stop().await;
        println!(
            "traefik: {updates} updates, {} requests, {:.0}/s",
            report.served,
            report.rate()
        );
        assert_eq!(report.failed(), 0, "{report:?}");
        assert!(report.served > 0, "{report:?}");
        traefik.stop().await
    })
    .await;
}
