//! The presets under every rule, as tables for people and figures for machines. Measures nothing
//! by the clock.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::load::Mix;
use super::presets::{Load, MOVED_A_DAY, Preset};
use super::rules::Rule;
use crate::figures::Figure;

/// A name and a figure, where there are any.
type Peer = (Option<Cow<'static, str>>, Option<f64>);

/// A contestant: a rule, and whether Skep's rebalancer helps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entrant {
    rule: Rule,
    rebalances: bool,
}

impl Entrant {
    fn name(self) -> String {
        let suffix = if self.rebalances { "+moves" } else { "" };
        format!("{}{suffix}", self.rule.name())
    }
}

/// Nodes and bounds: by entrant, then mix, then seed.
type Runs = Vec<Vec<Vec<(f64, f64)>>>;

/// A preset, measured.
#[derive(Debug, Clone)]
pub struct Measurement {
    preset: Preset,
    mixes: Vec<Mix>,
    entrants: Vec<Entrant>,
    runs: Runs,
    stranded_pct: Vec<f64>,
}

impl Measurement {
    /// Measures every rule on each mix and seed.
    pub fn take(preset: Preset, mixes: &[Mix], seeds: std::ops::Range<u64>) -> Self {
        let online = |rule| Entrant {
            rule,
            rebalances: false,
        };
        let mut entrants = vec![online(Rule::Skep), online(Rule::Stranding)];
        entrants.extend(Rule::PEERS.map(online));
        if preset == Preset::Churn {
            entrants.push(Entrant {
                rule: Rule::Skep,
                rebalances: true,
            });
        }
        let mut runs = vec![vec![Vec::new(); mixes.len()]; entrants.len()];
        let mut stranded_pct = vec![0.0; entrants.len()];
        let count = (mixes.len() * seeds.clone().count()) as f64;
        for (at, mix) in mixes.iter().enumerate() {
            for seed in seeds.clone() {
                let load = Load::new(preset, *mix, seed);
                for (number, entrant) in entrants.iter().enumerate() {
                    let moved_a_day = if entrant.rebalances { MOVED_A_DAY } else { 0.0 };
                    let measured = load.measure(entrant.rule, moved_a_day);
                    runs[number][at].push((measured.nodes, measured.bound));
                    stranded_pct[number] += measured.outcome.stranded_pct / count;
                }
            }
        }
        Self {
            preset,
            mixes: mixes.to_vec(),
            entrants,
            runs,
            stranded_pct,
        }
    }

    /// Nodes over the bound in percent: the mean over the seeds of a mix.
    fn over_pct(&self, entrant: usize, mix: usize) -> f64 {
        let runs = &self.runs[entrant][mix];
        let over = |(nodes, bound): &(f64, f64)| 100.0 * (nodes / bound - 1.0);
        runs.iter().map(over).sum::<f64>() / runs.len() as f64
    }

    /// The mean over mixes, too.
    fn mean_pct(&self, entrant: usize) -> f64 {
        let mixes = 0..self.mixes.len();
        let sum: f64 = mixes.map(|mix| self.over_pct(entrant, mix)).sum();
        sum / self.mixes.len() as f64
    }

    /// The online heuristics, by number.
    fn peers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.entrants.len()).filter(|at| Rule::PEERS.contains(&self.entrants[*at].rule))
    }

    /// Over the mixes of one seed together: nodes beyond those of the best heuristic on that seed,
    /// in percent; the worst seed.
    fn worst_seed_pct(&self, entrant: usize) -> f64 {
        let nodes = |entrant: usize, seed: usize| -> f64 {
            self.runs[entrant]
                .iter()
                .map(|mix| mix[seed].0 / mix[seed].1)
                .sum()
        };
        let seeds = 0..self.runs[entrant][0].len();
        let beyond = seeds.map(|seed| {
            let best = self
                .peers()
                .map(|peer| nodes(peer, seed))
                .fold(f64::INFINITY, f64::min);
            100.0 * (nodes(entrant, seed) / best - 1.0)
        });
        beyond.fold(f64::NEG_INFINITY, f64::max)
    }

    /// As before, each mix apart.
    fn worst_cell_pct(&self, entrant: usize) -> f64 {
        let mut worst = f64::NEG_INFINITY;
        for mix in 0..self.mixes.len() {
            for seed in 0..self.runs[entrant][mix].len() {
                let best = self
                    .peers()
                    .map(|peer| self.runs[peer][mix][seed].0 / self.runs[peer][mix][seed].1)
                    .fold(f64::INFINITY, f64::min);
                let (nodes, bound) = self.runs[entrant][mix][seed];
                worst = worst.max(100.0 * (nodes / bound / best - 1.0));
            }
        }
        worst
    }

    /// Markdown: a line per rule, nodes over the bound in percent by mix.
    pub fn table(&self) -> String {
        let mut text = format!("| {} |", self.preset.name());
        for mix in &self.mixes {
            let _ = write!(text, " {} |", mix.name());
        }
        text.push_str(" mean | stranded | worst seed | worst of a mix |\n|---|");
        text.push_str(&"---:|".repeat(self.mixes.len() + 4));
        text.push('\n');
        for (number, entrant) in self.entrants.iter().enumerate() {
            let _ = write!(text, "| {} |", entrant.name());
            for mix in 0..self.mixes.len() {
                let _ = write!(text, " {:.2} |", self.over_pct(number, mix));
            }
            let _ = writeln!(
                text,
                " {:.2} | {:.2} | {:+.2} | {:+.2} |",
                self.mean_pct(number),
                self.stranded_pct[number],
                self.worst_seed_pct(number),
                self.worst_cell_pct(number),
            );
        }
        text
    }

    /// Beside the heuristic with the least mean.
    pub fn figures(&self) -> Vec<Figure> {
        let best = self
            .peers()
            .min_by(|a, b| self.mean_pct(*a).total_cmp(&self.mean_pct(*b)));
        let peer = |value: fn(&Self, usize) -> f64| -> Peer {
            let name = best.map(|best| self.entrants[best].name().into());
            (name, best.map(|best| value(self, best)))
        };
        let figure = |name: &str, value: f64, (peer, peer_value): Peer| Figure {
            metric: format!("packing.{}.{name}", self.preset.name().replace('-', "_")).into(),
            value,
            unit: "%",
            peer,
            peer_value,
        };
        let mut figures = vec![
            figure(
                "nodes_over_bound_pct",
                self.mean_pct(0),
                peer(Self::mean_pct),
            ),
            figure(
                "worst_seed_pct",
                self.worst_seed_pct(0),
                peer(Self::worst_seed_pct),
            ),
        ];
        figures.push(figure(
            "worst_seed_of_a_mix_pct",
            self.worst_cell_pct(0),
            peer(Self::worst_cell_pct),
        ));
        let moves = self.entrants.iter().position(|entrant| entrant.rebalances);
        if let Some(moves) = moves {
            let mean = self.mean_pct(moves);
            figures.push(figure(
                "moves_nodes_over_bound_pct",
                mean,
                peer(Self::mean_pct),
            ));
        }
        figures
    }
}
