//! Rolling updates under load: not one request fails.

use anyhow::Result;
use serde_json::json;
use skep_tests::load::Load;
use skep_tests::{chaos, with_cluster};

/// What `make chaos` sends at least; its target is above, so that the average is not below.
const FULL_RATE: u32 = 500;
const SAMPLE_RATE: u32 = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_releases_replace_each_other() {
    with_cluster("rolling", async |cluster| -> Result<()> {
        let spec = json!({ "replicas": 2, "update": { "drain_ms": 2000 }, "stop_grace_ms": 2000 });
        let (name, _) = cluster.service("web", "0", spec).await?;
        let rollouts = chaos::count(2, 10);
        let rate = chaos::count(SAMPLE_RATE, FULL_RATE + FULL_RATE / 10);
        let mut images = Vec::new();
        for version in ["1", "2"] {
            images.push(cluster.image(version, &[]).await?);
        }
        let load = Load::start(cluster.ingress, &cluster.host(&name), rate);
        for round in 0..rollouts {
            let version = round as usize % images.len();
            let request = json!({ "type": "image", "reference": images[version] });
            cluster.api.live(&name, &request).await?;
            // Live means served: by the new release alone, from this moment on.
            for _ in 0..5 {
                cluster.answers(&name, &(version + 1).to_string()).await?;
            }
        }
        cluster.converged(&[(&name, 2)]).await?;
        let report = load.stop().await;
        println!(
            "rolling: {rollouts} updates, {} requests, {:.0}/s",
            report.served,
            report.rate()
        );
        assert_eq!(report.failed(), 0, "{report:?}");
        if chaos::is_full() {
            assert!(report.rate() >= f64::from(FULL_RATE), "{report:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_finished_by_the_release_that_took_it() {
    with_cluster("drain", async |cluster| -> Result<()> {
        let (name, _) = cluster
            .service("web", "1", json!({ "update": { "drain_ms": 10000 } }))
            .await?;
        let next = cluster.image("2", &[]).await?;
        let held = cluster.get(&name, "/hold?ms=3000");
        let update = async {
            cluster
                .api
                .live(&name, &json!({ "type": "image", "reference": next }))
                .await?;
            cluster.answers(&name, "2").await
        };
        let (held, updated) = tokio::join!(held, update);
        updated?;
        let held = held?;
        assert_eq!((held.status, held.text().as_str()), (200, "held 3000 ms\n"));
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}
