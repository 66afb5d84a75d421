//! Who votes: the next step from the membership that is to the one that is wanted.
//!
//! Owns the rules, as a pure function; whoever leads calls it again after every change. Never
//! proposes anything itself, and knows servers by their member ids only.
//!
//! The number of voters is odd: an even group tolerates no more losses than the odd one below it
//! and needs one more vote. It is even only while the leader itself is replaced in a group of one.

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use std::collections::BTreeSet;

/// More voters make every write wait for more disks; further servers stay learners.
pub const MAX_VOTERS: usize = 5;

/// The next step.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// The membership is as wanted.
    Nothing,
    /// Something must happen first.
    Wait(String),
    /// Propose this; it takes effect at once or, as a joint change, in two entries.
    Change(ConfChangeV2),
    /// The leader is to go: hand leadership over, then the next leader plans on.
    TransferFirst {
        /// To this voter, which stays.
        to: u64,
    },
}

/// Plans one step. `wanted` are the members that there should be, `caught_up` those (voters too)
/// that are active and have nearly all of the log.
pub fn plan(wanted: &[u64], leader: u64, current: &ConfState, caught_up: &BTreeSet<u64>) -> Plan {
    if !current.voters_outgoing.is_empty() || current.auto_leave {
        return Plan::Wait("a change of members is under way".to_owned());
    }
    let wanted: BTreeSet<u64> = wanted.iter().copied().collect();
    if wanted.is_empty() {
        return Plan::Wait("no members are wanted, and a group of none is none".to_owned());
    }
    let voters: BTreeSet<u64> = current.voters.iter().copied().collect();
    let learners: BTreeSet<u64> = current.learners.iter().copied().collect();
    let known = &voters | &learners;
    if let Some(id) = (&wanted - &known).first() {
        return change(&[(*id, ConfChangeType::AddLearnerNode)]);
    }
    if let Some(id) = (&learners - &wanted).first() {
        return change(&[(*id, ConfChangeType::RemoveNode)]);
    }
    let mut up = caught_up.clone();
    up.insert(leader);
    plan_voters(&Group {
        wanted,
        leader,
        voters,
        learners,
        up,
    })
}

struct Group {
    wanted: BTreeSet<u64>,
    leader: u64,
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    /// Active, with nearly all of the log; the leader always is.
    up: BTreeSet<u64>,
}

fn plan_voters(group: &Group) -> Plan {
    let Group {
        wanted,
        leader,
        voters,
        learners,
        up,
    } = group;
    let target = odd_at_most(wanted.len().min(MAX_VOTERS));
    let staying = voters & wanted;
    let promotable = &(learners & wanted) & up;
    let reachable = odd_at_most(target.min(staying.len() + promotable.len()));
    let is_enough = reachable == target
        || reachable > voters.len()
        || (reachable == voters.len() && staying != *voters);
    if !is_enough {
        return Plan::Wait(format!(
            "{target} of {} servers are to vote, and {} not caught up yet",
            wanted.len(),
            list(&(&(wanted - voters) - up), "is", "are")
        ));
    }
    let next = choose(group, &staying, &promotable, reachable);
    if next == *voters {
        return Plan::Nothing;
    }
    if !next.contains(leader) {
        return replace_leader(group, next);
    }
    step_to(group, &next)
}

fn step_to(group: &Group, next: &BTreeSet<u64>) -> Plan {
    let Group {
        wanted, voters, up, ..
    } = group;
    let present = (next & up).len();
    if present <= next.len() / 2 {
        return Plan::Wait(format!(
            "of the {} servers that would vote then, {} not active or not caught up: a majority \
             must be",
            next.len(),
            list(&(next - up), "is", "are")
        ));
    }
    let mut steps: Vec<(u64, ConfChangeType)> = Vec::new();
    steps.extend(
        (next - voters)
            .iter()
            .map(|id| (*id, ConfChangeType::AddNode)),
    );
    for id in voters - next {
        let kind = match wanted.contains(&id) {
            true => ConfChangeType::AddLearnerNode,
            false => ConfChangeType::RemoveNode,
        };
        steps.push((id, kind));
    }
    change(&steps)
}

/// The voters of the next membership: those that vote already come first, the leader before all,
/// the active before the others, and the lower id decides.
fn choose(
    group: &Group,
    staying: &BTreeSet<u64>,
    promotable: &BTreeSet<u64>,
    count: usize,
) -> BTreeSet<u64> {
    let mut candidates: Vec<u64> = (staying | promotable).into_iter().collect();
    candidates.sort_by_key(|id| {
        (
            *id != group.leader,
            !staying.contains(id),
            !group.up.contains(id),
            *id,
        )
    });
    candidates.into_iter().take(count).collect()
}

/// The leader is not to vote any more, and must not lead a group in which it has no vote.
fn replace_leader(group: &Group, mut next: BTreeSet<u64>) -> Plan {
    let staying = &next & &group.voters;
    if let Some(&to) = (&staying & &group.up).first() {
        return Plan::TransferFirst { to };
    }
    let promoted = (&next & &group.up).first().copied();
    match promoted {
        // All others are new: the leader keeps its vote in place of the last of them.
        Some(_) if group.voters.len() > 1 && staying.is_empty() => {
            next.pop_last();
            next.insert(group.leader);
            step_to(group, &next)
        }
        Some(id) if group.voters.len() == 1 => change(&[(id, ConfChangeType::AddNode)]),
        _ => {
            let reason = "the leader is to go, and no other server is active and caught up";
            Plan::Wait(reason.to_owned())
        }
    }
}

/// The changes, one after the other, after which `id` is the only member: what remains to be done
/// when all others are lost for good. None of them asks anybody else.
pub fn make_sole(id: u64, current: &ConfState) -> Vec<ConfChangeV2> {
    let mut changes = Vec::new();
    if !current.voters_outgoing.is_empty() {
        // Leaving a joint change is a change without content.
        changes.push(ConfChangeV2::default());
    }
    if !current.voters.contains(&id) {
        changes.push(of_steps(&[(id, ConfChangeType::AddNode)]));
    }
    let all = [
        &current.voters,
        &current.learners,
        &current.voters_outgoing,
        &current.learners_next,
    ];
    let others: BTreeSet<u64> = all.into_iter().flatten().copied().collect();
    for other in others.into_iter().filter(|other| *other != id) {
        changes.push(of_steps(&[(other, ConfChangeType::RemoveNode)]));
    }
    changes
}

fn odd_at_most(count: usize) -> usize {
    match count {
        0 => 0,
        even if even % 2 == 0 => even - 1,
        odd => odd,
    }
}

/// One step alone takes effect at once; several enter a joint membership that is left by itself.
fn change(steps: &[(u64, ConfChangeType)]) -> Plan {
    Plan::Change(of_steps(steps))
}

fn of_steps(steps: &[(u64, ConfChangeType)]) -> ConfChangeV2 {
    let changes: Vec<ConfChangeSingle> = steps
        .iter()
        .map(|&(node_id, kind)| {
            let mut single = ConfChangeSingle {
                node_id,
                ..ConfChangeSingle::default()
            };
            single.set_change_type(kind);
            single
        })
        .collect();
    ConfChangeV2 {
        changes: changes.into(),
        ..ConfChangeV2::default()
    }
}

fn list(ids: &BTreeSet<u64>, one: &str, many: &str) -> String {
    let names: Vec<String> = ids.iter().map(u64::to_string).collect();
    let verb = if ids.len() == 1 { one } else { many };
    format!("member {} {verb}", names.join(", "))
}

#[cfg(test)]
mod tests;
