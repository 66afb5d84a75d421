//! Why no node can take an allocation, counted per reason, with the nearest fix. Owns the words of
//! every refusal; never decides.

mod fix;
mod words;

use std::collections::BTreeMap;
use std::fmt;

use skep_model::problem::{Code, Problem};

use crate::cluster::Candidate;
use crate::draft::Draft;
use crate::filter::{Ask, Reason};
use crate::lens::Lens;
use crate::room::Named;

pub(crate) use words::{cores, mib_down, mib_up, name_of};

/// One reason and the nodes it holds for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Why.
    pub reason: Reason,
    /// The constraint, pool, device or limit, as it was written; empty where the reason says it all.
    pub rule: String,
    /// On how many nodes. A node that lacks both CPU and memory counts for both.
    pub nodes: usize,
    /// The node nearest to being able: the one with the most free, else the first by id.
    pub best: String,
    /// What is free there of the lacking resource: thousandths of a core, bytes, pieces; else 0.
    pub free: u64,
    /// What is needed of it.
    pub needs: u64,
}

/// No node can take an allocation: the reasons and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How many nodes were asked.
    pub nodes: usize,
    /// Every reason, what a setting can remedy first; empty only where there are no nodes.
    pub reasons: Vec<Count>,
    /// The nearest fix.
    pub hint: String,
}

/// What is against one node, in two parts: where a rule or a limit says no, what is left does not
/// matter to the count, but it does to the fix.
pub(crate) struct Against<'a> {
    pub(crate) node: Candidate<'a>,
    pub(crate) rules: Vec<Reason>,
    pub(crate) room: Vec<Reason>,
}

impl Refusal {
    /// Asks every node once more and counts. Only for an ask that no node can take.
    pub(crate) fn explain(draft: &Draft<'_>, ask: &Ask) -> Self {
        let lens = Lens::new(draft, ask);
        let cluster = draft.cluster();
        let mut reasons = BTreeMap::new();
        let mut fixes = fix::Fixes::new(ask);
        let mut nodes = 0;
        for node in draft.nodes() {
            let Some(ordinal) = cluster.ordinal(node.id) else {
                continue;
            };
            nodes += 1;
            let against = against(&lens, draft, ordinal, node);
            let counted = if against.rules.is_empty() {
                &against.room
            } else {
                &against.rules
            };
            for reason in counted {
                let amounts = amounts(&lens, draft, ordinal, *reason);
                count(&mut reasons, *reason, ask, (node.name, amounts));
            }
            fixes.consider(&against);
        }
        let reasons: Vec<Count> = reasons.into_values().collect();
        let holder = ask.only_on.map(|id| (id, draft.node(id)));
        let data = ask.around.data_on.map(|id| (id, draft.node(id)));
        let hint = fixes.hint(&reasons, (holder, data));
        Self {
            nodes,
            reasons,
            hint,
        }
    }

    /// For people and programs.
    pub fn problem(&self) -> Problem {
        let message = format!("no node can take the allocation: {self}");
        Problem::new(Code::Unplaceable, message).hint(&self.hint)
    }
}

/// One reason of one node, in words.
pub(crate) fn say(reason: Reason, ask: &Ask, name: &str, (needs, free): (u64, u64)) -> String {
    let count = Count {
        reason,
        rule: name_of(reason, ask),
        nodes: 1,
        best: name.to_owned(),
        free,
        needs,
    };
    count.to_string()
}

/// Everything that is against a node.
pub(crate) fn against<'a>(
    lens: &Lens<'_, '_>,
    draft: &Draft<'_>,
    ordinal: u32,
    node: Candidate<'a>,
) -> Against<'a> {
    let mut rules = lens.rules_against(ordinal);
    rules.extend(lens.limits_against(ordinal));
    if let Some(state) = rules
        .iter()
        .copied()
        .find(|reason| *reason >= Reason::Image)
    {
        rules = vec![state];
    }
    let room = lens.room_against(draft, ordinal);
    Against { node, rules, room }
}

/// What is needed and what is free of what a reason is about.
pub(crate) fn amounts(
    lens: &Lens<'_, '_>,
    draft: &Draft<'_>,
    ordinal: u32,
    reason: Reason,
) -> (u64, u64) {
    let (needs, free) = (lens.needs.room, draft.free(ordinal));
    let devices = || {
        let named = lens.needs.named.iter();
        named.filter(|(named, _)| matches!(named, Named::Device(_)))
    };
    let named = |named: &(Named, u32)| {
        let free = lens.named_free(draft, &named.0, ordinal);
        (named.1.into(), free.into())
    };
    match reason {
        Reason::Cpu => (needs.cpu_millis, free.cpu_millis),
        Reason::Memory => (needs.memory_bytes, free.memory_bytes),
        Reason::Disk => (needs.disk_bytes, free.disk_bytes),
        Reason::Device(index) => devices().nth(index.into()).map_or((0, 0), named),
        Reason::DynamicPorts => {
            let mut all = lens.needs.named.iter();
            let ports = all.find(|(named, _)| *named == Named::DynamicPorts);
            ports.map_or((0, 0), named)
        }
        Reason::Port(_) => (1, 0),
        _ => (0, 0),
    }
}

fn count(
    reasons: &mut BTreeMap<Reason, Count>,
    reason: Reason,
    ask: &Ask,
    (name, (needs, free)): (&str, (u64, u64)),
) {
    let entry = reasons.entry(reason).or_insert_with(|| Count {
        reason,
        rule: name_of(reason, ask),
        nodes: 0,
        best: name.to_owned(),
        free,
        needs,
    });
    entry.nodes += 1;
    if free > entry.free {
        entry.best = name.to_owned();
        entry.free = free;
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("the cluster has no nodes");
        }
        for (index, count) in self.reasons.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "; " })?;
            count.fmt(f)?;
        }
        Ok(())
    }
}
