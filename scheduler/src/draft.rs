//! Decisions that are not made yet, laid over the cluster: starts of one plan, or of several plans
//! of one batch, see each other. Dropping a draft forgets them; the cluster is never touched.

use std::collections::BTreeMap;

use skep_model::id::{NodeId, ServiceId};

use crate::cluster::{Candidate, Cluster, Room};
use crate::filter::Ask;

/// A cluster and what has been started on paper.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    base: &'a Cluster,
    started: BTreeMap<NodeId, Room>,
    services: BTreeMap<ServiceId, BTreeMap<NodeId, u32>>,
}

impl<'a> Draft<'a> {
    /// An empty draft over a cluster.
    pub fn new(base: &'a Cluster) -> Self {
        Self {
            base,
            started: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    /// Every known node with what the draft leaves free, by id.
    pub fn nodes(&self) -> impl Iterator<Item = Candidate<'a>> {
        self.base.nodes().map(|node| self.less_started(node))
    }

    /// One node, the same way.
    pub fn node(&self, id: NodeId) -> Option<Candidate<'a>> {
        self.base.node(id).map(|node| self.less_started(node))
    }

    /// Counts one more allocation on a node. Whether it fits was the caller's question.
    pub fn start(&mut self, node: NodeId, ask: &Ask) {
        let started = self.started.entry(node).or_default();
        *started = started.plus(ask.resources.into());
        let nodes = self.services.entry(ask.service).or_default();
        *nodes.entry(node).or_default() += 1;
    }

    /// Counts allocations of one service on any node: the service is looked up once.
    pub(crate) fn neighbours_of(&self, service: ServiceId) -> Neighbours<'_> {
        Neighbours([self.base.spread_of(service), self.services.get(&service)])
    }

    fn less_started(&self, node: Candidate<'a>) -> Candidate<'a> {
        match self.started.get(&node.id) {
            Some(started) => Candidate {
                free: node.free.minus(*started),
                ..node
            },
            None => node,
        }
    }
}

/// Allocations of one service, by node: those that are there, and those of the draft.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbours<'a>([Option<&'a BTreeMap<NodeId, u32>>; 2]);

impl Neighbours<'_> {
    pub(crate) fn on(&self, node: NodeId) -> u32 {
        let counts = self.0.iter().flatten();
        counts.filter_map(|nodes| nodes.get(&node)).sum()
    }
}
