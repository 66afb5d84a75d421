//! Whole guests: machines of their own with a Docker daemon, a data plane and an agent on a disk that stays. What somebody's
//! service has written is there after the guest was given another size, and after it has become an older copy of itself it is
//! what it was then.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_proxmox_simulation::server::Program;
use skep_proxmox_simulation::{Disks, GuestKind};
use skep_tests::api::Name;
use skep_tests::containers::{Container, Containers, default_socket};
use skep_tests::dockerd::Bridge;
use skep_tests::{Cluster, http as web, place, wait, with_cluster_on};

use super::{Home, SECRET, SETTLED, copies, node, pool, settled};

/// It writes who it is, and of which release, all the time; what it has written is served.
const APP: &str = "B=/bin/busybox; ME=$($B cat /etc/hostname); echo ok > /data/index.html
while :; do echo $ME RELEASE >> /data/log; $B sleep 0.05; done &
exec $B httpd -f -p 8080 -h /data";
/// A drain has a quarter of an hour: what cannot move is not waited for.
const INTERRUPTED: Duration = Duration::from_secs(90);

/// The one guest of a pool, its node, and what runs there.
struct Whole<'a> {
    cluster: &'a Cluster,
    home: Home,
    ingress: SocketAddr,
    node: String,
    /// As the cluster knows it.
    id: Value,
    app: Name,
}

impl<'a> Whole<'a> {
    async fn start(cluster: &'a Cluster, bridge: &Bridge) -> Result<Self> {
        let ingress = place::free_address()?;
        let guests = cluster.path("guests");
        let program = Program {
            path: place::root().join("tests/fixtures/guest-machine.sh"),
            arguments: vec![
                place::skep_binary()?.display().to_string(),
                cluster.memory.join("guest").display().to_string(),
                bridge.name().to_owned(),
                ingress.to_string(),
            ],
            folder: guests.clone(),
        };
        let home = Home::start_as(cluster, GuestKind::Qemu, program).await?;
        home.line.with(|world| {
            world.disks = Some(Disks::new(guests, cluster.path("copies")));
        });
        home.provider(cluster, SECRET).await?.ok()?;
        // All that there is runs in the guest.
        cluster.agent.kill().await?;
        let create = "pool create web --provider home --nodes 1 --template pve1=9000 --cores 2 --memory 2048";
        let mut create: Vec<&str> = create.split(' ').collect();
        // Not before somebody asks.
        create.extend(["--backup", "0 0 29 2 *", "--backup-storage", "nas"]);
        cluster.skep.run(&create).await?.ok()?;
        let node = settled(cluster, &home, 1).await?.remove(0);
        let mut whole = Self {
            cluster,
            home,
            ingress,
            node,
            id: Value::Null,
            app: Name::of("db"),
        };
        whole.id = whole.ready().await?["id"].clone();
        Ok(whole)
    }

    /// The guest's own folder.
    fn folder(&self) -> Result<PathBuf> {
        let mac = self.home.line.with(|world| {
            let mut guests = world.guests.values();
            let guest = guests.find(|it| it.name() == Some(&self.node));
            guest.and_then(|guest| guest.mac())
        });
        let mac = mac.context("a guest")?.replace(':', "-");
        Ok(self.cluster.path("guests").join(mac))
    }

    async fn docker(&self) -> Result<Containers> {
        let socket = self.folder()?.join("run/docker.sock");
        Containers::connect(socket.to_str().context("a path")?).await
    }

    /// The node, ready.
    async fn ready(&self) -> Result<Value> {
        wait::until("the node to be ready", SETTLED, async || {
            let one = node(self.cluster, &self.node).await?;
            Ok(one.filter(|it| it["status"] == "ready"))
        })
        .await
    }

    async fn deploy(&self, release: &str) -> Result<()> {
        let image = format!("skep-e2e/{}:whole", self.cluster.run);
        if release == "1" {
            let app = self.cluster.app("whole", "1")?;
            app.set_shell("1")?;
            self.docker().await?.build(app.dir(), &image).await?;
        }
        let spec = json!({
            "command": ["/bin/busybox", "sh", "-c", APP.replace("RELEASE", release)],
            "stop_grace_ms": 1_000,
            "storage": {"volumes": [{"name": "data", "path": "/data"}]},
        });
        self.cluster.api.put_service(&self.app, spec).await?;
        let request = json!({"type": "image", "reference": image});
        self.cluster.api.live(&self.app, &request).await?;
        Ok(())
    }

    /// What the service serves of its data, through the node's ingress; none: there is no such file.
    async fn file(&self, name: &str) -> Result<Option<String>> {
        let host = self.cluster.host(&self.app);
        let answer = web::get(self.ingress, &host, &format!("/{name}")).await?;
        match answer.status {
            200 => Ok(Some(answer.text().trim().to_owned())),
            // Of the app: a router that does not know it would say more.
            404 if answer.text().contains("404 Not Found") => Ok(None),
            status => bail!("{status} {}", answer.text()),
        }
    }

    async fn served(&self, name: &str) -> Result<String> {
        wait::until_ok("the service to answer", SETTLED, async || {
            self.file(name).await?.context("no such file")
        })
        .await
    }

    /// Lines of its log: who wrote each.
    async fn written(&self) -> Result<Vec<String>> {
        let log = self.served("log").await?;
        Ok(log.lines().map(str::to_owned).collect())
    }

    /// The one container that runs, and is all that runs.
    async fn container(&self) -> Result<Container> {
        wait::until("one container", SETTLED, async || {
            let all = self.docker().await?.of_cluster(&self.cluster.id).await?;
            let mut running = all.into_iter().filter(|one| one.runs);
            let live = self.cluster.api.live_allocations(&self.app).await?;
            let [live] = live.as_slice() else {
                return Ok(None);
            };
            let one = running.next().filter(|one| one.allocation == live.id);
            let is_healthy = live.state == "healthy" && running.next().is_none();
            Ok(one.filter(|_| is_healthy))
        })
        .await
    }

    /// The app's user writes.
    async fn write(&self, name: &str, text: &str) -> Result<()> {
        let container = self.container().await?;
        let script = format!("echo {text} > /data/{name} && /bin/busybox sync");
        let command = ["/bin/busybox", "sh", "-c", &script];
        let (code, told) = self.docker().await?.exec(&container.id, &command).await?;
        ensure!(code == 0, "{told}");
        Ok(())
    }

    /// Copies the guest; answers the copy's name.
    async fn copy(&self) -> Result<String> {
        let backup = ["node", "backup", self.node.as_str()];
        self.cluster.skep.run(&backup).await?.ok()?;
        wait::until("a copy", SETTLED, async || Ok(copies(&self.home).pop())).await
    }

    /// What the guest's configuration has of this.
    fn configured(&self, entry: &str) -> Option<String> {
        self.home.line.with(|world| {
            let mut guests = world.guests.values();
            let guest = guests.find(|it| it.name() == Some(&self.node))?;
            guest.config.get(entry).cloned()
        })
    }

    async fn run(&self, line: &str) -> Result<skep_tests::skep::Ended> {
        let words: Vec<&str> = line.split(' ').collect();
        self.cluster.skep.run(&words).await
    }

    /// Off, for good: nothing of it is left that writes.
    async fn end(self) -> Result<()> {
        let vmid = self.home.ours()?[0].0;
        let pid = self.folder()?.join("pid");
        self.home.obey(&format!("stop {vmid}"))?;
        wait::until("the guest to be off", SETTLED, async || {
            Ok((!pid.exists()).then_some(()))
        })
        .await
    }
}

/// Nobody wrote between another's lines.
fn in_turn(log: &[String]) -> Result<()> {
    let mut turns = log.to_vec();
    turns.dedup();
    let mut all = turns.clone();
    all.sort();
    all.dedup();
    ensure!(all.len() == turns.len(), "two wrote at once: {turns:?}");
    Ok(())
}

/// A VM's memory needs it to be shut down: its plan says what is stopped by that, nothing is done before somebody has said that
/// it may be, and then it comes back with its data.
async fn is_resized(whole: &Whole<'_>) -> Result<()> {
    let resize = format!("node resize {} --memory 4096", whole.node);
    let before = (whole.container().await?, whole.written().await?);
    let plan = whole.run(&format!("{resize} --plan")).await?.ok()?;
    plan.says(&[
        "what has its data there alone is stopped for that time",
        "db-production",
        "nothing of this was done",
    ])?;
    let refused = whole.run(&resize).await?.code(2)?;
    refused.says(&["db-production", "would be stopped meanwhile", "--yes"])?;
    let path = format!("/v1/nodes/{}/resize", whole.node);
    let asked = json!({"memory_mib": 4_096});
    let api = &whole.cluster.api;
    let refused = api.refused(Method::POST, &path, Some(&asked), 409).await?;
    let refused = refused.with_hint()?;
    ensure!(refused.field.as_deref() == Some("interrupt"), "{refused:?}");
    let known = node(whole.cluster, &whole.node).await?.context("a node")?;
    ensure!(known["admin"]["state"] == "eligible", "{known}");
    ensure!(known["own_size"].is_null(), "{known}");
    ensure!(whole.container().await?.id == before.0.id, "it ran on");

    let began = std::time::Instant::now();
    whole.run(&format!("{resize} --yes")).await?.ok()?;
    wait::until("it to be interrupted", INTERRUPTED, async || {
        Ok(whole.file("word").await.is_err().then_some(()))
    })
    .await?;
    wait::until("the node to have its size", INTERRUPTED, async || {
        let one = node(whole.cluster, &whole.node).await?.context("a node")?;
        let is_so = one["id"] == whole.id
            && one["status"] == "ready"
            && one["admin"]["state"] == "eligible"
            && one["resizing"].is_null()
            && one["facts"]["memory_bytes"] == 4_u64 << 30;
        Ok(is_so.then_some(()))
    })
    .await?;
    whole.container().await?;
    println!("resized in {:.1} s", began.elapsed().as_secs_f64());
    ensure!(whole.served("word").await? == "second");
    let now = whole.written().await?;
    ensure!(now.starts_with(&before.1), "what was written is gone");
    Ok(())
}

/// It becomes the copy: what was written before is there, what was written since is gone, and the cluster has lost nothing and
/// doubled nothing.
async fn is_restored(whole: &Whole<'_>, (archive, before): (&str, &[String])) -> Result<()> {
    let since = whole.container().await?;
    let allocation = since.allocation.clone();
    let lost = whole.written().await?.last().context("a line")?.clone();
    ensure!(!before.contains(&lost), "{lost} wrote before the copy");
    let restore = format!("node restore {} --from {archive}", whole.node);
    let plan = whole.run(&format!("{restore} --plan")).await?.ok()?;
    plan.says(&[
        "is lost",
        "comes back as the same node",
        "nothing of this was done",
    ])?;
    let began = std::time::Instant::now();
    whole.run(&format!("{restore} --yes")).await?.ok()?;
    wait::until("its way back to be over", SETTLED, async || {
        let is_copy = whole.home.line.with(|world| {
            let mut guests = world.guests.values();
            guests.any(|it| it.is_running && it.restored_from.as_deref() == Some(archive))
        });
        let pool = pool(whole.cluster).await?;
        let is_over = pool["guests"][0]["restoring"].is_null();
        Ok((is_copy && is_over).then_some(()))
    })
    .await?;
    wait::until("the service to have its old data", SETTLED, async || {
        let word = whole.file("word").await.unwrap_or_default();
        Ok((word.as_deref() == Some("first")).then_some(()))
    })
    .await?;
    println!("restored in {:.1} s", began.elapsed().as_secs_f64());

    // The same node, which was never given up: what it ran is what it runs.
    let node = whole.ready().await?;
    ensure!(node["id"] == whole.id && node["fenced"].is_null(), "{node}");
    ensure!(node["incarnation"] == 0, "{node}");
    ensure!(node["admin"]["state"] == "eligible", "{node}");
    let now = whole.container().await?;
    ensure!(now.id != since.id, "a container from after the copy");
    // Its router knows of it a moment later.
    wait::until_ok("the service to answer", SETTLED, async || {
        let later = whole.file("later").await?;
        ensure!(later.is_none(), "it was written since");
        Ok(())
    })
    .await?;
    let log = whole.written().await?;
    ensure!(log.starts_with(before), "what was written before is gone");
    ensure!(!log.contains(&lost), "{lost} was after the copy");
    ensure!(
        log.last().is_some_and(|it| it.ends_with(" 2")),
        "{:?}",
        log.last()
    );
    in_turn(&log)?;
    println!("allocation before {allocation}, now {}", now.allocation);

    // Of a copy from before it had a size of its own; its system sees that.
    ensure!(whole.configured("memory").as_deref() == Some("4096"));
    ensure!(node["facts"]["memory_bytes"] == 4_u64 << 30, "{node}");

    // Another life of the same data: it is written again, and outlives its container.
    whole.write("word", "third").await?;
    whole.docker().await?.kill(&now.id).await?;
    wait::until("another container", SETTLED, async || {
        Ok((whole.container().await?.id != now.id).then_some(()))
    })
    .await?;
    ensure!(whole.served("word").await? == "third");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_keeps_its_data_through_another_size_and_has_the_older_of_a_copy() {
    let bridge = Bridge::make().await.expect("a network");
    let outcome = with_cluster_on(&default_socket(), "node-pools-whole", async |cluster| {
        let whole = Whole::start(cluster, &bridge).await?;
        let outcome = async {
            whole.deploy("1").await?;
            whole.write("word", "first").await?;
            let before = whole.written().await?;
            let archive = whole.copy().await?;
            whole.write("word", "second").await?;
            whole.write("later", "on").await?;
            is_resized(&whole).await?;
            whole.deploy("2").await?;
            in_turn(&whole.written().await?)?;
            is_restored(&whole, (archive.as_str(), before.as_slice())).await
        }
        .await;
        if outcome.is_err() {
            let log = std::fs::read_to_string(whole.folder()?.join("log"))?;
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(80)..];
            println!("--- the guest, last lines\n{}", last.join("\n"));
        }
        outcome.and(whole.end().await)
    })
    .await;
    bridge.remove().await.expect("no network stays");
    outcome.expect("a service with data");
}
