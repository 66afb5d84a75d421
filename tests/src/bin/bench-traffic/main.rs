//! `make bench-traffic`: the embedded ingress beside nginx and haproxy: the same upstream (an nginx of one
//! worker), small answers, kept connections, in turns; then at half of nginx's rate. A table of 5,000 routes:
//! memory, how long until it is in use, and its rendering for Traefik. Files of static sites, beside nginx. The hop to another node, beside the
//! same request at the node itself: two nodes of a lab. A request by private name to another node, beside one to a
//! port that Docker publishes there. How long an allocation that is healthy waits for its
//! first request, by either ingress, with 5,000 routes. How much longer than its container's own start the first
//! request of a service that sleeps takes.
//! Prints a table, writes `target/bench/traffic.json` and the section of docs/benchmarks.md; `proxies`, `files`, `mesh`,
//! `private`, `propagate` or `wake` as argument measures that part and writes nothing. Needs root, nginx and haproxy.

mod files;
mod hop;
mod private;
mod propagate;
mod proxies;
mod wake;

use std::time::Duration;

use anyhow::{Result, ensure};
use skep_tests::figures::{publish, table};
use skep_tests::with_cluster;

/// Odd: the one in the middle counts.
const ROUNDS: usize = 5;
const ROUTES: usize = 5_000;
const SEEN: Duration = Duration::from_secs(60);
const MIB: f64 = 1024.0 * 1024.0;
const HEADING: &str = "## Traffic: `make bench-traffic`";
const PARTS: [&str; 6] = ["proxies", "files", "mesh", "private", "propagate", "wake"];

#[tokio::main]
async fn main() -> Result<()> {
    let part = std::env::args().nth(1).unwrap_or_default();
    if part == private::FIRE {
        return private::fire(&std::env::args().nth(2).unwrap_or_default()).await;
    }
    ensure!(
        part.is_empty() || PARTS.contains(&part.as_str()),
        "`{part}`: one of {PARTS:?}, or nothing for all of them"
    );
    let is_wanted = |one: &str| part.is_empty() || part == one;
    let mut figures = Vec::new();
    if is_wanted("proxies") {
        figures.extend(proxies::proxies().await?);
    }
    if is_wanted("files") {
        figures.extend(files::files().await?);
    }
    if is_wanted("mesh") {
        figures.extend(hop::hop().await?);
    }
    if is_wanted("private") {
        figures.extend(private::private().await?);
    }
    if is_wanted("propagate") {
        with_cluster("propagate", async |cluster| {
            figures.extend(propagate::propagate(cluster).await?);
            Ok(())
        })
        .await;
    }
    if is_wanted("wake") {
        with_cluster("wake", async |cluster| {
            figures.extend(wake::wake(cluster).await?);
            Ok(())
        })
        .await;
    }
    println!("{}", table(&figures));
    match part.is_empty() {
        true => publish("traffic", HEADING, &figures),
        false => Ok(()),
    }
}
