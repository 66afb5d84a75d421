//! Volumes, paths of the node, and secrets as files: on real mounts, seen from inside containers.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::containers::Container;
use skep_tests::{Cluster, wait, with_cluster};

use crate::variables::found_in;

/// What takes seconds at most.
const SOON: Duration = Duration::from_secs(60);
const SECRET: &str = "s3cret-of-a-file-that-no-disk-sees";

/// Deploys the shell image as `version`; answers the container that serves it.
async fn deploy(cluster: &Cluster, name: &Name, version: &str) -> Result<Container> {
    let image = cluster.shell_image(version).await?;
    let request = json!({ "type": "image", "reference": image });
    cluster.api.live(name, &request).await?;
    container(cluster, name, "").await
}

/// The one that runs, and is not `before`.
async fn container(cluster: &Cluster, name: &Name, before: &str) -> Result<Container> {
    wait::until("its container", SOON, async || {
        let allocations = cluster.api.live_allocations(name).await?;
        let all = cluster.containers.of_cluster(&cluster.id).await?;
        let found = all.into_iter().find(|one| {
            let is_its = allocations.iter().any(|it| it.id == one.allocation);
            one.runs && is_its && one.id != before
        });
        Ok(found)
    })
    .await
}

/// What a script says in a container of the image with a shell.
async fn inside(cluster: &Cluster, container: &Container, script: &str) -> Result<String> {
    let command = ["/bin/busybox", "sh", "-c", script];
    let (code, told) = cluster.containers.exec(&container.id, &command).await?;
    ensure!(code == 0, "`{script}` ended with {code}: {told}");
    Ok(told.trim().to_owned())
}

fn with_volume() -> Value {
    json!({
        "container": { "user": "1000:1000" },
        "storage": { "volumes": [{ "name": "data", "path": "/data", "owner": "1000:1000" }] },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_outlives_its_containers_and_the_agent() {
    with_cluster("volume", async |cluster| {
        let name = Name::of("db");
        cluster.api.put_service(&name, with_volume()).await?;
        let first = deploy(cluster, &name, "1").await?;
        let told = inside(
            cluster,
            &first,
            "B=/bin/busybox; $B id -u; $B stat -c %u:%g /data; echo kept > /data/word",
        );
        assert_eq!(told.await?, "1000\n1000:1000");
        let read = "/bin/busybox cat /data/word";

        // Its process killed behind Skep's back.
        cluster.containers.kill(&first.id).await?;
        let second = container(cluster, &name, &first.id).await?;
        assert_eq!(inside(cluster, &second, read).await?, "kept");

        // Another release, and never two containers at once.
        let third = deploy(cluster, &name, "2").await?;
        assert_ne!(third.allocation, second.allocation);
        assert_eq!(inside(cluster, &third, read).await?, "kept");
        let all = cluster.containers.of_cluster(&cluster.id).await?;
        let running = all.iter().filter(|one| one.runs).count();
        assert_eq!(running, 1, "{all:?}");

        // The agent killed: the app runs on, and the next container has it, too.
        cluster.agent.kill().await?;
        assert_eq!(inside(cluster, &third, read).await?, "kept");
        cluster.agent.start().await?;
        cluster.node_ready().await?;
        cluster.containers.kill(&third.id).await?;
        let fourth = container(cluster, &name, &third.id).await?;
        assert_eq!(inside(cluster, &fourth, read).await?, "kept");

        // One folder on the node, and the node says so.
        let nodes = cluster.api.get("/v1/nodes").await?;
        let held = nodes["nodes"][0]["facts"]["volumes"].clone();
        let held = held.as_array().with_context(|| nodes.to_string())?;
        assert_eq!(held.len(), 1, "{held:?}");
        assert_eq!(held[0]["name"], "data");
        let service = held[0]["service"].as_str().context("an id")?;
        let folder = cluster
            .path("node/agent/volumes")
            .join(service)
            .join("data");
        assert_eq!(fs::read_to_string(folder.join("word"))?, "kept\n");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_of_the_node_are_had_as_its_operator_says() {
    with_cluster("host-paths", async |cluster| {
        let offered = cluster.path("offered");
        fs::create_dir_all(offered.join("media"))?;
        fs::write(offered.join("media/film"), "a film")?;
        symlink("/etc", offered.join("out"))?;
        let name = Name::of("viewer");
        let with_path = |host: &str| {
            let host_paths = [json!({ "host": host, "path": "/media" })];
            json!({ "storage": { "host_paths": host_paths } })
        };

        // Not offered: it goes nowhere, and says what to do.
        cluster.api.put_service(&name, with_path("/etc")).await?;
        let image = cluster.shell_image("1").await?;
        let request = json!({ "type": "image", "reference": image });
        let begun = cluster.api.deploy(&name, &request).await?;
        wait::until_ok("words on the host path", SOON, async || {
            let why = cluster.api.get(&name.path("/why")).await?.to_string();
            let says = why.contains("does not offer the host path `/etc`");
            match says && why.contains("--allow-host-path /etc") {
                true => Ok(()),
                false => bail!("{why}"),
            }
        })
        .await?;
        assert_ne!(cluster.api.deployment(&begun.id).await?.status, "live");

        // A link leads out of what is offered: the agent refuses.
        let out = offered.join("out").display().to_string();
        cluster.api.put_service(&name, with_path(&out)).await?;
        let (problem, _) = cluster.api.fails(&name, &request).await?;
        let told = problem.told();
        assert!(
            told.contains("leads to `/etc`, which is not offered"),
            "{told}"
        );

        // Within it, and read-only unless it is said otherwise.
        let media = offered.join("media").display().to_string();
        cluster.api.put_service(&name, with_path(&media)).await?;
        let viewer = deploy(cluster, &name, "2").await?;
        let script = "/bin/busybox cat /media/film; \
                      echo x 2>/dev/null > /media/other || echo; echo sealed";
        let told = inside(cluster, &viewer, script).await?;
        assert_eq!(told.lines().collect::<Vec<_>>(), ["a film", "sealed"]);
        assert!(!offered.join("media/other").exists());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_as_a_file_is_in_memory_alone_and_goes_with_its_container() {
    with_cluster("secret-files", async |cluster| {
        let name = Name::of("vault");
        let secret = json!({
            "variable": "KEY", "path": "/run/secrets/key", "mode": "0400", "owner": "1000:1000",
        });
        let spec = json!({
            "container": { "user": "1000:1000" },
            "storage": { "secrets": [secret] },
        });
        cluster.api.put_service(&name, spec).await?;

        // Not set: said, and nothing runs without it.
        let image = cluster.shell_image("1").await?;
        let request = json!({ "type": "image", "reference": image });
        let (problem, _) = cluster.api.fails(&name, &request).await?;
        let told = problem.told();
        assert!(told.contains("the variable `KEY`") && told.contains("skep env set"), "{told}");

        let set = format!("KEY={SECRET}");
        let said = ["env", "set", "--service", "vault", "--secret", &set];
        cluster.skep.run(&said).await?.ok()?;
        let vault = deploy(cluster, &name, "2").await?;
        let script = "B=/bin/busybox; $B cat /run/secrets/key; echo; \
                      $B stat -c '%a %u:%g' /run/secrets/key; \
                      $B awk '$2 == \"/run/secrets/key\" {print $3, substr($4, 1, 2)}' /proc/mounts; \
                      $B env | $B grep -c KEY || true";
        let told = inside(cluster, &vault, script).await?;
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines, [SECRET, "400 1000:1000", "tmpfs ro", "0"]);

        // Neither Docker nor any file of the server or the agent has it in plain text.
        let docker = cluster.containers.docker();
        let inspected = docker.inspect_container(&vault.id, None).await?;
        let inspected = serde_json::to_string(&inspected)?;
        assert!(inspected.contains("/run/secrets/key") && !inspected.contains(SECRET));
        assert_eq!(found_in(&cluster.path(""), SECRET.as_bytes())?, None);
        let in_memory = || found_in(&cluster.memory, SECRET.as_bytes());
        assert!(in_memory()?.is_some(), "what the container reads");

        cluster.skep.run(&["rm", "vault", "--yes"]).await?.ok()?;
        wait::until_ok("no secrets in memory", SOON, async || match in_memory()? {
            Some(file) => bail!("{file} is still there"),
            None => Ok(()),
        })
        .await
    })
    .await;
}

/// What `skep volume ls` says of a service's only volume; none: it is not there.
async fn listed(cluster: &Cluster, service: &str) -> Result<Option<Value>> {
    let told = cluster
        .skep
        .run(&["--json", "volume", "ls"])
        .await?
        .json()?;
    let all = told["volumes"].as_array().context("volumes")?;
    let is_its = |one: &&Value| one["service"].as_str() == Some(service);
    Ok(all.iter().find(is_its).cloned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_listed_kept_copied_and_given_up() {
    with_cluster("volume-cli", async |cluster| {
        let skep = async |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            cluster.skep.run(&words).await
        };
        // A node that has made a volume says so on a new session: for that moment it is away.
        let done =
            async |line: &str| wait::until_ok(line, SOON, async || skep(line).await?.ok()).await;
        let (db, copy) = (Name::of("db"), Name::of("copy"));
        cluster.api.put_service(&db, with_volume()).await?;
        let first = deploy(cluster, &db, "1").await?;
        inside(cluster, &first, "echo one > /data/word").await?;
        let full = format!("{}/production/{}", db.project, db.service);
        let held = wait::until("its size", SOON, async || {
            let held = listed(cluster, &full).await?;
            Ok(held.filter(|held| held["bytes"].as_u64() > Some(0)))
        })
        .await?;
        assert_eq!(
            (&held["state"], &held["path"]),
            (&json!("in_use"), &json!("/data"))
        );

        // In use: nothing is deleted, and nothing is copied unless its files bear it.
        let refused = skep("volume rm db/data --yes").await?.code(1)?;
        assert!(refused.stderr.contains("skep stop"), "{refused}");
        let refused = skep("volume snapshot db/data --name monday")
            .await?
            .code(1)?;
        assert!(refused.stderr.contains("not be of one moment"), "{refused}");
        done("volume snapshot db/data --name monday --running").await?;
        inside(cluster, &first, "echo two > /data/word").await?;

        // Back to what it was.
        skep("stop db").await?.ok()?;
        done("volume clone db/data@monday db/data --replace").await?;
        let again = deploy(cluster, &db, "2").await?;
        let read = "/bin/busybox cat /data/word; /bin/busybox stat -c %u:%g /data/word";
        assert_eq!(inside(cluster, &again, read).await?, "one\n1000:1000");

        // Another service begins with what this one had.
        cluster.api.put_service(&copy, with_volume()).await?;
        done("volume clone db/data@monday copy/data").await?;
        let copied = deploy(cluster, &copy, "1").await?;
        assert_eq!(inside(cluster, &copied, read).await?, "one\n1000:1000");

        // Removed, and what it had stays until somebody says so.
        let removed = skep("rm copy --yes").await?.ok()?;
        assert!(
            removed.stdout.contains("stays on one: `skep volume rm"),
            "{removed}"
        );
        let list = skep("volume ls").await?.ok()?;
        assert!(list.stdout.contains("1 left behind"), "{list}");
        let all = skep("--json volume ls").await?.json()?;
        let left = all["volumes"].as_array().context("volumes")?;
        let left = left.iter().find(|one| one["state"] == "left_behind");
        let id = left.and_then(|one| one["id"].as_str()).context("an id")?;
        let (service, _) = id.split_once('.').context("a service and a name")?;
        let folder = cluster.path("node/agent/volumes").join(service);
        assert!(folder.join("data/word").exists());
        done(&format!("volume rm {id} --yes")).await?;
        assert!(!folder.exists());

        let removed = skep("rm db --yes --volumes").await?.ok()?;
        assert!(removed.stdout.contains("`data` is deleted"), "{removed}");
        wait::until_ok("no volumes", SOON, async || {
            let list = skep("volume ls").await?.ok()?;
            ensure!(list.stdout.contains("no volumes"), "{list}");
            Ok(())
        })
        .await?;
        let left = fs::read_dir(cluster.path("node/agent/volumes"))?.count();
        assert_eq!(left, 0);
        Ok(())
    })
    .await;
}
