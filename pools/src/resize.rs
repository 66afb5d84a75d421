//! How a guest becomes another size. Pure: what its configuration says, and what of that is in effect, decide what is left to
//! be done, so that whoever goes on after a crash does each thing once.
//!
//! A disk grows while the guest runs. A container's cores and memory change while it runs, too. A VM's do where its hosts can
//! plug them in ([`Hot`]), and else wait for its next start: then it is shut down first, once its node is empty.

use skep_model::pool::{Guest, GuestSize, Kind, Note, Recipe, Resizing};

use crate::next::{Ask, Step};
use crate::seen::Facts;

/// What a VM can get more of while it runs, as its configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hot {
    /// So many processors may be plugged in: there are as many, and some are not; none: it is not for that.
    pub cores: Option<u32>,
    /// Memory may be plugged in.
    pub memory: bool,
}

/// A guest's size as its hosts show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The host that it is on.
    pub host: String,
    /// What it has now.
    pub size: GuestSize,
    /// What it can get more of while it runs.
    pub hot: Hot,
}

/// How a guest gets another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// While it runs, for sure.
    Live,
    /// While it runs, unless it turns out that Proxmox leaves it to the next start.
    LiveOrDown,
    /// It has to be shut down for it.
    Down,
}

/// Which way a guest of a kind goes.
pub fn way(kind: Kind, look: &Look, to: GuestSize) -> Way {
    let (from, hot) = (look.size, look.hot);
    if kind == Kind::Lxc || (from.cores == to.cores && from.memory_mib == to.memory_mib) {
        return Way::Live;
    }
    let are_cores_hot =
        to.cores > from.cores && hot.cores.is_some_and(|plugged| to.cores <= plugged);
    let is_memory_hot = to.memory_mib > from.memory_mib && hot.memory;
    let is_hot = (to.cores == from.cores || are_cores_hot)
        && (to.memory_mib == from.memory_mib || is_memory_hot);
    match is_hot {
        true => Way::LiveOrDown,
        false => Way::Down,
    }
}

impl Look {
    /// None: its configuration does not say how large it is.
    pub(crate) fn of(recipe: &Recipe, facts: &Facts) -> Option<Self> {
        let number = |name: &str| facts.in_effect(name)?.parse::<u32>().ok();
        let sockets = number("sockets").unwrap_or(1);
        let slots = number("cores").unwrap_or(1).saturating_mul(sockets);
        let is_pluggable = facts.in_effect("vcpus").is_some() && facts.config.is_hot("cpu");
        Some(Self {
            host: facts.host.clone(),
            size: GuestSize {
                cores: number("vcpus").or(number("cores"))?,
                memory_mib: number("memory")?,
                disk_gib: facts.disk_gib(&recipe.disk)?,
            },
            hot: Hot {
                cores: is_pluggable.then_some(slots),
                memory: facts.config.is_hot("memory"),
            },
        })
    }
}

/// Decides, for a guest that is proven to be ours.
pub(crate) fn next(
    (recipe, guest): (&Recipe, &Guest),
    resizing: &Resizing,
    facts: &Facts,
    now_ms: u64,
) -> Step {
    let to = guest.size(recipe);
    match facts.disk_gib(&recipe.disk) {
        None => return Step::Wait(format!("it has no disk `{}`", recipe.disk)),
        Some(gib) if gib < to.disk_gib => return Step::Ask(Ask::Resize),
        Some(_) => {}
    }
    let is_written = has(to, facts, |name| facts.config.get(name));
    let is_in_effect = has(to, facts, |name| facts.in_effect(name));
    let is_done = is_written && is_in_effect;
    match (facts.is_running, resizing.stops) {
        (true, _) if is_done => Step::Record(Note::Resized { now_ms }),
        (true, true) => Step::Ask(Ask::ShutDown),
        (true, false) if !is_written => Step::Ask(Ask::Reshape),
        (true, false) if resizing.may_interrupt => Step::Record(Note::MustStop),
        (true, false) => Step::Wait(
            "Proxmox leaves its new size to its next start: `skep node resize` again with `--yes` has it shut down for that"
                .to_owned(),
        ),
        // From now on it is ours to start it.
        (false, true) if resizing.down.is_none() => Step::Record(Note::Down),
        (false, _) if !is_written => Step::Ask(Ask::Reshape),
        (false, true) => Step::Ask(Ask::Start),
        // Whoever has stopped it starts it: with its size.
        (false, false) => Step::Record(Note::Resized { now_ms }),
    }
}

/// What a guest with a size of its own lacks of it, while it is stopped; none: it has it.
pub(crate) fn lacks(recipe: &Recipe, guest: &Guest, facts: &Facts) -> Option<Ask> {
    let to = guest.size?;
    let gib = facts.disk_gib(&recipe.disk)?;
    let is_written = has(to, facts, |name| facts.config.get(name));
    match (gib < to.disk_gib, is_written) {
        (true, _) => Some(Ask::Resize),
        (false, false) => Some(Ask::Reshape),
        (false, true) => None,
    }
}

/// The same while it runs, with nobody in it yet: a VM has cores and memory with its next start.
pub(crate) fn lacks_running(recipe: &Recipe, guest: &Guest, facts: &Facts) -> Option<Ask> {
    let to = guest.size?;
    let is_in_effect = has(to, facts, |name| facts.in_effect(name));
    match lacks(recipe, guest, facts) {
        Some(Ask::Resize) => Some(Ask::Resize),
        _ if recipe.kind == Kind::Vm && !is_in_effect => Some(Ask::ShutDown),
        other => other,
    }
}

/// The processors that are to be written down: those that it has, and of them those that are plugged in, where its
/// configuration tells them apart.
pub(crate) fn cores(to: GuestSize, facts: &Facts) -> (Option<u32>, Option<u32>) {
    let number = |name: &str| facts.config.get(name)?.parse::<u32>().ok();
    let Some(plugged) = number("vcpus") else {
        return (Some(to.cores), None);
    };
    let sockets = number("sockets").unwrap_or(1).max(1);
    let slots = number("cores").unwrap_or(1).saturating_mul(sockets);
    let more = (to.cores > slots).then(|| to.cores.div_ceil(sockets));
    (more, (plugged != to.cores).then_some(to.cores))
}

/// Whether cores and memory are what they are to be, by what `entry` says of the configuration.
pub(crate) fn has<'f>(
    to: GuestSize,
    facts: &Facts,
    entry: impl Fn(&str) -> Option<&'f str>,
) -> bool {
    let number = |name: &str| entry(name)?.parse::<u32>().ok();
    let are_cores = number("vcpus").or(number("cores")) == Some(to.cores);
    let is_memory = number("memory").is_some_and(|there| {
        let is_rounded = facts.config.is_hot("memory") && there >= to.memory_mib;
        there == to.memory_mib || (is_rounded && there - to.memory_mib < dimm_mib(to.memory_mib))
    });
    are_cores && is_memory
}

/// The module of memory that is plugged in last, MiB: where memory can be plugged in, Proxmox rounds it up to whole modules,
/// 32 of each size, from 512 MiB on beside a first GiB that is always there.
fn dimm_mib(memory_mib: u32) -> u32 {
    let (mut module, mut reached) = (512, 1_024 + 32 * 512);
    while reached < memory_mib && module < 1 << 20 {
        module *= 2;
        reached += 32 * module;
    }
    module
}

#[cfg(test)]
mod tests;
