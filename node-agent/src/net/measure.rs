//! What the ingress has counted, for the agent: all of it first, then every period what changed; at once, where a
//! request begins to wait for a service that sleeps. Reads counters; decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_identity::random;
use skep_ingress::metrics::ServiceSnapshot;
use skep_model::id::ServiceId;
use skep_model::sample::{IngressReading, ServiceCounters};
use skep_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tonic::Status;

use super::table::Tables;
use crate::samples::PERIOD;

/// Between two readings out of turn at least: for many services that are asked for one after the other.
const HURRY_PERIOD: Duration = Duration::from_millis(50);
/// Services in one message: as many as routes in a table that Traefik can bear. What is beyond, by id,
/// is never told: a service told now and then would seem to jump.
const SERVICES_MAX: usize = 10_000;

/// This life of the data plane, and when it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    number: u64,
    began: Instant,
}

impl Life {
    pub(super) fn begin() -> Self {
        Self {
            number: u64::from_be_bytes(random::bytes()),
            began: Instant::now(),
        }
    }
}

/// Tells until nobody listens. A reading that finds the last one still waiting is left out: the next
/// one has all that changed since.
pub(super) async fn tell(
    tables: Arc<Tables>,
    life: Life,
    sender: mpsc::Sender<Result<v1::IngressReading, Status>>,
) {
    let mut told = Told::default();
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waits = tables.ingress().waits();
    let mut hurried = Instant::now();
    loop {
        let is_hurry = tokio::select! {
            _ = tick.tick() => false,
            () = hurry(&mut waits, hurried) => true,
            () = sender.closed() => return,
        };
        if is_hurry {
            hurried = Instant::now();
        }
        let Ok(place) = sender.try_reserve() else {
            continue;
        };
        let at_ms = u64::try_from(life.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let reading = IngressReading {
            life: life.number,
            at_ms,
            services: told.news(&tables.ingress().metrics().services),
        };
        let message = v1::IngressReading {
            waits: is_hurry,
            ..(&reading).into()
        };
        place.send(Ok(message));
    }
}

/// Until a request begins to wait, and some time after the last time.
async fn hurry(waits: &mut watch::Receiver<u64>, last: Instant) {
    if waits.changed().await.is_err() {
        return std::future::pending().await;
    }
    // Whoever gives up meanwhile has not seen that change: it counts as seen once this ends.
    waits.mark_changed();
    sleep_until(last + HURRY_PERIOD).await;
    waits.mark_unchanged();
}

/// What one listener was told. A service that has counted nothing is not in it.
#[derive(Debug, Default)]
struct Told(BTreeMap<ServiceId, ServiceCounters>);

impl Told {
    fn news(&mut self, services: &[ServiceSnapshot]) -> Vec<(ServiceId, ServiceCounters)> {
        let counted = services
            .iter()
            .map(|it| (it.service, counters(it)))
            .filter(|(_, counters)| *counters != ServiceCounters::default());
        let now: BTreeMap<_, _> = counted.take(SERVICES_MAX).collect();
        let changed = now.iter().filter(|(id, of)| self.0.get(id) != Some(of));
        let mut news: Vec<_> = changed.map(|(id, of)| (*id, of.clone())).collect();
        let gone = self.0.keys().filter(|id| !now.contains_key(id));
        news.extend(gone.map(|id| (*id, ServiceCounters::default())));
        self.0 = now;
        news
    }
}

fn counters(of: &ServiceSnapshot) -> ServiceCounters {
    ServiceCounters {
        requests: of.requests,
        in_flight: of.in_flight,
        latency: of.latency,
        tried: of.tried.map(Box::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(service: u128, requests: u64) -> ServiceSnapshot {
        ServiceSnapshot {
            service: ServiceId::from_u128(service),
            requests: [0, requests, 0, 0, 0, 0],
            in_flight: 0,
            latency: Default::default(),
            latency_sum_us: 0,
            request_bytes: 0,
            response_bytes: 0,
            tcp: Default::default(),
            tried: None,
        }
    }

    #[test]
    fn only_changes_are_told_and_that_a_service_is_gone() {
        let mut told = Told::default();
        let ids = |news: Vec<(ServiceId, ServiceCounters)>| -> Vec<(u128, u64)> {
            let each = news.into_iter();
            each.map(|(id, of)| (id.as_u128(), of.requests[1]))
                .collect()
        };
        let first = [snapshot(1, 0), snapshot(2, 5), snapshot(3, 7)];
        assert_eq!(
            ids(told.news(&first)),
            [(2, 5), (3, 7)],
            "idle ones are not"
        );
        assert_eq!(ids(told.news(&first)), []);
        let then = [snapshot(1, 1), snapshot(2, 5)];
        assert_eq!(ids(told.news(&then)), [(1, 1), (3, 0)]);
        assert_eq!(ids(told.news(&then)), []);
    }
}
