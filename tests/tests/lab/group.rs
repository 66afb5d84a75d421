//! Servers make a group with one command each; any of them takes calls; membership follows.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::wait;

const STOP: Duration = Duration::from_secs(60);

const KEY: &str = "written";

/// Writes through a server and wants to read it back, linearizably, through another.
async fn write_and_read(cluster: &LabCluster, node: &str, at: usize, from: usize) -> Result<()> {
    let value = format!("{at}-{from}");
    cluster.servers.set_meta(at, node, KEY, &value).await?;
    let read = cluster.servers.meta(from, node, KEY).await?;
    ensure!(
        read == value,
        "wrote {value} at {at}, {from} answers {read}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_from_three_commands() {
    with_servers("three", 3, async |cluster| -> Result<()> {
        let group = cluster.servers.settled().await?;
        ensure!(
            (group.count("leader"), group.count("voter")) == (1, 2),
            "{group:?}"
        );
        let node = cluster.register_node().await?;
        for at in 0..3 {
            for from in 0..3 {
                write_and_read(cluster, &node, at, from).await?;
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_server_learns_until_a_third_has_caught_up() {
    with_servers("second", 2, async |cluster| -> Result<()> {
        let group = cluster.servers.settled().await?;
        ensure!(
            (group.count("leader"), group.count("learner")) == (1, 1),
            "{group:?}"
        );
        let members: Vec<u64> = group.servers.iter().map(|one| one.member).collect();
        // The learner may die: the founder alone is the majority.
        cluster.servers.kill(1).await?;
        let node = cluster.register_node().await?;
        write_and_read(cluster, &node, 0, 0).await?;
        cluster.servers.start(1).await?;
        cluster.join().await?;
        let group = cluster.servers.settled().await?;
        ensure!(
            (group.count("leader"), group.count("voter")) == (1, 2),
            "{group:?}"
        );
        let third = &group.servers[2];
        ensure!(!members.contains(&third.member), "{members:?} {third:?}");
        write_and_read(cluster, &node, 2, 1).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_leader_hands_on_and_two_are_left() {
    with_servers("leave", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let node = cluster.register_node().await?;
        let leader = cluster.servers.leader().await?;
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        let name = &cluster.servers.server(leader).site.name;
        let api = &cluster.servers.server(others[0]).api;
        let answer = api
            .call(Method::DELETE, &format!("/v1/servers/{name}"), None)
            .await?;
        ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
        wait::until_ok("two servers", STOP, async || {
            let group = cluster.servers.seen_by(others[0]).await?;
            ensure!(
                group.servers.len() == 2 && group.count("outside") == 0,
                "{group:?}"
            );
            ensure!(
                (group.count("leader"), group.count("learner")) == (1, 1),
                "{group:?}"
            );
            Ok(())
        })
        .await?;
        write_and_read(cluster, &node, others[1], others[0]).await?;
        // What was removed is refused, and takes no writes.
        let removed = cluster.servers.set_meta(leader, &node, KEY, "removed");
        ensure!(removed.await.is_err());
        write_and_read(cluster, &node, others[0], others[1]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_stop_hands_on_first() {
    with_servers("graceful", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let node = cluster.register_node().await?;
        let leader = cluster.servers.leader().await?;
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        let status = cluster
            .servers
            .server(leader)
            .process
            .terminate(STOP)
            .await?;
        ensure!(status.success(), "{status}");
        // No election has to time out: somebody leads already.
        let group = cluster.servers.seen_by(others[0]).await?;
        ensure!(group.count("leader") == 1, "{group:?}");
        write_and_read(cluster, &node, others[0], others[1]).await?;
        cluster.servers.start(leader).await?;
        cluster.servers.settled().await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_switched_off_comes_back() {
    with_servers("off", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let node = cluster.register_node().await?;
        write_and_read(cluster, &node, 1, 2).await?;
        for place in 0..3 {
            cluster.servers.kill(place).await?;
        }
        for place in 0..3 {
            cluster.servers.start(place).await?;
        }
        cluster.servers.settled().await?;
        let read = cluster.servers.meta(0, &node, KEY).await?;
        ensure!(read == "1-2", "{read}");
        write_and_read(cluster, &node, 2, 0).await
    })
    .await;
}
