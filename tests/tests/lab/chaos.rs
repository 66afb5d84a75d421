//! Faults by chance under clients whose histories are judged: a fixed sample, or all of it.

use anyhow::{Result, ensure};
use skep_tests::lab::cluster::with_servers;
use skep_tests::random::Random;
use skep_tests::{chaos, register};

/// In full: 500, spread over three and five servers.
const FULL: u32 = 250;

async fn faults(servers: usize, sample: u32) {
    with_servers("chaos", servers, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let mut random = Random::of_run("chaos");
        let count = chaos::count(sample, FULL);
        let outcome = register::chaos::rounds(cluster, &mut random, count).await?;
        println!(
            "{count} faults, {} of the leader: {}",
            outcome.leaders, outcome.verdict
        );
        ensure!(outcome.verdict.is_good(), "{:?}", outcome.verdict);
        ensure!(outcome.acknowledged > u64::from(count) * 10, "{outcome:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_three_servers_loses_nothing() {
    faults(3, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_five_servers_loses_nothing() {
    faults(5, 4).await;
}
