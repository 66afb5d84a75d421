//! `make bench-pipeline`: from `git push` to a live deployment, and to the first answer of its release through
//! `skep net`. A bare repository behind git's own daemon, whose `post-receive` hook calls the webhook of the
//! repository; one node builds by its Docker. Pushes without a change (empty commits); then pushes that change the
//! last layer (1 MiB), each beside a plain `docker build` of a folder with the same change, in turns in the same
//! run. Prints how long each phase took in the middle, and a table; writes `target/bench/pipeline.json` and the section
//! of docs/benchmarks.md. A number as argument makes that many times fewer pushes and writes nothing.

mod phases;
mod push;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use skep_tests::app::App;
use skep_tests::containers::TEST_LABEL;
use skep_tests::figures::{Figure, p50, publish, quantile, table};
use skep_tests::random::Random;
use skep_tests::{Cluster, with_cluster_alone};
use tokio::process::Command;

use phases::PHASES;
use push::{Pushed, Stage};

/// Pushes without a change.
const EMPTY: usize = 24;
/// Pushes that change the last layer, and as many plain builds.
const CHANGED: usize = 12;
/// What changes.
const LAYER_BYTES: usize = 1 << 20;
/// The file that it is in.
const LAYER: &str = "layer";
/// Where this program writes in docs/benchmarks.md.
const HEADING: &str = "## From push to live: `make bench-pipeline`";

/// What all pushes of one kind took.
#[derive(Default)]
struct Took {
    live_ms: Vec<f64>,
    answered_ms: Vec<f64>,
    /// By phase, in the order of [`PHASES`].
    phases_ms: Vec<Vec<f64>>,
}

impl Took {
    fn add(&mut self, pushed: &Pushed) {
        self.live_ms.push(pushed.live_ms);
        self.answered_ms.push(pushed.answered_ms);
        self.phases_ms.resize(PHASES.len(), Vec::new());
        for (all, one) in self.phases_ms.iter_mut().zip(&pushed.phases_ms) {
            all.push(*one);
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let smaller: Option<usize> = std::env::args()
        .nth(1)
        .map(|text| text.parse())
        .transpose()?;
    let divisor = smaller.unwrap_or(1).max(1);
    let mut figures = Vec::new();
    with_cluster_alone("pipeline", async |cluster| {
        figures = measure(cluster, divisor).await?;
        Ok(())
    })
    .await;
    println!("{}", table(&figures));
    match smaller {
        Some(_) => Ok(()),
        None => publish("pipeline", HEADING, &figures),
    }
}

async fn measure(cluster: &Cluster, divisor: usize) -> Result<Vec<Figure>> {
    let mut random = Random::of_run("bench-pipeline");
    let stage = Stage::set(cluster).await?;
    let plain = App::create(cluster.path("plain"), &cluster.run, "1")?;
    for app in [&stage.repository.app, &plain] {
        app.write("Dockerfile", &dockerfile(&cluster.run))?;
        change(app, &mut random)?;
    }
    // What is the same in all of them is built and started once before anything counts.
    stage.push(cluster).await?;
    build(cluster, &plain).await?;
    let (mut empty, mut changed, mut built_ms) = (Took::default(), Took::default(), Vec::new());
    for _ in 0..(EMPTY / divisor).max(1) {
        empty.add(&stage.push(cluster).await?);
    }
    for round in 0..(CHANGED / divisor).max(1) {
        // By turns, each begins.
        for is_plain in [round % 2 == 0, round % 2 == 1] {
            if is_plain {
                change(&plain, &mut random)?;
                built_ms.push(build(cluster, &plain).await?);
            } else {
                change(&stage.repository.app, &mut random)?;
                changed.add(&stage.push(cluster).await?);
            }
        }
    }
    Ok(figures(empty, changed, built_ms))
}

fn figures(mut empty: Took, mut changed: Took, mut built_ms: Vec<f64>) -> Vec<Figure> {
    let answered = "first answer, ms";
    let p99 = |values: &mut [f64]| quantile(values, 0.99);
    let plain = p50(&mut built_ms);
    let mut all = vec![
        Figure::alone(
            "pipeline.push_to_live_ms_p50",
            p50(&mut empty.live_ms),
            "ms",
        )
        .beside(answered, p50(&mut empty.answered_ms)),
        Figure::alone(
            "pipeline.push_to_live_ms_p99",
            p99(&mut empty.live_ms),
            "ms",
        )
        .beside(answered, p99(&mut empty.answered_ms)),
        Figure::alone(
            "changed layer: push to live, p50",
            p50(&mut changed.live_ms),
            "ms",
        )
        .beside(answered, p50(&mut changed.answered_ms)),
        Figure::alone(
            "pipeline.build_overhead_ms_p50",
            p50(&mut changed.live_ms) - plain,
            "ms",
        )
        .beside("docker build, ms", plain),
    ];
    let both = empty.phases_ms.iter_mut().zip(&mut changed.phases_ms);
    for (phase, (empty, changed)) in PHASES.iter().zip(both) {
        let figure = Figure::alone(phase, p50(empty), "ms");
        all.push(figure.beside("changed layer, ms", p50(changed)));
    }
    all
}

/// What changes is its last step.
fn dockerfile(run: &str) -> String {
    format!(
        "FROM scratch\nLABEL {TEST_LABEL}={run}\nCOPY skep-test-app /skep-test-app\nENV VERSION=1\n\
         EXPOSE 8080\nENTRYPOINT [\"/skep-test-app\"]\nCOPY {LAYER} /{LAYER}\n"
    )
}

fn change(app: &App, random: &mut Random) -> Result<()> {
    let numbers = std::iter::repeat_with(|| random.next_u64()).take(LAYER_BYTES / 8);
    let noise: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
    let path = app.dir().join(LAYER);
    std::fs::write(&path, noise).with_context(|| format!("writing {}", path.display()))
}

/// `docker build` as a person calls it; in ms.
async fn build(cluster: &Cluster, app: &App) -> Result<f64> {
    let tag = format!("skep-e2e/{}:plain", cluster.run);
    let begun = Instant::now();
    let output = Command::new("docker")
        .args(["build", "--quiet", "--tag", &tag, app.path()?])
        .output()
        .await
        .context("docker cannot be run")?;
    let took = begun.elapsed();
    ensure!(
        output.status.success(),
        "docker build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(ms(took))
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
