//! Series of requests a second: built in, from fixed seeds, and from files.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;

/// Seed of the published figures; defaults were tuned on others.
pub const SEED: u64 = 20;

/// A series.
#[derive(Debug, Clone)]
pub struct Load {
    /// Its name in figures.
    pub name: String,
    /// Requests of each second.
    pub arrivals: Vec<u32>,
}

impl Load {
    /// Replicas that its first minute needs at `target` requests a second each.
    pub fn begins_with(&self, target: f64) -> u32 {
        let minute = &self.arrivals[..self.arrivals.len().min(60)];
        let sum: f64 = minute.iter().map(|n| f64::from(*n)).sum();
        let rate = sum / minute.len().max(1) as f64;
        ((rate / target).ceil() as u32).max(1)
    }
}

/// The built-in series of a seed.
pub fn built_in(seed: u64) -> Vec<Load> {
    let day = |t: f64| 110.0 - 90.0 * (t / 86_400.0 * std::f64::consts::TAU).cos();
    // 50/s; at 20 minutes ten times that within 5 s, for 10 minutes, then it ebbs away.
    let crowd = |t: f64| match t {
        _ if t < 1_200.0 => 50.0,
        _ if t < 1_205.0 => 50.0 + 90.0 * (t - 1_199.0),
        _ if t < 1_800.0 => 500.0,
        _ => 50.0 + 450.0 * (-(t - 1_800.0) / 300.0).exp(),
    };
    let square = |t: f64| {
        if ((t / 600.0) as u64).is_multiple_of(2) {
            20.0
        } else {
            200.0
        }
    };
    vec![
        made("diurnal", seed, 86_400, day),
        made("flash", seed, 7_200, crowd),
        made("square", seed, 7_200, square),
        made("poisson", seed, 7_200, |_| 100.0),
    ]
}

fn made(name: &str, seed: u64, seconds: u32, rate: impl Fn(f64) -> f64) -> Load {
    let mut rng = Rng::with_seed(seed);
    let arrivals = (0..seconds)
        .map(|second| poisson(&mut rng, rate(f64::from(second))))
        .collect();
    Load {
        name: name.to_owned(),
        arrivals,
    }
}

/// Poisson's law by counting exponential gaps (Knuth), in parts that do not underflow.
fn poisson(rng: &mut Rng, mean: f64) -> u32 {
    const PART: f64 = 64.0;
    let (mut left, mut count) = (mean, 0);
    while left > 0.0 {
        let limit = (-left.min(PART)).exp();
        let mut product = rng.f64();
        while product > limit {
            count += 1;
            product *= rng.f64();
        }
        left -= PART;
    }
    count
}

/// Reads `second,requests` lines; a first line of words is left out, seconds that are left out have
/// no requests.
///
/// # Errors
/// The file, or the line that is not two whole numbers in rising order.
pub fn read(path: &Path) -> Result<Load> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
    let name = path.file_stem().unwrap_or(path.as_os_str());
    Ok(Load {
        name: name.to_string_lossy().into_owned(),
        arrivals: parse(&text).with_context(|| format!("reading {shown}"))?,
    })
}

/// Longest series, in seconds: three years.
const MAX_SECONDS: usize = 100_000_000;

fn parse(text: &str) -> Result<Vec<u32>> {
    let mut arrivals: Vec<u32> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let is_heading = index == 0 && line.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_heading || line.trim().is_empty() {
            continue;
        }
        let row = line.split_once(',').and_then(|(second, requests)| {
            let requests = requests.trim().parse::<u32>().ok()?;
            Some((second.trim().parse::<usize>().ok()?, requests))
        });
        match row {
            Some((second, requests)) if (arrivals.len()..MAX_SECONDS).contains(&second) => {
                arrivals.resize(second, 0);
                arrivals.push(requests);
            }
            _ => bail!(
                "line {}: `{line}` is not `second,requests`, in rising order from second 0",
                index + 1
            ),
        }
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_a_series_with_the_mean_and_variance_of_its_law() {
        let load = &built_in(7)[3];
        assert_eq!(load.arrivals, built_in(7)[3].arrivals);
        let n = load.arrivals.len() as f64;
        let mean = load.arrivals.iter().map(|a| f64::from(*a)).sum::<f64>() / n;
        let off = |a: &u32| (f64::from(*a) - mean).powi(2);
        let variance = load.arrivals.iter().map(off).sum::<f64>() / n;
        assert!((mean - 100.0).abs() < 0.5, "{mean}");
        assert!((variance - 100.0).abs() < 8.0, "{variance}");
    }

    #[test]
    fn a_file_may_leave_seconds_out_but_not_turn_back() {
        let text = "second,requests\n0,5\n 3, 7\n\n4,1\n";
        assert_eq!(parse(text).unwrap(), [5, 0, 0, 7, 1]);
        for text in ["0,5\n0,6", "0;5", "0,-1", "x\ny,1", "999999999,1"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains("is not `second,requests`"), "{error}");
        }
    }
}
