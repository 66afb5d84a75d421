//! Faults, one after the other, while clients read and write registers; what the clients were told
//! is judged after each. Shared by the tests and the benches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::check::{self, Verdict};
use super::clients::Clients;
use super::recorder::Recorder;
use crate::lab::cluster::LabCluster;
use crate::lab::faults::Fault;
use crate::random::Random;
use crate::wait;

const REGISTERS: usize = 6;
const CLIENTS: u64 = 6;
/// Before a fault: clients are at work.
const WARM: Duration = Duration::from_millis(300);
/// Writes go on by then, whoever was hit: what clients wait for a dead server is part of it.
const WRITES: Duration = Duration::from_secs(15);
/// Acknowledged writes that show that they go on.
const ENOUGH: u64 = 10;
/// A fault lasts its least, and up to so much more.
const MORE_MS: u64 = 2_000;

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the clients were told, judged.
    pub verdict: Verdict,
    /// Faults that befell a server.
    pub faults: u32,
    /// Of which the leader was hit.
    pub leaders: u32,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
}

/// Lets `count` faults befall servers by chance, spread evenly over the kinds.
///
/// # Errors
/// Writes do not go on, or the servers do not become well afterwards.
pub async fn rounds(cluster: &LabCluster, random: &mut Random, count: u32) -> Result<Outcome> {
    let recorder = Arc::new(Recorder::new(REGISTERS));
    let access = cluster.servers.access(&cluster.register_node().await?);
    let mut outcome = Outcome::default();
    for round in 0..count {
        let fault = Fault::ALL[round as usize % Fault::ALL.len()];
        let leader = cluster.servers.leader().await?;
        let victim = match random.below(2) {
            0 => leader,
            _ => place(random, cluster.servers.all().len()),
        };
        outcome.faults += 1;
        outcome.leaders += u32::from(victim == leader);
        let clients = Clients::start(&access, &recorder, REGISTERS, CLIENTS, random);
        tokio::time::sleep(WARM).await;
        let stood = one(cluster, &recorder, fault, victim, random).await;
        stood.with_context(|| {
            format!("round {round}: {fault:?} of server {victim}, the leader was {leader}")
        })?;
        let server = cluster
            .servers
            .server(place(random, cluster.servers.all().len()));
        clients.rest(server.site.api).await?;
        let window = recorder.close();
        let verdict = tokio::task::spawn_blocking(move || (check::judge(&window), window));
        let (verdict, window) = verdict.await?;
        for register in &verdict.violations {
            println!("{fault:?}: {}", check::told(&window, *register));
        }
        outcome.verdict.add(verdict);
    }
    outcome.acknowledged = recorder.acknowledged();
    Ok(outcome)
}

async fn one(
    cluster: &LabCluster,
    recorder: &Recorder,
    fault: Fault,
    victim: usize,
    random: &mut Random,
) -> Result<()> {
    let begun = Instant::now();
    fault.befall(cluster, victim).await?;
    let before = recorder.acknowledged();
    wait::until_ok("writes to go on", WRITES, async || {
        let written = recorder.acknowledged() - before;
        ensure!(written >= ENOUGH, "{written} writes were acknowledged");
        Ok(())
    })
    .await?;
    let stalled = begun.elapsed();
    let lasts = fault.least() + Duration::from_millis(random.below(MORE_MS));
    tokio::time::sleep(lasts.saturating_sub(stalled)).await;
    fault.undo(cluster, victim).await?;
    let (stalled, all) = (stalled.as_millis(), begun.elapsed().as_millis());
    println!(
        "{fault:?} of server {victim}: {ENOUGH} writes after {stalled} ms, well after {all} ms"
    );
    Ok(())
}

fn place(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).expect("below a usize")
}
