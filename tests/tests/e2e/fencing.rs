//! A service with data on shared storage whose node dies: it goes on elsewhere once its node is known to be dead, by its
//! provider or by a person's word, never before, and never twice at once; the node comes back with nothing of it. The hosts
//! are simulated, agents, containers and mounts are real.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use skep_proxmox_simulation::server::{Agents, Certificates, Program, obey, serve};
use skep_proxmox_simulation::{GuestKind, Line, World};
use skep_tests::api::Name;
use skep_tests::containers::{ALLOCATION_LABEL, Containers};
use skep_tests::figures::Figure;
use skep_tests::process::signal;
use skep_tests::{Cluster, place, wait, with_cluster_alone};

const TOKEN: &str = "skep@pve!sim";
const SECRET: &str = "00000000-0000-4000-8000-000000000000";
/// A clone of a minute takes a third of a second.
const SPEED: u32 = 200;
const SETTLED: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
/// From the confirmed fencing to serving again.
const GOAL_S: f64 = 10.0;
/// Longer than a node has to be silent and an agent's own clock takes together: nothing may move for time alone.
const STAYS: Duration = Duration::from_secs(25);
/// Between two looks at what runs.
const LOOK: Duration = Duration::from_millis(20);
/// The app writes who it is, all the time: two at once would be between each other's lines.
const APP: &str = "B=/bin/busybox; ME=$($B cat /etc/hostname)
while :; do echo $ME >> /data/log; $B sleep 0.05; done &
exec /skep-test-app";

/// The folder of the storage, mounted in several places.
struct Storage {
    folder: PathBuf,
    mounts: PathBuf,
}

impl Storage {
    fn make(cluster: &Cluster) -> Result<Self> {
        let (folder, mounts) = (cluster.path("shared"), cluster.path("guests"));
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(&mounts)?;
        let path = folder.to_str().context("a path")?;
        run("mount", &["--bind", path, path])?;
        Ok(Self { folder, mounts })
    }

    /// The app's files, once there are any.
    fn data(&self) -> Result<PathBuf> {
        let mut services = std::fs::read_dir(self.folder.join("skep-volumes"))?;
        let service = services.next().context("no volume")??.path();
        Ok(service.join("data"))
    }

    /// Who has written, line by line.
    fn written(&self) -> Result<Vec<String>> {
        let log = std::fs::read_to_string(self.data()?.join("log"))?;
        Ok(log.lines().map(str::to_owned).collect())
    }

    /// What was written `before` is there, and nobody wrote between another's lines.
    fn is_whole(&self, before: &[String]) -> Result<()> {
        let now = self.written()?;
        ensure!(now.starts_with(before), "what was written is gone");
        let mut in_turn = now.clone();
        in_turn.dedup();
        let all: BTreeSet<&String> = now.iter().collect();
        ensure!(in_turn.len() == all.len(), "two wrote at once: {in_turn:?}");
        Ok(())
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let guests = std::fs::read_dir(&self.mounts)
            .into_iter()
            .flatten()
            .flatten();
        for mount in guests
            .map(|guest| guest.path().join("shared"))
            .chain([self.folder.clone()])
        {
            if let Some(path) = mount.to_str() {
                // One that was never mounted is none.
                let _ = run("umount", &["-l", path]);
            }
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let ended = Command::new(program).args(arguments).output()?;
    ensure!(
        ended.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(())
}

/// What the watcher saw.
#[derive(Debug, Default)]
struct Seen {
    /// Most containers of the app that ran at once.
    most: usize,
    /// Allocations of the app that ran in the guest since it was last asked.
    in_guest: BTreeSet<String>,
}

/// Proxmox hosts, and agents in their guests.
struct Home {
    line: Line,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
    /// Allocations that were told to run in the guest.
    theirs: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Home {
    async fn start(cluster: &Cluster, storage: &Storage) -> Result<Self> {
        let line = Line::new(World::of(11, GuestKind::Lxc));
        line.with(|world| world.hurry(SPEED));
        let certificates = Certificates::new()?;
        let hosts = serve(&line, &format!("{TOKEN}={SECRET}"), &certificates).await?;
        let ca = cluster.path("pve-root-ca.pem");
        std::fs::write(&ca, certificates.pem())?;
        let text = |path: &Path| path.display().to_string();
        let program = Program {
            path: place::root().join("tests/fixtures/guest-agent.sh"),
            arguments: vec![
                text(&place::skep_binary()?),
                text(&storage.folder),
                text(&cluster.memory.join("guest")),
            ],
            folder: storage.mounts.clone(),
        };
        let agents = Agents::new(line.clone(), program);
        let agents = tokio::spawn(async move {
            if let Err(error) = agents.keep().await {
                eprintln!("agents of guests: {error:#}");
            }
        });
        let (seen, theirs) = (Arc::default(), Arc::default());
        let watch = watch(
            (cluster.containers.clone(), cluster.id.clone()),
            line.clone(),
            (Arc::clone(&seen), Arc::clone(&theirs)),
        );
        let mut set = vec!["provider", "set", "home", "--ca"];
        let ca = text(&ca);
        set.push(&ca);
        let urls: Vec<String> = hosts
            .iter()
            .map(|it| format!("https://{}", it.address))
            .collect();
        for url in &urls {
            set.extend(["--host", url]);
        }
        set.extend(["--token-id", TOKEN, "--secret-stdin"]);
        cluster
            .skep
            .feed(&set, format!("{SECRET}\n").as_bytes())
            .await?
            .0
            .ok()?;
        Ok(Self {
            line,
            tasks: vec![agents, tokio::spawn(watch)],
            seen,
            theirs,
        })
    }

    fn obey(&self, command: &str) -> Result<Value> {
        self.line.with(|world| obey(world, command))
    }

    /// The number and the host of the guest.
    fn guest(&self) -> Result<(u32, String)> {
        self.line.with(|world| {
            let mut ours = world.guests.iter().filter(|(_, it)| it.told.is_some());
            let (vmid, guest) = ours.next().context("no guest")?;
            Ok((*vmid, guest.host.clone()))
        })
    }

    /// Somebody starts the guest again.
    fn boot(&self) -> Result<()> {
        self.seen.lock().expect("nobody panics").in_guest.clear();
        let (vmid, _) = self.guest()?;
        self.line.with(|world| {
            let guest = world.guests.get_mut(&vmid).context("a guest")?;
            (guest.is_running, guest.boots) = (true, guest.boots + 1);
            Ok(())
        })
    }
}

/// Counts what runs, and ends what runs in a guest with the guest: its Docker is the machine's.
async fn watch(
    (containers, cluster): (Containers, String),
    line: Line,
    (seen, theirs): (Arc<Mutex<Seen>>, Arc<Mutex<BTreeSet<String>>>),
) {
    let mut boots = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let (is_running, boots_now) = line.with(|world| {
            let mut ours = world.guests.values().filter(|it| it.told.is_some());
            ours.next()
                .map_or((true, 0), |it| (it.is_running, it.boots))
        });
        // Between two looks it may have stopped and started.
        let is_off = !is_running || std::mem::replace(&mut boots, boots_now) != boots_now;
        let Ok(all) = containers.of_cluster(&cluster).await else {
            continue;
        };
        let running: Vec<_> = all.into_iter().filter(|one| one.runs).collect();
        let of_guest = theirs.lock().expect("nobody panics").clone();
        let (guests, others): (Vec<_>, Vec<_>) = running
            .into_iter()
            .partition(|it| of_guest.contains(&it.labels[ALLOCATION_LABEL]));
        if is_off {
            for one in &guests {
                // It may have ended meanwhile.
                let _ = containers.kill(&one.id).await;
            }
        }
        let mut seen = seen.lock().expect("nobody panics");
        let count = others.len() + if is_off { 0 } else { guests.len() };
        seen.most = seen.most.max(count);
        if !is_off {
            seen.in_guest
                .extend(guests.iter().map(|it| it.allocation.clone()));
        }
    }
}

fn now_ms() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1_000.0)
}

async fn node(cluster: &Cluster, name: &str) -> Result<Value> {
    let all = cluster.api.get("/v1/nodes").await?;
    let all = all["nodes"].as_array().context("nodes")?.clone();
    let found = all.into_iter().find(|one| one["name"] == name);
    found.with_context(|| format!("no node {name}"))
}

/// The node of the pool, with the storage.
async fn joined(cluster: &Cluster) -> Result<String> {
    wait::until("the guest's node", SETTLED, async || {
        let all = cluster.api.get("/v1/nodes").await?;
        let all = all["nodes"].as_array().context("nodes")?;
        let found = all
            .iter()
            .find(|one| one["meta"]["pool"] == "web" && has_storage(one));
        Ok(found.and_then(|one| one["name"].as_str().map(str::to_owned)))
    })
    .await
}

fn has_storage(node: &Value) -> bool {
    node["status"] == "ready" && node["facts"]["shared_storage"] == json!(["shared"])
}

/// Where the app runs, healthy; with its allocation.
async fn runs_on(cluster: &Cluster, name: &Name, wanted: &str) -> Result<String> {
    wait::until(&format!("the app to run on {wanted}"), SOON, async || {
        let list = cluster.api.get("/v1/allocations").await?;
        let list = list["allocations"].as_array().context("a list")?;
        let mut its = list
            .iter()
            .filter(|one| one["service"] == *name.service && one["desired"] == "run");
        let one = its.find(|one| one["node"] == wanted && one["state"] == "healthy");
        Ok(one.and_then(|one| one["id"].as_str().map(str::to_owned)))
    })
    .await
}

/// It serves where the ingress is, with the data of before; answers since its node was fenced, in seconds.
async fn serves_again(
    cluster: &Cluster,
    (name, storage): (&Name, &Storage),
    (dead, before): (&str, &[String]),
) -> Result<f64> {
    let at_ms = wait::until("it to serve again", SOON, async || {
        let has_served = cluster.answers(name, "1").await.is_ok();
        Ok(has_served.then_some(now_ms()?))
    })
    .await?;
    let dead = node(cluster, dead).await?;
    let fenced_ms = dead["fenced"]["at_ms"]
        .as_f64()
        .with_context(|| dead.to_string())?;
    storage.is_whole(before)?;
    Ok((at_ms - fenced_ms) / 1_000.0)
}

/// The app is in the guest, by draining the other node; the watcher knows what runs there.
async fn goes_to_guest(cluster: &Cluster, name: &Name, (home, guest): (&Home, &str)) -> Result<()> {
    cluster
        .skep
        .run(&["node", "drain", "one", "--no-wait"])
        .await?
        .ok()?;
    let allocation = runs_on(cluster, name, guest).await?;
    home.theirs
        .lock()
        .expect("nobody panics")
        .insert(allocation);
    cluster.skep.run(&["node", "uncordon", "one"]).await?.ok()?;
    Ok(())
}

/// It waits, says why where people look, and stays there however long nothing is heard.
async fn stays_put(cluster: &Cluster, name: &Name, (dead, why): (&str, &str)) -> Result<()> {
    wait::until_ok("it to say why it waits", SOON, async || {
        let ps = cluster.skep.run(&["ps", "--json"]).await?.ok()?;
        ensure!(
            ps.stdout.contains("not confirmed dead") && ps.stdout.contains(why),
            "{}",
            ps.stdout
        );
        Ok(())
    })
    .await?;
    let target = format!("{}/production/{}", name.project, name.service);
    let hint = format!("skep node fence {dead} --confirm");
    for words in ["why", "status"] {
        let said = cluster.skep.run(&[words, &target]).await?.ok()?;
        said.says(&["not confirmed dead", &hint])?;
    }
    cluster
        .skep
        .run(&["node", "show", dead])
        .await?
        .ok()?
        .says(&[why])?;
    tokio::time::sleep(STAYS).await;
    if cluster.answers(name, "1").await.is_ok() {
        bail!("it went on elsewhere before its node was confirmed dead");
    }
    Ok(())
}

/// The node is back, ready, in this incarnation, and has run nothing of before.
async fn is_back(cluster: &Cluster, home: &Home, (guest, incarnation): (&str, u64)) -> Result<()> {
    wait::until_ok("the node to be ready anew", SOON, async || {
        let node = node(cluster, guest).await?;
        ensure!(has_storage(&node) && node["fenced"].is_null(), "{node}");
        ensure!(node["incarnation"] == incarnation, "{node}");
        Ok(())
    })
    .await?;
    let ran = home.seen.lock().expect("nobody panics").in_guest.clone();
    ensure!(ran.is_empty(), "it ran {ran:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_on_shared_storage_goes_on_elsewhere_once_its_node_is_known_to_be_dead() {
    with_cluster_alone("fencing", async |cluster| {
        let storage = Storage::make(cluster)?;
        // What is mounted is seen at once after a start.
        cluster.agent.kill().await?;
        cluster.agent.start().await?;
        let home = Home::start(cluster, &storage).await?;
        let create = [
            "pool",
            "create",
            "web",
            "--provider",
            "home",
            "--lxc",
            "--nodes",
            "1",
        ];
        let templates = ["--template", "pve1=9000", "--template", "pve2=9001"];
        let create: Vec<&str> = create.into_iter().chain(templates).collect();
        cluster.skep.run(&create).await?.ok()?;
        let guest = joined(cluster).await?;
        wait::until_ok("the storage on the first node", SOON, async || {
            ensure!(has_storage(&node(cluster, "one").await?));
            Ok(())
        })
        .await?;

        let name = Name::of("db");
        let spec = json!({
            "command": ["/bin/busybox", "sh", "-c", APP],
            "stop_grace_ms": 1_000,
            "storage": { "volumes": [{ "name": "data", "path": "/data", "storage": "shared" }] },
        });
        cluster.api.put_service(&name, spec).await?;
        let image = cluster.shell_image("1").await?;
        cluster
            .api
            .live(&name, &json!({ "type": "image", "reference": image }))
            .await?;

        // Its guest hangs, with the app in it: the provider ends it.
        goes_to_guest(cluster, &name, (&home, &guest)).await?;
        let folder = guest_folder(&storage)?;
        hangs(&folder).await?;
        let before = storage.written()?;
        let fenced_s = serves_again(cluster, (&name, &storage), (&guest, &before)).await?;
        let fenced = node(cluster, &guest).await?;
        ensure!(fenced["fenced"]["by"] == "home", "{fenced}");
        let figure = Figure::alone("proxmox.fenced_failover_s", fenced_s, "s");
        println!("{} {:.2} {}", figure.metric, figure.value, figure.unit);
        ensure!(fenced_s <= GOAL_S, "{fenced_s} s");

        // Somebody starts it again.
        std::fs::remove_file(folder.join("cut"))?;
        home.boot()?;
        is_back(cluster, &home, (&guest, 1)).await?;

        // Its host is away, and nothing is known of what runs there: a person says that it is off.
        goes_to_guest(cluster, &name, (&home, &guest)).await?;
        let before = storage.written()?;
        let (_, host) = home.guest()?;
        home.obey(&format!("kill {host}"))?;
        stays_put(cluster, &name, (&guest, "is away")).await?;
        let refused = cluster
            .skep
            .run(&["node", "fence", "one", "--confirm"])
            .await?
            .code(1)?;
        refused.says(&["not lost"])?;
        let plan = cluster.skep.run(&["node", "fence", &guest]).await?.ok()?;
        plan.says(&["make sure first", "nothing of this was done"])?;
        cluster
            .skep
            .run(&["node", "fence", &guest, "--confirm"])
            .await?
            .ok()?;
        let said_s = serves_again(cluster, (&name, &storage), (&guest, &before)).await?;
        println!("after a person's word {said_s:.2} s");
        cluster
            .skep
            .run(&["audit"])
            .await?
            .ok()?
            .says(&["fence_node"])?;

        home.obey(&format!("revive {host}"))?;
        home.boot()?;
        is_back(cluster, &home, (&guest, 2)).await?;

        // Again it hangs. High availability has it by now: it is ended by an order, and started again once that is certain.
        goes_to_guest(cluster, &name, (&home, &guest)).await?;
        let (vmid, _) = home.guest()?;
        home.obey(&format!("ha {vmid}"))?;
        hangs(&folder).await?;
        let before = storage.written()?;
        let fenced_s = serves_again(cluster, (&name, &storage), (&guest, &before)).await?;
        println!("of high availability {fenced_s:.2} s");
        home.seen.lock().expect("nobody panics").in_guest.clear();
        std::fs::remove_file(folder.join("cut"))?;
        is_back(cluster, &home, (&guest, 3)).await?;
        let most = home.seen.lock().expect("nobody panics").most;
        ensure!(most == 1, "{most} ran at once");
        storage.is_whole(&before)
    })
    .await;
}

/// The folder of the only guest.
fn guest_folder(storage: &Storage) -> Result<PathBuf> {
    let mut guests = std::fs::read_dir(&storage.mounts)?;
    Ok(guests.next().context("no guest")??.path())
}

/// The guest's agent is gone, and does not come back; what it started runs on.
async fn hangs(folder: &Path) -> Result<()> {
    std::fs::write(folder.join("cut"), "")?;
    let pid = std::fs::read_to_string(folder.join("pid"))?;
    signal(pid.trim().parse()?, "KILL").await
}
