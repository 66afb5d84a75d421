//! The newest word of each node that is in session with this server, and how much of it the leader has.
//! A word that the leader was too slow for is replaced by the next one, never queued: counters are
//! cumulative, so what is lost is resolution.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::sample::{
    AllocationReading, Extras, IngressReading, NodeReading, Samples, ServiceCounters,
};

use super::STALE_AFTER;

/// What one node says, on its way to the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Who.
    pub node: NodeId,
    /// How long ago it was heard.
    pub held: Duration,
    /// What.
    pub said: Samples,
}

/// A thing, and the version of the word that brought it.
type Versioned<T> = (u64, T);

#[derive(Debug)]
struct Ingress {
    life: u64,
    at_ms: u64,
    services: BTreeMap<ServiceId, Versioned<ServiceCounters>>,
}

/// What one node said.
#[derive(Debug)]
struct Told {
    session: u64,
    version: u64,
    /// The newest version that the leader has.
    relayed: u64,
    heard: Instant,
    life: u64,
    at_ms: u64,
    node: NodeReading,
    /// With the time at which each was read.
    allocations: BTreeMap<AllocationId, Versioned<(u64, AllocationReading)>>,
    /// All that is known of the rest of each, with the time at which it was read and of which container.
    extras: BTreeMap<AllocationId, Versioned<(u64, u64, Extras)>>,
    ingress: Option<Ingress>,
}

/// The nodes.
#[derive(Debug, Default)]
pub(super) struct Board {
    nodes: BTreeMap<NodeId, Told>,
    version: u64,
    /// After whom telling goes on.
    after: Option<NodeId>,
    dropped: u64,
}

impl Board {
    pub(super) fn hear(&mut self, (node, session): (NodeId, u64), said: Samples, now: Instant) {
        self.version += 1;
        let version = self.version;
        let is_new = (self.nodes.get(&node))
            .is_none_or(|told| told.session != session || told.life != said.life);
        if is_new {
            self.nodes.insert(node, Told::new(session, said.life, now));
        }
        let Some(told) = self.nodes.get_mut(&node) else {
            return;
        };
        (told.version, told.heard, told.at_ms) = (version, now, said.at_ms);
        told.node = said.node;
        for mut reading in said.allocations {
            let read_ms = said.at_ms.saturating_sub(reading.age_ms);
            if let Some(extras) = reading.extras.take() {
                told.add(version, (read_ms, &reading), extras);
            }
            let fresh = (version, (read_ms, reading));
            let replaced = told.allocations.insert(reading.allocation, fresh);
            let is_lost = replaced.is_some_and(|(version, _)| version > told.relayed);
            self.dropped += u64::from(is_lost);
        }
        let stale_ms = u64::try_from(STALE_AFTER.as_millis()).unwrap_or(u64::MAX);
        let oldest_ms = told.at_ms.saturating_sub(stale_ms);
        told.allocations
            .retain(|_, (_, (read_ms, _))| *read_ms >= oldest_ms);
        let live = &told.allocations;
        told.extras.retain(|id, _| live.contains_key(id));
        told.count(version, said.ingress);
    }

    pub(super) fn disconnect(&mut self, node: NodeId, session: u64) {
        if self
            .nodes
            .get(&node)
            .is_some_and(|told| told.session == session)
        {
            self.nodes.remove(&node);
        }
    }

    pub(super) fn rewind(&mut self) {
        for told in self.nodes.values_mut() {
            told.relayed = 0;
        }
        self.after = None;
    }

    /// What was not told yet; nodes take turns, and each is told as a whole.
    pub(super) fn take(&mut self, items: usize, now: Instant) -> Vec<Word> {
        let (mut words, mut taken) = (Vec::new(), 0);
        let from = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        for (node, told) in self.nodes.range_mut((from, Bound::Unbounded)) {
            if taken >= items {
                return words;
            }
            self.after = Some(*node);
            if told.version > told.relayed {
                let said = told.news();
                let services = said.ingress.as_ref().map_or(0, |it| it.services.len());
                taken += 1 + said.allocations.len() + services;
                words.push(Word {
                    node: *node,
                    held: now.saturating_duration_since(told.heard),
                    said,
                });
            }
        }
        // Round: the next turn begins with the first again.
        self.after = None;
        words
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How long the oldest word that was not told has waited.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        let waiting = self
            .nodes
            .values()
            .filter(|told| told.version > told.relayed);
        let ages = waiting.map(|told| now.saturating_duration_since(told.heard));
        ages.max().unwrap_or_default()
    }

    /// Nodes that spoke lately.
    pub(super) fn fresh(&self, now: Instant) -> usize {
        let told = self.nodes.values();
        told.filter(|told| now.saturating_duration_since(told.heard) <= STALE_AFTER)
            .count()
    }
}

impl Told {
    fn new(session: u64, life: u64, now: Instant) -> Self {
        Self {
            session,
            version: 0,
            relayed: 0,
            heard: now,
            life,
            at_ms: 0,
            node: NodeReading::default(),
            allocations: BTreeMap::new(),
            extras: BTreeMap::new(),
            ingress: None,
        }
    }

    /// What is not said has not changed, as long as it is the same container.
    fn add(&mut self, version: u64, (read_ms, of): (u64, &AllocationReading), news: Extras) {
        let at_ms = read_ms.saturating_sub(news.age_ms);
        let known = self.extras.get(&of.allocation);
        let known = known.filter(|(_, (_, container, _))| *container == of.container);
        let extras = known.map_or(news, |(_, (.., known))| known.overlaid(&news));
        let fresh = (version, (at_ms, of.container, extras));
        self.extras.insert(of.allocation, fresh);
    }

    /// The rest of a reading, where it is newer than what was told.
    fn extras(&self, since: u64, (read_ms, of): (u64, &AllocationReading)) -> Option<Extras> {
        let (version, (at_ms, container, extras)) = self.extras.get(&of.allocation)?;
        let is_news = *version > since && *container == of.container;
        is_news.then(|| extras.aged(read_ms.saturating_sub(*at_ms)))
    }

    fn count(&mut self, version: u64, reading: Option<IngressReading>) {
        let Some(reading) = reading else {
            self.ingress = None;
            return;
        };
        let known = self.ingress.take().filter(|it| it.life == reading.life);
        let mut ingress = known.unwrap_or(Ingress {
            life: reading.life,
            at_ms: 0,
            services: BTreeMap::new(),
        });
        ingress.at_ms = reading.at_ms;
        let fresh = reading.services.into_iter();
        ingress
            .services
            .extend(fresh.map(|(id, of)| (id, (version, of))));
        self.ingress = Some(ingress);
    }

    /// What is newer than what was told.
    fn news(&mut self) -> Samples {
        let since = std::mem::replace(&mut self.relayed, self.version);
        let allocations = self.allocations.values();
        let allocations =
            allocations
                .filter(|(version, _)| *version > since)
                .map(|(_, (read_ms, reading))| AllocationReading {
                    age_ms: self.at_ms.saturating_sub(*read_ms),
                    extras: self.extras(since, (*read_ms, reading)),
                    ..*reading
                });
        let ingress = self.ingress.as_ref().map(|ingress| IngressReading {
            life: ingress.life,
            at_ms: ingress.at_ms,
            services: (ingress.services.iter())
                .filter(|(_, (version, _))| *version > since)
                .map(|(id, (_, counters))| (*id, counters.clone()))
                .collect(),
        });
        let said = Samples {
            life: self.life,
            at_ms: self.at_ms,
            node: self.node,
            allocations: allocations.collect(),
            ingress,
        };
        if let Some(ingress) = &mut self.ingress {
            // Nothing counted is the same as not named, once it was told.
            let none = ServiceCounters::default();
            ingress
                .services
                .retain(|_, (_, counters)| *counters != none);
        }
        said
    }
}
