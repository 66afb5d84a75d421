//! The hop to another node, beside the same request at the node itself.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::figures::{Figure, p50};
use skep_tests::fire::Fire;
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::node::Node;
use skep_tests::lab::nodes::{Wanted, with_nodes};
use skep_tests::{http, wait};

use super::{MIB, ROUNDS, SEEN};

/// One request after the other, so that nobody waits for anything else.
const HOP_ROUND: Duration = Duration::from_secs(2);
const STREAM_BYTES: usize = 64 << 20;

/// The same app by its own node and by another one.
pub(super) async fn hop() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    with_nodes("bench mesh", Wanted::nodes(2), async |cluster, nodes| {
        figures = measure(cluster, nodes).await?;
        Ok(())
    })
    .await;
    Ok(figures)
}

async fn measure(cluster: &LabCluster, nodes: &[Node]) -> Result<Vec<Figure>> {
    let api = &cluster.servers.server(0).api;
    let image = nodes[0].image("1").await?;
    let name = Name::of("web");
    let spec = json!({
        "placement": { "constraints": [format!("node.name = {}", nodes[0].name)] },
    });
    api.put_service(&name, spec).await?;
    api.live(&name, &json!({ "type": "image", "reference": image }))
        .await?;
    let host = format!("web-production-{}.localhost", name.project);
    let entrances = [nodes[0].ingress, nodes[1].ingress];
    for entrance in entrances {
        wait::until_ok("the app", SEEN, async || {
            let answer = http::get(entrance, &host, "/").await?;
            ensure!(answer.status == 200, "{}", answer.status);
            Ok(())
        })
        .await?;
    }
    let mut latencies = [const { Vec::new() }; 2];
    let mut streams = [const { Vec::new() }; 2];
    let body = bytes::Bytes::from(vec![b'x'; STREAM_BYTES]);
    for _ in 0..ROUNDS {
        for (at, entrance) in entrances.into_iter().enumerate() {
            let fire = Fire {
                address: entrance,
                host: host.clone(),
                connections: 1,
                duration: HOP_ROUND,
                rate: None,
            };
            latencies[at].push(p50(&mut fire.run().await?.latencies_us));
            let begun = Instant::now();
            let echoed = http::post(entrance, &host, "/echo", body.clone()).await?;
            ensure!(
                echoed.body.len() == STREAM_BYTES,
                "{} bytes",
                echoed.body.len()
            );
            streams[at].push(2.0 * STREAM_BYTES as f64 / MIB / begun.elapsed().as_secs_f64());
        }
    }
    let [direct, far] = latencies.each_mut().map(|it| p50(it));
    let [direct_stream, far_stream] = streams.each_mut().map(|it| p50(it));
    Ok(vec![
        Figure::alone("mesh.latency_us_p50", far, "us").beside("at the node itself", direct),
        Figure::alone("mesh.overhead_us_p50", far - direct, "us"),
        Figure::alone("mesh.stream_mib_per_s", far_stream, "MiB/s")
            .beside("at the node itself", direct_stream),
    ])
}
