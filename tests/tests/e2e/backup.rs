//! The server's disk is gone, a backup is left: a new server is made of it, nodes come back, what the
//! backup knows goes on without a break, and what it does not know is in quarantine until somebody
//! decides.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::load::Load;
use skep_tests::process::Process;
use skep_tests::{Cluster, wait, with_cluster};

const BACK: Duration = Duration::from_secs(60);
const RATE: u32 = 50;
/// Long enough for a wrong hand on a container in quarantine to show.
const LINGER: Duration = Duration::from_secs(3);

/// The containers that run for a service, as Docker knows them.
async fn running(cluster: &Cluster, name: &Name) -> Result<Vec<String>> {
    let all = cluster.containers.of_cluster(&cluster.id).await?;
    let label = format!("{}-production-{}", name.service, name.project);
    let own = all
        .into_iter()
        .filter(|one| one.runs && one.labels.values().any(|value| *value == label));
    let mut ids: Vec<String> = own.map(|one| one.id).collect();
    ids.sort();
    Ok(ids)
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Copies of a backup that are not it any more, and what is said of them.
async fn damage_is_named(cluster: &Cluster, file: &Path) -> Result<()> {
    let bytes = std::fs::read(file)?;
    let place = |what: &str| {
        let found = bytes
            .windows(what.len())
            .position(|it| it == what.as_bytes());
        found.with_context(|| format!("{what} is not in the backup"))
    };
    let flipped = |at: usize| {
        let mut copy = bytes.clone();
        copy[at] ^= 1;
        copy
    };
    let cases = [
        (
            flipped(place("BEGIN CERTIFICATE")? + 40),
            "state.bin does not match its sum",
        ),
        (
            flipped(place("base_domain")? + 20),
            "manifest.json does not match its sum",
        ),
        (
            bytes[..bytes.len() / 2].to_vec(),
            "it ends within state.bin",
        ),
        (
            bytes[..bytes.len() - 1].to_vec(),
            "the end of the archive is missing",
        ),
        (b"not a backup".repeat(100), "is not a backup of Skep"),
    ];
    let (copy, folder, key) = (
        cluster.path("damaged.tar"),
        cluster.path("never"),
        cluster.path("operator.key"),
    );
    for (content, wanted) in cases {
        std::fs::write(&copy, content)?;
        let verify = ["backup", "verify", text(&copy)];
        cluster.skep.run(&verify).await?.code(1)?.says(&[wanted])?;
        let restore = [
            "restore",
            text(&copy),
            "--data-dir",
            text(&folder),
            "--key-file",
            text(&key),
        ];
        cluster.skep.run(&restore).await?.code(1)?.says(&[wanted])?;
        ensure!(!folder.exists(), "a refused backup leaves nothing behind");
    }
    Ok(())
}

/// A new server made of the backup, started on the addresses of the old one.
async fn restore(cluster: &Cluster, file: &Path) -> Result<Process> {
    let (folder, key) = (cluster.path("restored"), cluster.path("operator.key"));
    let to = |folder: &Path, key: &Path| {
        let words = [
            "restore",
            text(file),
            "--data-dir",
            text(folder),
            "--key-file",
            text(key),
        ];
        words.map(str::to_owned)
    };
    let old = cluster.path("server");
    let refused = cluster.skep.run(&to(&old, &key)).await?;
    refused.code(1)?.says(&["is not empty"])?;
    let none = cluster.path("no.key");
    cluster
        .skep
        .run(&to(&folder, &none))
        .await?
        .code(1)?
        .says(&["operator's key file"])?;
    let other = cluster.path("other.key");
    std::fs::copy(&key, &other)?;
    let mut changed = std::fs::read_to_string(&key)?;
    let at = changed.find(".1.").context("a key")? + 3;
    changed.replace_range(at..at + 4, "AAAA");
    std::fs::write(&other, changed)?;
    let refused = cluster.skep.run(&to(&folder, &other)).await?;
    refused.code(1)?.says(&["does not open this backup"])?;
    ensure!(!folder.exists(), "a refused key leaves nothing behind");
    let restored = cluster.skep.run(&to(&folder, &key)).await?;
    restored
        .ok()?
        .says(&["restored to", "no server of the old cluster may run again"])?;
    let server = cluster.server.like(&old, &folder);
    server.start().await?;
    Ok(server)
}

async fn quarantine(cluster: &Cluster) -> Result<Vec<Value>> {
    let listed = cluster
        .skep
        .run(&["alloc", "ls", "--quarantine", "--json"])
        .await?;
    let Value::Array(all) = listed.json()? else {
        bail!("not a list");
    };
    Ok(all)
}

fn id_of(quarantined: &[Value], name: &Name) -> Result<String> {
    let label = format!("{}-production-{}", name.service, name.project);
    let found = quarantined
        .iter()
        .find(|one| one["service"] == label.as_str());
    let id = found.and_then(|one| one["id"].as_str());
    Ok(id
        .with_context(|| format!("{label} in {quarantined:?}"))?
        .to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_from_a_backup_apps_never_notice() {
    with_cluster("backup", async |cluster| {
        let (one, _) = cluster.service("one", "1", json!({})).await?;
        let (two, _) = cluster.service("two", "2", json!({})).await?;
        let volume = json!({ "storage": { "volumes": [{ "name": "data", "path": "/data" }] } });
        let (data, _) = cluster.service("data", "1", volume.clone()).await?;
        let file = cluster.path("backup.tar");
        cluster
            .skep
            .run(&["backup", "create", text(&file)])
            .await?
            .ok()?
            .says(&["3 services"])?;
        let again = cluster.skep.run(&["backup", "create", text(&file)]).await?;
        again.code(1)?.says(&["exists already"])?;
        let manifest = cluster
            .skep
            .run(&["backup", "inspect", text(&file), "--json"])
            .await?
            .json()?;
        assert_eq!(manifest["cluster"], cluster.id.as_str());
        let key = cluster.path("operator.key");
        let verify = ["backup", "verify", text(&file), "--key-file", text(&key)];
        cluster
            .skep
            .run(&verify)
            .await?
            .ok()?
            .says(&["sound, and the key opens it"])?;
        damage_is_named(cluster, &file).await?;

        // What the backup does not know: an app of its own, a second allocation of one it knows, and the newer release of
        // one that has data.
        let (three, _) = cluster.service("three", "3", json!({})).await?;
        cluster
            .api
            .put_service(&two, json!({ "replicas": 2 }))
            .await?;
        cluster.service("data", "2", volume).await?;
        cluster
            .converged(&[(&one, 1), (&two, 2), (&three, 1), (&data, 1)])
            .await?;
        let names = [&one, &two, &three, &data];
        let before = all_running(cluster, names).await?;
        let loads =
            [&one, &two].map(|name| Load::start(cluster.ingress, &cluster.host(name), RATE));
        cluster.server.kill().await?;
        let server = restore(cluster, &file).await?;
        let outcome = settle(cluster, names, &before).await;
        if outcome.is_ok() {
            server.kill().await?;
            // Raised once: a restart is no further restore.
            server.start().await?;
            cluster.node_ready().await?;
            assert!(quarantine(cluster).await?.is_empty());
            newer_than(cluster, &manifest).await?;
        }
        for load in loads {
            let report = load.stop().await;
            assert_eq!(report.failed(), 0, "{report:?}");
        }
        server.kill().await?;
        outcome
    })
    .await;
}

/// A backup of the restored cluster, which agents take for newer than any other restore of the first.
async fn newer_than(cluster: &Cluster, first: &Value) -> Result<()> {
    let file = cluster.path("second.tar");
    let made = cluster
        .skep
        .run(&["backup", "create", text(&file), "--json"])
        .await?;
    let second = made.json()?;
    assert_eq!(second["cluster"], first["cluster"]);
    let incarnation = |of: &Value| of["incarnation"].as_u64().unwrap_or_default();
    assert!(incarnation(&second) * 1_000 >= first["created_ms"].as_u64().context("a time")?);
    assert_eq!(incarnation(first), 1);
    assert!(second["index"].as_u64() > first["index"].as_u64());
    Ok(())
}

/// The same of each of these.
async fn all_running(cluster: &Cluster, names: [&Name; 4]) -> Result<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for name in names {
        all.push(running(cluster, name).await?);
    }
    Ok(all)
}

/// Of one with data the newer release writes on, and the older one that the cluster knows is not begun beside it until
/// somebody decides.
async fn one_at_a_time(cluster: &Cluster, data: &Name, newer: &str) -> Result<()> {
    let of_cluster = cluster.api.live_allocations(data).await?;
    let [older] = of_cluster.as_slice() else {
        bail!("{of_cluster:?}");
    };
    let problem = older.problem.as_ref().context("a reason")?;
    ensure!(problem.told().contains("volumes are in use"), "{problem:?}");
    let dismiss = format!("skep alloc dismiss {newer}");
    ensure!(problem.told().contains(&dismiss), "{problem:?}");
    let dismiss = ["alloc", "dismiss", newer, "--yes"];
    cluster.skep.run(&dismiss).await?.ok()?;
    wait::until_ok("the older release to answer", BACK, async || {
        cluster.answers(data, "1").await
    })
    .await
}

/// Adopted what is known, in quarantine what is not, until it is adopted or dismissed.
async fn settle(cluster: &Cluster, names: [&Name; 4], before: &[Vec<String>]) -> Result<()> {
    let [one, two, three, data] = names;
    cluster.server_answers().await?;
    cluster.node_ready().await?;
    let listed = wait::until("three allocations in quarantine", BACK, async || {
        let all = quarantine(cluster).await?;
        Ok((all.len() == 3).then_some(all))
    })
    .await?;
    tokio::time::sleep(LINGER).await;
    let now = all_running(cluster, names).await?;
    assert_eq!(now, before, "nothing was stopped, nothing started");
    cluster.answers(one, "1").await?;
    cluster.answers(two, "2").await?;
    let routeless = cluster.get(three, "/").await?.status;
    assert_eq!(routeless, 404, "in quarantine, out of the routes");
    assert_eq!(cluster.api.allocations().await?.len(), 3);
    one_at_a_time(cluster, data, &id_of(&listed, data)?).await?;

    // The app that is not known cannot be adopted, and goes when that is said.
    let unknown = id_of(&listed, three)?;
    let refused = cluster.skep.run(&["alloc", "adopt", &unknown]).await?;
    refused
        .code(1)?
        .says(&["does not exist", "skep alloc dismiss"])?;
    cluster
        .skep
        .run(&["alloc", "dismiss", &unknown])
        .await?
        .code(2)?
        .says(&["--yes"])?;
    cluster
        .skep
        .run(&["alloc", "dismiss", &unknown, "--yes"])
        .await?
        .ok()?;
    wait::until("the dismissed container to go", BACK, async || {
        Ok(running(cluster, three).await?.is_empty().then_some(()))
    })
    .await?;

    // The second allocation of the known one comes back into the count.
    cluster
        .api
        .put_service(two, json!({ "replicas": 2 }))
        .await?;
    wait::until("as many as wanted", BACK, async || {
        Ok((cluster.api.live_allocations(two).await?.len() == 2).then_some(()))
    })
    .await?;
    let known = id_of(&quarantine(cluster).await?, two)?;
    cluster.skep.run(&["alloc", "adopt", &known]).await?.ok()?;
    assert!(quarantine(cluster).await?.is_empty());
    cluster.converged(&[(one, 1), (two, 2), (data, 1)]).await
}
