//! Knative's pod autoscaler, by its documentation and defaults: every 2 s, a stable mean of 60 s
//! and a panic mean of 6 s, both within half and a thousand times what is ready; panic when the
//! latter wants twice what is ready: then the number only grows, until 60 s after the last breach.
//! The metric is requests per second (`rps`). The activator that queues is left out: the service of
//! this benchmark queues for everybody.

use super::{Scaler, View};

const TICK_S: u64 = 2;
const STABLE_S: usize = 60;
const PANIC_S: usize = 6;
const PANIC_THRESHOLD: f64 = 2.0;
const MAX_UP: f64 = 1_000.0;
const MAX_DOWN: f64 = 2.0;

/// The KPA.
#[derive(Debug)]
pub struct Kpa {
    target: f64,
    max: u32,
    /// The last breach of the threshold, while panicking.
    panic_s: Option<u64>,
    panic_pods: u32,
}

impl Kpa {
    /// For `target` requests per second and pod (what its utilisation leaves of its capacity).
    pub fn new(target: f64, max: u32) -> Self {
        Self {
            target,
            max,
            panic_s: None,
            panic_pods: 0,
        }
    }
}

impl Scaler for Kpa {
    fn name(&self) -> &'static str {
        "KPA"
    }

    fn wants(&mut self, view: &View<'_>) -> u32 {
        let now = view.now_s();
        if !now.is_multiple_of(TICK_S) {
            return view.wanted();
        }
        let ready = f64::from(view.ready.max(1));
        let (lowest, highest) = ((ready / MAX_DOWN).floor(), (ready * MAX_UP).ceil());
        let panic_raw = (view.rate(PANIC_S) / self.target).ceil();
        let stable = (view.rate(STABLE_S) / self.target)
            .ceil()
            .clamp(lowest, highest) as u32;
        let panic = panic_raw.clamp(lowest, highest) as u32;
        if panic_raw / ready >= PANIC_THRESHOLD {
            self.panic_s = Some(now);
        } else if self.panic_s.is_some_and(|at| at + STABLE_S as u64 <= now) {
            self.panic_s = None;
            self.panic_pods = 0;
        }
        let desired = if self.panic_s.is_some() {
            self.panic_pods = self.panic_pods.max(stable.max(panic));
            // While panicking there is no way down, not even below what was there before.
            self.panic_pods = self.panic_pods.max(view.wanted());
            self.panic_pods
        } else {
            stable
        };
        desired.clamp(1, self.max)
    }
}
