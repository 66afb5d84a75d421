//! `make bench-packing [FILES="TRACE NODES"]`: nodes used by Skep's packing score, beside classic
//! heuristics and the fluid bound, on generated loads or on a trace.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Parser;
use skep_scheduler_bench::figures;
use skep_scheduler_bench::packing::load::Mix;
use skep_scheduler_bench::packing::presets::{Preset, SEEDS};
use skep_scheduler_bench::packing::replay::Replay;
use skep_scheduler_bench::packing::report::Measurement;
use skep_scheduler_bench::packing::rules::Rule;
use skep_scheduler_bench::packing::trace;

const AFTER_HELP: &str = "\
Without files, the presets fill, open-nodes and churn are measured on 20 seeds each and several
mixes of shapes; the figures go into target/bench/packing.json.

TRACE is CSV with a header line: arrival,lifetime,cpu,memory. Arrival and lifetime are seconds
(an empty lifetime: to the end); cpu and memory are in any unit that NODES shares.
NODES is CSV with a header line: cpu,memory and, if wanted, count.
Lines may be in any order. What fits nowhere is counted as refused and skipped.";

/// How many nodes the packing score needs, beside classic heuristics and the lower bound.
#[derive(Debug, Parser)]
#[command(name = "bench-packing", after_help = AFTER_HELP)]
struct Arguments {
    /// A trace to replay instead of the presets
    #[arg(requires = "nodes")]
    trace: Option<PathBuf>,
    /// The nodes it runs on
    nodes: Option<PathBuf>,
    /// With a trace: open the nodes one by one, each only when nothing fits
    #[arg(long, requires = "trace")]
    open: bool,
    /// With a trace: stop at the first ask that fits nowhere
    #[arg(long, requires = "trace")]
    until_refused: bool,
    /// With a trace: do not count this part of the time from its beginning, in percent
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..100))]
    skip_percent: u8,
    /// With a trace: share of the allocations that the rebalancer may move a day, in percent
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    moved_percent: u8,
    /// Only this preset (fill, open-nodes, churn)
    #[arg(long, conflicts_with = "trace")]
    preset: Option<String>,
    /// The first seed: constants were chosen on seeds from 1,000 on
    #[arg(long, default_value_t = SEEDS.start, conflicts_with = "trace")]
    first_seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = SEEDS.end, conflicts_with = "trace")]
    seeds: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match (&arguments.trace, &arguments.nodes) {
        (Some(trace), Some(nodes)) => replay(&arguments, trace, nodes),
        _ => presets(&arguments),
    }
}

fn presets(arguments: &Arguments) -> Result<()> {
    let wanted = |preset: &Preset| {
        let only = arguments.preset.as_deref();
        only.is_none_or(|name| name == preset.name())
    };
    let chosen: Vec<Preset> = Preset::ALL.into_iter().filter(wanted).collect();
    if chosen.is_empty() {
        let names = Preset::ALL.map(Preset::name).join(", ");
        bail!("there is no such preset; there are {names}");
    }
    let mut figures = Vec::new();
    println!("Nodes over the fluid bound, in percent.\n");
    for preset in chosen {
        let seeds = arguments.first_seed..arguments.first_seed + arguments.seeds.max(1);
        let measured = Measurement::take(preset, &Mix::ALL, seeds);
        println!("{}", measured.table());
        figures.extend(measured.figures());
    }
    print!("{}", figures::table(&figures));
    let path = figures::publish("packing", &figures)?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

fn replay(arguments: &Arguments, trace: &Path, nodes: &Path) -> Result<()> {
    let trace = trace::read(trace, nodes)?;
    println!(
        "{} asks over {:.0} s, {} nodes\n",
        trace.items.len(),
        trace.end_s,
        trace.nodes.len()
    );
    println!(
        "| rule | nodes, mean | bound, mean | over the bound | nodes at the end | stranded | \
         placed | refused | moves |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    let moved_a_day = f64::from(arguments.moved_percent) / 100.0;
    let online = [Rule::Skep, Rule::Stranding]
        .into_iter()
        .chain(Rule::PEERS)
        .map(|rule| (rule, 0.0));
    let moving = (moved_a_day > 0.0).then_some((Rule::Skep, moved_a_day));
    for (rule, moved_a_day) in online.chain(moving) {
        let outcome = Replay {
            nodes: &trace.nodes,
            items: &trace.items,
            rule,
            opens: arguments.open,
            stops_at_refusal: arguments.until_refused,
            from_s: trace.end_s * f64::from(arguments.skip_percent) / 100.0,
            until_s: trace.end_s,
            moved_a_day,
        }
        .run();
        // All at once: there is no time to take a mean over.
        let (nodes, bound) = match trace.end_s {
            0.0 => (outcome.last_nodes, outcome.last_bound),
            _ => (outcome.nodes, outcome.bound),
        };
        println!(
            "| {}{} | {nodes:.2} | {bound:.2} | {:+.2} % | {:.0} | {:.2} % | {} | {} | {} |",
            rule.name(),
            if moved_a_day > 0.0 { "+moves" } else { "" },
            100.0 * (nodes / bound.max(f64::MIN_POSITIVE) - 1.0),
            outcome.last_nodes,
            outcome.stranded_pct,
            outcome.placed,
            outcome.refused,
            outcome.moves,
        );
    }
    Ok(())
}
