//! Images without a registry: built on one node, run on others; a node that lies, a disk that is full, and
//! a standard client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Deployment, Name};
use skep_tests::app::App;
use skep_tests::http;
use skep_tests::lab::cluster::LabCluster;
use skep_tests::lab::faulty::{Fault, Faulty};
use skep_tests::lab::node::Node;
use skep_tests::lab::nodes::{self, Wanted};
use skep_tests::lab::registry::{self, Registry};
use skep_tests::random::Random;
use skep_tests::wait;

const SEEN: Duration = Duration::from_secs(60);
/// Of the large layer: it does not shrink, and a small disk has no room for it.
const LARGE_BYTES: usize = 24 << 20;
/// The disk of a node's images that is too small for it.
const SMALL_DISK_MIB: u32 = 20;

/// Runs a test on three nodes, of which the first alone builds.
async fn with_nodes(
    name: &str,
    small_disk: Option<usize>,
    test: impl AsyncFnOnce(&Api, &LabCluster, &[Node]) -> Result<()>,
) {
    let wanted = Wanted {
        small_disk: small_disk.map(|at| (at, SMALL_DISK_MIB)),
        ..Wanted::nodes(3)
    };
    nodes::with_nodes(name, wanted, async |cluster, nodes| {
        test(&cluster.servers.server(0).api, cluster, nodes).await
    })
    .await;
}

fn spread(replicas: usize) -> Value {
    json!({
        "replicas": replicas,
        "placement": { "max_per": ["1 per node.name"] },
        "update": { "drain_ms": 0 },
        "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
    })
}

async fn admin(api: &Api, node: &Node, state: &str) -> Result<()> {
    let path = format!("/v1/nodes/{}/admin", node.name);
    let answer = api
        .call(Method::PUT, &path, Some(&json!({ "state": state })))
        .await?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(())
}

/// The image of a service's newest release.
async fn image_of(api: &Api, name: &Name) -> Result<Value> {
    let releases = api.get(&name.path("/releases")).await?;
    Ok(releases["releases"][0]["image"].clone())
}

/// How many containers run on each node.
pub(crate) async fn running(nodes: &[Node]) -> Result<Vec<usize>> {
    let mut counts = Vec::new();
    for node in nodes {
        let all = node.containers.all().await?;
        counts.push(all.iter().filter(|one| one.runs).count());
    }
    Ok(counts)
}

async fn answers(node: &Node, name: &Name, version: &str) -> Result<()> {
    let host = format!("{}-production-{}.localhost", name.service, name.project);
    wait::until_ok("the app to answer", SEEN, async || {
        let answer = http::get(node.ingress, &host, "/").await?;
        ensure!(
            answer.status == 200 && answer.text().contains(version),
            "{} {}",
            answer.status,
            answer.text()
        );
        Ok(())
    })
    .await
}

/// One blob of a node's store.
fn blob(node: &Node, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    node.path("agent/images/blobs/sha256").join(hex)
}

/// The layers of an image, by its manifest in a node's store.
fn layers(node: &Node, digest: &str) -> Result<Vec<String>> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(blob(node, digest))?)?;
    let layers = manifest["layers"].as_array().context("layers")?;
    let digests = layers.iter().filter_map(|layer| layer["digest"].as_str());
    Ok(digests.map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_one_node_runs_on_all_with_no_registry() {
    with_nodes("shared images", None, async |api, cluster, nodes| {
        let name = Name::of("web");
        let reference = nodes[0].image("1").await?;
        api.put_service(&name, spread(3)).await?;
        let request = json!({ "type": "image", "reference": reference });
        let live = api.live(&name, &request).await?;
        ensure!(running(nodes).await? == [1, 1, 1], "{}", live.told());
        for node in nodes {
            answers(node, &name, "1").await?;
        }

        // The release names the manifest: the id that Docker has for the image is another one.
        let image = image_of(api, &name).await?;
        let digest = image["digest"].as_str().context("a digest")?.to_owned();
        ensure!(image["shared"] == true, "{image}");
        let inspected = nodes[0]
            .containers
            .docker()
            .inspect_image(&reference)
            .await?;
        let id = inspected.id.context("an id")?;
        ensure!(id != digest, "{id}");
        let manifest: Value = serde_json::from_slice(&std::fs::read(blob(&nodes[0], &digest))?)?;
        ensure!(manifest["config"]["digest"] == json!(id), "{manifest}");

        // A client that others wrote sees the same, and nobody without the agent's secret does.
        let folder = nodes[2].path("agent/images");
        let port = std::fs::read_to_string(folder.join("registry.port"))?;
        let secret = std::fs::read_to_string(folder.join("registry.secret"))?;
        let known = format!(
            "docker://127.0.0.1:{port}/skep-lab/{}@{digest}",
            nodes[0].name
        );
        let host = cluster.host(3);
        let inspect = ["inspect", "--tls-verify=false", "--raw"];
        let refused = host
            .run("skopeo", &[&inspect[..], &[&known]].concat())
            .await;
        ensure!(refused.is_err(), "without the secret: {refused:?}");
        let credentials = format!("skep:{secret}");
        let with = [&inspect[..], &["--creds", &credentials, &known]].concat();
        let raw = host.run("skopeo", &with).await?;
        ensure!(serde_json::from_str::<Value>(&raw)? == manifest, "{raw}");
        let (copied, back) = (
            host.path("copied"),
            format!("docker://127.0.0.1:{port}/again/copied:1"),
        );
        let copied = format!("dir:{}", copied.display());
        let down = [
            "copy",
            "--src-tls-verify=false",
            "--src-creds",
            &credentials,
            &known,
            &copied,
        ];
        host.run("skopeo", &down).await?;
        let up = [
            "copy",
            "--dest-tls-verify=false",
            "--dest-creds",
            &credentials,
            &copied,
            &back,
        ];
        host.run("skopeo", &up).await?;
        let tags = format!("docker://127.0.0.1:{port}/again/copied");
        let list = [
            "list-tags",
            "--tls-verify=false",
            "--creds",
            &credentials,
            &tags,
        ];
        let listed: Value = serde_json::from_str(&host.run("skopeo", &list).await?)?;
        ensure!(listed["Tags"] == json!(["1"]), "{listed}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_is_refused_and_another_one_is_asked() {
    with_nodes("a lying node", None, async |api, _, nodes| {
        let name = Name::of("web");
        let reference = nodes[0].image("1").await?;
        admin(api, &nodes[2], "cordoned").await?;
        api.put_service(&name, spread(2)).await?;
        let request = json!({ "type": "image", "reference": reference });
        api.live(&name, &request).await?;
        ensure!(running(nodes).await? == [1, 1, 0]);

        let image = image_of(api, &name).await?;
        let digest = image["digest"].as_str().context("a digest")?;
        let layers = layers(&nodes[0], digest)?;
        for layer in &layers {
            let path = blob(&nodes[0], layer);
            let length = std::fs::metadata(&path)?.len();
            std::fs::write(&path, vec![7; usize::try_from(length)?])?;
        }
        admin(api, &nodes[2], "eligible").await?;
        api.put_service(&name, spread(3)).await?;
        wait::until_ok("the third to run", SEEN, async || {
            let counts = running(nodes).await?;
            ensure!(counts == [1, 1, 1], "{counts:?}");
            Ok(())
        })
        .await?;
        answers(&nodes[2], &name, "1").await?;
        let log = nodes[2].agent.log();
        ensure!(log.contains("a node gave something else"), "nobody lied");
        for layer in &layers {
            let [honest, kept] =
                [&nodes[1], &nodes[2]].map(|node| std::fs::read(blob(node, layer)));
            ensure!(honest? == kept?, "what is kept is what it says");
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_so_and_the_node_serves_on() {
    with_nodes("a full disk", Some(2), async |api, _, nodes| {
        let name = Name::of("web");
        let small = nodes[0].image("1").await?;
        api.put_service(&name, spread(3)).await?;
        let request = json!({ "type": "image", "reference": small });
        api.live(&name, &request).await?;

        let app = App::create(nodes[0].path("large"), "lab", "2")?;
        let mut random = Random::of_run("a_full_disk");
        let numbers = std::iter::repeat_with(|| random.next_u64()).take(LARGE_BYTES / 8);
        let noise: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        std::fs::write(app.dir().join("noise"), noise)?;
        app.set_lines("COPY noise /noise\n")?;
        let large = format!("skep-lab/{}:2", nodes[0].name);
        nodes[0].containers.build(app.dir(), &large).await?;
        let request = json!({ "type": "image", "reference": large });
        let big = Name::of("big");
        let mut spec = spread(1);
        spec["placement"] = json!({ "constraints": [format!("node.name = {}", nodes[2].name)] });
        api.put_service(&big, spec).await?;
        let made = api.deploy(&big, &request).await?;
        let ended = api.ended(&made.id).await?;
        ensure!(ended.status == "failed", "{}", ended.told());
        let problem = format!("{:?}", ended.problem);
        ensure!(problem.contains("disk is full"), "{problem}");
        for node in nodes {
            answers(node, &name, "1").await?;
        }
        Ok(())
    })
    .await;
}

/// Puts the app of a version, as the node's Docker has it, into a registry.
async fn push(
    cluster: &LabCluster,
    node: &Node,
    version: &str,
    to: &str,
    with: &[&str],
) -> Result<()> {
    let daemon = format!("unix://{}", node.path("docker.sock").display());
    let from = format!("docker-daemon:{}", node.image(version).await?);
    let to = format!("docker://{to}");
    let copy = [
        "copy",
        "--src-daemon-host",
        &*daemon,
        "--dest-tls-verify=false",
    ];
    let arguments = [&copy[..], with, &[&*from, &*to]].concat();
    cluster.host(1).run("skopeo", &arguments).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_moved_is_noticed_as_the_pull_policy_says() {
    with_nodes("pull policies", None, async |api, cluster, nodes| {
        let registry = Registry::start(cluster.host(0)).await?;
        let moving = registry.reference("app", "moving");
        let name = Name::of("web");
        let deploy = async |pull: &str, reference: &str| -> Result<Deployment> {
            let spec = json!({
                "image": { "pull": pull },
                "placement": { "constraints": [format!("node.name = {}", nodes[1].name)] },
                "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
            });
            api.put_service(&name, spec).await?;
            let request = json!({ "type": "image", "reference": reference });
            let made = api.deploy(&name, &request).await?;
            api.ended(&made.id).await
        };
        let digest =
            async || -> Result<Value> { Ok(image_of(api, &name).await?["digest"].clone()) };
        let is_live = |ended: &Deployment| ended.status == "live";

        push(cluster, &nodes[0], "1", &moving, &[]).await?;
        let ended = deploy("missing", &moving).await?;
        ensure!(is_live(&ended), "{}", ended.told());
        let first = digest().await?;
        answers(&nodes[1], &name, "version=1 ").await?;

        // The tag is another image now: nobody asks, as long as the building node knows one of that name.
        push(cluster, &nodes[0], "2", &moving, &[]).await?;
        let ended = deploy("missing", &moving).await?;
        ensure!(is_live(&ended), "{}", ended.told());
        ensure!(digest().await? == first, "it is what the node had");
        let ended = deploy("always", &moving).await?;
        ensure!(is_live(&ended), "{}", ended.told());
        ensure!(digest().await? != first, "the registry was not asked");
        answers(&nodes[1], &name, "version=2 ").await?;

        // A registry that has it is not asked, and one that is gone is not needed.
        let other = registry.reference("app", "other");
        push(cluster, &nodes[0], "2", &other, &[]).await?;
        let ended = deploy("never", &other).await?;
        let problem = format!("{:?}", ended.problem);
        let is_advised = problem.contains("docker load");
        ensure!(ended.status == "failed" && is_advised, "{problem}");
        registry.stop().await?;
        let ended = deploy("always", &moving).await?;
        ensure!(ended.status == "failed", "{}", ended.told());
        answers(&nodes[1], &name, "version=2 ").await?;
        let local = nodes[0].image("3").await?;
        let ended = deploy("never", &local).await?;
        ensure!(is_live(&ended), "{}", ended.told());
        answers(&nodes[1], &name, "version=3 ").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_wants_a_login_is_busy_hangs_and_lies() {
    with_nodes("a bad registry", None, async |api, cluster, nodes| {
        let registry = Registry::start_closed(cluster.host(0)).await?;
        let credentials = format!("{}:{}", registry::USER, registry::PASSWORD);
        for version in ["1", "2"] {
            let to = registry.reference("app", version);
            let with = ["--dest-creds", &*credentials];
            push(cluster, &nodes[0], version, &to, &with).await?;
        }
        let name = Name::of("web");
        let spec = json!({
            "placement": { "constraints": [format!("node.name = {}", nodes[1].name)] },
            "resources": { "cpu_millis": 10, "memory_bytes": 16 << 20 },
        });
        api.put_service(&name, spec).await?;
        let deploy = async |host: SocketAddr, version: &str| {
            let reference = format!("{host}/app:{version}");
            let request = json!({ "type": "image", "reference": reference });
            let made = api.deploy(&name, &request).await?;
            api.ended(&made.id).await
        };
        let login = json!({ "user": registry::USER, "password": registry::PASSWORD });
        let set = async |host: SocketAddr| api.put(&format!("/v1/registries/{host}"), &login).await;
        let bad = async |fault| Faulty::start(cluster.machine(), registry.address(), fault).await;

        // Without a login: a refusal that says what to do.
        let refused = deploy(registry.address(), "1").await?;
        let problem = format!("{:?}", refused.problem);
        let is_advised = problem.contains("skep registry login");
        ensure!(refused.status == "failed" && is_advised, "{problem}");

        // With one, through a registry that is busy at first.
        let busy = bad(Fault::Busy(2)).await?;
        set(busy.address).await?;
        let shown = api.get("/v1/registries").await?;
        ensure!(shown["registries"][0]["user"] == registry::USER, "{shown}");
        ensure!(!shown.to_string().contains(registry::PASSWORD), "{shown}");
        let live = deploy(busy.address, "1").await?;
        let faults = busy.faults();
        ensure!(
            live.status == "live" && faults == 2,
            "{:?} {faults}",
            live.problem
        );
        answers(&nodes[1], &name, "1").await?;

        // One that hangs holds up nobody else, and who deploys again waits for it no more.
        let hung = bad(Fault::Hang).await?;
        set(hung.address).await?;
        let reference = format!("{}/app:2", hung.address);
        let request = json!({ "type": "image", "reference": reference });
        let waits = api.deploy(&name, &request).await?;
        wait::until_ok("the registry to hang", SEEN, async || {
            ensure!(hung.faults() > 0, "not asked");
            Ok(())
        })
        .await?;
        answers(&nodes[1], &name, "1").await?;
        let live = deploy(busy.address, "1").await?;
        ensure!(live.status == "live", "{:?}", live.problem);
        let waited = api.ended(&waits.id).await?;
        ensure!(waited.status == "superseded", "{}", waited.status);

        // What is not what its digest says is never run.
        let lying = bad(Fault::Lie(u32::MAX)).await?;
        set(lying.address).await?;
        let failed = deploy(lying.address, "2").await?;
        let is_refused = failed.status == "failed" && lying.faults() > 0;
        ensure!(is_refused, "{}", failed.told());
        answers(&nodes[1], &name, "1").await?;
        for node in nodes {
            ensure!(!node.agent.log().contains(registry::PASSWORD), "in a log");
        }
        registry.stop().await
    })
    .await;
}
