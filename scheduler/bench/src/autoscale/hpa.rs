//! Kubernetes' Horizontal Pod Autoscaler, by its documentation: a pass every 15 s, a tolerance of
//! 10%, the maximum of five minutes on the way down, at most the larger of four pods and 100% up in
//! 15 s. The metric is requests per second and pod (`type: Pods`, `averageValue`), as the mean of
//! the last 15 s, the resolution of the metrics server; real pipelines add delays that it is spared.

use super::{Scaler, View};

const PERIOD_S: u64 = 15;
const WINDOW_S: usize = 15;
const TOLERANCE: f64 = 0.1;
const STABILIZATION_S: u64 = 300;
const UP_PODS: u32 = 4;

/// The HPA of `autoscaling/v2` with its default behaviour.
#[derive(Debug)]
pub struct Hpa {
    target: f64,
    max: u32,
    /// Time and number of each recommendation.
    recommendations: Vec<(u64, u32)>,
    /// Time and number of pods that were added.
    added: Vec<(u64, u32)>,
}

impl Hpa {
    /// For an average of `target` requests per second and pod.
    pub fn new(target: f64, max: u32) -> Self {
        Self {
            target,
            max,
            recommendations: Vec::new(),
            added: Vec::new(),
        }
    }

    /// What the metric asks for. Pods that start have no metrics: on the way up they count as 0,
    /// and if that turns the direction, or falls within the tolerance, nothing changes.
    fn recommend(&self, view: &View<'_>) -> u32 {
        let current = view.wanted();
        let ready = f64::from(view.ready);
        if view.ready == 0 {
            return current;
        }
        let total = view.rate(WINDOW_S);
        let ratio = total / ready / self.target;
        if (1.0 - ratio).abs() <= TOLERANCE {
            return current;
        }
        if ratio < 1.0 || view.starting == 0 {
            return (ratio * ready).ceil() as u32;
        }
        let all = f64::from(current);
        let ratio = total / all / self.target;
        if ratio < 1.0 || (1.0 - ratio).abs() <= TOLERANCE {
            return current;
        }
        (ratio * all).ceil() as u32
    }
}

impl Scaler for Hpa {
    fn name(&self) -> &'static str {
        "HPA"
    }

    fn wants(&mut self, view: &View<'_>) -> u32 {
        let (now, current) = (view.now_s(), view.wanted());
        if !now.is_multiple_of(PERIOD_S) {
            return current;
        }
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
        let desired = self.recommend(view);
        self.recommendations.push((now, desired));
        self.recommendations
            .retain(|(at, _)| at + STABILIZATION_S > now);
        let peak = self.recommendations.iter().map(|(_, n)| *n).max();
        // Up there is no stabilisation; down, the peak, though never more than there are.
        let stabilized = if desired >= current {
            desired
        } else {
            peak.unwrap_or(desired).min(current)
        };
        self.added.retain(|(at, _)| at + PERIOD_S > now);
        let recent: u32 = self.added.iter().map(|(_, n)| n).sum();
        let start = current.saturating_sub(recent);
        let limit = (start + UP_PODS).max(start * 2);
        let next = if stabilized > current {
            stabilized.min(limit.max(current))
        } else {
            stabilized
        };
        let next = next.clamp(1, self.max);
        if next > current {
            self.added.push((now, next - current));
        }
        next
    }
}
