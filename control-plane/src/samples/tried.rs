//! What releases that are tried beside live ones get of their services' requests, and what the live ones do: sums
//! since the new one serves, as far as this leader heard. Pure.

use std::collections::BTreeMap;

use skep_model::id::{DeploymentId, ServiceId};
use skep_model::sample::{ServiceCounters, TriedCounters};
use skep_scheduler::rollout::analysis::Trial;

/// By service: which deployment brings the new release, and both releases' requests.
#[derive(Debug, Default)]
pub(super) struct Trials(BTreeMap<ServiceId, (DeploymentId, Trial)>);

impl Trials {
    /// What one ingress has counted since it was heard last. Counters that went back have begun anew.
    pub(super) fn count(&mut self, id: ServiceId, then: &ServiceCounters, now: &ServiceCounters) {
        let Some(tried) = now.tried.as_deref() else {
            return;
        };
        let (deployment, trial) = self
            .0
            .entry(id)
            .or_insert_with(|| (tried.deployment, Trial::default()));
        if *deployment != tried.deployment {
            (*deployment, *trial) = (tried.deployment, Trial::default());
        }
        let before = then.tried.as_deref();
        let before = before.filter(|it| it.deployment == tried.deployment && !is_less(tried, it));
        let new = Grown::of(tried, before);
        trial.new.add(&new.requests, &new.latency);
        trial.new.add_moved_on(new.moved_on);
        // What came before the new release served is no comparison.
        if before.is_some() {
            let live = |now: u64, then: u64, new: u64| now.saturating_sub(then).saturating_sub(new);
            let requests = std::array::from_fn(|at| {
                live(now.requests[at], then.requests[at], new.requests[at])
            });
            let latency =
                std::array::from_fn(|at| live(now.latency[at], then.latency[at], new.latency[at]));
            trial.live.add(&requests, &latency);
        }
    }

    /// The requests of a service while this deployment's release is tried; none were heard of: all zero.
    pub(super) fn get(&self, service: ServiceId, deployment: DeploymentId) -> Trial {
        let known = self.0.get(&service).filter(|(of, _)| *of == deployment);
        known.map_or_else(Trial::default, |(_, trial)| *trial)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(ServiceId, DeploymentId) -> bool) {
        self.0.retain(|service, (of, _)| keep(*service, *of));
    }
}

/// How much counters have grown.
struct Grown {
    requests: [u64; skep_model::sample::CLASSES],
    latency: [u64; skep_model::sample::LATENCY_BUCKETS],
    moved_on: u64,
}

impl Grown {
    fn of(now: &TriedCounters, then: Option<&TriedCounters>) -> Self {
        let Some(then) = then else {
            return Self {
                requests: now.requests,
                latency: now.latency,
                moved_on: now.moved_on,
            };
        };
        Self {
            requests: std::array::from_fn(|at| now.requests[at] - then.requests[at]),
            latency: std::array::from_fn(|at| now.latency[at] - then.latency[at]),
            moved_on: now.moved_on - then.moved_on,
        }
    }
}

fn is_less(now: &TriedCounters, then: &TriedCounters) -> bool {
    let requests = now.requests.iter().zip(&then.requests);
    let mut all = requests.chain(now.latency.iter().zip(&then.latency));
    all.any(|(now, then)| now < then) || now.moved_on < then.moved_on
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: ServiceId = ServiceId::from_u128(1);

    /// The new release's requests and those of the live one: all, and failed.
    fn sums(trial: &Trial) -> [(u64, u64); 2] {
        [&trial.new, &trial.live].map(|counts| (counts.all, counts.failed))
    }

    fn deployment(id: u128) -> DeploymentId {
        DeploymentId::from_u128(id)
    }

    /// Good and failed requests of the service as a whole, and of those the new release's.
    fn counters(whole: (u64, u64), tried: Option<(u128, u64, u64, u64)>) -> ServiceCounters {
        ServiceCounters {
            requests: [0, whole.0, 0, 0, whole.1, 0],
            tried: tried.map(|(id, good, failed, moved_on)| {
                Box::new(TriedCounters {
                    deployment: deployment(id),
                    requests: [0, good, 0, 0, failed, 0],
                    latency: Default::default(),
                    moved_on,
                })
            }),
            ..ServiceCounters::default()
        }
    }

    #[test]
    fn each_release_has_what_it_got_while_both_serve() {
        let mut trials = Trials::default();
        let none = counters((1_000, 5), None);
        trials.count(SERVICE, &counters((900, 5), None), &none);
        assert_eq!(trials.get(SERVICE, deployment(7)), Trial::default());
        // Of this time nobody knows how much came before it served.
        let first = counters((1_010, 6), Some((7, 3, 1, 0)));
        trials.count(SERVICE, &none, &first);
        assert_eq!(sums(&trials.get(SERVICE, deployment(7))), [(4, 1), (0, 0)]);
        let second = counters((1_110, 8), Some((7, 13, 2, 2)));
        trials.count(SERVICE, &first, &second);
        // 10 good, one failed and two that others answered; of the other 91 one failed.
        assert_eq!(
            sums(&trials.get(SERVICE, deployment(7))),
            [(17, 4), (91, 1)]
        );
        // The same ingress again after its release was tried anew there.
        let anew = counters((1_120, 8), Some((7, 5, 0, 0)));
        trials.count(SERVICE, &second, &anew);
        assert_eq!(
            sums(&trials.get(SERVICE, deployment(7))),
            [(22, 4), (91, 1)]
        );
    }

    #[test]
    fn the_next_release_begins_with_nothing() {
        let mut trials = Trials::default();
        let first = counters((10, 10), Some((7, 0, 10, 0)));
        trials.count(SERVICE, &ServiceCounters::default(), &first);
        let second = counters((20, 10), Some((8, 10, 0, 0)));
        trials.count(SERVICE, &first, &second);
        assert_eq!(sums(&trials.get(SERVICE, deployment(8))), [(10, 0), (0, 0)]);
        assert_eq!(trials.get(SERVICE, deployment(7)), Trial::default());
        trials.retain(|_, of| of == deployment(7));
        assert_eq!(trials.get(SERVICE, deployment(8)), Trial::default());
    }
}
