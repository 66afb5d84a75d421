//! A service that is autoscaled second by second, for tests: load goes in, decisions come out.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;

use skep_model::autoscale::{Autoscale, Metric};
use skep_scheduler::autoscale::{Activity, Decision, History, Observed, Sample, decide};

/// A service and everything around its autoscaler.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) spec: Autoscale,
    pub(crate) history: History,
    pub(crate) observed: Observed,
    /// Cluster time, ms.
    pub(crate) now_ms: u64,
    /// What each metric tells, in thousandths of its unit; gone: no samples.
    pub(crate) load: BTreeMap<Metric, u64>,
    /// Some do not report.
    pub(crate) partial: bool,
    /// Every so many ms a sample, and a decision.
    pub(crate) step_ms: u64,
    /// What starts is ready after so many ms.
    pub(crate) start_ms: u64,
    ready_at: Vec<u64>,
    /// Every decision that changed something.
    pub(crate) changes: Vec<Decision>,
    /// The last decision.
    pub(crate) last: Option<Decision>,
}

impl World {
    /// With these targets, 1 to 100 replicas, and so many of them ready.
    pub(crate) fn new(targets: &[&str], wanted: u32) -> Self {
        let targets = targets.iter().map(|text| text.parse().unwrap()).collect();
        Self::of(
            Autoscale {
                max: 100,
                targets,
                ..Autoscale::default()
            },
            wanted,
        )
    }

    pub(crate) fn of(spec: Autoscale, wanted: u32) -> Self {
        spec.check().unwrap();
        Self {
            spec,
            history: History::default(),
            observed: Observed {
                wanted,
                activity: Activity::Quiet,
                ..Observed::default()
            },
            // 2025-01-01, a Wednesday.
            now_ms: 1_735_689_600_000,
            load: BTreeMap::new(),
            partial: false,
            step_ms: 1_000,
            start_ms: 0,
            ready_at: Vec::new(),
            changes: Vec::new(),
            last: None,
        }
    }

    /// Sets what a metric tells from now on, summed over the service.
    pub(crate) fn set(&mut self, metric: &str, value: f64) {
        let value = (value * 1_000.0).round() as u64;
        self.load.insert(metric.parse().unwrap(), value);
    }

    pub(crate) fn wanted(&self) -> u32 {
        self.observed.wanted
    }

    /// Samples of the next moment, and the decision that would be made.
    pub(crate) fn look(&mut self) -> Decision {
        self.now_ms += self.step_ms;
        self.ready_at.retain(|at| *at > self.now_ms);
        self.observed.starting = self.ready_at.len() as u32;
        if self.start_ms > 0 {
            self.observed.start_ms = Some(self.start_ms);
        }
        for (metric, total_milli) in &self.load {
            let sample = Sample {
                at_ms: self.now_ms,
                span_ms: self.step_ms,
                total_milli: *total_milli,
                reporting: if self.partial { 1 } else { 2 },
                expected: 2,
            };
            self.history.observe(&self.spec, metric, &sample);
        }
        decide(&self.spec, &self.observed, &self.history, self.now_ms)
    }

    /// One step: samples, a decision, and what follows from it.
    pub(crate) fn step(&mut self) -> Decision {
        let decision = self.look();
        self.history.record(&self.spec, &self.observed, &decision);
        for _ in decision.from..decision.to {
            if self.start_ms > 0 {
                self.ready_at.push(self.now_ms + self.start_ms);
            }
        }
        for _ in decision.to..decision.from {
            self.ready_at.pop();
        }
        self.observed.starting = self.ready_at.len() as u32;
        self.observed.wanted = decision.to;
        if decision.is_change() {
            self.changes.push(decision.clone());
        }
        self.last = Some(decision.clone());
        decision
    }

    /// Steps for so many seconds.
    pub(crate) fn run(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds * 1_000 / self.step_ms {
            self.step();
        }
        self
    }

    /// The last decision in words.
    pub(crate) fn said(&self) -> String {
        self.last.as_ref().unwrap().to_string()
    }
}
