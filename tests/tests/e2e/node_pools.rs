//! Pools that make their nodes, from the user's commands: guests are cloned, started, told how to join, let in by proof, and
//! removed with their nodes. The hosts are simulated, and served over TLS; in each guest an agent runs.

mod copies;
mod machines;
mod refusals;
mod resizing;
mod scaling;
mod watchdog;
mod whole;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use skep_proxmox_simulation::server::{Agents, Certificates, Host, Program, obey, serve};
use skep_proxmox_simulation::{GuestKind, Line, World};
use skep_tests::{Cluster, wait, with_cluster};

const TOKEN_ID: &str = "skep@pve!sim";
const SECRET: &str = "00000000-0000-4000-8000-000000000000";
/// A clone of a minute takes a third of a second.
const SPEED: u32 = 200;
/// Some guests come or go.
const SETTLED: Duration = Duration::from_secs(120);

/// Proxmox hosts, and the agents in their guests.
struct Home {
    line: Line,
    hosts: Vec<Host>,
    ca: PathBuf,
    _agents: tokio::task::JoinHandle<()>,
}

impl Drop for Home {
    fn drop(&mut self) {
        // The agents' processes end with it.
        self._agents.abort();
    }
}

impl Home {
    async fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_of(cluster, GuestKind::Qemu, &[]).await
    }

    /// With guests of a kind, and agents in them that are told more.
    async fn start_of(cluster: &Cluster, kind: GuestKind, more: &[&str]) -> Result<Self> {
        let arguments = ["guest"].iter().chain(more);
        let program = Program {
            path: env!("CARGO_BIN_EXE_skep-sim-agent").into(),
            arguments: arguments.map(|it| (*it).to_owned()).collect(),
            folder: cluster.path("guests"),
        };
        Self::start_as(cluster, kind, program).await
    }

    /// With guests of a kind, and this in them.
    async fn start_as(cluster: &Cluster, kind: GuestKind, program: Program) -> Result<Self> {
        let line = Line::new(World::of(11, kind));
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let now_ms = u64::try_from(now.as_millis())?;
        line.with(|world| {
            world.hurry(SPEED);
            world.epoch_ms = now_ms;
        });
        let certificates = Certificates::new()?;
        let hosts = serve(&line, &format!("{TOKEN_ID}={SECRET}"), &certificates).await?;
        let ca = cluster.path("pve-root-ca.pem");
        std::fs::write(&ca, certificates.pem())?;
        let agents = Agents::new(line.clone(), program);
        let kept = tokio::spawn(async move {
            if let Err(error) = agents.keep().await {
                eprintln!("agents of guests: {error:#}");
            }
        });
        Ok(Self {
            line,
            hosts,
            ca,
            _agents: kept,
        })
    }

    fn obey(&self, command: &str) -> Result<Value> {
        self.line.with(|world| obey(world, command))
    }

    /// Guests that are ours, by number and host.
    fn ours(&self) -> Result<Vec<(u64, String)>> {
        let all = self.obey("list")?;
        let all = all["guests"].as_array().context("a list")?.clone();
        let ours = all.iter().filter(|one| one["is_ours"] == true);
        Ok(ours
            .map(|one| {
                let host = one["host"].as_str().unwrap_or_default();
                (one["vmid"].as_u64().unwrap_or(0), host.to_owned())
            })
            .collect())
    }

    async fn provider(&self, cluster: &Cluster, secret: &str) -> Result<skep_tests::skep::Ended> {
        let urls: Vec<String> = self
            .hosts
            .iter()
            .map(|host| format!("https://{}", host.address))
            .collect();
        let ca = self.ca.to_str().context("a path")?;
        let mut arguments = vec!["provider", "set", "home", "--ca", ca];
        for url in &urls {
            arguments.extend(["--host", url]);
        }
        arguments.extend(["--token-id", TOKEN_ID, "--secret-stdin"]);
        let input = format!("{secret}\n");
        Ok(cluster.skep.feed(&arguments, input.as_bytes()).await?.0)
    }
}

const TEMPLATES: [&str; 6] = [
    "--template",
    "pve1=9000",
    "--template",
    "pve2=9001",
    "--template",
    "pve3=9002",
];

async fn pool(cluster: &Cluster) -> Result<Value> {
    let shown = cluster.skep.run(&["pool", "show", "web", "--json"]).await?;
    Ok(shown.json()?["nodes"].clone())
}

/// Names of the guests whose node is there.
fn ready(pool: &Value) -> Vec<String> {
    let guests = pool["guests"].as_array().into_iter().flatten();
    let ready = guests.filter(|one| one["phase"] == "ready");
    ready
        .filter_map(|one| one["name"].as_str().map(str::to_owned))
        .collect()
}

/// So many guests, all of them nodes, and nothing else of ours at the hosts.
async fn settled(cluster: &Cluster, home: &Home, count: usize) -> Result<Vec<String>> {
    wait::until("the pool to have what it wants", SETTLED, async || {
        let pool = pool(cluster).await?;
        let all = pool["guests"].as_array().context("guests")?.len();
        let (ready, made) = (ready(&pool), home.ours()?.len());
        Ok((ready.len() == count && all == count && made == count).then_some(ready))
    })
    .await
}

async fn node(cluster: &Cluster, name: &str) -> Result<Option<Value>> {
    let all = cluster.api.get("/v1/nodes").await?;
    let all = all["nodes"].as_array().context("nodes")?.clone();
    Ok(all.into_iter().find(|one| one["name"] == name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_made_moved_replaced_and_removed() {
    with_cluster("node-pools", async |cluster| {
        let home = Home::start(cluster).await?;
        home.obey("add 5000 somebodys")?;
        home.provider(cluster, "wrong")
            .await?
            .code(2)?
            .says(&["token"])?;
        home.provider(cluster, SECRET).await?.ok()?;
        let shown = cluster.skep.run(&["provider", "show", "home"]).await?;
        shown.ok()?.says(&["Proxmox VE", "pve1", "pve3"])?;

        let create = [
            "pool",
            "create",
            "web",
            "--provider",
            "home",
            "--nodes",
            "2",
        ];
        let create: Vec<&str> = create.into_iter().chain(TEMPLATES).collect();
        let plan: Vec<&str> = create.iter().copied().chain(["--plan"]).collect();
        // The first number of the range is somebody's.
        let planned = cluster.skep.run(&plan).await?.ok()?;
        planned.says(&["5001", "5002", "nothing of this was done"])?;
        ensure!(home.ours()?.is_empty());
        cluster.skep.run(&create).await?.ok()?;
        let names = settled(cluster, &home, 2).await?;
        let one = node(cluster, &names[0]).await?.context("a node")?;
        ensure!(one["meta"]["pool"] == "web", "{one}");
        ensure!(one["status"] == "ready", "{one}");
        let hosts = home.ours()?;
        ensure!(hosts[0].1 != hosts[1].1, "two nodes on one host: {hosts:?}");

        // Proxmox moves a guest by itself.
        let (vmid, _) = hosts[0].clone();
        let elsewhere = ["pve1", "pve2", "pve3"];
        let elsewhere = elsewhere
            .iter()
            .find(|it| hosts.iter().all(|(_, host)| host != *it));
        let elsewhere = *elsewhere.context("a host without any")?;
        home.obey(&format!("move {vmid} {elsewhere}"))?;
        wait::until("the node to be known there", SETTLED, async || {
            let mut found = None;
            for name in &names {
                let one = node(cluster, name).await?.context("a node")?;
                found = found.or((one["meta"]["host"] == elsewhere).then_some(()));
            }
            Ok(found)
        })
        .await?;

        let replaced = &names[0];
        let plan = ["node", "replace", replaced, "--plan"];
        cluster.skep.run(&plan).await?.ok()?.says(&["drained"])?;
        cluster
            .skep
            .run(&["node", "replace", replaced])
            .await?
            .ok()?;
        let after = wait::until("another one in its place", SETTLED, async || {
            let now = settled(cluster, &home, 2).await?;
            Ok((!now.contains(replaced)).then_some(now))
        })
        .await?;
        ensure!(after.contains(&names[1]), "the other one stayed: {after:?}");
        ensure!(node(cluster, replaced).await?.is_none());

        let gone = &after[0];
        cluster
            .skep
            .run(&["node", "rm", gone, "--yes"])
            .await?
            .ok()?;
        let left = settled(cluster, &home, 1).await?;
        ensure!(!left.contains(gone));
        ensure!(pool(cluster).await?["size"]["wanted"] == 1);

        let refused = cluster.skep.run(&["pool", "rm", "web"]).await?.code(1)?;
        refused.says(&["guests"])?;
        cluster
            .skep
            .run(&["pool", "scale", "web", "0"])
            .await?
            .ok()?;
        settled(cluster, &home, 0).await?;
        cluster.skep.run(&["pool", "rm", "web"]).await?.ok()?;
        cluster.skep.run(&["provider", "rm", "home"]).await?.ok()?;
        untouched(&home)
    })
    .await;
}

/// Nobody else's guest was touched.
fn untouched(home: &Home) -> Result<()> {
    let violations = home.obey("violations")?;
    if violations.as_array().is_some_and(|all| !all.is_empty()) {
        bail!("{violations}");
    }
    let all = home.obey("list")?;
    let there = all["guests"].as_array().context("guests")?;
    let somebodys = there.iter().any(|one| one["name"] == "somebodys");
    ensure!(
        somebodys && there.len() == 4,
        "three templates, and a guest: {all}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_leaves_no_orphan_and_doubles_nothing() {
    with_cluster("node-pools-killed", async |cluster| {
        let home = Home::start(cluster).await?;
        home.obey("add 5000 somebodys")?;
        home.provider(cluster, SECRET).await?.ok()?;
        // Lines break, and answers are lost.
        home.obey("faults broken_line=30 unknown=30 lock_timeout=30 failed_task=30")?;
        let create = [
            "pool",
            "create",
            "web",
            "--provider",
            "home",
            "--nodes",
            "2",
        ];
        let create: Vec<&str> = create.into_iter().chain(TEMPLATES).collect();
        cluster.skep.run(&create).await?.ok()?;
        for wanted in ["2", "4", "5"] {
            if wanted != "2" {
                cluster
                    .skep
                    .run(&["pool", "scale", "web", wanted])
                    .await?
                    .ok()?;
            }
            let before = home.obey("calls")?;
            wait::until("something to be asked of the hosts", SETTLED, async || {
                Ok((home.obey("calls")? != before).then_some(()))
            })
            .await?;
            cluster.server.kill().await?;
            cluster.server.start().await?;
            cluster.server_answers().await?;
        }
        home.obey("faults")?;
        settled(cluster, &home, 5).await?;
        let state = cluster
            .skep
            .run(&["provider", "show", "home", "--json"])
            .await?;
        let state = state.json()?;
        ensure!(
            state["orphans"].as_array().is_some_and(Vec::is_empty),
            "{state}"
        );
        let audit = cluster.skep.run(&["audit"]).await?.ok()?;
        ensure!(!audit.stdout.contains(SECRET));
        cluster
            .skep
            .run(&["pool", "scale", "web", "0"])
            .await?
            .ok()?;
        settled(cluster, &home, 0).await?;
        untouched(&home)
    })
    .await;
}

/// Copies of guests at the hosts.
fn copies(home: &Home) -> Vec<String> {
    home.line.with(|world| {
        let all = world.archives.iter();
        all.map(|it| it.volid.clone()).collect()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_are_copied_by_schedule_and_become_a_copy_again() {
    with_cluster("node-pools-copied", async |cluster| {
        let home = Home::start(cluster).await?;
        home.obey("add 5000 somebodys")?;
        // Whoever had the number before.
        home.line.with(|world| world.add_copy_of_another(5001));
        home.provider(cluster, SECRET).await?.ok()?;
        let create =
            "pool create web --provider home --nodes 1 --backup-storage nas --backup-keep 2";
        let mut create: Vec<&str> = create.split(' ').chain(TEMPLATES).collect();
        create.extend(["--backup", "whenever"]);
        let refused = cluster.skep.run(&create).await?.code(2)?;
        refused.says(&["backups.schedule"])?;
        create.pop();
        create.push("* * * * * *");
        cluster.skep.run(&create).await?.ok()?;
        let names = settled(cluster, &home, 1).await?;
        let name = names[0].as_str();
        let id = node(cluster, name).await?.context("a node")?["id"].clone();

        let made = || {
            let count = |world: &mut World| world.calls.get("POST vzdump").copied();
            home.line.with(count).unwrap_or(0)
        };
        wait::until("old copies to go", SETTLED, async || {
            Ok((made() >= 4 && copies(&home).len() <= 3).then_some(()))
        })
        .await?;
        let change = ["pool", "change", "web", "--no-backup"];
        cluster.skep.run(&change).await?.ok()?;
        let none = cluster
            .skep
            .run(&["node", "backups", name])
            .await?
            .code(1)?;
        none.says(&["does not say", "--backup"])?;
        // No schedule of this year: what is asked for by hand alone.
        let yearly = ["--backup", "0 0 29 2 *", "--backup-storage", "nas"];
        let change = ["pool", "change", "web"].into_iter().chain(yearly);
        cluster.skep.run(&change.collect::<Vec<_>>()).await?.ok()?;
        let before = wait::until("nothing to be copied any more", SETTLED, async || {
            let before = copies(&home);
            let shown = cluster.skep.run(&["node", "backup", name]).await?;
            Ok(shown.ok().is_ok().then_some(before))
        })
        .await?;
        wait::until("one more copy", SETTLED, async || {
            let now = copies(&home);
            Ok(now.iter().any(|it| !before.contains(it)).then_some(()))
        })
        .await?;
        let shown = cluster
            .skep
            .run(&["node", "backups", name, "--json"])
            .await?
            .json()?;
        let archives = shown["archives"].as_array().context("a list")?.clone();
        ensure!(archives.len() >= 2, "{shown}");
        let oldest = archives.last().context("one")?["archive"].clone();
        let oldest = oldest.as_str().context("a name")?;

        let restore = ["node", "restore", name, "--from"];
        let with = |more: &[&'static str], archive: &str| -> Vec<String> {
            let all = restore.iter().copied().chain([archive]);
            all.chain(more.iter().copied()).map(str::to_owned).collect()
        };
        let run = async |arguments: Vec<String>| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cluster.skep.run(&arguments).await
        };
        let other = "nas:backup/vzdump-qemu-5001-before.vma.zst";
        run(with(&["--yes"], other))
            .await?
            .code(1)?
            .says(&["is no copy of"])?;
        let plan = run(with(&["--plan"], oldest)).await?.ok()?;
        plan.says(&["shut down", "is lost", "nothing of this was done"])?;
        run(with(&["--yes"], oldest)).await?.ok()?;
        // Whoever leads dies in the middle of it.
        wait::until("its disks to be replaced", SETTLED, async || {
            let asked = home
                .line
                .with(|world| world.calls.get("POST restore").copied());
            Ok(asked.map(|_| ()))
        })
        .await?;
        cluster.server.kill().await?;
        cluster.server.start().await?;
        cluster.server_answers().await?;
        wait::until("the node to be what it was", SETTLED, async || {
            let is_restored = home.line.with(|world| {
                let mut guests = world.guests.values();
                guests.any(|it| it.is_running && it.restored_from.as_deref() == Some(oldest))
            });
            let pool = pool(cluster).await?;
            let is_over = pool["guests"][0]["restoring"].is_null();
            let node = node(cluster, name).await?.context("a node")?;
            let is_back = node["status"] == "ready" && node["id"] == id;
            Ok((is_restored && is_over && is_back).then_some(()))
        })
        .await?;
        let restores = home
            .line
            .with(|world| world.calls.get("POST restore").copied());
        ensure!(restores == Some(1), "{restores:?} restores");
        ensure!(
            copies(&home).iter().any(|it| it == other),
            "another's copy went"
        );
        cluster
            .skep
            .run(&["pool", "scale", "web", "0"])
            .await?
            .ok()?;
        settled(cluster, &home, 0).await?;
        untouched(&home)
    })
    .await;
}
