//! A request by private name to another node, beside the same one to a port that Docker publishes there: from
//! one container, whose network this program enters by starting itself there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::figures::{Figure, p50};
use skep_tests::fire::Fire;
use skep_tests::http;
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::node::Node;
use skep_tests::lab::nodes::{Wanted, host_of, with_nodes};
use tokio::process::Command;

use super::{MIB, ROUNDS};

/// What every container of these listens on.
const PORT: u16 = 8080;
/// What Docker publishes it as.
const PUBLISHED: u16 = 9090;
/// One request after the other, so that nobody waits for anything else.
const ROUND: Duration = Duration::from_secs(2);
/// As argument: this is what was started there.
pub(super) const FIRE: &str = "fire";
const STREAM_BYTES: usize = 64 << 20;

/// From a container of one node to one of another.
pub(super) async fn private() -> Result<Vec<Figure>> {
    let wanted = Wanted {
        arguments: &["--private-network", "10.202.0.0/16"],
        // What is published is reached from containers by Docker's own rules.
        docker_firewall: true,
        ..Wanted::nodes(2)
    };
    let mut figures = Vec::new();
    with_nodes("bench private", wanted, async |cluster, nodes| {
        figures = measure(cluster, nodes).await?;
        Ok(())
    })
    .await;
    Ok(figures)
}

async fn measure(cluster: &LabCluster, nodes: &[Node]) -> Result<Vec<Figure>> {
    let api = &cluster.servers.server(0).api;
    let app = Name::of("app");
    let caller = Name {
        project: app.project.clone(),
        service: "caller".into(),
    };
    let image = nodes[0].image("1").await?;
    start(api, &app, (&nodes[0], &image)).await?;
    start(api, &caller, (&nodes[1], &image)).await?;
    let network: Value = api.get("/v1/network").await?;
    let services = network["environments"][0]["services"].as_array();
    let services = services.context("services with addresses")?;
    let own = services.iter().find(|it| it["service"] == "app");
    let own = own.and_then(|it| it["address"].as_str());
    let address = own.context("the app's address")?.parse()?;
    let by_name = SocketAddr::new(address, PORT);

    let host = host_of(cluster, &nodes[0])?;
    let socket = format!("unix://{}", nodes[0].path("docker.sock").display());
    let publish = format!("{PUBLISHED}:{PORT}");
    let published = ["-H", &socket, "run", "-d", "-p", &publish, &image];
    host.run("docker", &published).await?;
    let direct = SocketAddr::from((host.address(), PUBLISHED));

    let all = nodes[1].containers.all().await?;
    let inside = all.iter().find(|it| it.runs).context("the caller")?;
    let pid = nodes[1].containers.pid(&inside.id).await?;
    let pid = pid.context("the caller's process")?;
    let [mut waits, mut streams] = [const { [Vec::new(), Vec::new()] }; 2];
    for _ in 0..ROUNDS {
        for (at, address) in [direct, by_name].into_iter().enumerate() {
            let (wait, stream) = from_inside(pid, address).await?;
            waits[at].push(wait);
            streams[at].push(stream);
        }
    }
    let [direct, far] = waits.each_mut().map(|it| p50(it));
    let [direct_stream, far_stream] = streams.each_mut().map(|it| p50(it));
    Ok(vec![
        Figure::alone("private.latency_us_p50", far, "us").beside("a published port", direct),
        Figure::alone("private.overhead_us_p50", far - direct, "us"),
        Figure::alone("private.stream_mib_per_s", far_stream, "MiB/s")
            .beside("a published port", direct_stream),
        Figure::alone("private.stream_ratio", far_stream / direct_stream, "x"),
    ])
}

async fn start(api: &Api, name: &Name, (node, image): (&Node, &str)) -> Result<()> {
    let spec = json!({
        "type": "worker",
        "placement": { "constraints": [format!("node.name = {}", node.name)] },
    });
    api.put_service(name, spec).await?;
    let source = json!({ "type": "image", "reference": image });
    api.live(name, &source).await.map(drop)
}

/// Microseconds of a request, and MiB/s of a stream, from the network of a process.
async fn from_inside(pid: i64, address: SocketAddr) -> Result<(f64, f64)> {
    let ended = Command::new("nsenter")
        .arg(format!("--net=/proc/{pid}/ns/net"))
        .arg(std::env::current_exe()?)
        .args([FIRE, &address.to_string()])
        .kill_on_drop(true)
        .output()
        .await?;
    let told = String::from_utf8_lossy(&ended.stdout);
    let why = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{address}: {why}");
    Ok(serde_json::from_str(&told)?)
}

/// What `from_inside` starts.
pub(super) async fn fire(address: &str) -> Result<()> {
    let address: SocketAddr = address.parse()?;
    let host = "app".to_owned();
    let fire = Fire {
        address,
        host: host.clone(),
        connections: 1,
        duration: ROUND,
        rate: None,
    };
    let wait = p50(&mut fire.run().await?.latencies_us);
    let body = bytes::Bytes::from(vec![b'x'; STREAM_BYTES]);
    let begun = Instant::now();
    let echoed = http::post(address, &host, "/echo", body).await?;
    let bytes = echoed.body.len();
    ensure!(bytes == STREAM_BYTES, "{bytes} bytes");
    let stream = 2.0 * STREAM_BYTES as f64 / MIB / begun.elapsed().as_secs_f64();
    println!("{}", json!([wait, stream]));
    Ok(())
}
