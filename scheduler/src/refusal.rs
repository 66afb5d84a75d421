//! Why no node can take an allocation, counted per reason, with the nearest fix. Owns the words of
//! every refusal; never decides.

use std::collections::BTreeMap;
use std::fmt;

use skep_model::id::NodeId;
use skep_model::problem::{Code, Problem};
use skep_model::spec::MIN_MEMORY_BYTES;

use crate::cluster::Candidate;
use crate::draft::Draft;
use crate::filter::{Ask, Filter, Reason};

/// A ratio of one, where shortfalls of different resources are compared.
const ONE: u128 = 1_000_000;

/// One reason and the nodes it holds for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Why.
    pub reason: Reason,
    /// On how many nodes. A node that lacks both CPU and memory counts for both.
    pub nodes: usize,
    /// The node nearest to being able: the one with the most free, else the first by id.
    pub best: String,
    /// What is free there of the lacking resource: thousandths of a core, or bytes; else 0.
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

impl Refusal {
    /// Asks every node once more and counts. Only for an ask that no node can take.
    pub(crate) fn explain(draft: &Draft<'_>, ask: &Ask) -> Self {
        let mut reasons = BTreeMap::new();
        let mut nearest: Option<(u128, Candidate<'_>)> = None;
        let mut nodes = 0;
        for node in draft.nodes() {
            nodes += 1;
            let rule = Filter::RULES
                .iter()
                .find_map(|filter| filter.check(ask, &node));
            if let Some(reason) = rule {
                count(&mut reasons, reason, ask, &node);
                continue;
            }
            for reason in Filter::ROOM
                .iter()
                .filter_map(|filter| filter.check(ask, &node))
            {
                count(&mut reasons, reason, ask, &node);
            }
            let missing = missing_parts(ask, &node);
            if nearest.is_none_or(|(least, _)| missing < least) {
                nearest = Some((missing, node));
            }
        }
        let reasons: Vec<Count> = reasons.into_values().collect();
        let hint = match nearest {
            Some((_, node)) => room_hint(ask, &node),
            None => rule_hint(ask.only_on.map(|id| (id, draft.node(id))), &reasons),
        };
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

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, best) = (self.nodes, &self.best);
        let is_one = nodes == 1;
        let subject = if is_one {
            "1 node".to_owned()
        } else {
            format!("{nodes} nodes")
        };
        match self.reason {
            Reason::Cpu | Reason::Memory => {
                let lacks = if is_one { "lacks" } else { "lack" };
                let (what, needs, free) = match self.reason {
                    Reason::Cpu => ("CPU", cores(self.needs), cores(self.free)),
                    _ => ("memory", mib_up(self.needs), mib_down(self.free)),
                };
                write!(
                    f,
                    "{subject} {lacks} {what}: needs {needs}, {free} free on `{best}`"
                )?;
                f.write_str(if is_one { "" } else { " (best)" })
            }
            Reason::Image if is_one => {
                write!(f, "1 node cannot get the image (`{best}`)")
            }
            Reason::Image => write!(f, "{nodes} nodes cannot get the image"),
            Reason::RuntimeDown if is_one => write!(f, "1 node has no working Docker (`{best}`)"),
            Reason::RuntimeDown => write!(f, "{nodes} nodes have no working Docker"),
            Reason::Lost if is_one => write!(f, "1 node is lost (`{best}`)"),
            Reason::Lost => write!(f, "{nodes} nodes are lost"),
        }
    }
}

fn count(reasons: &mut BTreeMap<Reason, Count>, reason: Reason, ask: &Ask, node: &Candidate<'_>) {
    let (needs, free) = match reason {
        Reason::Cpu => (ask.resources.cpu_millis.into(), node.free.cpu_millis),
        Reason::Memory => (ask.resources.memory_bytes, node.free.memory_bytes),
        Reason::Image | Reason::RuntimeDown | Reason::Lost => (0, 0),
    };
    let entry = reasons.entry(reason).or_insert_with(|| Count {
        reason,
        nodes: 0,
        best: node.name.to_owned(),
        free,
        needs,
    });
    entry.nodes += 1;
    if free > entry.free {
        entry.best = node.name.to_owned();
        entry.free = free;
    }
}

/// How much is missing, in millionths of what is needed, CPU and memory together.
fn missing_parts(ask: &Ask, node: &Candidate<'_>) -> u128 {
    let part = |needs: u64, free: u64| {
        u128::from(needs.saturating_sub(free)) * ONE / u128::from(needs.max(1))
    };
    part(ask.resources.cpu_millis.into(), node.free.cpu_millis)
        + part(ask.resources.memory_bytes, node.free.memory_bytes)
}

/// What would make room on the node that lacks least.
fn room_hint(ask: &Ask, node: &Candidate<'_>) -> String {
    let name = node.name;
    let (mut has, mut missing, mut lower) = (Vec::new(), Vec::new(), Vec::new());
    let (needs, free, capacity) = (
        u64::from(ask.resources.cpu_millis),
        node.free.cpu_millis,
        node.capacity.cpu_millis,
    );
    if needs > free {
        has.extend((needs > capacity).then(|| cores(capacity)));
        missing.push(cores(needs - free));
        lower.push((free > 0).then(|| format!("resources.cpu_millis to {free}")));
    }
    let (needs, free, capacity) = (
        ask.resources.memory_bytes,
        node.free.memory_bytes,
        node.capacity.memory_bytes,
    );
    if needs > free {
        has.extend((needs > capacity).then(|| format!("{} of memory", mib_down(capacity))));
        missing.push(format!("{} of memory", mib_up(needs - free)));
        let text = || format!("resources.memory_bytes to {}", mib_down(free));
        lower.push((free >= MIN_MEMORY_BYTES).then(text));
    }
    let make_room = match (has.is_empty(), ask.only_on) {
        (true, _) => format!("free {} on `{name}`", missing.join(" and ")),
        (false, None) => format!("add a larger node (`{name}` has {})", has.join(" and ")),
        (false, Some(_)) => format!(
            "make `{name}` larger, which alone has the image (it has {})",
            has.join(" and ")
        ),
    };
    // Only where lowering would do: what is free must be an accepted value.
    match lower.into_iter().collect::<Option<Vec<String>>>() {
        Some(lower) => format!("{make_room}, or lower {}", lower.join(" and ")),
        None => make_room,
    }
}

/// What would help where every node is refused by a rule.
fn rule_hint(holder: Option<(NodeId, Option<Candidate<'_>>)>, reasons: &[Count]) -> String {
    match holder {
        Some((_, Some(node))) => {
            return format!(
                "bring back `{}`, which alone has the image, or deploy again to build elsewhere",
                node.name
            );
        }
        Some((id, None)) => {
            return format!(
                "the image was only on node {id}, which was removed: deploy again to build it anew"
            );
        }
        None => {}
    }
    match reasons.iter().find(|count| count.reason != Reason::Image) {
        Some(count) if count.reason == Reason::RuntimeDown => {
            format!("start Docker on `{}`", count.best)
        }
        Some(count) => format!("start the agent on `{}`", count.best),
        None => "join a node to the cluster".to_owned(),
    }
}

/// Thousandths as cores: `1.5 cores`.
fn cores(millis: u64) -> String {
    let unit = if millis == 1_000 { "core" } else { "cores" };
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} {unit}")
}

/// Rounded up: what is needed or missing.
fn mib_up(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Rounded down: what there is. So the two differ wherever something is missing.
fn mib_down(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well_and_never_hide_a_shortfall() {
        assert_eq!(cores(1_000), "1 core");
        assert_eq!(cores(1_500), "1.5 cores");
        assert_eq!(cores(50), "0.05 cores");
        assert_eq!(cores(20_000), "20 cores");
        assert_eq!(
            (mib_up((1 << 20) + 1), mib_down((2 << 20) - 1)),
            ("2 MiB".into(), "1 MiB".into())
        );
    }
}
