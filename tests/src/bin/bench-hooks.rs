//! `make bench-hooks`: 1,000 deliveries of webhooks in 10 s over 50 services, half of them duplicates, at one
//! server and at three. How long each waits for its answer, and whether exactly the right deployments were made.
//! No node builds: deployments stay queued, and newer ones supersede older ones. Prints a table, writes
//! `target/bench/hooks.json` and the section of docs/benchmarks.md; a number as argument sends that many times
//! fewer and writes nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use skep_tests::api::Api;
use skep_tests::figures::{Figure, publish, quantile, table};
use skep_tests::place;
use skep_tests::servers::{Servers, Site};
use skep_tests::storm::{Counts, Storm};

const DELIVERIES: usize = 1_000;
const SERVICES: usize = 50;
const WITHIN: Duration = Duration::from_secs(10);
/// Where this program writes in docs/benchmarks.md.
const HEADING: &str = "## Webhooks: `make bench-hooks`";

#[tokio::main]
async fn main() -> Result<()> {
    let smaller: Option<usize> = std::env::args()
        .nth(1)
        .map(|text| text.parse())
        .transpose()?;
    let divisor = smaller.unwrap_or(1).max(1);
    let mut figures = Vec::new();
    let (p50, p99) = measure(1, divisor).await?;
    let (three_p50, three_p99) = measure(3, divisor).await?;
    figures.extend([
        Figure::alone("pipeline.webhook_ms_p50", p50, "ms").beside("three servers, ms", three_p50),
        Figure::alone("pipeline.webhook_ms_p99", p99, "ms").beside("three servers, ms", three_p99),
    ]);
    println!("{}", table(&figures));
    match smaller {
        Some(_) => Ok(()),
        None => publish("hooks", HEADING, &figures),
    }
}

/// One storm at so many servers; the time that half of the deliveries, and all but one of a hundred, take at
/// most, in ms. Fails where a deployment is missing, doubled, or of another commit.
async fn measure(count: usize, divisor: usize) -> Result<(f64, f64)> {
    let base = place::target_dir().join("bench");
    std::fs::create_dir_all(&base)?;
    let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&base)?;
    let sites: Result<Vec<Site>> = (0..count)
        .map(|number| Site::loopback(dir.path(), &format!("server{number}")))
        .collect();
    let servers = Servers::start_at(sites?).await?;
    let apis: Vec<Api> = servers
        .all()
        .iter()
        .map(|server| server.api.clone())
        .collect();
    let (deliveries, services) = (DELIVERIES / divisor, (SERVICES / divisor).max(1));
    let measured = async {
        let storm = Storm::prepare(&apis[0], services).await?;
        let within = WITHIN / u32::try_from(divisor)?;
        let told = storm.blow(&apis, deliveries, within).await?;
        let counts = storm.check(&apis[0], &told).await?;
        println!("{count} servers: {counts:?}");
        let pushes = deliveries / 2;
        let wanted = Counts {
            deployments: pushes,
            replayed: deliveries - pushes,
            superseded: pushes - services,
            queued: services,
        };
        ensure!(counts == wanted, "{counts:?}, wanted {wanted:?}");
        let mut took: Vec<f64> = told
            .iter()
            .map(|one| one.took.as_secs_f64() * 1_000.0)
            .collect();
        Ok((quantile(&mut took, 0.5), quantile(&mut took, 0.99)))
    };
    let measured = measured.await;
    if measured.is_err() {
        servers.print_logs();
    }
    measured
}
