//! Autoscalers beside each other on the same load: ours, Kubernetes' HPA, Knative's KPA and
//! Nomad's target-value, the latter three written from their published algorithms. Everybody sees
//! the same signal (requests that arrived, without delay), aims at the same utilisation, and has
//! its own defaults otherwise.

pub mod hpa;
pub mod kpa;
pub mod load;
pub mod ours;
pub mod report;
pub mod service;
pub mod target_value;

/// What an autoscaler sees at the end of a second.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Requests of each second so far; the last is the one that has just ended.
    pub arrivals: &'a [u32],
    /// Replicas that serve.
    pub ready: u32,
    /// Replicas that start.
    pub starting: u32,
    /// Seconds that the last replica took to start. The others do not ask.
    pub start_up_s: u64,
}

impl View<'_> {
    /// Seconds that have passed.
    pub fn now_s(&self) -> u64 {
        self.arrivals.len() as u64
    }

    /// As many as were ordered.
    pub fn wanted(&self) -> u32 {
        self.ready + self.starting
    }

    /// Mean of the last seconds, or of those that there are.
    pub fn rate(&self, seconds: usize) -> f64 {
        let recent = &self.arrivals[self.arrivals.len().saturating_sub(seconds)..];
        let sum: f64 = recent.iter().map(|n| f64::from(*n)).sum();
        sum / recent.len().max(1) as f64
    }
}

/// An autoscaler of one service.
pub trait Scaler {
    /// Its name in tables.
    fn name(&self) -> &'static str;
    /// How many replicas it wants; called at the end of each second.
    fn wants(&mut self, view: &View<'_>) -> u32;
}

/// Every autoscaler, ours first, each for `target` requests per second and replica.
pub fn all(target: f64, max: u32) -> Vec<Box<dyn Scaler>> {
    vec![
        Box::new(ours::Ours::new(target, max)),
        Box::new(hpa::Hpa::new(target, max)),
        Box::new(kpa::Kpa::new(target, max)),
        Box::new(target_value::TargetValue::new(target, max)),
    ]
}
