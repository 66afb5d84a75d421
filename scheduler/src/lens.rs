//! The cluster as one ask sees it: each rule judged once per value of its attribute, allocations
//! of the service counted per domain. The one place where nodes are refused: placing, the leader's
//! check and every explanation look through it. Knows nothing of scores.

mod domain;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use skep_model::id::NodeId;
use skep_model::node::HOST;
use skep_model::placement::{Constraint, Operator, Toward};

use crate::cluster::{Cluster, Standing};
use crate::column::{Column, HOST_PATHS, MISSING, SHARED_STORAGE};
use crate::draft::Draft;
use crate::filter::{Ask, Reason};
use crate::room::{Named, Needs, Room};

pub(crate) use domain::Domain;

/// The attribute that says which workspaces a node is for; a node without it is for all.
const WORKSPACES: &str = "workspaces";
/// The attribute that is each node's own.
pub(crate) const NODE: &str = "node.name";

/// Nodes over which the replicas of a service keep apart where they can, and hosts.
pub(crate) const APART: u64 = 3;

/// A rule: which values of a column pass.
struct Rule<'a> {
    reason: Reason,
    column: Option<&'a Column>,
    passes: Vec<bool>,
}

/// What each value of a column is worth.
struct Weights<'a> {
    column: Option<&'a Column>,
    by_value: Vec<i64>,
}

pub(crate) struct Lens<'a, 'q> {
    cluster: &'a Cluster,
    ask: &'q Ask,
    pub(crate) needs: Needs,
    rules: Vec<Rule<'a>>,
    /// Constraints of a relaxed ask: they refuse nothing.
    wishes: Vec<Rule<'a>>,
    weights: Vec<Weights<'a>>,
    /// Limits per node, least first counted; the others are domains.
    per_node: Option<(u8, u32)>,
    limits: Vec<(u8, Domain<'a>)>,
    pub(crate) spreads: Vec<Domain<'a>>,
    /// By physical host, those that are to stay. None: nothing is said of them, there is one host, or the
    /// ask itself says how hosts are spread over.
    pub(crate) hosts: Option<Domain<'a>>,
    /// Spread over nodes comes last: counted by neighbours, not by domains.
    pub(crate) spreads_nodes: bool,
    /// Allocations of the service by ordinal, ascending.
    pub(crate) neighbours: Vec<(u32, u32)>,
    /// Those that are to stay, in the same way: these keep apart. None: nothing is said of them.
    pub(crate) staying: Option<Vec<(u32, u32)>>,
}

impl<'a, 'q> Lens<'a, 'q> {
    pub(crate) fn new(draft: &Draft<'a>, ask: &'q Ask) -> Self {
        let cluster = draft.cluster();
        let mut lens = Self {
            cluster,
            ask,
            needs: ask.needs(),
            rules: Vec::new(),
            wishes: Vec::new(),
            weights: Vec::new(),
            per_node: None,
            limits: Vec::new(),
            spreads: Vec::new(),
            hosts: None,
            spreads_nodes: false,
            neighbours: draft.neighbours_of(ask.service),
            staying: ask.staying.as_ref().map(|nodes| tally(cluster, nodes)),
        };
        lens.add_rules();
        lens.add_weights(draft);
        lens.add_domains();
        lens
    }

    fn rule(&self, reason: Reason, key: &str, holds: impl Fn(Option<&str>) -> bool) -> Rule<'a> {
        let column = self.cluster.columns().get(key);
        let count = column.map_or(1, Column::len) as u32;
        let text = |value| column.and_then(|column| column.text(value));
        Rule {
            reason,
            column,
            passes: (0..count).map(|value| holds(text(value))).collect(),
        }
    }

    fn constraint(&self, index: usize, constraint: &Constraint) -> Rule<'a> {
        let reason = Reason::Constraint(index as u8);
        let column = self.cluster.columns().get(&constraint.key);
        // By the dictionary where it says it all: some attributes have a value for each node.
        let (listed, rest) = match &constraint.operator {
            Operator::Is(value) => (std::slice::from_ref(value), false),
            Operator::IsNot(value) => (std::slice::from_ref(value), true),
            Operator::In(list) => (&**list, false),
            Operator::NotIn(list) => (&**list, true),
            _ => {
                let judge = constraint.judge();
                return self.rule(reason, &constraint.key, |value| judge.holds(value));
            }
        };
        let mut passes = vec![rest; column.map_or(1, Column::len)];
        for value in listed {
            if let Some(number) = column.and_then(|column| column.number(value)) {
                passes[number as usize] = !rest;
            }
        }
        Rule {
            reason,
            column,
            passes,
        }
    }

    fn add_rules(&mut self) {
        let placement = &self.ask.placement;
        let mut rules = Vec::new();
        if let Some(pool) = &placement.pool {
            rules.push(self.rule(Reason::Pool, "pool", |value| value == Some(&**pool)));
        }
        let constraints = placement.constraints.iter().enumerate();
        let constraints = constraints.map(|(index, one)| self.constraint(index, one));
        if placement.relaxed {
            self.wishes = constraints.collect();
        } else {
            rules.extend(constraints);
        }
        let archs = &placement.architectures;
        if !archs.is_empty() {
            let made_for = |value: Option<&str>| archs.iter().any(|one| Some(&**one) == value);
            rules.push(self.rule(Reason::Architecture, "node.arch", made_for));
        }
        if placement.private_network {
            let key = "node.private-network";
            rules.push(self.rule(Reason::PrivateNetwork, key, |value| value.is_some()));
        }
        let storage = &self.ask.storage;
        if !storage.is_empty() {
            rules.push(self.rule(Reason::Storage, "node.storage", |value| value.is_some()));
        }
        for (index, wanted) in storage.host_paths.iter().enumerate() {
            let reason = Reason::HostPath(index as u8);
            rules.push(self.rule(reason, HOST_PATHS, |value| {
                let mut offered = value.into_iter().flat_map(|list| list.split('\n'));
                offered.any(|prefix| Path::new(&wanted.host).starts_with(prefix))
            }));
        }
        for (index, wanted) in storage.shared().into_iter().enumerate() {
            let reason = Reason::SharedStorage(index as u8);
            rules.push(self.rule(reason, SHARED_STORAGE, |value| {
                let mut there = value.into_iter().flat_map(|list| list.split('\n'));
                there.any(|one| one == wanted)
            }));
        }
        if self.ask.shares_image {
            rules.push(self.rule(Reason::Image, "node.images", |value| value.is_some()));
        }
        if self.cluster.columns().get(WORKSPACES).is_some() {
            let own = self.ask.around.workspace.as_deref();
            rules.push(self.rule(Reason::Workspace, WORKSPACES, |value| {
                value.is_none_or(|list| list.split(',').any(|one| Some(one.trim()) == own))
            }));
        }
        if self.cluster.has_builders() {
            let is_build = self.ask.around.is_build;
            let takes = |pool: Option<&str>| self.cluster.builds(pool).takes(is_build);
            rules.push(self.rule(Reason::Builds, "pool", takes));
        }
        let pins = [
            (Reason::Image, self.ask.only_on),
            (Reason::Data, self.ask.around.data_on),
        ];
        for (reason, holder) in pins {
            if let Some(holder) = holder {
                let node = self.cluster.node(holder);
                let name = node.map(|node| node.name);
                rules.push(self.rule(reason, NODE, |value| value.is_some() && value == name));
            }
        }
        let moving = &self.ask.around.moving;
        if !moving.is_empty() {
            let nodes = moving.values().filter_map(|id| self.cluster.node(*id));
            let names: BTreeSet<&str> = nodes.map(|node| node.name).collect();
            rules.push(self.rule(Reason::Elsewhere, NODE, |value| {
                value.is_some_and(|name| names.contains(name))
            }));
        }
        self.rules = rules;
    }

    fn add_weights(&mut self, draft: &Draft<'a>) {
        for affinity in &self.ask.placement.affinities {
            let weight = i64::from(affinity.weight);
            let weights = match &affinity.toward {
                Toward::Nodes(constraint) => {
                    let rule = self.constraint(0, constraint);
                    let weigh = |passes: &bool| if *passes { weight } else { 0 };
                    Weights {
                        column: rule.column,
                        by_value: rule.passes.iter().map(weigh).collect(),
                    }
                }
                Toward::Service { service, on } => {
                    let column = self.cluster.columns().get(on);
                    let mut by_value = vec![0; column.map_or(1, Column::len)];
                    let friend = self.ask.around.services.get(service);
                    // Its own service moves while it is placed: that is what spread is for.
                    let friend = friend.filter(|friend| **friend != self.ask.service);
                    let theirs = friend
                        .map(|id| draft.neighbours_of(*id))
                        .unwrap_or_default();
                    for (ordinal, _) in theirs {
                        if !self.is_known(ordinal) {
                            continue;
                        }
                        let value = column.map_or(MISSING, |column| column.of(ordinal));
                        by_value[value as usize] = weight;
                    }
                    Weights { column, by_value }
                }
            };
            self.weights.push(weights);
        }
    }

    fn add_domains(&mut self) {
        let placement = &self.ask.placement;
        let columns = self.cluster.columns();
        for (index, limit) in placement.max_per.iter().enumerate() {
            let index = index as u8;
            if limit.key != NODE {
                let domain = Domain::limit(columns.get(&limit.key), limit.count);
                self.limits.push((index, domain));
            } else if self.per_node.is_none_or(|(_, least)| limit.count < least) {
                self.per_node = Some((index, limit.count));
            }
        }
        let mut spreads = &placement.spread[..];
        if let Some((last, rest)) = spreads.split_last()
            && last.key == NODE
            && last.percent.is_empty()
            && last.max_skew.is_none()
        {
            self.spreads_nodes = true;
            spreads = rest;
        }
        for spread in spreads {
            let column = columns.get(&spread.key);
            let lacks = self.is_lacked(column);
            self.spreads.push(Domain::spread(column, spread, lacks));
        }
        self.hosts = self.hosts_apart();
        self.count_what_is_there();
        if self.spreads.iter().any(Domain::has_skew) {
            let allowed = self.allowed();
            for (ordinal, _) in allowed.iter().enumerate().filter(|(_, allowed)| **allowed) {
                let spreads = &mut self.spreads;
                spreads
                    .iter_mut()
                    .for_each(|spread| spread.open(ordinal as u32));
            }
        }
    }

    /// The hosts to keep apart over, where there are several: nodes that do not say theirs are on one.
    fn hosts_apart(&self) -> Option<Domain<'a>> {
        let column = self.cluster.columns().get(HOST)?;
        let spread = &self.ask.placement.spread;
        if self.staying.is_none() || spread.iter().any(|spread| spread.key == HOST) {
            return None;
        }
        let said = column.in_use().take(2).count();
        let has_several = said > 1 || self.is_lacked(Some(column));
        has_several.then(|| Domain::tally(Some(column)))
    }

    /// Whether a node that is known has no value of an attribute.
    fn is_lacked(&self, column: Option<&Column>) -> bool {
        (0..self.cluster.standing.len() as u32).any(|ordinal| {
            self.is_known(ordinal) && column.is_none_or(|column| column.of(ordinal) == MISSING)
        })
    }

    /// Limits hold for all that are there; what is spread is only what stays.
    fn count_what_is_there(&mut self) {
        let neighbours = std::mem::take(&mut self.neighbours);
        // A node that is not known has no attributes, and what is there is out of reach.
        for (ordinal, count) in &neighbours {
            if !self.is_known(*ordinal) {
                continue;
            }
            let limits = &mut self.limits;
            limits
                .iter_mut()
                .for_each(|(_, domain)| domain.count(*ordinal, *count));
        }
        let staying = self.staying.take();
        for (ordinal, count) in staying.as_ref().unwrap_or(&neighbours) {
            if self.is_known(*ordinal) {
                let spreads = self.spreads.iter_mut().chain(&mut self.hosts);
                spreads.for_each(|domain| domain.count(*ordinal, *count));
            }
        }
        self.neighbours = neighbours;
        self.staying = staying;
    }

    fn is_known(&self, ordinal: u32) -> bool {
        self.cluster.standing[ordinal as usize] != Standing::Absent
    }

    fn count_in_domains(&mut self, ordinal: u32, count: u32) {
        let limits = self.limits.iter_mut().map(|(_, domain)| domain);
        for domain in limits.chain(&mut self.spreads).chain(&mut self.hosts) {
            domain.count(ordinal, count);
        }
    }

    /// One more of the service is there.
    pub(crate) fn count(&mut self, ordinal: u32) {
        self.count_in_domains(ordinal, 1);
        match self
            .neighbours
            .binary_search_by_key(&ordinal, |(node, _)| *node)
        {
            Ok(at) => self.neighbours[at].1 += 1,
            Err(at) => self.neighbours.insert(at, (ordinal, 1)),
        }
    }

    /// The same for whoever keeps count of neighbours: only the domains.
    pub(crate) fn count_domains(&mut self, ordinal: u32) {
        self.count_in_domains(ordinal, 1);
    }

    pub(crate) fn ask_service(&self) -> skep_model::id::ServiceId {
        self.ask.service
    }

    pub(crate) fn neighbours_on(&self, ordinal: u32) -> u32 {
        count_on(&self.neighbours, ordinal)
    }

    pub(crate) fn staying_on(&self, ordinal: u32) -> u32 {
        let staying = self.staying.as_ref();
        staying.map_or(0, |staying| count_on(staying, ordinal))
    }

    /// How many of the service that stay are on the node's host; none where hosts are not told apart.
    pub(crate) fn staying_on_host(&self, ordinal: u32) -> u32 {
        let hosts = self.hosts.as_ref();
        hosts.map_or(0, |hosts| hosts.count_of(hosts.value(ordinal)))
    }

    /// The same of a cell, whose nodes are all on the same host then.
    pub(crate) fn staying_on_host_of(&self, cell: &Cell) -> u32 {
        let hosts = self.hosts.as_ref();
        hosts.map_or(0, |hosts| {
            hosts.count_of(cell.values[self.spreads.len() + self.limits.len()])
        })
    }

    /// How many of the service a node or a host may have, with so many more to be placed, before it counts as
    /// crowded: a third, so that whoever loses one keeps most of what it runs. Unlimited where nothing is
    /// said of those that stay.
    pub(crate) fn share(&self, wanted: usize) -> u32 {
        let Some(staying) = &self.staying else {
            return u32::MAX;
        };
        let there: u64 = staying.iter().map(|(_, count)| u64::from(*count)).sum();
        let all = there.saturating_add(wanted as u64);
        u32::try_from(all.div_ceil(APART)).unwrap_or(u32::MAX)
    }

    /// By ordinal: whether no rule refuses the node. What is left there is another question.
    pub(crate) fn allowed(&self) -> Vec<bool> {
        let standing = &self.cluster.standing;
        let mut allowed: Vec<bool> = standing.iter().map(|one| *one == Standing::Ready).collect();
        for rule in &self.rules {
            let by_node = rule.column.map_or(&[][..], Column::by_node);
            let (with, without) = allowed.split_at_mut(by_node.len().min(standing.len()));
            for (allowed, value) in with.iter_mut().zip(by_node) {
                *allowed &= rule.passes[*value as usize];
            }
            if !rule.passes[MISSING as usize] {
                without.fill(false);
            }
        }
        allowed
    }

    /// Every rule that refuses the node. Where its state does, nothing else is asked.
    pub(crate) fn rules_against(&self, ordinal: u32) -> Vec<Reason> {
        let standing = match self.cluster.standing[ordinal as usize] {
            Standing::Ready => None,
            Standing::Cordoned => Some(Reason::Cordoned),
            Standing::Draining => Some(Reason::Draining),
            Standing::RuntimeDown => Some(Reason::RuntimeDown),
            Standing::RuntimeWedged => Some(Reason::RuntimeWedged),
            Standing::Unmeasured => Some(Reason::MemoryUnknown),
            Standing::Lost | Standing::Absent => Some(Reason::Lost),
        };
        // What has its image or data elsewhere cannot run here, whatever becomes of the node.
        let pinned = |rule: &&Rule<'_>| matches!(rule.reason, Reason::Image | Reason::Data);
        if let Some(reason) = standing {
            return vec![reason];
        }
        let refuse = self.rules.iter().filter(|rule| !rule.passes_on(ordinal));
        if let Some(rule) = refuse.clone().find(pinned) {
            return vec![rule.reason];
        }
        refuse.map(|rule| rule.reason).collect()
    }

    /// Every limit and skew that one more there would break.
    pub(crate) fn limits_against(&self, ordinal: u32) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Some((index, most)) = self.per_node
            && self.neighbours_on(ordinal) >= most
        {
            reasons.push(Reason::MaxPer(index));
        }
        for (index, domain) in &self.limits {
            if domain.is_full(domain.value(ordinal)) {
                reasons.push(Reason::MaxPer(*index));
            }
        }
        for (index, domain) in self.spreads.iter().enumerate() {
            if domain.breaks_skew(domain.value(ordinal)) {
                reasons.push(Reason::Skew(index as u8));
            }
        }
        reasons
    }

    /// Everything that too little is left of.
    pub(crate) fn room_against(&self, draft: &Draft<'_>, ordinal: u32) -> Vec<Reason> {
        let (free, needs) = (draft.free(ordinal), self.needs.room);
        let lacks = [
            (needs.cpu_millis > free.cpu_millis, Reason::Cpu),
            (needs.memory_bytes > free.memory_bytes, Reason::Memory),
            (needs.disk_bytes > free.disk_bytes, Reason::Disk),
        ];
        let lacks = lacks.into_iter().filter(|(lacks, _)| *lacks);
        let mut reasons: Vec<Reason> = lacks.map(|(_, reason)| reason).collect();
        let mut device = 0;
        for (named, count) in &self.needs.named {
            let reason = match named {
                Named::Port(port) => Reason::Port(*port),
                Named::DynamicPorts => Reason::DynamicPorts,
                Named::Device(_) => {
                    device += 1;
                    Reason::Device(device - 1)
                }
            };
            if self.named_free(draft, named, ordinal) < *count {
                reasons.push(reason);
            }
        }
        reasons
    }

    pub(crate) fn named_free(&self, draft: &Draft<'_>, named: &Named, ordinal: u32) -> u32 {
        let has = self.cluster.named_capacity(named, ordinal);
        has.saturating_sub(draft.named_used(named, ordinal))
    }

    /// The first reason against a node; none: one more fits there.
    pub(crate) fn refuses(&self, draft: &Draft<'_>, ordinal: u32) -> Option<Reason> {
        let rules = self.rules_against(ordinal).into_iter();
        rules
            .chain(self.limits_against(ordinal))
            .chain(self.room_against(draft, ordinal))
            .next()
    }

    /// Whether enough is left by amount and by name; the same as an empty `room_against`.
    pub(crate) fn has_room(&self, draft: &Draft<'_>, ordinal: u32, free: Room) -> bool {
        let named = &self.needs.named;
        free.covers(self.needs.room)
            && (named.is_empty()
                || named
                    .iter()
                    .all(|(named, count)| self.named_free(draft, named, ordinal) >= *count))
    }

    /// Whether one more of the service may be on a node that has so many of them.
    pub(crate) fn node_takes(&self, neighbours: u32) -> bool {
        self.per_node.is_none_or(|(_, most)| neighbours < most)
    }

    /// Whether a limit closes this node's domain.
    pub(crate) fn is_closed(&self, ordinal: u32) -> bool {
        let mut limits = self.limits.iter();
        limits.any(|(_, domain)| domain.is_full(domain.value(ordinal)))
    }

    /// Whether a limit closes this cell.
    pub(crate) fn is_full(&self, cell: &Cell) -> bool {
        let values = cell.values.iter().skip(self.spreads.len());
        let mut limits = self.limits.iter().zip(values);
        limits.any(|((_, domain), value)| domain.is_full(*value))
    }

    /// What nodes must share to be interchangeable but for themselves: wishes that are broken there,
    /// and the values of every attribute that allocations are counted by.
    pub(crate) fn cell(&self, ordinal: u32) -> Cell {
        let mut cell = Cell {
            broken: self.broken(ordinal),
            values: [MISSING; CELL_VALUES],
        };
        for (slot, domain) in cell.values.iter_mut().zip(self.domains()) {
            *slot = domain.value(ordinal);
        }
        cell
    }

    /// How many values each part of a cell can have.
    pub(crate) fn radix(&self) -> [u64; CELL_VALUES + 1] {
        let mut radix = [1; CELL_VALUES + 1];
        radix[0] = self.wishes.len() as u64 + 1;
        for (slot, domain) in radix[1..].iter_mut().zip(self.domains()) {
            *slot = domain.len() as u64;
        }
        radix
    }

    /// Everything that tells cells apart, in the order of their values.
    fn domains(&self) -> impl Iterator<Item = &Domain<'a>> {
        let limits = self.limits.iter().map(|(_, domain)| domain);
        self.spreads.iter().chain(limits).chain(&self.hosts)
    }

    /// How many wishes a node does not fulfil.
    pub(crate) fn broken(&self, ordinal: u32) -> u32 {
        let wishes = self.wishes.iter();
        wishes.filter(|rule| !rule.passes_on(ordinal)).count() as u32
    }

    /// The constraints that a choice on this node leaves unfulfilled, in words.
    pub(crate) fn broken_wishes(&self, ordinal: u32) -> impl Iterator<Item = &'q Constraint> {
        let broken = self
            .wishes
            .iter()
            .filter(move |rule| !rule.passes_on(ordinal));
        broken.filter_map(|rule| match rule.reason {
            Reason::Constraint(index) => self.ask.placement.constraints.get(usize::from(index)),
            _ => None,
        })
    }

    /// The attributes that are spread over, in the order of the spreads.
    pub(crate) fn spread_keys(&self) -> impl Iterator<Item = &'q str> {
        self.ask.placement.spread.iter().map(|spread| &*spread.key)
    }

    /// The sum of the weights that a node has.
    pub(crate) fn affinity(&self, ordinal: u32) -> i64 {
        let value = |weights: &Weights<'_>| weights.column.map_or(MISSING, |c| c.of(ordinal));
        self.weights
            .iter()
            .map(|weights| weights.by_value[value(weights) as usize])
            .sum()
    }
}

/// Most values that tell cells apart: spreads, limits, and the host.
pub(crate) const CELL_VALUES: usize =
    skep_model::placement::MAX_SPREADS + skep_model::placement::MAX_LIMITS + 1;

/// See [`Lens::cell`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) broken: u32,
    pub(crate) values: [u32; CELL_VALUES],
}

/// How many are on each node that is known, by ordinal, ascending.
fn tally(cluster: &Cluster, nodes: &[NodeId]) -> Vec<(u32, u32)> {
    let mut counts = BTreeMap::new();
    for ordinal in nodes.iter().filter_map(|id| cluster.ordinal(*id)) {
        *counts.entry(ordinal).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn count_on(counts: &[(u32, u32)], ordinal: u32) -> u32 {
    let found = counts.binary_search_by_key(&ordinal, |(node, _)| *node);
    found.map_or(0, |at| counts[at].1)
}

impl Rule<'_> {
    fn passes_on(&self, ordinal: u32) -> bool {
        let value = self.column.map_or(MISSING, |column| column.of(ordinal));
        self.passes[value as usize]
    }
}
