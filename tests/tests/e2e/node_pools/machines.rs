//! Pools whose machines come from a program of an operator's, or exist: what the program is asked, and in which order, who is
//! told how to join by whom, and what is left when a node goes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::{Cluster, wait, with_cluster, with_cluster_set};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::refusals::{Elsewhere, is_ended_by_nobody, is_on};
use super::{SETTLED, node, ready};

const AGENT: &str = env!("CARGO_BIN_EXE_skep-sim-agent");

/// A cloud that is a folder, and the program that speaks to it.
struct Cloud {
    folder: TempDir,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // Whatever was left of the machines, where a test failed.
        for id in self.machines() {
            let pid = self.state().join("machines").join(id).join("pid");
            if let Ok(pid) = std::fs::read_to_string(pid) {
                let group = format!("-{}", pid.trim());
                let _ = std::process::Command::new("kill")
                    .args(["-9", "--", &group])
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }
}

impl Cloud {
    fn new() -> Result<Self> {
        let cloud = Self {
            folder: tempfile::Builder::new().prefix("skep-cloud-").tempdir()?,
        };
        std::fs::create_dir(cloud.programs())?;
        std::fs::create_dir_all(cloud.state().join("machines"))?;
        let state = cloud.state();
        let text = include_str!("cloud.sh")
            .replace("STATE", state.to_str().context("a path")?)
            .replace("AGENT", AGENT);
        cloud.put("cloud.sh", &text, 0o755)?;
        cloud.put("open.sh", &text, 0o777)?;
        Ok(cloud)
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn put(&self, name: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.programs().join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.state().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Ids of the machines that there are, those that are being made among them.
    fn machines(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state().join("machines"));
        let entries = entries.into_iter().flatten().flatten();
        entries
            .map(|it| it.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// How often this was asked, by the machine.
    fn asked(&self, verb: &str) -> BTreeMap<String, usize> {
        let mut asked = BTreeMap::new();
        for line in self.lines("calls") {
            let words: Vec<&str> = line.split(' ').collect();
            if words.len() == 3 && words[1] == verb {
                *asked.entry(words[2].to_owned()).or_insert(0) += 1;
            }
        }
        asked
    }
}

async fn pool(cluster: &Cluster, name: &str) -> Result<Value> {
    let shown = cluster.skep.run(&["pool", "show", name, "--json"]).await?;
    Ok(shown.json()?["nodes"].clone())
}

/// So many guests, all of them nodes.
async fn settled(cluster: &Cluster, name: &str, count: usize) -> Result<Vec<String>> {
    wait::until("the pool to have what it wants", SETTLED, async || {
        let pool = pool(cluster, name).await?;
        let all = pool["guests"].as_array().context("guests")?.len();
        let ready = ready(&pool);
        Ok((ready.len() == count && all == count).then_some(ready))
    })
    .await
}

/// The app's allocations are healthy, and as many.
async fn healthy(cluster: &Cluster, name: &Name, count: usize) -> Result<()> {
    wait::until("the app to run", SETTLED, async || {
        let all = cluster.api.live_allocations(name).await?;
        let healthy = all.iter().filter(|it| it.state == "healthy").count();
        Ok((healthy == count && all.len() == count).then_some(()))
    })
    .await
}

async fn run(cluster: &Cluster, line: &str) -> Result<skep_tests::skep::Ended> {
    let words: Vec<&str> = line.split_whitespace().collect();
    cluster.skep.run(&words).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_makes_tells_and_removes_machines() {
    let cloud = Cloud::new().expect("a folder");
    let programs = cloud.programs().to_string_lossy().into_owned();
    let server = [("SKEP_PROVIDER_PROGRAMS", programs)];
    with_cluster_set("node-pools-exec", &server, async |cluster| {
        // Nothing is a node but what comes.
        cluster.agent.kill().await?;
        for (program, says) in [
            ("nobody.sh", "is not there"),
            ("open.sh", "can be written by others"),
            ("../cloud.sh", "no name of a program"),
            ("/bin/sh", "no name of a program"),
        ] {
            let set = format!("provider set cloud --program {program}");
            run(cluster, &set).await?.code(2)?.says(&[says])?;
        }
        let set = "provider set cloud --program cloud.sh --parameter type=small --deadline 60s";
        run(cluster, set)
            .await?
            .ok()?
            .says(&["cloud.sh", "type=small"])?;
        let shown = run(cluster, "provider show cloud").await?.ok()?;
        shown.says(&["is there and may be run", "which leads", "type=small"])?;
        let create = "pool create burst --provider cloud --cores 8 --memory 16384 --nodes 2";
        let odd = format!("{create} --template pve1=9000");
        run(cluster, &odd)
            .await?
            .code(2)?
            .says(&["templates", "a program"])?;
        let odd = format!("{create} --backup @weekly --backup-storage nas");
        run(cluster, &odd)
            .await?
            .code(2)?
            .says(&["makes no copies"])?;
        let plan = run(cluster, &format!("{create} --plan")).await?.ok()?;
        plan.says(&[
            "`cloud.sh` is asked for a machine",
            "nothing of this was done",
        ])?;
        ensure!(cloud.lines("calls").is_empty(), "a plan asks nobody");

        killed_in_the_middle(cluster, &cloud, create).await?;
        let names = settled(cluster, "burst", 2).await?;
        let made = cloud.lines("made");
        ensure!(made.len() == 2 && cloud.machines().len() == 2, "{made:?}");
        let told =
            std::fs::read_to_string(cloud.state().join("machines").join(&made[0]).join("asked"))?;
        let told: Value = serde_json::from_str(&told)?;
        let size = json!({"cores": 8, "memory_mib": 16_384, "disk_gib": 32});
        ensure!(told["machine"] == size && told["pool"] == "burst", "{told}");
        ensure!(
            told["parameters"]["type"] == "small" && told["version"] == 1,
            "{told}"
        );
        ensure!(names.iter().any(|it| told["name"] == **it), "{told}");
        let one = node(cluster, &names[0]).await?.context("a node")?;
        ensure!(one["meta"]["pool"] == "burst", "{one}");
        let burst = Elsewhere {
            provider: "cloud",
            word: "a program",
            pool: "burst",
            node: &names[0],
        };
        burst.refuses(cluster).await?;

        let app = Name::of("web");
        let spec = |replicas: u32| {
            json!({"type": "worker", "replicas": replicas, "placement": {"pool": "burst"},
                "resources": {"cpu_millis": 3_000, "memory_bytes": 1 << 30}})
        };
        cluster.api.put_service(&app, spec(2)).await?;
        let image = json!({"type": "image", "reference": "registry.invalid/bench:1"});
        let deployment = cluster.api.deploy(&app, &image).await?;
        let ended = cluster.api.ended(&deployment.id).await?;
        ensure!(ended.status == "live", "{}", ended.told());

        run(cluster, "pool scale burst 1").await?.ok()?;
        let left = settled(cluster, "burst", 1).await?;
        ensure!(names.contains(&left[0]), "another one came");
        healthy(cluster, &app, 2).await?;
        ensure!(cloud.machines().len() == 1, "{:?}", cloud.machines());
        let removed = cloud.asked("remove");
        ensure!(
            removed.len() == 1 && removed.values().all(|times| *times == 1),
            "{removed:?}"
        );
        let introduced = cloud.asked("introduce");
        ensure!(
            introduced.len() == 2 && introduced.values().all(|times| *times == 1),
            "{introduced:?}"
        );
        // The verb is all that it is given as an argument.
        let calls = cloud.lines("calls");
        ensure!(calls.iter().all(|line| line.starts_with("1 ")), "{calls:?}");

        cluster.api.put_service(&app, spec(0)).await?;
        run(cluster, "pool scale burst 0").await?.ok()?;
        settled(cluster, "burst", 0).await?;
        ensure!(cloud.machines().is_empty() && cloud.lines("made").len() == 2);
        run(cluster, "pool rm burst").await?.ok()?;
        run(cluster, "provider rm cloud").await?.ok()?;
        Ok(())
    })
    .await;
}

/// The server dies while the program makes a machine. Its successor sees none, asks again under the same id, and there is one.
async fn killed_in_the_middle(cluster: &Cluster, cloud: &Cloud, create: &str) -> Result<()> {
    let slow = cloud.state().join("slow");
    std::fs::write(&slow, "")?;
    run(cluster, create).await?.ok()?;
    wait::until("both to be asked for", SETTLED, async || {
        Ok((cloud.machines().len() == 2).then_some(()))
    })
    .await?;
    let before = cloud.asked("create");
    cluster.server.kill().await?;
    cluster.server.start().await?;
    cluster.server_answers().await?;
    wait::until("both to be asked for again", SETTLED, async || {
        let now = cloud.asked("create");
        Ok(now
            .iter()
            .all(|(id, times)| *times > before[id])
            .then_some(()))
    })
    .await?;
    let again = cloud.asked("create");
    ensure!(
        before.len() == 2 && again.len() == 2,
        "{before:?} {again:?}"
    );
    ensure!(cloud.lines("made").is_empty(), "none is made yet");
    std::fs::remove_file(slow)?;
    Ok(())
}

/// A machine that exists, with the agent that somebody has started there.
struct Machine {
    child: Child,
}

impl Machine {
    /// Starts its agent with what it was told.
    fn start(folder: &Path, mac: &str, told: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new(AGENT)
            .args([
                "guest",
                "--shared-storage",
                "shared",
                "--mac",
                mac,
                "--data",
            ])
            .arg(folder)
            .envs(told.lines().filter_map(|line| line.split_once('=')))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child })
    }
}

/// What people are told for a machine.
async fn introduction(cluster: &Cluster, machine: &str) -> Result<String> {
    let told = run(cluster, &format!("node introduction {machine}"))
        .await?
        .ok()?;
    Ok(told.stdout)
}

/// Guests by the machine that each has, with what is said of them.
async fn on_machines(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let pool = pool(cluster, "metal").await?;
    let guests = pool["guests"].as_array().context("guests")?.clone();
    let by = |one: Value| (one["host"].as_str().unwrap_or_default().to_owned(), one);
    Ok(guests.into_iter().map(by).collect())
}

const MACS: [&str; 2] = ["bc:24:11:00:00:01", "bc:24:11:00:00:02"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_exist_are_taken_told_by_people_and_given_back() {
    with_cluster("node-pools-static", async |cluster| {
        let set = format!(
            "provider set rack --machine m1,10.0.0.1,{} --machine m2,10.0.0.2,{}",
            MACS[0], MACS[1]
        );
        run(cluster, &set).await?.ok()?.says(&["2 machines"])?;
        let refused = run(cluster, "provider set any --program any.sh").await?;
        refused.code(2)?.says(&["--provider-programs"])?;
        let odd = run(cluster, "pool create metal --provider rack --cores 4").await?;
        odd.code(2)?.says(&["cores", "a list of machines"])?;
        let odd = run(cluster, "pool create metal --provider rack --autoscale").await?;
        odd.code(2)?.says(&["skep pool scale"])?;
        let create = "pool create metal --provider rack --nodes 3";
        let plan = run(cluster, &format!("{create} --plan")).await?.ok()?;
        plan.says(&[
            "skep node introduction m1",
            "of 2 machines of the list 2 are free",
        ])?;
        run(cluster, create).await?.ok()?;

        let said = wait::until(
            "two to be taken, and the third to say why not",
            SETTLED,
            async || {
                let all = on_machines(cluster).await?;
                let is_told = all.values().all(|it| it["problem"].is_string());
                Ok((all.len() == 3 && is_told).then_some(all))
            },
        )
        .await?;
        let waits = said[""]["problem"].to_string();
        ensure!(
            waits.contains("all 2 machines of the list are taken"),
            "{waits}"
        );
        let waits = said["m1"]["problem"].to_string();
        ensure!(waits.contains("skep node introduction"), "{waits}");

        // The text is one machine's, and good once.
        let text = introduction(cluster, "m1").await?;
        let folder = |name: &str| cluster.path("machines").join(name);
        let mut odd = Machine::start(&folder("odd"), MACS[1], &text)?;
        // With its input it would end by itself.
        let _input = odd.child.stdin.take();
        let ended = tokio::time::timeout(SETTLED, odd.child.wait()).await??;
        let log = std::fs::read_to_string(folder("odd").join("log"))?;
        ensure!(!ended.success() && log.contains("no network card"), "{log}");
        let first = Machine::start(&folder("m1"), MACS[0], &text)?;
        let text = introduction(cluster, "m2").await?;
        let second = Machine::start(&folder("m2"), MACS[1], &text)?;
        wait::until("both to join", SETTLED, async || {
            Ok((ready(&pool(cluster, "metal").await?).len() == 2).then_some(()))
        })
        .await?;
        let names = on_machines(cluster).await?;
        let name = names["m1"]["name"].as_str().context("a name")?.to_owned();
        let one = node(cluster, &name).await?.context("a node")?;
        ensure!(
            one["meta"]["host"] == "m1" && one["status"] == "ready",
            "{one}"
        );
        Elsewhere::rack(&name).refuses(cluster).await?;
        run(cluster, "node introduction m1")
            .await?
            .code(1)?
            .says(&["has joined already"])?;
        run(cluster, "pool upgrade metal")
            .await?
            .code(1)?
            .says(&["skep node replace"])?;
        let plan = run(cluster, &format!("node replace {name} --plan"))
            .await?
            .ok()?;
        plan.says(&[
            "systemctl disable --now skep-agent",
            "against it: of 2 machines",
        ])?;

        // Who waits goes first, then the node that is named: drained, and left to people.
        run(cluster, "pool scale metal 2").await?.ok()?;
        settled(cluster, "metal", 2).await?;
        run(cluster, &format!("node rm {name} --yes")).await?.ok()?;
        wait::until(
            "people to be told what is left to do",
            SETTLED,
            async || {
                let said = on_machines(cluster).await?["m1"]["problem"].to_string();
                Ok(said
                    .contains("it is drained: m1 stays as it is")
                    .then_some(()))
            },
        )
        .await?;
        run(cluster, "pool scale metal 2").await?.ok()?;
        // Its agent still runs there: nobody else gets the machine.
        wait::until("the next one to wait for a machine", SETTLED, async || {
            let all = on_machines(cluster).await?;
            let said = all.get("").map(|it| it["problem"].to_string());
            Ok(said
                .is_some_and(|it| it.contains("are taken"))
                .then_some(()))
        })
        .await?;
        drop(first);
        let next = wait::until(
            "the machine to be free, and taken anew",
            SETTLED,
            async || {
                let all = on_machines(cluster).await?;
                let next = all
                    .get("m1")
                    .filter(|it| it["name"] != *name && it["phase"] == "starting");
                Ok(next.cloned())
            },
        )
        .await?;
        ensure!(
            node(cluster, &name).await?.is_none(),
            "the node is forgotten"
        );
        let text = introduction(cluster, next["name"].as_str().context("a name")?).await?;
        let again = Machine::start(&folder("m1-again"), MACS[0], &text)?;
        settled(cluster, "metal", 2).await?;
        let shown = run(cluster, "provider show rack --json").await?.json()?;
        let machines = shown["machines"].as_array().context("machines")?;
        if let Some(free) = machines.iter().find(|it| !it["guest"].is_string()) {
            bail!("{free} is free");
        }
        one_is_lost(cluster, again, second).await
    })
    .await;
}

/// A machine ends without a word, with something there that has its data on shared storage.
async fn one_is_lost(cluster: &Cluster, m1: Machine, m2: Machine) -> Result<()> {
    // What is deployed is looked up by a node that knows every image.
    cluster.agent.kill().await?;
    let app = Name::of("db");
    let spec = json!({
        "type": "worker",
        "placement": {"pool": "metal"},
        "storage": {"volumes": [{"name": "data", "path": "/data", "storage": "shared"}]},
    });
    cluster.api.put_service(&app, spec).await?;
    let image = json!({"type": "image", "reference": "registry.invalid/bench:1"});
    let deployment = cluster.api.deploy(&app, &image).await?;
    let ended = cluster.api.ended(&deployment.id).await?;
    ensure!(ended.status == "live", "{}", ended.told());
    let guests = on_machines(cluster).await?;
    let named = |machine: &str| guests[machine]["name"].as_str().context("a name");
    let (first, second) = (named("m1")?, named("m2")?);
    let is_on_first = is_on(cluster, &app, first).await?;
    let ((lost, dies), (survivor, _lives)) = match is_on_first {
        true => ((first, m1), (second, m2)),
        false => ((second, m2), (first, m1)),
    };
    drop(dies);
    is_ended_by_nobody(cluster, Elsewhere::rack(lost), (&app, survivor)).await
}
