//! kill -9 of server and agent at random moments of a deployment, and what must hold afterwards.
//! Shared by the tests and the benches.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Cluster;
use crate::api::Name;
use crate::load::{Load, Report};
use crate::random::Random;

/// A deployment of a ready image takes less: the moments fall before, within and after it.
const WITHIN_MS: u64 = 1_500;
/// How long a part stays dead.
const DEAD_MS: u64 = 700;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Containers without an allocation, or several of one, after a round had settled.
    pub strays: Vec<String>,
    /// The requests meanwhile.
    pub requests: Report,
}

/// Kills `rounds` times, a deployment under way each time, requests at `rate` a second.
///
/// # Errors
/// A round does not converge, or its deployment does not end.
pub async fn rounds(
    cluster: &Cluster,
    random: &mut Random,
    rounds: u32,
    rate: u32,
) -> Result<Found> {
    let spec = json!({ "replicas": 2, "update": { "drain_ms": 1000 }, "stop_grace_ms": 2000 });
    let (name, _) = cluster.service("crash", "0", spec).await?;
    let mut images = Vec::new();
    for version in ["1", "2"] {
        images.push(cluster.image(version, &[]).await?);
    }
    let mut found = Found::default();
    let load = Load::start(cluster.ingress, &cluster.host(&name), rate);
    for round in 0..rounds {
        let version = round as usize % images.len();
        let told = kill_one(cluster, random, &name, &images[version]).await;
        told.with_context(|| format!("round {round}"))?;
        cluster
            .answers(&name, &(version + 1).to_string())
            .await
            .with_context(|| format!("round {round}"))?;
        let settled = cluster.converged(&[(&name, 2)]).await;
        if settled.is_err() {
            found
                .strays
                .extend(cluster.differences(&[(&name, 2)]).await?);
        }
    }
    found.requests = load.stop().await;
    Ok(found)
}

async fn kill_one(cluster: &Cluster, random: &mut Random, name: &Name, image: &str) -> Result<()> {
    let (server, agent) = [(true, false), (false, true), (true, true)][random.below(3) as usize];
    let (after, dead) = (random.below(WITHIN_MS), random.below(DEAD_MS));
    println!("kill -9 after {after} ms for {dead} ms: server {server}, agent {agent}");
    let made = cluster
        .api
        .deploy(name, &json!({ "type": "image", "reference": image }))
        .await?;
    tokio::time::sleep(Duration::from_millis(after)).await;
    if server {
        cluster.server.kill().await?;
    }
    if agent {
        cluster.agent.kill().await?;
    }
    tokio::time::sleep(Duration::from_millis(dead)).await;
    cluster.start_all().await?;
    cluster.server_answers().await?;
    let ended = cluster.api.ended(&made.id).await?;
    anyhow::ensure!(
        ended.status == "live",
        "{}: {:?}\n{}",
        ended.status,
        ended.problem,
        ended.told()
    );
    Ok(())
}
