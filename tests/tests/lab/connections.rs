//! Connections of no protocol that enter at one node and are for another: the bytes, the ends of both directions, and
//! the release that goes on until they have ended.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::{Api, Name};
use skep_tests::lab::Host;
use skep_tests::lab::node::ADMIN_PORT;
use skep_tests::lab::nodes::{Wanted, host_of, with_nodes};
use skep_tests::talk::Talk;
use skep_tests::wait;
use tokio::net::TcpStream;

const SEEN: Duration = Duration::from_secs(60);
const ENTRY: u16 = 15_000;
/// Far above what the test takes: what ends earlier has ended because it was drained.
const DRAIN_MS: u64 = 300_000;
/// Larger than every buffer on the way.
const LARGE_BYTES: usize = 8 << 20;

async fn connect(entry: SocketAddr) -> Result<Talk> {
    Talk::begin(TcpStream::connect(entry).await?, b"").await
}

/// So many connections of this host's data plane lead to other nodes.
async fn leads_out(host: &Host, count: usize) -> Result<()> {
    let url = format!("http://127.0.0.1:{ADMIN_PORT}/metrics");
    let line = format!("skep_mesh_streams{{direction=\"out\"}} {count}");
    wait::until_ok(&line, SEEN, async || {
        let metrics = host.run("busybox", &["wget", "-qO-", &url]).await?;
        ensure!(metrics.lines().any(|it| it == line), "{metrics}");
        Ok(())
    })
    .await
}

async fn releases(api: &Api, name: &Name) -> Result<Vec<u64>> {
    let live = api.live_allocations(name).await?;
    let mut releases: Vec<u64> = live.iter().map(|one| one.release).collect();
    releases.sort_unstable();
    Ok(releases)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_enters_at_any_node_and_outlives_its_release() {
    with_nodes("connections", Wanted::nodes(2), async |cluster, nodes| {
        let api = &cluster.servers.server(0).api;
        let ports = json!({ "ports": { "first": ENTRY, "last": ENTRY } });
        api.put("/v1/tcp-ports", &ports).await?;
        let name = Name::of("db");
        let spec = json!({
            "type": "worker",
            "update": { "drain_ms": DRAIN_MS },
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            "placement": { "constraints": [format!("node.name = {}", nodes[0].name)] },
            "tcp": [{ "port": 8080, "entry": ENTRY }],
        });
        api.put_service(&name, spec).await?;
        let deploy = async |version: &str| -> Result<()> {
            let image = nodes[0].image_with(version, &[("ECHO", "1")]).await?;
            let source = json!({ "type": "image", "reference": image });
            api.live(&name, &source).await.map(drop)
        };
        deploy("1").await?;
        // The second node runs nothing at all.
        let entrance = host_of(cluster, &nodes[1])?;
        let entry = SocketAddr::from((entrance.address(), ENTRY));
        let mut open = wait::until_ok("a connection", SEEN, async || connect(entry).await).await?;
        ensure!(nodes[1].containers.all().await?.is_empty(), "it is not far");
        open.echo("there and back").await?;
        leads_out(entrance, 1).await?;

        // Our end is told there, and what is said after it comes back.
        let large = vec![b'x'; LARGE_BYTES];
        let back = connect(entry).await?.send_and_end(&large).await?;
        let last = back.strip_prefix(large.as_slice());
        ensure!(last == Some(b"bye\n".as_slice()), "{} bytes", back.len());
        leads_out(entrance, 1).await?;

        deploy("2").await?;
        let newer = connect(entry).await?;
        ensure!(newer.version == "version=2", "{}", newer.version);
        ensure!(newer.end().await? == "bye\n", "the newer one breaks off");
        open.echo("still there").await.context("the older one")?;
        ensure!(open.version == "version=1", "{}", open.version);
        let now = releases(api, &name).await?;
        ensure!(now == [1, 2], "{now:?} run");
        ensure!(open.end().await? == "bye\n", "the older one breaks off");
        wait::until_ok("the old release to end", SEEN, async || {
            let now = releases(api, &name).await?;
            ensure!(now == [2], "{now:?} run");
            Ok(())
        })
        .await?;
        leads_out(entrance, 0).await
    })
    .await;
}
