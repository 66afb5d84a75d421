//! Figures beside those of a peer, as a table for people and as JSON under `target/bench/`, in the
//! form that the other benchmarks write.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

/// Said of every figure of a peer here: none of them runs in this benchmark.
pub const RECORDED: &str = "Nomad 1.10, recorded on another machine";

/// One figure, beside that of a peer where there is one.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Its name.
    pub metric: Cow<'static, str>,
    /// Skep's.
    pub value: f64,
    /// Of both.
    pub unit: &'static str,
    /// Who else, and where it was measured.
    pub peer: Option<Cow<'static, str>>,
    /// The peer's.
    pub peer_value: Option<f64>,
}

impl Figure {
    /// Without a peer.
    pub fn alone(metric: impl Into<Cow<'static, str>>, value: f64, unit: &'static str) -> Self {
        Self {
            metric: metric.into(),
            value,
            unit,
            peer: None,
            peer_value: None,
        }
    }

    /// Beside a figure of Nomad's.
    #[must_use]
    pub fn beside_nomad(mut self, value: f64) -> Self {
        self.peer = Some(RECORDED.into());
        self.peer_value = Some(value);
        self
    }
}

/// The smallest value that this share of the values does not exceed (nearest rank); 0 of none.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

/// The figures as a table in Markdown.
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::from("| metric | value | unit | beside |\n|---|---:|---|---|\n");
    for figure in figures {
        let beside = match (&figure.peer, figure.peer_value) {
            (Some(peer), Some(value)) => format!("{peer}: {value:.2}"),
            _ => String::new(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {:.2} | {} | {beside} |",
            figure.metric, figure.value, figure.unit
        );
    }
    text
}

/// Writes `target/bench/NAME.json` and returns its path.
///
/// # Errors
/// The file cannot be written.
pub fn publish(name: &str, figures: &[Figure]) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let folder = target.unwrap_or(here).join("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(figures)?)?;
    Ok(path)
}

/// Memory of this process that is resident, in bytes.
///
/// # Errors
/// `/proc` cannot be read.
pub fn resident_bytes() -> Result<u64> {
    let statm = procfs::process::Process::myself()?.statm()?;
    Ok(statm.resident * procfs::page_size())
}
