//! One trouble at a time, looked at closely: what the unlucky server says, and that the others go on.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::faults::Fault;
use skep_tests::wait;

const KEY: &str = "written";
/// Writes are accepted again by then after a leader's death, in a debug build on a busy machine;
/// the bench measures how long it takes.
const AGAIN: Duration = Duration::from_secs(30);
const TOLD: Duration = Duration::from_secs(60);
/// Two days: more than a certificate lives.
const DAYS_S: i64 = 2 * 24 * 3_600;

async fn write(cluster: &LabCluster, node: &str, at: usize, value: &str) -> Result<()> {
    let written = cluster.servers.set_meta(at, node, KEY, value);
    tokio::time::timeout(AGAIN, written).await?
}

async fn read(cluster: &LabCluster, node: &str, at: usize) -> Result<String> {
    cluster.servers.meta(at, node, KEY).await
}

/// The others, and a write through each of them.
async fn others_go_on(cluster: &LabCluster, node: &str, victim: usize) -> Result<Vec<usize>> {
    let others: Vec<usize> = (0..3).filter(|place| *place != victim).collect();
    for at in &others {
        let value = format!("{victim}-{at}-{:?}", Instant::now());
        wait::until_ok("writes to go on", AGAIN, async || {
            write(cluster, node, *at, &value).await
        })
        .await?;
        for from in &others {
            ensure!(read(cluster, node, *from).await? == value);
        }
    }
    Ok(others)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_comes_back_as_a_follower() {
    with_servers("kill", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let node = cluster.register_node().await?;
        for _ in 0..3 {
            let leader = cluster.servers.leader().await?;
            write(cluster, &node, leader, "before").await?;
            Fault::Kill.befall(cluster, leader).await?;
            let others = others_go_on(cluster, &node, leader).await?;
            ensure!(cluster.servers.leader_among(&others).await? != leader);
            let last = read(cluster, &node, others[0]).await?;
            Fault::Kill.undo(cluster, leader).await?;
            ensure!(read(cluster, &node, leader).await? == last);
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_nothing_old() {
    with_servers("cut", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let node = cluster.register_node().await?;
        for fault in [Fault::CutFromPeers, Fault::Deaf, Fault::Mute] {
            let leader = cluster.servers.leader().await?;
            write(cluster, &node, leader, "old").await?;
            fault.befall(cluster, leader).await?;
            others_go_on(cluster, &node, leader).await?;
            // Reads through it wait or fail: the truth has moved on.
            let answer = tokio::time::timeout(AGAIN, read(cluster, &node, leader)).await;
            if let Ok(Ok(value)) = answer {
                ensure!(value != "old", "{fault:?}");
            }
            fault.undo(cluster, leader).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_wakes_up_as_a_follower() {
    with_servers("freeze", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let node = cluster.register_node().await?;
        let leader = cluster.servers.leader().await?;
        Fault::Freeze.befall(cluster, leader).await?;
        let others = others_go_on(cluster, &node, leader).await?;
        let last = read(cluster, &node, others[0]).await?;
        cluster.servers.thaw(leader).await?;
        // At once, with all its timers late: what it believes must not be an answer.
        let woken = read(cluster, &node, leader).await;
        ensure!(
            woken.as_ref().map_or(true, |value| *value == last),
            "{woken:?}, not {last}"
        );
        Fault::Freeze.undo(cluster, leader).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_says_so_and_works_again_once_there_is_room() {
    with_servers("full", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let node = cluster.register_node().await?;
        let leader = cluster.servers.leader().await?;
        let follower = (leader + 1) % 3;
        for victim in [follower, leader] {
            let filled = cluster.fill_disk(victim).await?;
            ensure!(filled > 0);
            let others = others_go_on(cluster, &node, victim).await?;
            let name = cluster.servers.server(victim).site.name.clone();
            wait::until_ok("word of the full disk", TOLD, async || {
                let group = cluster.servers.seen_by(others[0]).await?;
                let seen = group.server(&name)?;
                let told = seen.problems().join("\n");
                let log = cluster.servers.server(victim).process.log();
                let last: Vec<&str> = log.lines().rev().take(20).collect();
                let says =
                    told.contains("disk") || last.iter().any(|line| line.contains("No space left"));
                ensure!(!seen.healthy && says, "{told}\n{last:?}");
                Ok(())
            })
            .await?;
            Fault::FullDisk.undo(cluster, victim).await?;
            write(cluster, &node, victim, "room").await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_two_days_wrong_says_so() {
    with_servers("clock", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let node = cluster.register_node().await?;
        for (round, step) in [DAYS_S, -DAYS_S].into_iter().enumerate() {
            let leader = cluster.servers.leader().await?;
            let victim = (leader + round) % 3;
            // As a machine that boots with a wrong clock: a server looks at the others' soon after
            // its start, and later once a minute.
            cluster.servers.kill(victim).await?;
            cluster.clock(victim).step(step)?;
            cluster.servers.start(victim).await?;
            let others = others_go_on(cluster, &node, victim).await?;
            let name = cluster.servers.server(victim).site.name.clone();
            wait::until_ok("word of the wrong clock", TOLD, async || {
                let group = cluster.servers.seen_by(others[0]).await?;
                let seen = group.server(&name)?;
                // Whoever trusts no certificate any more says so in its log; before the cluster's
                // CA is valid it does not even start.
                let told = seen.problems().join("\n");
                let log = cluster.servers.server(victim).process.log();
                let in_log = ["clock is wrong", "check the clock"];
                let in_log = in_log.iter().any(|text| log.contains(text));
                let says = told.contains("clock") || in_log;
                ensure!(!seen.healthy && says, "{told}");
                Ok(())
            })
            .await?;
            cluster.servers.kill(victim).await?;
            cluster.clock(victim).step(0)?;
            cluster.servers.start(victim).await?;
            cluster.servers.settled().await?;
            write(cluster, &node, victim, "right").await?;
        }
        Ok(())
    })
    .await;
}
