//! Pools that scale themselves: work that finds no place has a guest made, runs there, and when it is gone the node goes.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::{Cluster, wait, with_cluster};

use super::{Home, SECRET, SETTLED, TEMPLATES, pool, settled};

/// Each takes more than half of a node.
fn spec(replicas: u32) -> Value {
    json!({
        "type": "worker",
        "replicas": replicas,
        "resources": {"cpu_millis": 5_000, "memory_bytes": 1 << 30},
        "placement": {"pool": "web"},
        "update": {"max_surge": 1},
    })
}

/// Waits for one more guest to be asked of the hosts; how long that took, ms.
async fn asked(home: &Home, before: usize) -> Result<u128> {
    let began = Instant::now();
    wait::until("a guest to be asked for", SETTLED, async || {
        Ok((home.ours()?.len() > before).then_some(()))
    })
    .await?;
    Ok(began.elapsed().as_millis())
}

async fn healthy(cluster: &Cluster, name: &Name, count: usize) -> Result<()> {
    wait::until("what waited to run", SETTLED, async || {
        let all = cluster.api.live_allocations(name).await?;
        let healthy = all.iter().filter(|it| it.state == "healthy").count();
        Ok((healthy == count && all.len() == count).then_some(()))
    })
    .await
}

fn said(pool: &Value) -> String {
    pool["decided"]["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_without_a_place_makes_nodes_and_its_end_ends_them() {
    with_cluster("node-pools-scaling", async |cluster| {
        let home = Home::start(cluster).await?;
        home.obey("add 5000 somebodys")?;
        home.provider(cluster, SECRET).await?.ok()?;
        // Builds are the guests' too: there is no other node.
        cluster.agent.kill().await?;
        wait::until("the cluster's own node to be lost", SETTLED, async || {
            let all = cluster.api.get("/v1/nodes").await?;
            let nodes = all["nodes"].as_array().context("nodes")?.clone();
            Ok(nodes.iter().all(|it| it["status"] == "lost").then_some(()))
        })
        .await?;
        let create: Vec<&str> = "pool create web --provider home --cores 8 --memory 16384 --max 3"
            .split(' ')
            .chain(TEMPLATES)
            .chain(["--autoscale", "--idle-after", "6s"])
            .collect();
        cluster.skep.run(&create).await?.ok()?;
        ensure!(home.ours()?.is_empty(), "nothing waits yet");

        // From none: the first node is there to build.
        let name = Name::of("web");
        cluster.api.put_service(&name, spec(1)).await?;
        let began = Instant::now();
        let request = json!({"type": "image", "reference": "registry.invalid/bench:1"});
        let deployment = cluster.api.deploy(&name, &request).await?;
        println!(
            "from none to the first guest: {} ms",
            asked(&home, 0).await?
        );
        let ended = cluster.api.ended(&deployment.id).await?;
        ensure!(ended.status == "live", "{}", ended.told());
        println!("live on it after {} ms", began.elapsed().as_millis());
        settled(cluster, &home, 1).await?;

        // One more finds no place.
        let refused = ["pool", "scale", "web", "3"];
        let refused = cluster.skep.run(&refused).await?.code(1)?;
        refused.says(&["scales itself", "--min"])?;
        cluster.api.put_service(&name, spec(2)).await?;
        println!(
            "from no place to a guest asked for: {} ms",
            asked(&home, 1).await?
        );
        // Whoever leads goes on with what was written down.
        cluster.server.kill().await?;
        cluster.server.start().await?;
        cluster.server_answers().await?;
        healthy(cluster, &name, 2).await?;
        let names = settled(cluster, &home, 2).await?;
        let shown = cluster.skep.run(&["pool", "show", "web"]).await?.ok()?;
        shown.says(&["scales itself", "1 more node", "web"])?;

        // What no node of the pool could take orders none, and says why.
        let huge = Name::of("huge");
        let mut too_large = spec(1);
        too_large["resources"]["memory_bytes"] = json!(64_u64 << 30);
        cluster.api.put_service(&huge, too_large).await?;
        cluster.api.deploy(&huge, &request).await?;
        wait::until("the pool to say why not", SETTLED, async || {
            let shown = cluster.skep.run(&["pool", "show", "web"]).await?.ok()?;
            Ok(shown.stdout.contains("none fits").then_some(()))
        })
        .await?;
        ensure!(pool(cluster).await?["size"]["wanted"] == 2);

        // Less is wanted: after its time the node goes, drained, with its guest. What waits in vain holds none.
        cluster.api.put_service(&name, spec(1)).await?;
        let left = settled(cluster, &home, 1).await?;
        ensure!(names.contains(&left[0]), "it is one of the two");
        healthy(cluster, &name, 1).await?;
        ensure!(said(&pool(cluster).await?).contains("goes"));
        cluster.api.put_service(&name, spec(0)).await?;
        settled(cluster, &home, 0).await?;
        let audit = cluster.skep.run(&["audit"]).await?.ok()?;
        audit.says(&["autoscaler", "scale_node_pool"])?;
        super::untouched(&home)
    })
    .await;
}
