//! Work with data on shared storage whose nodes' host is away: it goes on elsewhere when the host has fenced itself for certain,
//! which it does for guests of high availability alone, and in a cluster with a majority alone; else it waits, says why, and
//! goes on by a person's word. The time is Proxmox' own, so this takes its minutes: nothing here is heavy.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_proxmox_simulation::GuestKind;
use skep_tests::api::Name;
use skep_tests::{Cluster, wait, with_cluster_that_waits};

use super::{Home, SECRET, SETTLED, node, settled};

/// As docs/node-pools.md says.
const WATCHDOG: Duration = Duration::from_secs(180);
/// Looks are five seconds apart, and some of them are slow.
const LATE: Duration = Duration::from_secs(45);
/// Without a majority: several looks.
const STAYS: Duration = Duration::from_secs(12);
/// Between two looks at what takes minutes.
const LOOK: Duration = Duration::from_millis(250);

/// A service on a node, which is its guest's.
struct Work {
    name: Name,
    node: String,
}

impl Work {
    /// Nodes have room for one of them.
    async fn deploy(cluster: &Cluster, name: &str) -> Result<Self> {
        let name = Name::of(name);
        let spec = json!({
            "type": "worker",
            "resources": {"cpu_millis": 1_500, "memory_bytes": 256 << 20},
            "storage": {"volumes": [{"name": "data", "path": "/data", "storage": "shared"}]},
        });
        cluster.api.put_service(&name, spec).await?;
        let image = json!({"type": "image", "reference": "registry.invalid/bench:1"});
        let deployment = cluster.api.deploy(&name, &image).await?;
        let ended = cluster.api.ended(&deployment.id).await?;
        ensure!(ended.status == "live", "{}", ended.told());
        let node = on(cluster, &name).await?.context("it runs")?;
        Ok(Self { name, node })
    }

    /// It says where people look that it waits for its node, and why.
    async fn says(&self, cluster: &Cluster, why: &str) -> Result<()> {
        wait::until_ok("people to be told why it waits", SETTLED, async || {
            let lost = node(cluster, &self.node).await?.context("a node")?;
            let said = lost["fencing_waits"].as_str().unwrap_or_default();
            ensure!(said.contains(why) && lost["status"] == "lost", "{lost}");
            Ok(())
        })
        .await?;
        let target = format!("{}/production/{}", self.name.project, self.name.service);
        let by_hand = format!("skep node fence {} --confirm", self.node);
        let said = cluster.skep.run(&["why", &target]).await?.ok()?;
        said.says(&["not confirmed dead", &by_hand])?;
        let shown = cluster.skep.run(&["node", "show", &self.node]).await?;
        shown.ok()?.says(&["not confirmed dead", why])?;
        let ps = cluster.skep.run(&["ps", "--json"]).await?.ok()?;
        ps.says(&["not confirmed dead"])?;
        ensure!(self.is_there(cluster).await?, "it has moved");
        Ok(())
    }

    async fn is_there(&self, cluster: &Cluster) -> Result<bool> {
        let now = on(cluster, &self.name).await?;
        Ok(now.as_deref() == Some(&self.node))
    }
}

/// Where what is to run of it is, as far as it is not known to have ended.
async fn on(cluster: &Cluster, name: &Name) -> Result<Option<String>> {
    let live = cluster.api.live_allocations(name).await?;
    ensure!(live.len() <= 1, "twice at once: {live:?}");
    let Some(one) = live.first() else {
        return Ok(None);
    };
    let all = cluster.api.get("/v1/allocations").await?;
    let all = all["allocations"].as_array().context("a list")?;
    let found = all.iter().find(|it| it["id"] == *one.id);
    let node = found.and_then(|it| it["node"].as_str());
    Ok(node.map(str::to_owned))
}

/// The number of the guest of a node.
fn vmid(home: &Home, node: &str) -> Result<u32> {
    let found = home.line.with(|world| {
        let mut all = world.guests.iter();
        all.find(|(_, it)| it.name() == Some(node)).map(|it| *it.0)
    });
    found.context("a guest")
}

async fn run(cluster: &Cluster, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split(' ').collect();
    cluster.skep.run(&words).await?.ok().map(drop)
}

/// The one node of the pool `rest`, once it is there.
async fn rest(cluster: &Cluster) -> Result<String> {
    wait::until("a node that is left", SETTLED, async || {
        let all = cluster.api.get("/v1/nodes").await?;
        let all = all["nodes"].as_array().context("nodes")?;
        let is_rest = |one: &&Value| one["meta"]["pool"] == "rest" && one["status"] == "ready";
        let found = all.iter().find(is_rest);
        Ok(found.and_then(|one| one["name"].as_str().map(str::to_owned)))
    })
    .await
}

/// It goes on elsewhere, and not before the watchdog's time is over; answers how long that took.
async fn goes_on_in_time(cluster: &Cluster, work: &Work, counted: Instant) -> Result<Duration> {
    loop {
        let now = on(cluster, &work.name).await?;
        let took = counted.elapsed();
        match now {
            Some(node) if node == work.node => {
                ensure!(took < WATCHDOG + LATE, "it waits after {took:?}");
            }
            now => {
                ensure!(took >= WATCHDOG, "it was given up after {took:?}: {now:?}");
                return Ok(took);
            }
        }
        // Nobody is told of time that passes.
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_away_ends_what_its_watchdog_ends_and_nothing_else() {
    with_cluster_that_waits("node-pools-watchdog", async |cluster| {
        let agents = ["--sized", "--shared-storage", "shared"];
        let home = Home::start_of(cluster, GuestKind::Qemu, &agents).await?;
        home.provider(cluster, SECRET).await?.ok()?;
        // No other node has the storage, or looks images up.
        cluster.agent.kill().await?;
        let create = "pool create web --provider home --cores 2 --memory 4096 --nodes 2";
        run(cluster, &format!("{create} --template pve1=9000")).await?;
        settled(cluster, &home, 2).await?;
        let managed = Work::deploy(cluster, "managed").await?;
        let plain = Work::deploy(cluster, "plain").await?;
        ensure!(
            managed.node != plain.node,
            "each has a node: {}",
            plain.node
        );
        let create = "pool create rest --provider home --cores 8 --memory 8192 --nodes 1";
        let numbers = "--vmids 6000-6010 --template pve2=9001";
        run(cluster, &format!("{create} {numbers}")).await?;
        let rest = rest(cluster).await?;
        home.obey(&format!("ha {} here", vmid(&home, &managed.node)?))?;

        // One host of three is left: what the others do is not known.
        home.obey("kill pve1")?;
        home.obey("kill pve3")?;
        for work in [&managed, &plain] {
            work.says(cluster, "the hosts have no majority").await?;
        }
        tokio::time::sleep(STAYS).await;
        for work in [&managed, &plain] {
            work.says(cluster, "the hosts have no majority").await?;
        }

        // With a majority it is counted from now on: for what high availability has.
        let counted = Instant::now();
        home.obey("revive pve3")?;
        plain
            .says(
                cluster,
                "pve1 is away, which ends nothing there: high availability does not have the guest",
            )
            .await?;
        managed
            .says(
                cluster,
                "that its watchdog has reset it is certain after 180 s",
            )
            .await?;
        let took = goes_on_in_time(cluster, &managed, counted).await?;
        println!("after {:.1} s", took.as_secs_f64());
        wait::until("it to run elsewhere", SETTLED, async || {
            let now = on(cluster, &managed.name).await?;
            Ok((now.as_deref() == Some(&rest)).then_some(()))
        })
        .await?;
        let fenced = node(cluster, &managed.node).await?.context("a node")?;
        let why = fenced["fenced"]["why"].as_str().unwrap_or_default();
        ensure!(fenced["fenced"]["by"] == "home", "{fenced}");
        ensure!(why.contains("its watchdog has reset it"), "{fenced}");

        // As long again would not do for the other one: a person has to know.
        plain
            .says(cluster, "high availability does not have")
            .await?;
        run(cluster, &format!("node fence {} --confirm", plain.node)).await?;
        wait::until("it to go on by a person's word", SETTLED, async || {
            let now = on(cluster, &plain.name).await?;
            Ok((now.as_deref() == Some(&rest)).then_some(()))
        })
        .await?;
        let violations = home.obey("violations")?;
        ensure!(violations == json!([]), "{violations}");
        Ok(())
    })
    .await;
}
