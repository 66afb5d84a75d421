//! What the leader knows of all nodes: readings of several ingresses merged into rates, readings of
//! containers kept for a while. Pure: times are the caller's steady clock, and what a node says carries
//! the clock of its reader. Said twice, late or in another order, it changes nothing.

use std::collections::BTreeMap;

use skep_model::id::{AllocationId, DeploymentId, NodeId, ServiceId};
use skep_model::sample::{AllocationReading, IngressReading, Samples, ServiceCounters};
use skep_scheduler::rollout::analysis::Trial;
use skep_state::State;

use super::STALE_AFTER;
use super::pace::Pace;
use super::ring::{Requests, Ring};
use super::track::Track;
use super::tried::Trials;

/// The container of one allocation, or a node as a whole.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    container: u64,
    pub(super) cpu: Track,
    pub(super) memory_bytes: Option<u64>,
    pub(super) heard_ms: u64,
    /// None: nothing of it was heard.
    pub(super) pace: Option<Box<Pace>>,
}

/// One life of a node's ingress.
#[derive(Debug, Clone, Copy)]
struct Ingress {
    life: u64,
    at_ms: u64,
    heard_ms: u64,
    /// Since when requests are counted here.
    since_ms: u64,
    is_away: bool,
}

/// One node.
#[derive(Debug, Default)]
struct NodeBook {
    life: u64,
    /// A life that is over: what still comes of it was late.
    former: Option<u64>,
    usage: Option<Usage>,
    allocations: BTreeMap<AllocationId, Usage>,
    ingress: Option<Ingress>,
    former_ingress: Option<u64>,
}

/// What one ingress has counted of a service.
#[derive(Debug, Clone)]
struct Counted {
    life: u64,
    counters: ServiceCounters,
}

/// One service.
#[derive(Debug, Default)]
struct ServiceBook {
    /// None: there was no request for a while.
    ring: Option<Box<Ring>>,
    by_node: BTreeMap<NodeId, Counted>,
}

/// All ingresses that are heard now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// Up to here each of them has told what it counted.
    pub(super) until_ms: u64,
    /// From here on one of them at least has.
    since_ms: u64,
    /// The newest word.
    pub(super) newest_ms: u64,
    /// How many they are.
    pub(super) count: u32,
}

/// The requests to one service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Traffic {
    /// A second; none: not known for long enough.
    pub(super) rate: Option<f64>,
    pub(super) in_flight: u64,
    /// Those of the window.
    pub(super) requests: Requests,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Book {
    nodes: BTreeMap<NodeId, NodeBook>,
    services: BTreeMap<ServiceId, ServiceBook>,
    trials: Trials,
}

impl Book {
    /// What a node said, heard at `heard_ms`.
    pub(super) fn learn(&mut self, node: NodeId, said: Samples, heard_ms: u64) {
        let book = self.nodes.entry(node).or_default();
        if book.former == Some(said.life) {
            return;
        }
        if book.life != said.life {
            // Its clock began anew. The ingress has a life of its own.
            book.former = Some(book.life);
            book.life = said.life;
            book.usage = None;
            book.allocations.clear();
        }
        let whole = (said.node.cpu_us, said.node.memory_bytes);
        if whole != (None, None) {
            let usage = book.usage.get_or_insert(Usage::new(0));
            usage.learn(said.at_ms, whole, heard_ms);
        }
        for reading in said.allocations {
            book.read(&reading, (said.at_ms, heard_ms));
        }
        self.count(node, said.ingress, heard_ms);
    }

    fn count(&mut self, node: NodeId, reading: Option<IngressReading>, heard_ms: u64) {
        let Some(book) = self.nodes.get_mut(&node) else {
            return;
        };
        let Some(reading) = reading else {
            if let Some(ingress) = &mut book.ingress {
                ingress.is_away = true;
            }
            return;
        };
        let life = reading.life;
        let known = book.ingress.filter(|known| known.life == life);
        if book.former_ingress == Some(life) || known.is_some_and(|it| it.at_ms >= reading.at_ms) {
            return;
        }
        if known.is_none() {
            book.former_ingress = book.ingress.map(|former| former.life);
        }
        book.ingress = Some(Ingress {
            life,
            at_ms: reading.at_ms,
            heard_ms,
            since_ms: known.map_or(heard_ms, |known| known.since_ms),
            is_away: false,
        });
        for (service, counters) in reading.services {
            let of = self.services.entry(service).or_default();
            let counted = Counted { life, counters };
            let then = of.by_node.insert(node, counted.clone());
            // The first word of a life is where counting begins.
            let Some(known) = known else { continue };
            let then = then.filter(|then| then.life == life);
            let then = then.map_or_else(ServiceCounters::default, |then| then.counters);
            let grown = Requests::grown(&then, &counted.counters);
            self.trials.count(service, &then, &counted.counters);
            if grown.all > 0.0 {
                let span = (reading.at_ms - known.at_ms).min(heard_ms);
                let ring = of.ring.get_or_insert_with(|| Box::new(Ring::new(heard_ms)));
                ring.add((heard_ms - span, heard_ms), &grown);
            }
        }
    }

    /// The ingresses that are heard; none: nobody counts.
    pub(super) fn ingresses(&self, now_ms: u64) -> Option<Heard> {
        let heard = self.nodes.values().filter_map(|book| book.heard(now_ms));
        heard
            .map(|ingress| Heard {
                until_ms: ingress.heard_ms,
                since_ms: ingress.since_ms,
                newest_ms: ingress.heard_ms,
                count: 1,
            })
            .reduce(|one, other| Heard {
                until_ms: one.until_ms.min(other.until_ms),
                since_ms: one.since_ms.min(other.since_ms),
                newest_ms: one.newest_ms.max(other.newest_ms),
                count: one.count + other.count,
            })
    }

    /// The requests to a service in the last `window_ms`, or in what is known of them. `heard` is
    /// [`Self::ingresses`] of the same moment.
    pub(super) fn traffic(
        &self,
        service: ServiceId,
        (window_ms, now_ms): (u64, u64),
        heard: Heard,
    ) -> Traffic {
        let from_ms = (heard.until_ms.saturating_sub(window_ms)).max(heard.since_ms);
        let span_ms = heard.until_ms.saturating_sub(from_ms);
        let of = self.services.get(&service);
        let ring = of.and_then(|of| of.ring.as_ref());
        let requests = ring.map_or_else(Requests::default, |ring| {
            ring.sum((from_ms, heard.until_ms))
        });
        let counted = of.into_iter().flat_map(|of| &of.by_node);
        let now = counted.filter(|(node, counted)| {
            let heard = self.nodes.get(node).and_then(|book| book.heard(now_ms));
            heard.is_some_and(|ingress| ingress.life == counted.life)
        });
        Traffic {
            rate: (span_ms > 0).then(|| f64::from(requests.all) * 1_000.0 / span_ms as f64),
            in_flight: now.map(|(_, counted)| counted.counters.in_flight).sum(),
            requests,
        }
    }

    /// What a release that is tried got, and the live one beside it.
    pub(super) fn trial(&self, service: ServiceId, deployment: DeploymentId) -> Trial {
        self.trials.get(service, deployment)
    }

    /// What an allocation uses; none: nothing was heard of it lately.
    pub(super) fn allocation(
        &self,
        (node, allocation): (NodeId, AllocationId),
        now_ms: u64,
    ) -> Option<&Usage> {
        let usage = self.nodes.get(&node)?.allocations.get(&allocation)?;
        is_fresh(usage.heard_ms, now_ms).then_some(usage)
    }

    /// What a node uses; none: nothing was heard of it lately.
    pub(super) fn node(&self, node: NodeId, now_ms: u64) -> Option<&Usage> {
        let usage = self.nodes.get(&node)?.usage.as_ref()?;
        is_fresh(usage.heard_ms, now_ms).then_some(usage)
    }

    /// Nodes that were heard lately.
    pub(super) fn fresh(&self, now_ms: u64) -> usize {
        let nodes = self.nodes.keys();
        nodes
            .filter(|node| self.node(**node, now_ms).is_some())
            .count()
    }

    /// Forgets what has ended, and rings in which nothing is left.
    pub(super) fn sweep(&mut self, view: &State, now_ms: u64) {
        self.retain(
            now_ms,
            |node| view.node(node).is_some(),
            |id| view.allocation(id).is_some_and(|of| of.is_live()),
            |id| view.service(id).is_some(),
        );
        self.trials.retain(|id, deployment| {
            let compared = view.service(id).and_then(|service| service.compared());
            compared.is_some_and(|target| target.deployment == deployment)
        });
    }

    pub(super) fn retain(
        &mut self,
        now_ms: u64,
        node: impl Fn(NodeId) -> bool,
        allocation: impl Fn(AllocationId) -> bool,
        service: impl Fn(ServiceId) -> bool,
    ) {
        self.nodes.retain(|id, _| node(*id));
        for book in self.nodes.values_mut() {
            (book.allocations).retain(|id, of| allocation(*id) && is_fresh(of.heard_ms, now_ms));
        }
        let nodes = &self.nodes;
        self.services.retain(|id, of| {
            of.ring = of.ring.take().filter(|ring| !ring.is_over(now_ms));
            // Nothing counted is the same as not known; another life's count is nothing.
            of.by_node.retain(|node, counted| {
                let ingress = nodes.get(node).and_then(|book| book.ingress);
                ingress.is_some_and(|ingress| ingress.life == counted.life)
                    && counted.counters != ServiceCounters::default()
            });
            service(*id) && (of.ring.is_some() || !of.by_node.is_empty())
        });
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let allocations = self.nodes.values().map(|book| book.allocations.len());
        (self.nodes.len(), allocations.sum(), self.services.len())
    }
}

impl NodeBook {
    fn read(&mut self, reading: &AllocationReading, (at_ms, heard_ms): (u64, u64)) {
        let fresh = || Usage::new(reading.container);
        let usage = self
            .allocations
            .entry(reading.allocation)
            .or_insert_with(fresh);
        if usage.container != reading.container {
            *usage = fresh();
        }
        let age_ms = reading.age_ms;
        let what = (reading.cpu_us, reading.memory_bytes);
        let (at_ms, heard_ms) = (
            at_ms.saturating_sub(age_ms),
            heard_ms.saturating_sub(age_ms),
        );
        usage.learn(at_ms, what, heard_ms);
        if let Some(extras) = reading.extras {
            let pace = usage.pace.get_or_insert_default();
            pace.learn(at_ms.saturating_sub(extras.age_ms), extras);
        }
    }

    fn heard(&self, now_ms: u64) -> Option<&Ingress> {
        let ingress = self.ingress.as_ref()?;
        (!ingress.is_away && is_fresh(ingress.heard_ms, now_ms)).then_some(ingress)
    }
}

impl Usage {
    fn new(container: u64) -> Self {
        Self {
            container,
            cpu: Track::default(),
            memory_bytes: None,
            heard_ms: 0,
            pace: None,
        }
    }

    fn learn(&mut self, at_ms: u64, (cpu, memory): (Option<u64>, Option<u64>), heard_ms: u64) {
        if let Some(cpu_us) = cpu {
            self.cpu.push(at_ms, cpu_us);
        }
        if heard_ms >= self.heard_ms {
            (self.memory_bytes, self.heard_ms) = (memory, heard_ms);
        }
    }
}

fn is_fresh(heard_ms: u64, now_ms: u64) -> bool {
    u128::from(now_ms.saturating_sub(heard_ms)) <= STALE_AFTER.as_millis()
}
