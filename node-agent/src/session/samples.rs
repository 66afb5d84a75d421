//! The samples that the server does not have yet: the newest of each allocation, and each service that
//! has counted something since the last message. Pure; bounded by what runs and is routed here.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::AllocationId;
use skep_model::sample::{AllocationReading, Extras, NodeReading};
use skep_proto::convert::sample::extras_out;
use skep_proto::v1;

/// Services of which counters are kept: as many as routes in a table that Traefik can bear.
const SERVICES_MAX: usize = 10_000;

/// Containers of which is known what was told: of more all is told again now and then.
const TOLD_MAX: usize = 8_192;

#[derive(Debug, Default)]
struct Ingress {
    life: u64,
    at_ms: u64,
    services: BTreeMap<Vec<u8>, v1::ServiceCounters>,
    unsent: BTreeSet<Vec<u8>>,
}

/// What is known and not sent.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// There is a session that would take them.
    has_session: bool,
    life: u64,
    at_ms: u64,
    node: NodeReading,
    /// With the time each was read at.
    allocations: BTreeMap<AllocationId, (u64, AllocationReading)>,
    /// What the session was told of each, and of which container.
    told: BTreeMap<AllocationId, (u64, Extras)>,
    ingress: Option<Ingress>,
    is_due: bool,
}

impl Samples {
    /// A new session: what was read before it is too old, and all services are due.
    pub(super) fn begin(&mut self) {
        self.has_session = true;
        self.is_due = false;
        self.allocations.clear();
        self.told.clear();
        if let Some(ingress) = &mut self.ingress {
            ingress.unsent = ingress.services.keys().cloned().collect();
        }
    }

    pub(super) fn end(&mut self) {
        self.has_session = false;
    }

    pub(super) fn has_session(&self) -> bool {
        self.has_session
    }

    /// The node and containers as read at `at_ms` of `life`.
    pub(super) fn read(
        &mut self,
        (life, at_ms): (u64, u64),
        node: NodeReading,
        allocations: Vec<AllocationReading>,
    ) {
        if !self.has_session {
            return;
        }
        (self.life, self.at_ms, self.node) = (life, at_ms, node);
        for mut reading in allocations {
            let before = self.allocations.remove(&reading.allocation);
            let same = before.filter(|(_, it)| it.container == reading.container);
            if let (None, Some((read_ms, before))) = (reading.extras, same) {
                // Not sent yet, and not read again.
                reading.extras = {
                    let since_ms = at_ms.saturating_sub(read_ms);
                    let extras = before.extras;
                    extras.map(|extras| extras.aged(extras.age_ms + since_ms))
                };
            }
            self.allocations
                .insert(reading.allocation, (at_ms, reading));
        }
        self.is_due = true;
    }

    /// What the data plane has counted; `is_first`: all of it. Where somebody waits for a service that sleeps
    /// there is a message at once.
    pub(super) fn count(&mut self, reading: v1::IngressReading, is_first: bool) {
        // Without a reading of this life there is nothing that it could go with, and soon there is one.
        self.is_due |= reading.waits && self.has_session && self.life != 0;
        let ingress = self.ingress.get_or_insert_default();
        if is_first && ingress.life != reading.life {
            *ingress = Ingress::default();
        }
        (ingress.life, ingress.at_ms) = (reading.life, reading.at_ms);
        for counters in reading.services {
            let key = &counters.service;
            if ingress.services.len() >= SERVICES_MAX && !ingress.services.contains_key(key) {
                continue;
            }
            if ingress.services.get(key) != Some(&counters) {
                ingress.unsent.insert(key.clone());
                ingress.services.insert(key.clone(), counters);
            }
        }
    }

    pub(super) fn ingress_away(&mut self) {
        self.ingress = None;
    }

    /// The next message, when there is a new reading.
    pub(super) fn next(&mut self) -> Option<v1::Samples> {
        if !std::mem::take(&mut self.is_due) {
            return None;
        }
        let at_ms = self.at_ms;
        let readings: Vec<_> = std::mem::take(&mut self.allocations)
            .into_values()
            .collect();
        let news: Vec<_> = readings.iter().map(|(_, it)| self.news(it)).collect();
        let extras = extras_out(news.iter().map(Option::as_ref));
        let allocations = readings.iter().map(|(read_ms, it)| v1::AllocationReading {
            age_ms: at_ms.saturating_sub(*read_ms),
            ..it.into()
        });
        let ingress = self.ingress.as_mut().map(|ingress| {
            let unsent = std::mem::take(&mut ingress.unsent);
            let services = unsent.iter().filter_map(|key| ingress.services.get(key));
            let message = v1::IngressReading {
                life: ingress.life,
                at_ms: ingress.at_ms,
                services: services.cloned().collect(),
                waits: false,
            };
            // Nothing counted is the same as not named: a service that is gone takes no room.
            let is_empty = |of: &v1::ServiceCounters| {
                let counts = of.requests.iter().chain(&of.latency);
                of.in_flight == 0 && of.tried.is_none() && counts.copied().all(|n| n == 0)
            };
            ingress.services.retain(|_, counters| !is_empty(counters));
            message
        });
        Some(v1::Samples {
            life: self.life,
            at_ms,
            node: Some(v1::NodeReading {
                cpu_us: self.node.cpu_us,
                memory_bytes: self.node.memory_bytes,
            }),
            allocations: allocations.collect(),
            ingress,
            extras,
        })
    }

    /// What the session does not know of the rest of a reading.
    fn news(&mut self, reading: &AllocationReading) -> Option<Extras> {
        let extras = reading.extras?;
        if self.told.len() >= TOLD_MAX && !self.told.contains_key(&reading.allocation) {
            self.told.clear();
        }
        let told = (reading.container, extras);
        let before = self.told.insert(reading.allocation, told);
        let same = before.filter(|(container, _)| *container == reading.container);
        Some(same.map_or(extras, |(_, before)| extras.changed_since(&before)))
    }
}

#[cfg(test)]
mod tests {
    use skep_model::sample::Counter;

    use super::*;

    fn counters(service: u8, requests: u64) -> v1::ServiceCounters {
        v1::ServiceCounters {
            service: vec![service; 16],
            requests: vec![0, requests, 0, 0, 0, 0],
            ..Default::default()
        }
    }

    fn reading(at_ms: u64, services: Vec<v1::ServiceCounters>) -> v1::IngressReading {
        v1::IngressReading {
            life: 1,
            at_ms,
            services,
            waits: false,
        }
    }

    fn container(cpu_us: u64) -> AllocationReading {
        AllocationReading {
            allocation: AllocationId::from_u128(1),
            container: 1,
            cpu_us: Some(cpu_us),
            memory_bytes: None,
            age_ms: 0,
            extras: None,
        }
    }

    fn named(samples: &v1::Samples) -> Vec<u8> {
        let ingress = samples.ingress.as_ref().expect("there");
        ingress.services.iter().map(|of| of.service[0]).collect()
    }

    #[test]
    fn only_what_changed_is_said_and_all_of_it_to_a_new_session() {
        let mut samples = Samples::default();
        let node = NodeReading::default();
        samples.read((9, 1), node, vec![container(1)]);
        assert_eq!(samples.next(), None, "nobody hears it");
        samples.begin();
        samples.count(reading(0, vec![counters(1, 5), counters(2, 5)]), true);
        samples.read((9, 2_000), node, vec![container(1)]);
        let said = samples.next().expect("due");
        assert_eq!((named(&said), said.allocations.len()), (vec![1, 2], 1));
        assert_eq!(samples.next(), None, "once");
        samples.count(reading(2_000, vec![counters(2, 6)]), false);
        samples.read((9, 4_000), node, vec![]);
        // Not sent yet, and read again: the newest goes, with what changed in between.
        samples.count(reading(4_000, vec![counters(1, 6)]), false);
        samples.read((9, 6_000), node, vec![container(2)]);
        let said = samples.next().expect("due");
        assert_eq!((named(&said), said.at_ms), (vec![1, 2], 6_000));
        samples.end();
        samples.begin();
        samples.read((9, 8_000), node, vec![]);
        assert_eq!(named(&samples.next().expect("due")), [1, 2]);
    }

    #[test]
    fn a_service_that_counts_nothing_any_more_is_said_once_and_forgotten() {
        let mut samples = Samples::default();
        samples.begin();
        samples.count(reading(0, vec![counters(1, 5)]), true);
        samples.count(reading(1, vec![counters(1, 0)]), false);
        samples.read((9, 1), NodeReading::default(), vec![]);
        assert_eq!(named(&samples.next().expect("due")), [1]);
        samples.begin();
        samples.read((9, 2), NodeReading::default(), vec![]);
        assert_eq!(named(&samples.next().expect("due")), Vec::<u8>::new());
    }

    #[test]
    fn who_waits_for_a_service_that_sleeps_is_said_at_once_with_no_container_read_twice() {
        let mut samples = Samples::default();
        let waits = |at_ms| v1::IngressReading {
            waits: true,
            ..reading(at_ms, vec![counters(1, at_ms)])
        };
        samples.begin();
        samples.count(waits(1), true);
        assert_eq!(samples.next(), None, "nothing was read yet");
        samples.read((9, 1_000), NodeReading::default(), vec![container(1)]);
        assert_eq!(samples.next().expect("due").allocations.len(), 1);
        samples.count(reading(2, vec![counters(1, 2)]), false);
        assert_eq!(samples.next(), None, "in its turn");
        samples.count(waits(3), false);
        let said = samples.next().expect("due");
        assert_eq!((named(&said), said.allocations.len()), (vec![1], 0));
        assert_eq!((said.life, said.at_ms), (9, 1_000));
    }

    #[test]
    fn without_a_data_plane_nothing_is_said_of_services() {
        let mut samples = Samples::default();
        samples.begin();
        samples.count(reading(0, vec![counters(1, 5)]), true);
        samples.ingress_away();
        samples.read((9, 1), NodeReading::default(), vec![]);
        assert_eq!(samples.next().expect("due").ingress, None);
    }

    #[test]
    fn a_reading_that_waited_says_how_old_it_is() {
        let mut samples = Samples::default();
        samples.begin();
        samples.read((9, 1_000), NodeReading::default(), vec![container(1)]);
        samples.read((9, 3_000), NodeReading::default(), vec![]);
        assert_eq!(samples.next().expect("due").allocations[0].age_ms, 2_000);
    }

    #[test]
    fn of_the_rest_only_what_changed_is_said_and_all_of_it_to_a_new_session() {
        let node = NodeReading::default();
        let with = |sent: u64| {
            let mut extras = Extras::default();
            extras.set(Counter::NetworkSent, Some(sent));
            extras.set(Counter::DiskRead, Some(5));
            AllocationReading {
                extras: Some(extras),
                ..container(1)
            }
        };
        let said = |samples: &mut Samples| {
            let said = samples.next().expect("due").extras;
            said.into_iter()
                .map(|it| (it.age_ms, it.values))
                .collect::<Vec<_>>()
        };
        let mut samples = Samples::default();
        samples.begin();
        samples.read((9, 0), node, vec![with(1)]);
        assert_eq!(said(&mut samples), [(0, vec![5, 1])]);
        samples.read((9, 2_000), node, vec![container(1)]);
        assert_eq!(said(&mut samples), [], "not read");
        samples.read((9, 4_000), node, vec![with(2)]);
        // The line is slow: it goes with the next, and says when it was read.
        samples.read((9, 6_000), node, vec![container(1)]);
        assert_eq!(said(&mut samples), [(2_000, vec![2])]);
        samples.read((9, 8_000), node, vec![with(2)]);
        assert_eq!(said(&mut samples), [(0, vec![])], "read, and the same");
        // Another container counts from the beginning.
        let other = AllocationReading {
            container: 2,
            ..with(2)
        };
        samples.read((9, 9_000), node, vec![other]);
        assert_eq!(said(&mut samples), [(0, vec![5, 2])]);
        samples.begin();
        samples.read((9, 9_500), node, vec![other]);
        assert_eq!(said(&mut samples), [(0, vec![5, 2])]);
    }
}
