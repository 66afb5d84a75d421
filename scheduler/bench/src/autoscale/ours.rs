//! Our autoscaler with its defaults, fed as the server feeds it: a sample and a decision a second.

use skep_model::autoscale::{Autoscale, Metric, Target};
use skep_scheduler::autoscale::{Activity, Decision, History, Observed, Sample, decide};

use super::{Scaler, View};

/// Ours.
#[derive(Debug)]
pub struct Ours {
    spec: Autoscale,
    history: History,
    decisions: Vec<Decision>,
}

impl Ours {
    /// The defaults, for `target` requests per second and replica.
    pub fn new(target: f64, max: u32) -> Self {
        let targets = vec![Target {
            metric: Metric::RequestRate,
            value_milli: (target * 1_000.0) as u64,
        }];
        Self::with(Autoscale {
            max,
            targets,
            ..Autoscale::default()
        })
    }

    /// The changes that it decided, with their reasons.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Any specification.
    pub fn with(spec: Autoscale) -> Self {
        Self {
            spec,
            history: History::default(),
            decisions: Vec::new(),
        }
    }
}

impl Scaler for Ours {
    fn name(&self) -> &'static str {
        "skep"
    }

    fn wants(&mut self, view: &View<'_>) -> u32 {
        let now_ms = view.now_s() * 1_000;
        let last = view.arrivals.last().copied().unwrap_or(0);
        let sample = Sample {
            at_ms: now_ms,
            span_ms: 1_000,
            total_milli: u64::from(last) * 1_000,
            reporting: 1,
            expected: 1,
        };
        self.history
            .observe(&self.spec, &Metric::RequestRate, &sample);
        let observed = Observed {
            wanted: view.wanted(),
            starting: view.starting,
            activity: if last > 0 {
                Activity::Active
            } else {
                Activity::Quiet
            },
            start_ms: Some(view.start_up_s * 1_000),
            ..Observed::default()
        };
        let decision = decide(&self.spec, &observed, &self.history, now_ms);
        self.history.record(&self.spec, &observed, &decision);
        let to = decision.to;
        if decision.is_change() {
            self.decisions.push(decision);
        }
        to
    }
}
