//! Services that share a route's requests: which of them gets the next one. Those that have no backend
//! left give their shares to the others.

use std::sync::Arc;

use crate::backend::{self, InFlight, LiveBackend};
use crate::ingress::mix;
use crate::metrics::ServiceMetrics;

/// One service's share.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: Arc<str>,
    pub(crate) metrics: Arc<ServiceMetrics>,
    pub(crate) weight: u32,
    pub(crate) backends: Vec<Arc<LiveBackend>>,
}

impl Part {
    pub(crate) fn has(&self, live: &Arc<LiveBackend>) -> bool {
        self.backends.iter().any(|known| Arc::ptr_eq(known, live))
    }
}

/// Enters a backend of a part that chance names by weight, among those with a backend that is not failing;
/// where there is none, among those with any that is not in `tried`. `random` is any 64 bits.
pub(crate) fn enter(parts: &[Part], random: u64, tried: &[Arc<LiveBackend>]) -> Option<InFlight> {
    let fresh = |live: &Arc<LiveBackend>| !tried.iter().any(|known| Arc::ptr_eq(known, live));
    let is_usable = |live: &Arc<LiveBackend>| fresh(live) && !live.is_failing();
    // Other bits than those that choose within the part.
    let bits = mix(random);
    let part = by_weight(parts, bits, |part| part.backends.iter().any(is_usable))
        .or_else(|| by_weight(parts, bits, |part| part.backends.iter().any(fresh)))?;
    backend::enter(&part.backends, random, tried)
}

/// One of the parts that may be taken, each as often as its weight says.
fn by_weight(parts: &[Part], bits: u64, may: impl Fn(&Part) -> bool) -> Option<&Part> {
    let candidates = || parts.iter().filter(|part| may(part));
    let total: u64 = candidates().map(|part| u64::from(part.weight)).sum();
    let mut place = bits.checked_rem(total)?;
    for part in candidates() {
        match place.checked_sub(u64::from(part.weight)) {
            Some(rest) => place = rest,
            None => return Some(part),
        }
    }
    // A backend began to fail between the two looks.
    parts.iter().find(|part| may(part))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skep_model::id::{AllocationId, ServiceId};

    use super::*;
    use crate::drain::Drains;
    use crate::table::{Backend, Place};

    const PICKS: u64 = 10_000;

    fn part(number: u128, weight: u32, backends: u16) -> Part {
        let live = |port: u16| {
            let backend = Backend {
                allocation: AllocationId::from_u128(number),
                place: Place::Here(([127, 0, 0, 1], port).into()),
            };
            LiveBackend::new(backend, 1, Drains::new())
        };
        Part {
            name: "p".into(),
            metrics: Arc::new(ServiceMetrics::new(ServiceId::from_u128(number))),
            weight,
            backends: (0..backends).map(live).collect(),
        }
    }

    /// How many requests each part gets, by the numbers that requests come with.
    fn counts(parts: &[Part], tried: &[Arc<LiveBackend>]) -> Vec<u64> {
        let mut counts = vec![0; parts.len()];
        for number in 0..PICKS {
            if let Some(entered) = enter(parts, mix(number), tried) {
                counts[entered.backend().backend.allocation.as_u128() as usize] += 1;
            }
        }
        counts
    }

    #[test]
    fn shares_are_as_the_weights_say() {
        let parts = [part(0, 90, 1), part(1, 9, 3), part(2, 1, 2), part(3, 0, 1)];
        let counts = counts(&parts, &[]);
        assert_eq!(counts.iter().sum::<u64>(), PICKS);
        // Five standard deviations of each.
        for (got, wanted, far) in [(0, 9_000, 150), (1, 900, 143), (2, 100, 50), (3, 0, 0)] {
            assert!(counts[got].abs_diff(wanted) <= far, "{counts:?}");
        }
        // Within a part all backends have their turn.
        let mut seen: Vec<_> = (0..PICKS)
            .filter_map(|number| enter(&parts[1..2], mix(number), &[]))
            .map(|entered| entered.backend().backend.place.port())
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn who_has_nothing_gives_its_share_away() {
        let parts = [part(0, 80, 0), part(1, 15, 1), part(2, 5, 1)];
        let with_two = counts(&parts, &[]);
        assert_eq!((with_two[0], with_two[1] + with_two[2]), (0, PICKS));
        assert!(with_two[1].abs_diff(7_500) < 220, "{with_two:?}");
        let failing = &parts[1].backends[0];
        failing.failed(Duration::from_secs(60));
        assert_eq!(counts(&parts, &[]), [0, 0, PICKS]);
        let tried = [Arc::clone(&parts[2].backends[0])];
        assert_eq!(counts(&parts, &tried), [0, PICKS, 0], "failing, but left");
        let both = [Arc::clone(failing), Arc::clone(&tried[0])];
        assert_eq!(counts(&parts, &both), [0, 0, 0]);
        assert_eq!(counts(&parts[..1], &[]), [0]);
    }
}
