//! `make bench-autoscale`: the autoscaler beside Kubernetes' HPA, Knative's KPA and Nomad's
//! target-value on the same series of requests.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use skep_scheduler_bench::autoscale::all;
use skep_scheduler_bench::autoscale::load::{self, Load};
use skep_scheduler_bench::autoscale::ours::Ours;
use skep_scheduler_bench::autoscale::report::{Row, publish, table};
use skep_scheduler_bench::autoscale::service::{Service, run};

/// Most replicas, for all: no series here may hit it by itself.
const MAX: u32 = 1_000;
/// The start-up delay of the figures that are recorded.
const RECORDED_S: u64 = 30;

/// Runs series of requests through a simulated service under each autoscaler, and prints seconds
/// with backlog, replica-seconds over the ideal, and reversals.
#[derive(Debug, Parser)]
#[command(name = "bench-autoscale")]
struct Arguments {
    /// Series as CSV, `second,requests` a line; none: the built-in ones.
    files: Vec<PathBuf>,
    /// Requests a second that one replica serves.
    #[arg(long, default_value_t = 10.0)]
    capacity: f64,
    /// Share of that capacity that every autoscaler aims at, in percent.
    #[arg(long, default_value_t = 70.0)]
    utilisation: f64,
    /// Seconds until a new replica serves; several: 5,30,90.
    #[arg(long, value_delimiter = ',', default_values_t = [5, RECORDED_S, 90])]
    start_up: Vec<u64>,
    /// Begin with one replica instead of as many as the first minute needs.
    #[arg(long)]
    cold: bool,
    /// Print every change of ours with its reasons.
    #[arg(long)]
    explain: bool,
    /// Seed of the built-in series.
    #[arg(long, default_value_t = load::SEED)]
    seed: u64,
}

impl Arguments {
    /// Whether the figures are those that are recorded.
    fn is_default(&self) -> bool {
        let default = Self::parse_from(["bench-autoscale"]);
        self.files.is_empty()
            && !self.cold
            && self.seed == default.seed
            && self.capacity == default.capacity
            && self.utilisation == default.utilisation
            && self.start_up.contains(&RECORDED_S)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let target = arguments.capacity * arguments.utilisation / 100.0;
    ensure!(
        target > 0.001 && arguments.utilisation <= 100.0,
        "--capacity must be above 0 and --utilisation from 0 to 100"
    );
    let loads = if arguments.files.is_empty() {
        load::built_in(arguments.seed)
    } else {
        let files = arguments.files.iter();
        files.map(|file| load::read(file)).collect::<Result<_>>()?
    };
    let mut rows = Vec::new();
    for load in &loads {
        for start_up_s in &arguments.start_up {
            let service = Service {
                capacity: arguments.capacity,
                start_up_s: *start_up_s,
                begins_with: if arguments.cold {
                    1
                } else {
                    load.begins_with(target)
                },
            };
            if arguments.explain {
                explain(&service, load, target);
            }
            let outcomes = all(target, MAX)
                .iter_mut()
                .map(|scaler| {
                    let name = scaler.name();
                    (name, run(&service, &load.arrivals, scaler.as_mut()))
                })
                .collect();
            rows.push(Row {
                load: load.name.clone(),
                start_up_s: *start_up_s,
                outcomes,
            });
        }
    }
    println!("{}", table(&rows));
    for row in &rows {
        for shortfall in row.shortfalls() {
            println!("short: {}, {} s: {shortfall}", row.load, row.start_up_s);
        }
    }
    // What is recorded is the built-in series as everybody runs them.
    if arguments.is_default() {
        rows.retain(|row| row.start_up_s == RECORDED_S);
        println!("figures: {}", publish(&rows)?.display());
    }
    Ok(())
}

/// Each change of ours, with the second and the reasons.
fn explain(service: &Service, load: &Load, target: f64) {
    let mut ours = Ours::new(target, MAX);
    run(service, &load.arrivals, &mut ours);
    println!("{}, start-up {} s:", load.name, service.start_up_s);
    for decision in ours.decisions() {
        println!("{:>8} s  {decision}", decision.at_ms / 1_000);
    }
    println!();
}
