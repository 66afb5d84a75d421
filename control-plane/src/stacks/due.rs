//! Whose file is read when, and what a node is asked.

use std::hash::{DefaultHasher, Hash, Hasher};

use skep_model::id::NodeId;
use skep_model::stack::Stack;
use skep_state::State;

use crate::deploy::queue;

/// Pause after a question that nobody answered, in ms.
pub(crate) const RETRY_MS: u64 = 10_000;

/// Least pause between two questions, in ms: pushes come in swarms.
pub(crate) const PACE_MS: u64 = 500;

/// What this server remembers of a stack for as long as it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Memory {
    /// When it was asked last; none: not by this leader.
    pub(crate) asked_ms: Option<u64>,
    /// A question is under way.
    pub(crate) is_asking: bool,
    /// Questions without an answer since the last one that had one.
    pub(crate) unheard: usize,
    /// It has the file of the reading that is carried out.
    pub(crate) has_file: bool,
}

/// When a stack's file is read next, ms since the epoch; none: when something happens.
pub(crate) fn at_ms(stack: &Stack, memory: Memory, began_ms: u64) -> Option<u64> {
    if memory.is_asking {
        return None;
    }
    if memory.unheard > 0 {
        return Some(memory.asked_ms.unwrap_or(0) + RETRY_MS);
    }
    let again = |pause_ms| memory.asked_ms.map_or(0, |it| it + pause_ms);
    if stack.asked > stack.answered {
        return Some(again(PACE_MS));
    }
    if goes_on(stack, memory) {
        return Some(again(RETRY_MS));
    }
    let every_ms = stack.settings.poll_every_ms()?;
    Some(memory.asked_ms.unwrap_or(began_ms) + every_ms)
}

/// Whether the tip of the branch need not be read where it is the commit that was seen.
pub(crate) fn is_poll(stack: &Stack, memory: Memory) -> bool {
    stack.asked <= stack.answered && !goes_on(stack, memory)
}

/// Another leader was carrying a file out, and this one has not read it yet.
fn goes_on(stack: &Stack, memory: Memory) -> bool {
    let reading = stack.reading.as_ref();
    reading.is_some_and(|it| it.end.is_none()) && !memory.has_file
}

/// The node that is asked: the same one for the same repository as long as there are the same and it answers.
pub(crate) fn node_for(view: &State, stack: &Stack, memory: Memory) -> Option<NodeId> {
    let sites = queue::sites(view);
    if sites.is_empty() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    stack.settings.repository.hash(&mut hasher);
    let first = usize::try_from(hasher.finish() % sites.len() as u64).unwrap_or(0);
    let at = first.wrapping_add(memory.unheard) % sites.len();
    sites.get(at).map(|site| site.node)
}
