//! Apps that write as fast as they can, all of them through one agent, and what one who follows them all sees:
//! the same code for the end-to-end test's few and the bench's fifty.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Cluster;
use crate::api::Name;

/// For a flood to be over and read, on a busy machine.
const LONG: Duration = Duration::from_secs(600);
/// Between two looks at the last lines.
const LOOK: Duration = Duration::from_secs(2);
/// What the last line of each says.
const OVER: &str = "flood over";
/// Bytes of Docker's record around a line's text and its number: `{"log":"flood ` and ` `, 980 dots,
/// `\n","stream":"stdout","time":"` and `"}` with the line's end.
const RECORD_BYTES: u64 = 14 + 1 + 980 + 30 + 3;
/// Docker's time of a line with all nine digits; it leaves out zeros at the end, a ninth of a byte on average.
const TIME_BYTES: f64 = 30.0 - 1.0 / 9.0;
/// Beside the clock that asks again.
const LATENCY_PAUSE: Duration = Duration::from_millis(20);

/// One mark that says that lines are missing.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// Bytes that it says.
    pub bytes: u64,
    /// There may be more.
    pub at_least: bool,
    /// First and last line that are missing.
    pub missing: (u64, u64),
}

impl Gap {
    /// Lines that are missing.
    pub fn lines(&self) -> u64 {
        (self.missing.1 + 1).saturating_sub(self.missing.0)
    }

    /// Bytes that Docker wrote for them, but for the zeros that it leaves out of their times.
    pub fn expected_bytes(&self) -> f64 {
        let (first, last) = self.missing;
        let digits: u64 = (1..=20)
            .map(|count| numbers_of(count, first, last) * count)
            .sum();
        let lines = self.lines();
        (lines * RECORD_BYTES + digits) as f64 + lines as f64 * TIME_BYTES
    }

    /// Whether the bytes are those of exactly the lines that are missing: off by less than half a line. What says
    /// `at_least` must not say more.
    pub fn is_exact(&self) -> bool {
        let off = self.bytes as f64 - self.expected_bytes();
        let half = RECORD_BYTES as f64 / 2.0;
        off < half && (off > -half || self.at_least)
    }
}

/// How many numbers of so many digits lie between two.
fn numbers_of(digits: u64, first: u64, last: u64) -> u64 {
    let power = |exponent: u64| 10_u64.checked_pow(exponent as u32).unwrap_or(u64::MAX);
    let (from, to) = (first.max(power(digits - 1)), last.min(power(digits) - 1));
    (to + 1).saturating_sub(from)
}

/// What was seen of one allocation.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its lines.
    pub lines: u64,
    /// Numbers that did not follow on the one before, without a word on it.
    pub unsaid: Vec<(u64, u64)>,
    /// Marks, each with what is missing there.
    pub gaps: Vec<Gap>,
    /// Its last line was seen.
    pub is_over: bool,
    last: u64,
    /// Bytes of a mark that no line has followed yet.
    mark: Option<(u64, bool)>,
}

impl Seen {
    fn read(&mut self, line: &Value, lines: u64) {
        if let Some(bytes) = line["lost"]["bytes"].as_u64() {
            let at_least = line["lost"]["at_least"] == true;
            let (had, had_least) = self.mark.unwrap_or_default();
            self.mark = Some((had + bytes, had_least || at_least));
            return;
        }
        let text = line["text"].as_str().unwrap_or_default();
        let number = match text.strip_prefix("flood ") {
            Some("over") => lines + 1,
            Some(rest) => match rest.split(' ').next().and_then(|it| it.parse().ok()) {
                Some(number) => number,
                None => return,
            },
            None => return,
        };
        let missing = (self.last + 1, number - 1);
        match self.mark.take() {
            Some((bytes, at_least)) => self.gaps.push(Gap {
                bytes,
                at_least,
                missing,
            }),
            None if missing.1 >= missing.0 => self.unsaid.push(missing),
            None => {}
        }
        self.last = number;
        match text == OVER {
            true => self.is_over = true,
            false => self.lines += 1,
        }
    }
}

/// Deploys `replicas` of an app each of which writes so many lines of a thousand bytes at once; answers when the
/// deployment was asked for, not when it is over.
///
/// # Errors
/// It was refused.
pub async fn begin(cluster: &Cluster, name: &str, (replicas, lines): (usize, u64)) -> Result<Name> {
    let service = Name::of(name);
    let settings = [("LOG_FLOOD_LINES", lines.to_string())];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let image = cluster.image(name, &settings).await?;
    let resources = json!({ "cpu_millis": 5, "memory_bytes": 16 << 20 });
    // Each writes once: a check that a busy machine is too slow for must not begin it anew.
    let spec = json!({ "type": "worker", "replicas": replicas, "resources": resources });
    cluster.api.put_service(&service, spec).await?;
    let image = json!({ "type": "image", "reference": image });
    cluster.api.deploy(&service, &image).await?;
    Ok(service)
}

/// Follows all replicas of a service until each has written its last line.
///
/// # Errors
/// The stream ended before, or took too long.
pub async fn follow(
    cluster: &Cluster,
    name: &Name,
    (replicas, lines): (usize, u64),
) -> Result<BTreeMap<String, Seen>> {
    let path = name.path("/logs?follow=true&tail=0");
    let mut events = cluster.api.events(&path, None).await?;
    let mut all: BTreeMap<String, Seen> = BTreeMap::new();
    let read = async {
        loop {
            let Some(event) = events.next().await? else {
                bail!("the stream ended");
            };
            let line: Value = serde_json::from_str(&event.data)?;
            let Some(id) = line["allocation"].as_str() else {
                continue;
            };
            let seen = all.entry(id.to_owned()).or_default();
            seen.read(&line, lines);
            if all.values().filter(|seen| seen.is_over).count() == replicas {
                return Ok(());
            }
        }
    };
    let ended = tokio::time::timeout(LONG, read).await;
    ended
        .context("the flood is not over")
        .flatten()
        .with_context(|| format!("{} of {replicas} are over", over(&all)))?;
    Ok(all)
}

/// Waits until each replica of a service has written its last line, reading little more than that of each.
///
/// # Errors
/// It takes too long.
pub async fn unread(cluster: &Cluster, name: &Name, replicas: usize) -> Result<()> {
    // What else the app says comes once the flood lets go of its output.
    let path = name.path("/logs?tail=5");
    let mut looks = tokio::time::interval(LOOK);
    let looked = async {
        loop {
            looks.tick().await;
            let lines = cluster.api.call(Method::GET, &path, None).await?.text();
            let lines = lines.lines().map(serde_json::from_str);
            let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
            if lines.iter().filter(|line| line["text"] == OVER).count() == replicas {
                return Ok(());
            }
        }
    };
    let ended = tokio::time::timeout(LONG, looked).await;
    ended.context("the flood is not over").flatten()
}

fn over(all: &BTreeMap<String, Seen>) -> usize {
    all.values().filter(|seen| seen.is_over).count()
}

/// Wants every line of every replica, and no mark.
///
/// # Errors
/// Something is missing.
pub fn ensure_whole(all: &BTreeMap<String, Seen>, lines: u64) -> Result<()> {
    for (id, seen) in all {
        let is_whole = seen.lines == lines && seen.gaps.is_empty() && seen.unsaid.is_empty();
        ensure!(is_whole, "{id}: {} of {lines} lines, {seen:?}", seen.lines);
    }
    Ok(())
}

/// Wants that what is missing is said where it is missing, in exactly the bytes that it had.
///
/// # Errors
/// Something is missing without a word, or the word is wrong.
pub fn ensure_said(all: &BTreeMap<String, Seen>, lines: u64) -> Result<()> {
    for (id, seen) in all {
        ensure!(seen.unsaid.is_empty(), "{id}: unsaid {:?}", seen.unsaid);
        let missing: u64 = seen.gaps.iter().map(Gap::lines).sum();
        ensure!(
            seen.lines + missing == lines,
            "{id}: {missing} missing, {seen:?}"
        );
        for gap in &seen.gaps {
            let expected = gap.expected_bytes();
            ensure!(
                gap.is_exact(),
                "{id}: {gap:?}, where {expected:.0} bytes are missing"
            );
        }
    }
    Ok(())
}

/// Requests to an app, one after the other, each on a connection of its own.
pub struct Latency {
    stop: CancellationToken,
    asking: JoinHandle<Result<Vec<f64>>>,
}

impl Latency {
    /// Begins to ask `host` through an ingress.
    pub fn start(ingress: SocketAddr, host: String) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let asking = tokio::spawn(async move {
            let mut took = Vec::new();
            while !stopped.is_cancelled() {
                let begun = Instant::now();
                let answer = crate::http::get(ingress, &host, "/").await?;
                ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
                took.push(begun.elapsed().as_secs_f64() * 1_000.0);
                tokio::time::sleep(LATENCY_PAUSE).await;
            }
            Ok(took)
        });
        Self { stop, asking }
    }

    /// Ends it; how long each took, in ms.
    ///
    /// # Errors
    /// A request failed.
    pub async fn stop(self) -> Result<Vec<f64>> {
        self.stop.cancel();
        self.asking.await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> Value {
        json!({ "text": format!("flood {number} {:.<980}", "") })
    }

    #[test]
    fn a_gap_is_what_lies_between_the_lines_around_its_mark() {
        let mut seen = Seen::default();
        seen.read(&line(1), 100);
        seen.read(
            &json!({ "text": "lines are missing", "lost": { "bytes": 7_000 } }),
            100,
        );
        seen.read(&line(9), 100);
        seen.read(&line(12), 100);
        assert_eq!((seen.lines, &seen.unsaid[..]), (3, &[(10, 11)][..]));
        assert_eq!((seen.gaps[0].missing, seen.gaps[0].lines()), ((2, 8), 7));
        assert!(!seen.is_over);
        seen.read(&json!({ "text": "flood over" }), 12);
        assert!(seen.is_over && seen.unsaid.len() == 1);
    }

    #[test]
    fn bytes_are_those_of_dockers_records() {
        let record = |number: u64| {
            let text = line(number)["text"].as_str().expect("text").to_owned();
            format!(
                "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-27T23:09:28.123456789Z\"}}\n"
            )
        };
        let bytes: u64 = (95..=105).map(|number| record(number).len() as u64).sum();
        let gap = |bytes, at_least| Gap {
            bytes,
            at_least,
            missing: (95, 105),
        };
        assert!((gap(0, false).expected_bytes() - bytes as f64).abs() < 2.0);
        assert!(gap(bytes, false).is_exact());
        let one = record(95).len() as u64;
        assert!(!gap(bytes - one, false).is_exact() && !gap(bytes + one, true).is_exact());
        assert!(gap(bytes - one, true).is_exact(), "at least");
    }
}
