//! The decision: what is done next with one guest. Pure; the same record and the same look give the same step.

use skep_model::pool::{Guest, Note, Phase, Recipe, Restoring};

use crate::introduce;
use crate::resize;
use crate::seen::{Facts, Presence, Seen};
use crate::wanted;

/// How long a clone whose answer was lost may still come about: their own limit for a request is 30 s, and a task that waits
/// for a lock gives up after some minutes.
pub(crate) const LOST_ANSWER_MS: u64 = 10 * 60 * 1_000;
/// How long a guest that was introduced is waited for, before it is introduced anew: its system starts the agent, which
/// examines the machine and joins.
pub const INTRODUCED_MS: u64 = 2 * 60 * 1_000;

/// What is asked of Proxmox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Clone the template of the guest's host under its number.
    Clone,
    /// Make its configuration what the recipe says.
    Configure,
    /// Make its disk as large as it is to be.
    Resize,
    /// Give it the processors and the memory that it is to have.
    Reshape,
    /// Start it.
    Start,
    /// Tell it how to join ([`crate::Driver::introduce`]).
    Introduce,
    /// Take what it was told out of its configuration: the token in it has served.
    Forget,
    /// Ask it for its address.
    FindAddress,
    /// End what runs in it, then it.
    ShutDown,
    /// Remove it with its disks.
    Remove,
    /// Make it what a copy of it holds.
    Restore,
}

/// What is done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Host and number are chosen, and written down before they are used.
    Choose,
    /// This is written down.
    Record(Note),
    /// This is asked of Proxmox, on the host where the guest is.
    Ask(Ask),
    /// The guest runs: it is told how to join, once that is written down.
    Introduce,
    /// Nothing: this has to change first.
    Wait(String),
    /// Nothing is left to do.
    Done,
}

/// Decides.
pub fn next(recipe: &Recipe, guest: &Guest, seen: &Seen, now_ms: u64) -> Step {
    match guest.phase {
        Phase::Gone => Step::Done,
        Phase::Planned => Step::Choose,
        Phase::Leaving => leave(recipe, guest, seen, now_ms),
        Phase::Cloning | Phase::Configuring | Phase::Starting | Phase::Ready => {
            come(recipe, guest, seen, now_ms)
        }
    }
}

/// Towards a guest that its node runs in.
fn come(recipe: &Recipe, guest: &Guest, seen: &Seen, now_ms: u64) -> Step {
    let facts = match &seen.presence {
        Presence::Unknown(why) => return Step::Wait(why.clone()),
        // Its configuration is being replaced.
        Presence::Absent | Presence::Foreign if guest.restoring.is_some() && seen.is_busy => {
            return Step::Wait("it is becoming a copy of itself".to_owned());
        }
        Presence::Absent | Presence::Foreign if guest.identity.is_some() => {
            // Somebody has removed it; its number may be another's by now.
            return Step::Record(Note::Gone);
        }
        Presence::Absent if seen.is_busy => return Step::Wait("it is being made".to_owned()),
        Presence::Absent => return Step::Ask(Ask::Clone),
        Presence::Foreign => return Step::Choose,
        Presence::Ours(facts) => facts,
    };
    if let Some(why) = held(facts, seen) {
        return Step::Wait(why);
    }
    if guest.identity.is_none() {
        return match facts.identity() {
            Some(identity) => Step::Record(Note::Identified(identity)),
            None => Step::Wait("it has no interface yet".to_owned()),
        };
    }
    if let Some(restoring) = &guest.restoring {
        return become_copy(recipe, guest, (restoring, facts));
    }
    if let Some(resizing) = guest.resizing.as_ref().filter(|it| it.done_ms.is_none()) {
        return resize::next((recipe, guest), resizing, facts, now_ms);
    }
    match guest.phase {
        Phase::Cloning | Phase::Configuring if facts.is_running => Step::Record(Note::Started),
        Phase::Cloning | Phase::Configuring => prepare(recipe, guest, facts),
        Phase::Starting if !facts.is_running => Step::Ask(Ask::Start),
        Phase::Starting if is_to_be_introduced(guest, now_ms) => Step::Introduce,
        Phase::Starting if guest.address.is_none() => Step::Ask(Ask::FindAddress),
        Phase::Starting => Step::Wait("its agent has not joined yet".to_owned()),
        _ if introduce::is_remembered(facts) => Step::Ask(Ask::Forget),
        // What is not there is its node's matter from now on.
        _ => Step::Done,
    }
}

/// Towards a guest that is what a copy of it holds.
fn become_copy(recipe: &Recipe, guest: &Guest, (restoring, facts): (&Restoring, &Facts)) -> Step {
    let archive = || restoring.archive.clone();
    match (restoring.is_back, facts.is_running) {
        (true, _) if facts.is_another => Step::Record(Note::NotBack(archive())),
        (false, true) => Step::Ask(Ask::ShutDown),
        (false, false) => Step::Ask(Ask::Restore),
        // The copy may be of when it had another size.
        (true, false) => match resize::lacks(recipe, guest, facts) {
            Some(ask) => Step::Ask(ask),
            None => Step::Ask(Ask::Start),
        },
        // Somebody was faster than we: a person, or high availability.
        (true, true) => match resize::lacks_running(recipe, guest, facts) {
            Some(ask) => Step::Ask(ask),
            None => Step::Record(Note::Restored(archive())),
        },
    }
}

/// Nobody has told it how to join, or that was not heard, or came to nothing.
fn is_to_be_introduced(guest: &Guest, now_ms: u64) -> bool {
    let since = guest.introduced_ms;
    since.is_none_or(|since| now_ms.saturating_sub(since) >= INTRODUCED_MS)
}

fn prepare(recipe: &Recipe, guest: &Guest, facts: &Facts) -> Step {
    if wanted::differs(recipe, guest, facts) {
        return Step::Ask(Ask::Configure);
    }
    match facts.disk_gib(&recipe.disk) {
        None => Step::Wait(format!("its template has no disk `{}`", recipe.disk)),
        Some(gib) if gib < recipe.disk_gib => Step::Ask(Ask::Resize),
        Some(_) => Step::Ask(Ask::Start),
    }
}

/// Towards nothing.
fn leave(recipe: &Recipe, guest: &Guest, seen: &Seen, now_ms: u64) -> Step {
    let facts = match &seen.presence {
        Presence::Unknown(why) => return Step::Wait(why.clone()),
        Presence::Absent | Presence::Foreign => return absent(guest, seen, now_ms),
        Presence::Ours(facts) => facts,
    };
    if let Some(why) = held(facts, seen) {
        return Step::Wait(why);
    }
    if facts.resource_pool.as_deref() != Some(recipe.resource_pool.as_str()) {
        return Step::Wait(format!(
            "it is not in the Proxmox pool `{}`: whoever moved it removes it",
            recipe.resource_pool
        ));
    }
    if facts.config.is_protected() {
        return Step::Wait("it is marked as protected in Proxmox".to_owned());
    }
    match facts.is_running {
        true => Step::Ask(Ask::ShutDown),
        false => Step::Ask(Ask::Remove),
    }
}

/// It is not there. Where it was never seen, a clone that nobody has heard the answer of may still come about.
fn absent(guest: &Guest, seen: &Seen, now_ms: u64) -> Step {
    let was_seen = guest.identity.is_some();
    let is_late = guest
        .asked_ms
        .is_none_or(|asked| now_ms.saturating_sub(asked) >= LOST_ANSWER_MS);
    match was_seen || (is_late && !seen.is_busy) {
        true => Step::Record(Note::Gone),
        false => Step::Wait("it may still be made: a call's answer was not heard".to_owned()),
    }
}

fn held(facts: &Facts, seen: &Seen) -> Option<String> {
    match &facts.lock {
        Some(lock) => Some(format!("it is locked ({lock})")),
        None if seen.is_busy => Some("a task about it runs".to_owned()),
        None => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
