//! The nearest fix, computed from every node: the least room to make, the one rule whose removal
//! lets an allocation in. Says only what would work.

use std::collections::BTreeMap;

use skep_model::id::NodeId;
use skep_model::spec::MIN_MEMORY_BYTES;

use super::words::{cores, mib_down, mib_up, name_of};
use super::{Against, Count};
use crate::cluster::{Candidate, Standing};
use crate::filter::{Ask, Reason};
use crate::room::Room;

/// A ratio of one, where shortfalls of different resources are compared.
const ONE: u128 = 1_000_000;

/// What would help, so far.
pub(super) struct Fixes<'q, 'a> {
    ask: &'q Ask,
    /// The node that no rule is against and that lacks least, and by how much.
    nearest: Option<(u128, Candidate<'a>, Vec<Reason>)>,
    /// Rules that alone keep an allocation off a node with room: on how many, and the first.
    alone: BTreeMap<Reason, (usize, String)>,
}

impl<'q, 'a> Fixes<'q, 'a> {
    pub(super) fn new(ask: &'q Ask) -> Self {
        Self {
            ask,
            nearest: None,
            alone: BTreeMap::new(),
        }
    }

    pub(super) fn consider(&mut self, against: &Against<'a>) {
        match (&against.rules[..], against.room.is_empty()) {
            ([], _) => {
                let missing = missing_parts(self.ask, &against.node);
                let nearest = self.nearest.as_ref();
                if nearest.is_none_or(|(least, ..)| missing < *least) {
                    self.nearest = Some((missing, against.node, against.room.clone()));
                }
            }
            ([rule], true) => {
                let first = || (0, against.node.name.to_owned());
                self.alone.entry(*rule).or_insert_with(first).0 += 1;
            }
            _ => {}
        }
    }

    pub(super) fn hint(
        &self,
        reasons: &[Count],
        (holder, data): (Holder<'_>, Holder<'_>),
    ) -> String {
        let removal = self.removal();
        match (&self.nearest, removal) {
            (Some((_, node, lacks)), removal) => {
                let mut hint = room_hint(self.ask, node, lacks);
                if let Some(removal) = removal {
                    hint.push_str(", or ");
                    hint.push_str(&removal);
                }
                hint
            }
            (None, Some(removal)) => removal,
            (None, None) => match data {
                Some((_, Some(node))) => match self.ask.storage.is_shared() {
                    true => shared_hint(node),
                    false => data_hint(node, reasons),
                },
                Some((id, None)) => format!(
                    "its volumes were only on node {id}, which was removed: join that machine again"
                ),
                None => rule_hint(holder, reasons),
            },
        }
    }

    /// The rule whose removal opens most nodes; those that the service itself states first.
    fn removal(&self) -> Option<String> {
        let alone = self.alone.iter();
        let stated = alone.filter(|(reason, _)| **reason < Reason::Architecture);
        let (reason, (nodes, first)) =
            stated.max_by_key(|(reason, (nodes, _))| (*nodes, std::cmp::Reverse(**reason)))?;
        let rule = name_of(*reason, self.ask);
        let can = match nodes {
            1 => format!("`{first}` could take it then"),
            many => format!("{many} nodes could take it then"),
        };
        Some(match reason {
            Reason::Constraint(_) => format!("remove the constraint `{rule}` ({can})"),
            Reason::Elsewhere => {
                "wait: a move that does not come about is given up in minutes".to_owned()
            }
            Reason::Pool => format!("allow other pools than `{rule}` ({can})"),
            Reason::MaxPer(_) => format!("raise the limit `{rule}` ({can})"),
            _ => format!("widen the skew of `{rule}` ({can})"),
        })
    }
}

/// How much is missing, in millionths of what is needed, all amounts together.
fn missing_parts(ask: &Ask, node: &Candidate<'_>) -> u128 {
    let part = |needs: u64, free: u64| {
        u128::from(needs.saturating_sub(free)) * ONE / u128::from(needs.max(1))
    };
    let (needs, free) = (Room::from(ask.resources), node.free);
    part(needs.cpu_millis, free.cpu_millis)
        + part(needs.memory_bytes, free.memory_bytes)
        + part(needs.disk_bytes, free.disk_bytes)
}

/// One amount that is short: what is needed, free, there at all, and how to lower the request.
struct Short {
    has: Option<String>,
    missing: String,
    lower: Option<String>,
}

fn shortfalls(ask: &Ask, node: &Candidate<'_>) -> Vec<Short> {
    let (needs, free, all) = (Room::from(ask.resources), node.free, node.capacity);
    let mut short = Vec::new();
    if needs.cpu_millis > free.cpu_millis {
        let free = free.cpu_millis;
        short.push(Short {
            has: (needs.cpu_millis > all.cpu_millis).then(|| cores(all.cpu_millis)),
            missing: cores(needs.cpu_millis - free),
            // Only where lowering would do: what is free must be an accepted value.
            lower: (free > 0).then(|| format!("resources.cpu_millis to {free}")),
        });
    }
    let bytes = |name: &str, needs: u64, free: u64, all: u64, least: u64| {
        (needs > free).then(|| Short {
            has: (needs > all).then(|| format!("{} of {name}", mib_down(all))),
            missing: format!("{} of {name}", mib_up(needs - free)),
            lower: (free >= least).then(|| format!("resources.{name}_bytes to {}", mib_down(free))),
        })
    };
    let memory = (needs.memory_bytes, free.memory_bytes, all.memory_bytes);
    short.extend(bytes(
        "memory",
        memory.0,
        memory.1,
        memory.2,
        MIN_MEMORY_BYTES,
    ));
    let disk = (needs.disk_bytes, free.disk_bytes, all.disk_bytes);
    short.extend(bytes("disk", disk.0, disk.1, disk.2, 1 << 20));
    short
}

/// What would make room on the node that lacks least.
fn room_hint(ask: &Ask, node: &Candidate<'_>, lacks: &[Reason]) -> String {
    let name = node.name;
    let short = shortfalls(ask, node);
    let has: Vec<&str> = short.iter().filter_map(|one| one.has.as_deref()).collect();
    let mut steps: Vec<String> = Vec::new();
    if !short.is_empty() {
        let missing: Vec<&str> = short.iter().map(|one| &*one.missing).collect();
        let make_room = match (has.is_empty(), ask.only_on) {
            (true, _) => format!("free {} on `{name}`", missing.join(" and ")),
            (false, None) => format!("add a larger node (`{name}` has {})", has.join(" and ")),
            (false, Some(_)) => format!(
                "make `{name}` larger, which alone has the image (it has {})",
                has.join(" and ")
            ),
        };
        let lower = short.iter().map(|one| one.lower.as_deref());
        steps.push(match lower.collect::<Option<Vec<&str>>>() {
            Some(lower) => format!("{make_room}, or lower {}", lower.join(" and ")),
            None => make_room,
        });
    }
    for reason in lacks {
        let rule = name_of(*reason, ask);
        match reason {
            Reason::Device(_) => steps.push(format!("add a node with enough free `{rule}`")),
            Reason::Port(port) => {
                steps.push(format!("free port {port} on a node, or choose another"));
            }
            Reason::DynamicPorts => steps.push(format!("ask for fewer ports than on `{name}`")),
            _ => {}
        }
    }
    steps.join(", and ")
}

/// What would help where the node that has the volumes is refused by a rule.
fn data_hint(node: Candidate<'_>, reasons: &[Count]) -> String {
    let name = node.name;
    match node.standing {
        Standing::Lost | Standing::Absent | Standing::RuntimeDown => format!(
            "its volumes are on `{name}`, which is down: bring `{name}` back, or restore a backup elsewhere"
        ),
        Standing::RuntimeWedged => {
            format!("its volumes are on `{name}`, whose Docker hangs: restart Docker there")
        }
        Standing::Unmeasured => format!(
            "its volumes are on `{name}`: start the agent there with --memory, or mount lxcfs there"
        ),
        Standing::Cordoned => format!(
            "its volumes are on `{name}`: make that eligible again, `skep node uncordon {name}`"
        ),
        Standing::Draining => {
            format!("its volumes are on `{name}`: end the drain of it, the volumes do not move")
        }
        Standing::Ready => {
            let rules = reasons.iter().filter(|count| count.reason != Reason::Data);
            let rules: Vec<&str> = rules.map(|count| &*count.rule).collect();
            let rules = rules.join("`, `");
            format!("its volumes are on `{name}`: change the rules that keep it off it (`{rules}`)")
        }
    }
}

/// What would help where the node that has the volumes in use is refused by a rule.
fn shared_hint(node: Candidate<'_>) -> String {
    let name = node.name;
    match node.standing {
        Standing::Lost => format!(
            "its volumes are in use on `{name}`, which is lost and not confirmed dead: make sure that it is off, then \
             `skep node fence {name} --confirm`"
        ),
        _ => format!(
            "its volumes are in use on `{name}`: they go elsewhere once what uses them has ended there"
        ),
    }
}

/// A node that alone has something, where it is known.
type Holder<'a> = Option<(NodeId, Option<Candidate<'a>>)>;

/// What would help where every node is refused by a rule, and not by one alone.
fn rule_hint(holder: Holder<'_>, reasons: &[Count]) -> String {
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
    let Some(count) = reasons.first() else {
        return "join a node to the cluster".to_owned();
    };
    let (best, rule) = (&count.best, &count.rule);
    match count.reason {
        Reason::RuntimeDown => format!("start Docker on `{best}`"),
        Reason::RuntimeWedged => format!("restart Docker on `{best}`"),
        Reason::MemoryUnknown => {
            format!("start the agent on `{best}` with --memory, or mount lxcfs there")
        }
        Reason::Lost => format!("start the agent on `{best}`"),
        Reason::Cordoned => format!("make `{best}` eligible again: `skep node uncordon {best}`"),
        Reason::Draining => format!("end the drain of `{best}`, or add a node"),
        Reason::Pool => format!("add a node to pool `{rule}`"),
        Reason::Constraint(_) => format!("add a node that fulfils `{rule}`, or change the rule"),
        Reason::MaxPer(_) => format!("add a node, or raise the limit `{rule}`"),
        Reason::Skew(_) => format!("make room where `{rule}` is behind, or widen its skew"),
        Reason::Architecture => format!("add a node of the architecture {rule}"),
        Reason::PrivateNetwork => format!("switch on the private network of `{best}`"),
        Reason::Workspace => {
            format!("name the workspace in the metadata `workspaces` of `{best}`")
        }
        Reason::Builds => {
            format!(
                "add a node of another pool, or `skep pool set POOL --builds also` for that of `{best}`"
            )
        }
        Reason::Storage => format!("upgrade the agent on `{best}`"),
        Reason::HostPath(_) => format!(
            "start the agent of a node that has it with `--allow-host-path {rule}`, or ask for another path"
        ),
        Reason::SharedStorage(_) => format!(
            "mount it on a node and start the agent there with `--shared-storage {rule}=DIR`"
        ),
        _ => "add a node".to_owned(),
    }
}
