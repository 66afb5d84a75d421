//! The outcomes as a table for people, and as figures in the form of the other benchmarks.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::service::Outcome;

/// Outcomes of all autoscalers on one series with one start-up delay, ours first.
#[derive(Debug, Clone)]
pub struct Row {
    /// The series.
    pub load: String,
    /// Seconds.
    pub start_up_s: u64,
    /// Name and outcome.
    pub outcomes: Vec<(&'static str, Outcome)>,
}

impl Row {
    fn of(&self, name: &str) -> Outcome {
        let found = self.outcomes.iter().find(|(other, _)| *other == name);
        found.map(|(_, outcome)| *outcome).unwrap_or_default()
    }

    /// What falls short of what we want of ourselves, in words; empty: nothing.
    pub fn shortfalls(&self) -> Vec<String> {
        let (ours, hpa) = (self.of("skep"), self.of("HPA"));
        let mut all = Vec::new();
        for (name, peer) in &self.outcomes[1..] {
            if ours.backlog_s > peer.backlog_s
                || (peer.backlog_s > 0 && ours.backlog_s == peer.backlog_s)
            {
                let (ours, theirs) = (ours.backlog_s, peer.backlog_s);
                all.push(format!("{ours} s with backlog, {name} {theirs} s"));
            }
        }
        if ours.replica_s > hpa.replica_s * 1.05 {
            let ratio = ours.replica_s / hpa.replica_s;
            all.push(format!("{ratio:.3} times HPA's replica-seconds"));
        }
        if ours.reversals > hpa.reversals * 2 {
            all.push(format!(
                "{} reversals, HPA {}",
                ours.reversals, hpa.reversals
            ));
        }
        all
    }
}

/// The table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| series | start-up | autoscaler | backlog, s | longest queue | replica-s over ideal | of HPA's replica-s | reversals | changes | last change |\n|---|---:|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let hpa = row.of("HPA");
        for (name, outcome) in &row.outcomes {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} s | {name} | {} | {:.0} | {:.0} | {:.3} | {} | {} | {} s |",
                row.load,
                row.start_up_s,
                outcome.backlog_s,
                outcome.worst_backlog,
                outcome.over_s(),
                outcome.replica_s / hpa.replica_s,
                outcome.reversals,
                outcome.changes,
                outcome.last_change_s
            );
        }
    }
    text
}

/// The figures: ours beside HPA's.
pub fn figures(rows: &[Row]) -> Value {
    let figure = |row: &Row, what: &str, unit: &str, of: &dyn Fn(&Outcome) -> f64| {
        let name = format!("autoscale.{}.{what}", row.load);
        let peers: serde_json::Map<String, Value> = row.outcomes[1..]
            .iter()
            .map(|(name, outcome)| ((*name).to_owned(), json!(of(outcome))))
            .collect();
        json!({
            "metric": name, "value": of(&row.of("skep")), "unit": unit,
            "peer": "HPA", "peer_value": of(&row.of("HPA")), "peers": peers,
        })
    };
    let all = rows.iter().flat_map(|row| {
        [
            figure(row, "backlog_s", "s", &|o| o.backlog_s as f64),
            figure(row, "over_ideal_replica_s", "replica-s", &Outcome::over_s),
            figure(row, "replica_s", "replica-s", &|o| o.replica_s),
            figure(row, "reversals", "reversals", &|o| o.reversals as f64),
        ]
    });
    Value::Array(all.collect())
}

/// Writes `target/bench/autoscale.json` and the table of docs/benchmarks.md; returns the path of
/// the former.
///
/// # Errors
/// A file cannot be written, or the document has lost its marks.
pub fn publish(rows: &[Row]) -> Result<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = root.join("docs/benchmarks.md");
    let text = std::fs::read_to_string(&document).context("reading docs/benchmarks.md")?;
    let marks = ["begin", "end"].map(|end| format!("<!-- autoscale: {end} -->"));
    let [Some(begin), Some(end)] = marks.each_ref().map(|mark| text.find(mark)) else {
        bail!(
            "docs/benchmarks.md has no `{}` ... `{}`",
            marks[0],
            marks[1]
        );
    };
    let (head, tail) = (&text[..begin], &text[end..]);
    let text = format!("{head}{}\n{}{tail}", marks[0], table(rows));
    std::fs::write(&document, text).context("writing docs/benchmarks.md")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let folder = target.unwrap_or(root.join("target")).join("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("autoscale.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&figures(rows))?)?;
    Ok(path)
}
