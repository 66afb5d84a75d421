//! Copies of guests beside the straight way: one that does not come back is given up for another one.

use anyhow::{Context as _, Result, ensure};
use skep_tests::skep::Ended;
use skep_tests::{Cluster, wait, with_cluster};

use super::{Home, SECRET, SETTLED, TEMPLATES, copies, node, settled, untouched};

/// A pool whose guests are copied by hand alone, as there is no such day in this year or the next, and the names of its nodes.
async fn with_copies(cluster: &Cluster, home: &Home, nodes: &str) -> Result<Vec<String>> {
    home.obey("add 5000 somebodys")?;
    home.provider(cluster, SECRET).await?.ok()?;
    let create = "pool create web --provider home --backup-storage nas --nodes";
    let create = create.split(' ').chain([nodes]).chain(TEMPLATES);
    let create: Vec<&str> = create.chain(["--backup", "0 0 29 2 *"]).collect();
    cluster.skep.run(&create).await?.ok()?;
    settled(cluster, home, nodes.parse()?).await
}

/// One more copy of a node's guest, by its name.
async fn copied(cluster: &Cluster, home: &Home, name: &str) -> Result<String> {
    let before = copies(home);
    wait::until("a copy to be begun", SETTLED, async || {
        let begun = cluster.skep.run(&["node", "backup", name]).await?;
        Ok(begun.ok().is_ok().then_some(()))
    })
    .await?;
    wait::until("one more copy", SETTLED, async || {
        let mut now = copies(home).into_iter();
        Ok(now.find(|it| !before.contains(it)))
    })
    .await
}

async fn restore(cluster: &Cluster, (name, from): (&str, &str), how: &str) -> Result<Ended> {
    let arguments = ["node", "restore", name, "--from", from, how];
    cluster.skep.run(&arguments).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_does_not_come_back_is_given_up_for_another_one() {
    with_cluster("node-pools-another-copy", async |cluster| {
        let home = Home::start(cluster).await?;
        let names = with_copies(cluster, &home, "1").await?;
        let name = names[0].as_str();
        let id = node(cluster, name).await?.context("a node")?["id"].clone();
        let good = copied(cluster, &home, name).await?;
        let bad = copied(cluster, &home, name).await?;
        home.obey(&format!("spoil {bad}"))?;

        restore(cluster, (name, &bad), "--yes").await?.ok()?;
        wait::until("people to be told that it does not", SETTLED, async || {
            let shown = cluster.skep.run(&["node", "show", name]).await?.ok()?;
            let why = [
                "does not get on: task qmrestore".to_owned(),
                format!("it does not become `{bad}`"),
                format!("`skep node restore {name} --from ARCHIVE`"),
            ];
            let is_told = why.iter().all(|text| shown.stdout.contains(text));
            Ok(is_told.then_some(()))
        })
        .await?;
        let listed = cluster.skep.run(&["node", "ls"]).await?.ok()?;
        listed.says(&["becomes a copy: does not get on"])?;
        let shown = cluster.skep.run(&["pool", "show", "web"]).await?.ok()?;
        shown.says(&["does not get on", "--from ARCHIVE"])?;
        let is_running = home.line.with(|world| {
            let mut guests = world.guests.values();
            guests.any(|it| it.is_half && it.is_running)
        });
        ensure!(!is_running, "half restored, and started");

        // What is no copy of it is told apart from what it becomes already.
        let none = "nas:backup/vzdump-qemu-5001-none.vma.zst";
        let refused = restore(cluster, (name, none), "--yes").await?.code(1)?;
        refused.says(&["is no copy of", "lists what there is now"])?;
        let refused = restore(cluster, (name, &bad), "--yes").await?.code(1)?;
        refused.says(&["already", "takes this one's place"])?;
        let plan = restore(cluster, (name, &good), "--plan").await?.ok()?;
        plan.says(&[&format!("`{bad}` is given up"), "nothing of this was done"])?;

        restore(cluster, (name, &good), "--yes").await?.ok()?;
        wait::until("the node to be what it was", SETTLED, async || {
            let is_it = home.line.with(|world| {
                let mut guests = world.guests.values();
                guests.any(|it| it.is_running && it.restored_from.as_ref() == Some(&good))
            });
            let node = node(cluster, name).await?.context("a node")?;
            let is_over = node["restoring"].is_null();
            let is_back = node["status"] == "ready" && node["id"] == id;
            Ok((is_it && is_over && is_back).then_some(()))
        })
        .await?;
        let shown = cluster.skep.run(&["node", "show", name]).await?.ok()?;
        ensure!(!shown.stdout.contains("does not get on"), "{shown}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_guests_that_have_left_are_listed_and_removed_by_a_persons_word() {
    with_cluster("node-pools-departed", async |cluster| {
        let home = Home::start(cluster).await?;
        let names = with_copies(cluster, &home, "1").await?;
        let name = names[0].as_str();
        let kept = copied(cluster, &home, name).await?;
        let other = copied(cluster, &home, name).await?;
        home.obey(&format!("protect {kept}"))?;
        // Of whoever had the number before, and of a cluster that names its guests as this one does.
        let theirs = format!("skep-{}", "0".repeat(25) + "7");
        home.line.with(|world| {
            world.add_copy_of_another(5001);
            world.add_copy(5001, "theirs", &theirs);
        });
        let skep = async |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            cluster.skep.run(&words).await
        };
        // It is there: its copies are no one's to remove here.
        let list = skep("pool backups web").await?.ok()?;
        list.says(&["no copy is left on nas", "1 more on nas"])?;
        let remove = async |what: &str| skep(&format!("pool rm-backups web {what}")).await;
        let refused = remove(&format!("{other} --yes")).await?.code(1)?;
        refused.says(&["is no copy of a guest that has left"])?;

        skep("pool scale web 0").await?.ok()?;
        settled(cluster, &home, 0).await?;
        let list = skep("pool backups web").await?.ok()?;
        list.says(&[
            name,
            &kept,
            &other,
            "1024 MiB",
            "protected",
            "1 more on nas",
        ])?;
        let refused = remove(&format!("{other} {kept} --yes")).await?.code(1)?;
        refused.says(&["is marked as protected", "nothing was removed"])?;
        for another in ["before", "theirs"] {
            let another = format!("nas:backup/vzdump-qemu-5001-{another}.vma.zst --yes");
            let refused = remove(&another).await?.code(1)?;
            refused.says(&["is no copy of", "`skep pool backups web`"])?;
        }
        remove("--all").await?.code(2)?.says(&["not confirmed"])?;
        let plan = remove(&format!("--guest {name} --plan")).await?.ok()?;
        plan.says(&[&other, "nothing of this was done"])?;
        ensure!(copies(&home).len() == 4, "{:?}", copies(&home));
        remove(&format!("--guest {name} --yes"))
            .await?
            .ok()?
            .says(&[&format!("`{other}` is removed")])?;
        let left = copies(&home);
        ensure!(left.len() == 3 && !left.contains(&other), "{left:?}");
        let none = remove("--all --yes").await?.code(1)?;
        none.says(&["there is no copy", "may be removed"])?;
        let told = skep("audit").await?.ok()?;
        told.says(&["remove_pool_backups", &format!("1 removed: {other}")])?;
        untouched(&home)
    })
    .await;
}
