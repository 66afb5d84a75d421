//! Autoscaling around the pure decision of the scheduler: what is measured becomes samples, what was
//! decided is kept for whoever asks. The loop is the leader's duty (`reconcile::autoscaling`). All of it
//! is in memory: a new leader begins with nothing and holds until it knows enough.

pub mod measure;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skep_model::autoscale::Metric;
use skep_model::id::ServiceId;
use skep_scheduler::autoscale::Decision;
use skep_scheduler::autoscale::advice::Advice;

/// Span of the first value of a pushed metric, in ms: how often they come is not known yet.
const FIRST_SPAN_MS: u64 = 15_000;
/// Longest span between two pushed values, in ms: who pushes less often is missed in between.
const MAX_SPAN_MS: u64 = 60_000;

/// A number that somebody pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Of the service as a whole, in thousandths.
    pub value_milli: u64,
    /// When, cluster time in ms.
    pub at_ms: u64,
    /// Since the one before, in ms.
    pub span_ms: u64,
}

/// What the autoscaler of one service sees and thinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thought {
    /// Its last decision, also where it changes nothing.
    pub decision: Decision,
    /// What each of its targets is measured at, as a whole, in thousandths; none: nothing is known.
    pub measured: Vec<(Metric, Option<u64>)>,
    /// Requests that would fit better than those in force.
    pub advice: Option<Advice>,
}

#[derive(Debug, Default)]
struct Inner {
    thoughts: BTreeMap<ServiceId, Thought>,
    pushed: BTreeMap<(ServiceId, Metric), Pushed>,
}

/// What the leader's autoscaling knows beside the state. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Scaling {
    inner: Arc<Mutex<Inner>>,
}

impl Scaling {
    /// Takes in what was pushed for a service. Whoever pushes has checked that it has such targets.
    pub fn push(&self, service: ServiceId, values: BTreeMap<Metric, u64>, at_ms: u64) {
        let mut inner = self.inner.lock();
        for (metric, value_milli) in values {
            let key = (service, metric);
            let span_ms = inner.pushed.get(&key).map_or(FIRST_SPAN_MS, |before| {
                at_ms.saturating_sub(before.at_ms).clamp(1, MAX_SPAN_MS)
            });
            let pushed = Pushed {
                value_milli,
                at_ms,
                span_ms,
            };
            inner.pushed.insert(key, pushed);
        }
    }

    /// What was pushed last; none: nothing was.
    pub fn pushed(&self, service: ServiceId, metric: &Metric) -> Option<Pushed> {
        let inner = self.inner.lock();
        inner.pushed.get(&(service, metric.clone())).copied()
    }

    /// What the autoscaler of a service thinks; none: it has none, or does not think here.
    pub fn thought(&self, service: ServiceId) -> Option<Thought> {
        self.inner.lock().thoughts.get(&service).cloned()
    }

    pub(crate) fn think(&self, service: ServiceId, thought: Thought) {
        self.inner.lock().thoughts.insert(service, thought);
    }

    /// Forgets every service but these.
    pub(crate) fn retain(&self, keep: impl Fn(ServiceId) -> bool) {
        let mut inner = self.inner.lock();
        inner.thoughts.retain(|service, _| keep(*service));
        inner.pushed.retain(|(service, _), _| keep(*service));
    }
}
