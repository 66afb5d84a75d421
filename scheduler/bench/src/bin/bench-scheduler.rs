//! `make bench-scheduler`: Nomad's own benchmark, a million allocations, steady churn, memory and
//! growth. One thread. Prints a table and writes `target/bench/scheduler.json`.

use anyhow::{Context as _, Result};
use skep_scheduler_bench::figures::{Figure, publish, quantile, resident_bytes, table};
use skep_scheduler_bench::load::{self, Rules};
use skep_scheduler_bench::nomad::{self, Case};

/// Plans of each case: the least time counts, as the others differ by the machine's other work.
const ROUNDS: usize = 10;
const NODES: usize = 10_000;
const RUNNING: u64 = 200_000;
const CHANGES: u64 = 1_000;

fn main() -> Result<()> {
    let mut figures = Vec::new();
    // First: memory is told best of a process that has given none back.
    million(&mut figures)?;
    parity(&mut figures)?;
    growth(&mut figures)?;
    churn(&mut figures)?;
    println!("\n{}", table(&figures));
    let path = publish("scheduler", &figures)?;
    println!("written: {}", path.display());
    Ok(())
}

/// Nomad's benchmark, every case; the results are checked each time.
fn parity(figures: &mut Vec<Figure>) -> Result<()> {
    println!("Nomad's inputs: ms for one plan (Nomad: recorded on another machine)");
    println!(
        "| nodes | racks | spread | allocations | placed | ms | per second | Nomad ms | ratio |"
    );
    println!("|---:|---:|---|---:|---:|---:|---:|---:|---:|");
    let mut worst = f64::MAX;
    for case in Case::all() {
        let (cluster, job) = (case.cluster(), case.job()?);
        let (time, plan) = nomad::time(&cluster, &job, ROUNDS);
        case.check(&cluster, &plan)
            .with_context(|| format!("{case:?}"))?;
        let (ms, placed) = (time.as_secs_f64() * 1e3, plan.starts.len());
        let per_second = placed as f64 / time.as_secs_f64();
        let recorded = case.recorded_ms();
        let fits = placed == case.allocations;
        let ratio = recorded.map(|recorded| recorded / ms);
        if fits {
            worst = worst.min(ratio.unwrap_or(f64::MAX));
        }
        let text = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
        println!(
            "| {} | {} | {} | {} | {placed} | {ms:.3} | {per_second:.0} | {} | {}{} |",
            case.nodes,
            case.racks,
            case.spread,
            case.allocations,
            text(recorded),
            text(ratio),
            if fits { "" } else { " (not all fit)" },
        );
        if (case.nodes, case.racks, case.allocations) == (5_000, 50, 1_200) {
            let metric = match case.spread {
                false => "scheduler.nomad_5000n_1200a_per_s",
                true => "scheduler.nomad_5000n_1200a_spread_per_s",
            };
            let figure = Figure::alone(metric, per_second, "placements/s");
            let peer = recorded.map(|recorded| case.allocations as f64 * 1e3 / recorded);
            figures.push(figure.beside_nomad(peer.unwrap_or(0.0)));
        }
    }
    figures.push(Figure::alone("scheduler.worst_ratio_nomad", worst, "times"));
    Ok(())
}

/// How a placement's time grows when the nodes double, group by group, at Nomad's largest count.
fn growth(figures: &mut Vec<Figure>) -> Result<()> {
    let mut worst: f64 = 0.0;
    for spread in [false, true] {
        let mut times = Vec::new();
        for nodes in [5_000, 10_000] {
            let case = Case {
                nodes,
                racks: 50,
                allocations: 1_200,
                spread,
            };
            let (cluster, job) = (case.cluster(), case.job()?);
            let (time, _) = nomad::time(&cluster, &job, 4 * ROUNDS);
            times.push(time.as_secs_f64());
        }
        worst = worst.max(times[1] / times[0]);
    }
    figures.push(Figure::alone("scheduler.doubling_ratio", worst, "times"));
    Ok(())
}

/// A million allocations of fifty shapes from empty, each service planned in full and followed.
fn million(figures: &mut Vec<Figure>) -> Result<()> {
    let mut cluster = load::cluster(NODES);
    let before = resident_bytes()?;
    let time = load::fill(&mut cluster, 1_000, 1_000)?;
    let after = resident_bytes()?;
    anyhow::ensure!(
        cluster.allocation_count() == 1_000_000,
        "not all were placed"
    );
    let bytes = after.saturating_sub(before) as f64 / 1e6;
    figures.push(Figure::alone(
        "scheduler.million_s",
        time.as_secs_f64(),
        "s",
    ));
    figures.push(Figure::alone(
        "scheduler.bytes_per_allocation",
        bytes,
        "bytes",
    ));
    Ok(())
}

fn churn(figures: &mut Vec<Figure>) -> Result<()> {
    let metrics = [
        (
            Rules::None,
            [
                "scheduler.churn_us_p50",
                "scheduler.churn_us_p99",
                "scheduler.churn_cpu_us_p99",
            ],
        ),
        (
            Rules::Many,
            [
                "scheduler.churn_rules_us_p50",
                "scheduler.churn_rules_us_p99",
                "scheduler.churn_rules_cpu_us_p99",
            ],
        ),
    ];
    for (rules, [p50, p99, own_p99]) in metrics {
        let mut cluster = load::cluster(NODES);
        load::fill(&mut cluster, RUNNING / 200, 200)?;
        let [mut wall, mut own] = load::churn(&mut cluster, RUNNING, CHANGES, rules)?;
        figures.push(Figure::alone(p50, quantile(&mut wall, 0.5), "us"));
        figures.push(Figure::alone(p99, quantile(&mut wall, 0.99), "us"));
        figures.push(Figure::alone(own_p99, quantile(&mut own, 0.99), "us"));
    }
    Ok(())
}
