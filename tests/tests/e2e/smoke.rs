//! `skep smoke` on a real cluster: what works is seen to work, what does not fails it, and nothing is left either
//! way. And `skep inventory` of the same cluster.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use skep_tests::docker_proxy::{DockerProxy, Mood};
use skep_tests::skep::Skep;
use skep_tests::{Cluster, place, process, wait, with_cluster, with_cluster_on};
use tokio::process::{Child, Command};

const SOON: Duration = Duration::from_secs(60);
/// What the daemon says that starts nothing.
const WHY: &str = "told by the test to start nothing";

/// The names of services that smoke tests have.
async fn services(cluster: &Cluster) -> Result<Vec<String>> {
    let all = cluster.api.get("/v1/services").await?;
    let all = all["services"].as_array().context("a list")?.clone();
    let of_smoke = all.iter().filter(|one| one["project"] == "skep-smoke");
    let names = of_smoke.filter_map(|one| one["name"].as_str().map(str::to_owned));
    Ok(names.collect())
}

async fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    let left = services(cluster).await?;
    ensure!(left.is_empty(), "left: {left:?}");
    let containers = cluster.containers.of_cluster(&cluster.id).await?;
    ensure!(containers.is_empty(), "left: {containers:#?}");
    let config = cluster.path("config");
    let mut folders =
        std::fs::read_dir(config)?.filter_map(|it| it.ok()?.file_name().into_string().ok());
    let folder = folders.find(|name| name.starts_with("skep-smoke-"));
    ensure!(folder.is_none(), "left: {folder:?}");
    Ok(())
}

/// The steps of a report, and whether each went well.
fn steps(report: &Value) -> Result<Vec<(String, bool)>> {
    let steps = report["steps"].as_array().context("steps")?.iter();
    let step = |step: &Value| Some((step["name"].as_str()?.to_owned(), step["ok"].as_bool()?));
    steps.map(|it| step(it).context("a step")).collect()
}

/// The same binary without what only a debugger reads: it goes into an image twice.
async fn small_skep(cluster: &Cluster) -> Result<Skep> {
    let small = cluster.path("skep-small");
    let status = Command::new("strip")
        .args(["-s", "-o"])
        .args([small.clone(), place::skep_binary()?])
        .status()
        .await?;
    ensure!(status.success(), "strip: {status}");
    Ok(Skep::new(&small, &cluster.path("config")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_goes_through_its_whole_life_and_is_gone() {
    with_cluster("smokeprocess", async |cluster| {
        let skep = small_skep(cluster).await?;
        let report = skep
            .run(&["smoke", "--app", "process", "--json"])
            .await?
            .json()?;
        let names: Vec<_> = steps(&report)?
            .into_iter()
            .map(|(name, ok)| format!("{name}:{ok}"))
            .collect();
        let wanted = [
            "leftovers:true",
            "cluster:true",
            "ingress:true",
            "deploy:true",
            "request:true",
            "second version:true",
            "request:true",
            "scale:true",
            "rollback:true",
            "request:true",
            "remove:true",
        ];
        ensure!(names == wanted, "{report:#}");
        ensure!(
            report["ok"] == true && report["left"] == false,
            "{report:#}"
        );
        let scale = &report["steps"][7]["told"];
        ensure!(*scale == "2 healthy, and each of them answers", "{scale}");
        nothing_is_left(cluster).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_needs_no_container_and_what_is_kept_stays() {
    with_cluster("smokesite", async |cluster| {
        let ended = cluster.skep.run(&["smoke", "--app", "site"]).await?.ok()?;
        ended.says(&["ok    deploy", "version 2 from one", "done:"])?;
        nothing_is_left(cluster).await?;

        // By one address, and to stay; the next one lets it.
        let through = cluster.ingress.to_string();
        let keep = [
            "smoke",
            "--app",
            "site",
            "--keep",
            "--json",
            "--ingress",
            &through,
        ];
        let report = cluster.skep.run(&keep).await?.json()?;
        ensure!(report["left"] == true, "{report:#}");
        cluster.skep.run(&["smoke", "--app", "site"]).await?.ok()?;
        let kept = services(cluster).await?;
        ensure!(kept.len() == 1 && kept[0].starts_with("kept-"), "{kept:?}");
        ensure!(
            report["service"] == format!("skep-smoke/production/{}", kept[0]),
            "{report:#}"
        );

        // An ingress that is not there is no detail.
        let none = ["smoke", "--app", "site", "--ingress", "127.0.0.1:1"];
        let ended = cluster.skep.run(&none).await?.code(1)?;
        ended.says(&["FAIL  ingress", "127.0.0.1:1", "hint:"])?;
        ensure!(services(cluster).await? == kept, "more is left");
        Ok(())
    })
    .await;
}

/// Runs until `skep smoke` has a service that is live or on its way there.
async fn at_work(cluster: &Cluster) -> Result<(Child, String)> {
    let child = cluster.skep.spawn(&["smoke", "--app", "site"])?;
    let name = wait::until_ok("the service of a smoke test", SOON, async || {
        let names = services(cluster).await?;
        names.into_iter().next().context("none yet")
    });
    Ok((child, name.await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_one_cleans_up_and_a_killed_one_is_cleaned_up_after() {
    with_cluster("smokekilled", async |cluster| {
        let (child, _) = at_work(cluster).await?;
        process::signal(child.id().context("it runs")?, "INT").await?;
        let output = child.wait_with_output().await?;
        let told = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(130),
            "{:?} {told}",
            output.status
        );
        ensure!(told.contains("ok    remove"), "{told}");
        ensure!(
            services(cluster).await?.is_empty(),
            "an interrupted one left something"
        );

        let (mut child, name) = at_work(cluster).await?;
        child.kill().await?;
        ensure!(
            services(cluster).await? == [name.clone()],
            "there is what it made"
        );
        let ended = cluster.skep.run(&["smoke", "--app", "site"]).await?.ok()?;
        ended.says(&[&format!("removed {name}")])?;
        ensure!(
            services(cluster).await?.is_empty(),
            "a killed one's is still there"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_nothing_fails_it_and_nothing_is_left() {
    let proxy = DockerProxy::start(&skep_tests::containers::default_socket()).expect("a proxy");
    let socket = proxy.socket().display().to_string();
    let outcome = with_cluster_on(&socket, "smokebroken", async |cluster| {
        let skep = small_skep(cluster).await?;
        proxy.set(Mood::Unable(WHY));
        let ended = skep.run(&["smoke", "--app", "process", "--json"]).await?;
        let report: Value =
            serde_json::from_str(&ended.stdout).with_context(|| ended.to_string())?;
        let ended = ended.code(1)?.says(&[WHY])?;
        let steps = steps(&report)?;
        let failed: Vec<_> = steps
            .iter()
            .filter(|(_, ok)| !ok)
            .map(|(name, _)| &**name)
            .collect();
        ensure!(failed == ["deploy"], "{ended}");
        ensure!(
            report["ok"] == false && report["left"] == false,
            "{report:#}"
        );
        proxy.set(Mood::Well);
        wait::until_ok("nothing to be left", SOON, async || {
            nothing_is_left(cluster).await
        })
        .await?;

        // Docker away: it is said before anything is made.
        proxy.set(Mood::Wedged);
        wait::until_ok("the node not to be ready", SOON, async || {
            let nodes = cluster.api.get("/v1/nodes").await?;
            match nodes["nodes"][0]["status"] == "ready" {
                true => bail!("{nodes}"),
                false => Ok(()),
            }
        })
        .await?;
        let ended = skep.run(&["smoke"]).await?.code(1)?;
        ended.says(&["FAIL  cluster", "none takes allocations", "skep node ls"])?;
        ensure!(services(cluster).await?.is_empty(), "something was made");
        proxy.set(Mood::Well);
        Ok(())
    });
    if let Err(error) = outcome.await {
        panic!("smokebroken: {error:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_an_inventory_for_ansible() {
    with_cluster("inventory", async |cluster| {
        let list = cluster.skep.run(&["inventory", "--list"]).await?.json()?;
        let servers = list["servers"]["hosts"].as_array().context("servers")?;
        let server = servers
            .first()
            .and_then(Value::as_str)
            .context("one server")?;
        ensure!(
            list["nodes"]["hosts"] == serde_json::json!(["one"]),
            "{list:#}"
        );
        let one = &list["_meta"]["hostvars"]["one"];
        ensure!(
            one["ansible_host"] == "127.0.0.1" && one["skep_role"] == "node",
            "{list:#}"
        );
        ensure!(one["skep_admin"] == "eligible", "{list:#}");
        let nodes = cluster.api.get("/v1/nodes").await?;
        ensure!(one["skep_node_id"] == nodes["nodes"][0]["id"], "{list:#}");
        ensure!(
            list["_meta"]["hostvars"][server]["skep_leader"] == true,
            "{list:#}"
        );

        cluster.skep.run(&["node", "cordon", "one"]).await?.ok()?;
        cluster
            .skep
            .run(&["node", "meta", "set", "one", "pool=web-1"])
            .await?
            .ok()?;
        let one = cluster
            .skep
            .run(&["inventory", "--host", "one"])
            .await?
            .json()?;
        ensure!(
            one["skep_admin"] == "cordoned" && one["skep_pool"] == "web-1",
            "{one:#}"
        );
        let list = cluster.skep.run(&["inventory"]).await?.json()?;
        ensure!(
            list["pool_web_1"]["hosts"] == serde_json::json!(["one"]),
            "{list:#}"
        );

        // As Ansible runs it: a script of two lines.
        let script = cluster.path("inventory.sh");
        let line = cluster.skep.line()?;
        std::fs::write(&script, format!("#!/bin/sh\n{line} inventory \"$@\"\n"))?;
        let output = Command::new("sh")
            .arg(&script)
            .args(["--host", "nobody"])
            .output()
            .await?;
        ensure!(
            String::from_utf8_lossy(&output.stdout).trim() == "{}",
            "{output:?}"
        );
        Ok(())
    })
    .await;
}
