//! The Nomad autoscaler's `target-value` strategy, by its documentation and defaults: an evaluation
//! every 10 s of the newest sample alone, a tolerance of 1%, and a cooldown of five minutes after
//! every action. The sample is the rate of the last 10 s, which is kinder than a single second.

use super::{Scaler, View};

const EVALUATION_S: u64 = 10;
const SAMPLE_S: usize = 10;
const TOLERANCE: f64 = 0.01;
const COOLDOWN_S: u64 = 300;

/// `target-value`.
#[derive(Debug)]
pub struct TargetValue {
    target: f64,
    max: u32,
    acted_s: Option<u64>,
}

impl TargetValue {
    /// For `target` requests per second and allocation.
    pub fn new(target: f64, max: u32) -> Self {
        Self {
            target,
            max,
            acted_s: None,
        }
    }
}

impl Scaler for TargetValue {
    fn name(&self) -> &'static str {
        "target-value"
    }

    fn wants(&mut self, view: &View<'_>) -> u32 {
        let (now, count) = (view.now_s(), view.wanted());
        let cools = self.acted_s.is_some_and(|at| at + COOLDOWN_S > now);
        if !now.is_multiple_of(EVALUATION_S) || cools {
            return count;
        }
        let factor = view.rate(SAMPLE_S) / f64::from(count) / self.target;
        if (factor - 1.0).abs() <= TOLERANCE {
            return count;
        }
        let next = ((f64::from(count) * factor).ceil() as u32).clamp(1, self.max);
        if next != count {
            self.acted_s = Some(now);
        }
        next
    }
}
