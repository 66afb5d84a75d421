//! The samples that the server does not have yet: the newest of each allocation, and each service that
//! has counted something since the last message. Pure; bounded by what runs and is routed here.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::AllocationId;
use skep_model::sample::{AllocationReading, NodeReading};
use skep_proto::v1;

/// Services of which counters are kept: as many as routes in a table that Traefik can bear.
const SERVICES_MAX: usize = 10_000;

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
    ingress: Option<Ingress>,
    is_due: bool,
}

impl Samples {
    /// A new session: what was read before it is too old, and all services are due.
    pub(super) fn begin(&mut self) {
        self.has_session = true;
        self.is_due = false;
        self.allocations.clear();
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
        let fresh = allocations
            .into_iter()
            .map(|it| (it.allocation, (at_ms, it)));
        self.allocations.extend(fresh);
        self.is_due = true;
    }

    /// What the data plane has counted; `is_first`: all of it.
    pub(super) fn count(&mut self, reading: v1::IngressReading, is_first: bool) {
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
        let allocations = std::mem::take(&mut self.allocations).into_values();
        let allocations = allocations.map(|(read_ms, it)| v1::AllocationReading {
            age_ms: at_ms.saturating_sub(read_ms),
            ..(&it).into()
        });
        let ingress = self.ingress.as_mut().map(|ingress| {
            let unsent = std::mem::take(&mut ingress.unsent);
            let services = unsent.iter().filter_map(|key| ingress.services.get(key));
            let message = v1::IngressReading {
                life: ingress.life,
                at_ms: ingress.at_ms,
                services: services.cloned().collect(),
            };
            // Nothing counted is the same as not named: a service that is gone takes no room.
            let is_empty = |of: &v1::ServiceCounters| {
                of.in_flight == 0 && of.requests.iter().chain(&of.latency).all(|n| *n == 0)
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
        })
    }
}

#[cfg(test)]
mod tests {
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
        }
    }

    fn container(cpu_us: u64) -> AllocationReading {
        AllocationReading {
            allocation: AllocationId::from_u128(1),
            container: 1,
            cpu_us: Some(cpu_us),
            memory_bytes: None,
            age_ms: 0,
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
}
