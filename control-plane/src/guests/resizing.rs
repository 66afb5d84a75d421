//! What is written down of guests that become another size, beside what their drivers say: that nothing is left to wait for,
//! and that their nodes are theirs again. And what stands against a size, by what runs on the node. Pure.

use skep_model::allocation::Allocation;
use skep_model::guest_pool::PoolGuest;
use skep_model::node::{Admin, Node, NodeStatus};
use skep_model::pool::{GuestSize, Resizing};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

/// An agent looks at its machine once a minute; what it says is heard a while later. Longer than that no node is kept from
/// work because of what its agent says of it.
const HEARD_MS: u64 = 150_000;

/// What is to be written down of a guest now; none: nothing, or it is its driver's turn.
pub(super) fn due(view: &State, one: &PoolGuest, now_ms: u64) -> Option<Kind> {
    let resizing = one.guest.resizing.as_ref()?;
    let id = id_bytes(one.guest.id.as_u128());
    if let Some(done_ms) = resizing.done_ms {
        return is_back(view, one, (resizing, done_ms), now_ms)
            .then_some(Kind::FinishResize(v1::FinishResize { id }));
    }
    is_hastened(view, one, resizing, now_ms).then_some(Kind::HastenResize(v1::HastenResize { id }))
}

/// Until when the node of a guest may take to become empty before anything is done with the guest; none: nothing of that
/// sort is waited for.
pub(super) fn empties(view: &State, one: &PoolGuest) -> Option<u64> {
    let resizing = one.guest.resizing.as_ref()?;
    if !resizing.keeps_empty() || resizing.down.is_some() {
        return None;
    }
    let node = one.node.and_then(|id| view.node(id))?;
    match node.admin {
        Admin::Draining { deadline_ms } => Some(deadline_ms),
        // It is about to be drained again.
        Admin::Eligible | Admin::Cordoned => Some(u64::MAX),
    }
}

/// Its agent is there, and says what there is now.
fn is_back(
    view: &State,
    one: &PoolGuest,
    (resizing, done_ms): (&Resizing, u64),
    now_ms: u64,
) -> bool {
    let Some(node) = one.node.and_then(|id| view.node(id)) else {
        return true;
    };
    let facts = &node.facts;
    if let Some(down) = resizing.down {
        let is_other_life = node.seat != down.seat;
        let is_other_size =
            (facts.cpu_millis, facts.memory_bytes) != (down.cpu_millis, down.memory_bytes);
        return node.status == NodeStatus::Ready && (is_other_life || is_other_size);
    }
    // It has become smaller while it ran: work comes when its agent says no more than that.
    let says_less = one.guest.size.is_none_or(|size| {
        facts.cpu_millis <= size.cores.saturating_mul(1_000)
            && facts.memory_bytes <= u64::from(size.memory_mib) << 20
    });
    says_less || now_ms >= done_ms.saturating_add(HEARD_MS)
}

/// All that is left on its node is nowhere else, and may be stopped.
fn is_hastened(view: &State, one: &PoolGuest, resizing: &Resizing, now_ms: u64) -> bool {
    let Some(node) = one.node.and_then(|id| view.node(id)) else {
        return false;
    };
    let is_ours = resizing.held.is_some_and(|it| it.admin() == node.admin);
    let is_later = resizing
        .held
        .and_then(|it| it.deadline_ms)
        .is_some_and(|deadline_ms| deadline_ms > now_ms);
    if !is_ours || !is_later || !resizing.may_interrupt || resizing.down.is_some() {
        return false;
    }
    let left = view.allocations_on(node.id).filter(|it| it.is_live());
    let mut left = left.peekable();
    resizing.keeps_empty() && left.peek().is_some() && left.all(|it| is_tied(view, it))
}

/// Whether its data are on its node alone.
fn is_tied(view: &State, allocation: &Allocation) -> bool {
    let release = view.release(allocation.service, allocation.target.release);
    release.is_some_and(|it| it.storage.is_pinned())
}

/// Services with something on a node that can be nowhere else, each once.
pub(crate) fn tied(view: &State, node: &Node) -> Vec<String> {
    let live = view.allocations_on(node.id).filter(|it| it.is_live());
    let tied = live.filter(|it| is_tied(view, it));
    let mut names: Vec<String> = tied
        .filter_map(|it| Some(view.label_of(view.service(it.service)?)))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// What a size is too small for, of what is promised to allocations on a node: to all of them, or to those alone that come
/// back after it was empty.
pub(crate) fn too_small(
    view: &State,
    node: &Node,
    size: GuestSize,
    are_all: bool,
) -> Option<String> {
    let live = view.allocations_on(node.id).filter(|it| it.is_live());
    let meant = live.filter(|it| are_all || is_tied(view, it));
    let (mut cpu_millis, mut memory_bytes) = (0_u64, 0_u64);
    for release in meant.filter_map(|it| view.release(it.service, it.target.release)) {
        cpu_millis = cpu_millis.saturating_add(release.resources.cpu_millis.into());
        memory_bytes = memory_bytes.saturating_add(release.resources.memory_bytes);
    }
    let has_memory = u64::from(size.memory_mib) << 20;
    let has_cpu = u64::from(size.cores) * 1_000;
    let whose = match are_all {
        true => "what runs there",
        false => "what has its data there",
    };
    if memory_bytes > has_memory {
        return Some(format!(
            "{whose} was promised {} MiB of memory, which is more than {} MiB",
            memory_bytes.div_ceil(1 << 20),
            size.memory_mib
        ));
    }
    (cpu_millis > has_cpu).then(|| {
        format!("{whose} was promised {cpu_millis}m of CPU, which is more than {has_cpu}m")
    })
}

#[cfg(test)]
mod tests;
