//! What services use is seen: requests through the ingress as a rate, CPU that is burned as CPU.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::load::Load;
use skep_tests::{Cluster, wait, with_cluster};

/// Several periods, on a busy machine.
const SEEN: Duration = Duration::from_secs(60);
const RATE: u32 = 40;
/// What the one that burns CPU may have of a core: it wants all of it, and is not to want for it, or be
/// seldom throttled, because other tests run.
const BURNER_MILLIS: u32 = 200;

async fn top(cluster: &Cluster, name: &Name) -> Result<Value> {
    let arguments = ["top", "--json", &name.service, "--project", &name.project];
    let found = cluster.skep.run(&arguments).await?.json()?;
    let services = found["services"].as_array().context("services")?;
    ensure!(services.len() == 1, "{found}");
    Ok(services[0].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_seen_as_requests_and_burned_cpu_as_cpu() {
    with_cluster("samples", async |cluster| -> Result<()> {
        let (web, _) = cluster
            .service("web", "1", json!({ "replicas": 2 }))
            .await?;
        let burner = Name::of("burner");
        let image = cluster.image("2", &[("BURN_CPU", "1")]).await?;
        let limit = json!({ "resources": { "cpu_limit_millis": BURNER_MILLIS } });
        cluster.api.put_service(&burner, limit).await?;
        let image = json!({ "type": "image", "reference": image });
        cluster.api.live(&burner, &image).await?;

        wait::until_ok("idle services to be measured", SEEN, async || {
            let of = top(cluster, &web).await?;
            ensure!(of["request_rate"] == 0.0 && of["in_flight"] == 0, "{of}");
            ensure!(
                of["latency_p95_ms"].is_null(),
                "no request, no latency: {of}"
            );
            ensure!(of["missing"] == 0 && of["cpu_millis"].is_u64(), "{of}");
            let memory = of["memory_bytes"].as_u64().context("memory")?;
            ensure!((1 << 18..256 << 20).contains(&memory), "{of}");
            Ok(())
        })
        .await?;
        wait::until_ok("burned CPU to be seen, and whose it is", SEEN, async || {
            let (idle, busy) = (top(cluster, &web).await?, top(cluster, &burner).await?);
            let cpu = |of: &Value| of["cpu_millis"].as_u64();
            ensure!(
                cpu(&busy) > Some(100) && cpu(&idle) < cpu(&busy),
                "{idle} {busy}"
            );
            let allocations = busy["allocations"].as_array().context("allocations")?;
            ensure!(allocations.len() == 1, "{busy}");
            ensure!(allocations[0]["cpu_millis"] == busy["cpu_millis"], "{busy}");
            Ok(())
        })
        .await?;

        let load = Load::start(cluster.ingress, &cluster.host(&web), RATE);
        wait::until_ok("load to be seen as a rate", SEEN, async || {
            let of = top(cluster, &web).await?;
            let seen = of["request_rate"].as_f64().context("rate")?;
            // Clients on a busy machine send less than they should, never more.
            let sent = load.so_far().rate();
            ensure!(seen > sent * 0.6 && seen < sent * 1.5, "{seen} of {sent}");
            ensure!(of["latency_p95_ms"].as_f64() > Some(0.0), "{of}");
            Ok(())
        })
        .await?;
        wait::until_ok("what is read less often to be seen", SEEN, async || {
            let (web, busy) = (top(cluster, &web).await?, top(cluster, &burner).await?);
            let detail = |of: &Value, name: &str| of["allocations"][0]["detail"][name].as_f64();
            let throttled = detail(&busy, "throttled_percent");
            ensure!(throttled > Some(20.0), "{busy}");
            ensure!(detail(&busy, "throttled_ms_per_s") > Some(10.0), "{busy}");
            ensure!(detail(&busy, "memory_peak_bytes") > Some(1_000.0), "{busy}");
            ensure!(
                detail(&web, "network_received_per_s") > Some(100.0),
                "{web}"
            );
            ensure!(detail(&web, "network_sent_per_s") > Some(100.0), "{web}");
            ensure!(busy["allocations"][0]["restarts"] == 0, "{busy}");
            Ok(())
        })
        .await?;
        let wide = cluster.skep.run(&["top", "--wide"]).await?.ok()?;
        wide.says(&["THROTTLED", "NET IN/OUT", "burner", "%", "/s"])?;
        load.stop().await;
        let seen = wait::until_ok("a held request to be seen", SEEN, async || {
            let of = top(cluster, &web).await?;
            ensure!(of["in_flight"] == 1, "{of}");
            Ok(())
        });
        // Held for as long as it takes to be seen, whatever that is on a busy machine.
        tokio::select! {
            held = cluster.get(&web, "/hold?ms=60000") => bail!("held {:?}", held?.status),
            seen = seen => seen?,
        }

        let nodes = cluster
            .skep
            .run(&["top", "--nodes", "--json"])
            .await?
            .json()?;
        let node = &nodes["nodes"][0];
        ensure!(node["cpu_millis"].as_u64() > Some(100), "{node}");
        ensure!(node["memory_bytes"].as_u64() > Some(64 << 20), "{node}");
        let text = cluster.skep.run(&["top"]).await?.ok()?;
        text.says(&["SERVICE", "REQ/S", "web", "2/2"])?;
        Ok(())
    })
    .await;
}
