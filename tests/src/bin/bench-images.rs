//! `make bench-images`: an image of 100 MB that was built on one node starts on two others: with the nodes'
//! own stores, and beside it with Debian's `docker-registry`, to which it is pushed first. Both under TLS, as
//! Docker wants it of whatever is not on its own machine. The same cluster, the same way of starting, in
//! turns in the same run; layers that do not shrink, and no two rounds share any. Prints a table, writes `target/bench/images.json` and the section of
//! docs/benchmarks.md; a number as argument makes the image that many times smaller and writes nothing.
//! Needs root: each node is a host of a lab with a Docker of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::{Api, Name};
use skep_tests::app::App;
use skep_tests::figures::{Figure, p50, publish, table};
use skep_tests::lab::cluster::{LabCluster, try_with_servers};
use skep_tests::lab::node::Node;
use skep_tests::lab::registry::Registry;
use skep_tests::random::Random;
use skep_tests::wait;

const IMAGE_BYTES: usize = 100_000_000;
/// Layers of the image: real ones have several.
const LAYERS: usize = 4;
/// Odd: the one in the middle counts. Each begins with the other way.
const ROUNDS: usize = 5;
const SEEN: Duration = Duration::from_secs(120);
const MIB: f64 = 1024.0 * 1024.0;
/// Where this program writes in docs/benchmarks.md.
const HEADING: &str = "## An image from one node to two: `make bench-images`";

/// What one way took.
#[derive(Default)]
struct Took {
    seconds: Vec<f64>,
    moved_mib: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let smaller: Option<usize> = std::env::args()
        .nth(1)
        .map(|text| text.parse())
        .transpose()?;
    let bytes = IMAGE_BYTES / smaller.unwrap_or(1).max(1);
    let mut figures = Vec::new();
    try_with_servers(1, async |cluster| {
        figures = measure(cluster, bytes).await?;
        Ok(())
    })
    .await?;
    println!("{}", table(&figures));
    if smaller.is_some() {
        return Ok(());
    }
    publish("images", HEADING, &figures)
}

async fn measure(cluster: &mut LabCluster, bytes: usize) -> Result<Vec<Figure>> {
    let server = cluster.servers.server(0).site.cluster;
    let token = cluster.servers.bootstrap().join_token.clone();
    let registry = Registry::start_tls(cluster.host(0)).await?;
    let (mut nodes, mut places) = (Vec::new(), Vec::new());
    for at in 0..3 {
        let place = cluster.lab().add_host().await?;
        let arguments: &[&str] = if at == 0 { &[] } else { &["--no-builds"] };
        let host = cluster.host(place);
        nodes.push(Node::start_with(host, server, &token, arguments).await?);
        places.push(place);
    }
    let api = &cluster.servers.server(0).api;
    wait::until_ok("all nodes to be ready", SEEN, async || {
        let status = api.get("/v1/status").await?;
        ensure!(status["nodes"]["ready"] == 3, "{status}");
        Ok(())
    })
    .await?;
    let mut random = Random::of_run("bench-images");
    let (mut ours, mut theirs) = (Took::default(), Took::default());
    for round in 0..ROUNDS {
        for is_ours in [round % 2 == 0, round % 2 == 1] {
            let label = format!("{}{round}", if is_ours { "own" } else { "reg" });
            let reference = match is_ours {
                true => format!("skep-bench/image:{label}"),
                false => registry.reference("image", &label),
            };
            build(&nodes[0], &label, &reference, bytes, &mut random).await?;
            let before = received(cluster, &places).await?;
            let begun = Instant::now();
            if !is_ours {
                nodes[0].containers.push(&reference).await?;
            }
            start(api, &nodes[0], &label, &reference).await?;
            let took = match is_ours {
                true => &mut ours,
                false => &mut theirs,
            };
            took.seconds.push(begun.elapsed().as_secs_f64());
            let moved = received(cluster, &places).await? - before;
            took.moved_mib.push(moved as f64 / MIB);
        }
    }
    for node in &nodes {
        node.stop().await?;
    }
    registry.stop().await?;
    let peer = "docker-registry";
    let figure = |metric, ours: &mut [f64], theirs: &mut [f64], unit| {
        Figure::alone(metric, p50(ours), unit).beside(peer, p50(theirs))
    };
    Ok(vec![
        figure(
            "images.start_on_two_s",
            &mut ours.seconds,
            &mut theirs.seconds,
            "s",
        ),
        figure(
            "images.network_mib",
            &mut ours.moved_mib,
            &mut theirs.moved_mib,
            "MiB",
        ),
    ])
}

/// An image of the test app and layers of noise.
async fn build(
    node: &Node,
    label: &str,
    reference: &str,
    bytes: usize,
    random: &mut Random,
) -> Result<()> {
    let app = App::create(node.path(&format!("bench-{label}")), "lab", label)?;
    let mut lines = String::new();
    for layer in 0..LAYERS {
        let numbers = std::iter::repeat_with(|| random.next_u64()).take(bytes / LAYERS / 8);
        let noise: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        std::fs::write(app.dir().join(format!("noise{layer}")), noise)?;
        lines.push_str(&format!("COPY noise{layer} /noise{layer}\n"));
    }
    app.set_lines(&lines)?;
    node.containers.build(app.dir(), reference).await
}

/// Deploys to the two other nodes, and waits until both are healthy.
async fn start(api: &Api, builder: &Node, label: &str, reference: &str) -> Result<()> {
    let name = Name::of(label);
    let spec = json!({
        "replicas": 2,
        "placement": {
            "max_per": ["1 per node.name"],
            "constraints": [format!("node.name != {}", builder.name)],
        },
        "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
    });
    api.put_service(&name, spec).await?;
    let request = json!({ "type": "image", "reference": reference });
    api.live(&name, &request).await.map(drop)
}

/// Bytes that came in over the cables of the server, which holds the registry, and of all nodes.
async fn received(cluster: &LabCluster, places: &[usize]) -> Result<u64> {
    let mut all = 0;
    for place in std::iter::once(&0).chain(places) {
        let text = cluster.host(*place).run("cat", &["/proc/net/dev"]).await?;
        let cables = text.lines().filter_map(|line| line.trim().split_once(':'));
        let cables = cables.filter(|(name, _)| {
            !["lo", "docker", "veth", "br"]
                .iter()
                .any(|own| name.starts_with(own))
        });
        for (name, counts) in cables {
            let bytes = counts.split_whitespace().next();
            let bytes: u64 = bytes.with_context(|| format!("{name} counts"))?.parse()?;
            all += bytes;
        }
    }
    Ok(all)
}
