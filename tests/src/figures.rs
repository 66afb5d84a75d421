//! What benches print and write: figures, beside those of a peer measured in the same run. A table
//! for people, JSON under `target/bench/`, a section of docs/benchmarks.md. Measures nothing.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::place;

/// One figure, beside that of a peer where there is one.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Its name.
    pub metric: &'static str,
    /// Skep's.
    pub value: f64,
    /// Of both.
    pub unit: &'static str,
    /// Who else was measured.
    pub peer: Option<&'static str>,
    /// The peer's.
    pub peer_value: Option<f64>,
}

impl Figure {
    /// Without a peer.
    pub fn alone(metric: &'static str, value: f64, unit: &'static str) -> Self {
        Self {
            metric,
            value,
            unit,
            peer: None,
            peer_value: None,
        }
    }

    /// Beside a peer's.
    #[must_use]
    pub fn beside(mut self, peer: &'static str, value: f64) -> Self {
        self.peer = Some(peer);
        self.peer_value = Some(value);
        self
    }
}

/// The middle of values; with an even count the upper one.
///
/// # Panics
/// There are none.
pub fn p50(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that this share of the values does not exceed (nearest rank).
///
/// # Panics
/// There are none.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    values[((values.len() as f64 * share) as usize).min(last)]
}

/// The figures as a table in Markdown.
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::from("| metric | value | unit | beside |\n|---|---:|---|---|\n");
    for figure in figures {
        let beside = match (figure.peer, figure.peer_value) {
            (Some(peer), Some(value)) => format!("{peer}: {}", shown(value)),
            _ => String::new(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {beside} |",
            figure.metric,
            shown(figure.value),
            figure.unit
        );
    }
    text
}

/// Small values need their decimals.
fn shown(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 && small.fract() != 0.0 => format!("{value:.2}"),
        large if large >= 1_000.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

/// Writes `target/bench/NAME.json` and the section of docs/benchmarks.md under `heading`.
///
/// # Errors
/// A file cannot be written.
pub fn publish(name: &str, heading: &str, figures: &[Figure]) -> Result<()> {
    let folder = place::target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let json = serde_json::to_vec_pretty(figures)?;
    std::fs::write(folder.join(format!("{name}.json")), json)?;
    let document = place::root().join("docs/benchmarks.md");
    record(&document, name, heading, &table(figures))
}

/// Puts the table between the marks of the document; where it has none, behind its heading.
fn record(document: &Path, name: &str, heading: &str, table: &str) -> Result<()> {
    let marks = ["begin", "end"].map(|end| format!("<!-- {name}: {end} -->"));
    let section = format!("{}\n{table}{}", marks[0], marks[1]);
    let text = std::fs::read_to_string(document).unwrap_or_else(|_| "# Benchmarks\n".to_owned());
    let begin = text.find(&marks[0]);
    let end = text.find(&marks[1]).map(|at| at + marks[1].len());
    let text = match (begin, end) {
        (Some(begin), Some(end)) => format!("{}{section}{}", &text[..begin], &text[end..]),
        _ if text.contains(heading) => {
            text.replacen(heading, &format!("{heading}\n\n{section}"), 1)
        }
        _ => format!("{}\n\n{heading}\n\n{section}\n", text.trim_end()),
    };
    std::fs::write(document, text).with_context(|| format!("writing {}", document.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let document = dir.path().join("benchmarks.md");
        std::fs::write(&document, "# B\n\n## Other\n\ntext\n").unwrap();
        for table in ["| old |\n", "| new |\n"] {
            record(&document, "it", "## It", table).unwrap();
        }
        let text = std::fs::read_to_string(&document).unwrap();
        assert_eq!(
            text,
            "# B\n\n## Other\n\ntext\n\n## It\n\n<!-- it: begin -->\n| new |\n<!-- it: end -->\n"
        );
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.99), 50.0);
        assert_eq!(p50(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(p50(&mut [7.0]), 7.0);
    }
}
