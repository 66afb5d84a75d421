//! A node gets another size: a VM is drained, shut down, changed and started, once, whoever leads; a container changes under
//! what runs in it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_proxmox_simulation::GuestKind;
use skep_tests::api::Name;
use skep_tests::{Cluster, wait, with_cluster};

use super::{Home, SECRET, SETTLED, TEMPLATES, node, settled, untouched};

/// A pool of nodes with two cores and 2 GiB, a service on it, and the names of its nodes.
async fn with_work(
    cluster: &Cluster,
    home: &Home,
    (nodes, kind): (&str, &[&str]),
) -> Result<(Name, Vec<String>)> {
    home.obey("add 5000 somebodys")?;
    home.provider(cluster, SECRET).await?.ok()?;
    // Builds are the guests' too: there is no other node.
    cluster.agent.kill().await?;
    let create = "pool create web --provider home --cores 2 --memory 2048 --nodes";
    let create: Vec<&str> = create
        .split(' ')
        .chain([nodes])
        .chain(TEMPLATES)
        .chain(kind.iter().copied())
        .collect();
    cluster.skep.run(&create).await?.ok()?;
    let names = settled(cluster, home, nodes.parse()?).await?;
    let name = Name::of("web");
    cluster.api.put_service(&name, spec(names.len())).await?;
    let request = json!({"type": "image", "reference": "registry.invalid/bench:1"});
    let deployment = cluster.api.deploy(&name, &request).await?;
    let ended = cluster.api.ended(&deployment.id).await?;
    ensure!(ended.status == "live", "{}", ended.told());
    Ok((name, names))
}

fn spec(replicas: usize) -> Value {
    json!({
        "type": "worker",
        "replicas": replicas,
        "resources": {"cpu_millis": 500, "memory_bytes": 512 << 20},
        "placement": {"pool": "web"},
        "update": {"max_surge": 1},
    })
}

/// The work ends, then its nodes, and nobody else's guest was touched.
async fn taken_down(cluster: &Cluster, home: &Home, service: &Name) -> Result<()> {
    cluster.api.put_service(service, spec(0)).await?;
    let down = ["pool", "scale", "web", "0"];
    cluster.skep.run(&down).await?.ok()?;
    settled(cluster, home, 0).await?;
    untouched(home)
}

async fn resize(cluster: &Cluster, name: &str, arguments: &str) -> Result<skep_tests::skep::Ended> {
    let all = ["node", "resize", name].into_iter();
    let all: Vec<&str> = all.chain(arguments.split(' ')).collect();
    cluster.skep.run(&all).await
}

/// It is the same node, takes work, and has that many cores and GiB.
async fn is_of(cluster: &Cluster, id: &Value, name: &str, cores: u64, gib: u64) -> Result<bool> {
    let one = node(cluster, name).await?.context("a node")?;
    let facts = &one["facts"];
    Ok(one["id"] == *id
        && one["status"] == "ready"
        && one["admin"]["state"] == "eligible"
        && one["resizing"].is_null()
        && facts["cpu_millis"] == cores * 1_000
        && facts["memory_bytes"] == gib << 30)
}

fn calls(home: &Home, call: &str) -> u64 {
    let made = home.line.with(|world| world.calls.get(call).copied());
    made.unwrap_or(0)
}

/// How often its guest was started.
fn boots(home: &Home, name: &str) -> u32 {
    home.line.with(|world| {
        let mut guests = world.guests.values();
        let its = guests.find(|it| it.name() == Some(name));
        its.map_or(0, |it| it.boots)
    })
}

async fn healthy(cluster: &Cluster, name: &Name, count: usize) -> Result<Vec<String>> {
    wait::until("all replicas to be healthy", SETTLED, async || {
        let all = cluster.api.live_allocations(name).await?;
        let healthy = all.iter().filter(|it| it.state == "healthy").count();
        let is_so = healthy == count && all.len() == count;
        Ok(is_so.then(|| all.iter().map(|it| it.id.to_string()).collect()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_is_resized_once_though_its_server_is_killed() {
    with_cluster("node-pools-resized", async |cluster| {
        let home = Home::start_of(cluster, GuestKind::Qemu, &["--sized"]).await?;
        let (service, names) = with_work(cluster, &home, ("2", &[])).await?;
        let name = names[0].as_str();
        let id = node(cluster, name).await?.context("a node")?["id"].clone();
        ensure!(is_of(cluster, &id, name, 2, 2).await?, "as its recipe says");

        let plan = resize(cluster, name, "--cores 4 --memory 4096 --plan").await?;
        plan.ok()?
            .says(&["is drained", "shut down", "nothing of this was done"])?;
        let smaller = resize(cluster, name, "--disk 8").await?.code(2)?;
        smaller.says(&["never becomes smaller", "32 or more"])?;
        let huge = resize(cluster, name, "--memory 300000").await?.code(1)?;
        huge.says(&["262144 MiB of memory", "300000 MiB"])?;
        ensure!(calls(&home, "POST status/shutdown") == 0);

        let asked = resize(cluster, name, "--cores 4 --memory 4096 --disk 40").await?;
        asked.ok()?.says(&["its disk grows", "skep node show"])?;
        let second = resize(cluster, &names[1], "--cores 4").await?.code(1)?;
        second.says(&["one is at a time"])?;
        // Whoever leads dies in the middle of it.
        wait::until("it to be shut down", SETTLED, async || {
            Ok((calls(&home, "POST status/shutdown") > 0).then_some(()))
        })
        .await?;
        cluster.server.kill().await?;
        cluster.server.start().await?;
        cluster.server_answers().await?;
        wait::until("the node to have its size", SETTLED, async || {
            Ok(is_of(cluster, &id, name, 4, 4).await?.then_some(()))
        })
        .await?;
        ensure!(calls(&home, "POST status/shutdown") == 1, "one shutdown");
        ensure!(boots(&home, name) == 2, "one start more");
        healthy(cluster, &service, 2).await?;
        let shown = cluster.skep.run(&["node", "show", name]).await?.ok()?;
        shown.says(&["own size", "4 cores, 4096 MiB, 40 GiB", "4000m"])?;
        let shown = cluster.skep.run(&["pool", "show", "web"]).await?.ok()?;
        shown.says(&["own size: 4 cores, 4096 MiB, 40 GiB"])?;
        let audit = cluster.skep.run(&["audit"]).await?.ok()?;
        audit.says(&["resize_node"])?;

        // A later recipe does not know of it.
        let change = ["pool", "change", "web", "--cores", "3"];
        cluster.skep.run(&change).await?.ok()?;
        let plan = ["pool", "upgrade", "web", "--plan"];
        let plan = cluster.skep.run(&plan).await?.ok()?;
        plan.says(&["its own size, 4 cores, 4096 MiB, 40 GiB, goes with it"])?;
        taken_down(cluster, &home, &service).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_resized_under_what_runs_in_it() {
    with_cluster("node-pools-lxc", async |cluster| {
        let home = Home::start_of(cluster, GuestKind::Lxc, &["--sized"]).await?;
        let (service, names) = with_work(cluster, &home, ("1", &["--lxc"])).await?;
        let name = names[0].as_str();
        let id = node(cluster, name).await?.context("a node")?["id"].clone();
        let before = healthy(cluster, &service, 1).await?;
        let boots_before = boots(&home, name);

        let few = resize(cluster, name, "--memory 256").await?.code(1)?;
        few.says(&["was promised 512 MiB of memory", "256 MiB"])?;
        let plan = resize(cluster, name, "--cores 6 --memory 8192 --plan").await?;
        plan.ok()?.says(&["while it runs"])?;
        resize(cluster, name, "--cores 6 --memory 8192 --disk 48")
            .await?
            .ok()?;
        wait::until("the node to be larger", SETTLED, async || {
            Ok(is_of(cluster, &id, name, 6, 8).await?.then_some(()))
        })
        .await?;
        // Smaller again: it takes nothing new until its agent says so.
        let smaller = resize(cluster, name, "--cores 1 --memory 1024").await?;
        smaller.ok()?.says(&["takes nothing new"])?;
        wait::until("the node to be smaller", SETTLED, async || {
            Ok(is_of(cluster, &id, name, 1, 1).await?.then_some(()))
        })
        .await?;
        ensure!(healthy(cluster, &service, 1).await? == before, "it ran on");
        ensure!(boots(&home, name) == boots_before, "no start");
        ensure!(calls(&home, "POST status/shutdown") == 0, "no shutdown");
        taken_down(cluster, &home, &service).await
    })
    .await;
}
