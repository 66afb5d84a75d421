//! What is written down next so that each pool has the nodes that it wants. Pure: what is done with a guest at its
//! provider follows from what is written down.

use skep_model::guest_pool::{DRAIN_MS, GuestPool, PoolGuest};
use skep_model::id::GuestId;
use skep_model::node::NodeStatus;
use skep_model::pool::Phase;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

use super::{keeps_volumes, resizing};

/// Guests of one pool that come at a time: a wrong template should not fill a host.
pub(crate) const COMING_MAX: usize = 10;
/// How many more than wanted there may be while some are being replaced.
const SURGE: usize = 1;
/// Nodes of one pool that are drained at a time, where nobody has asked for more.
const DRAINS_MAX: usize = 1;
/// What is stopped at the deadline of a drain may take its grace to end.
const STOP_MARGIN_MS: u64 = 90_000;

/// What is written down now, of all pools.
pub(crate) fn due(view: &State, now_ms: u64, mut id: impl FnMut() -> GuestId) -> Vec<Kind> {
    let mut due = Vec::new();
    for pool in view.guest_pools() {
        let standing = Standing::of(view, pool);
        for _ in 0..standing.lacking() {
            due.push(Kind::PlanGuest(v1::PlanGuest {
                id: id_bytes(id().as_u128()),
                pool: pool.name.clone(),
            }));
        }
        due.extend(standing.leaving(view, now_ms));
    }
    let resized = view
        .guests()
        .filter_map(|one| resizing::due(view, one, now_ms));
    due.extend(resized);
    let gone = view.guests().filter(|one| is_forgotten(view, one));
    due.extend(gone.map(|one| {
        Kind::ForgetGuest(v1::ForgetGuest {
            id: id_bytes(one.guest.id.as_u128()),
        })
    }));
    due
}

/// Guests that something may have to be done with at their provider.
pub(crate) fn driven(view: &State, now_ms: u64) -> impl Iterator<Item = &PoolGuest> {
    let is_driven = move |one: &&PoolGuest| match one.guest.phase {
        Phase::Gone => false,
        Phase::Leaving => is_empty(view, one, one.drain_deadline_ms, now_ms),
        _ => match resizing::empties(view, one) {
            Some(deadline_ms) => is_empty(view, one, Some(deadline_ms), now_ms),
            None => true,
        },
    };
    view.guests().map(|one| &**one).filter(is_driven)
}

/// What runs on its node has moved away, or had its time.
fn is_empty(view: &State, one: &PoolGuest, deadline_ms: Option<u64>, now_ms: u64) -> bool {
    let Some(node) = one.node.and_then(|id| view.node(id)) else {
        return true;
    };
    let deadline = deadline_ms.unwrap_or(0);
    let is_over = now_ms >= deadline.saturating_add(STOP_MARGIN_MS);
    is_over || !view.allocations_on(node.id).any(|it| it.is_live())
}

/// Nothing is left of it, and nothing is lost with its node.
fn is_forgotten(view: &State, one: &PoolGuest) -> bool {
    one.guest.phase == Phase::Gone
        && one.node.and_then(|id| view.node(id)).is_none_or(|node| {
            node.status != NodeStatus::Ready && keeps_volumes(view, node).is_ok()
        })
}

/// The guests of a pool, by what they are to it.
struct Standing<'a> {
    pool: &'a GuestPool,
    /// Those that are wanted, come or there.
    counted: Vec<&'a PoolGuest>,
    /// Those in whose place others come, and that have not left yet.
    retiring: Vec<&'a PoolGuest>,
    /// Those that leave and still have a node.
    draining: usize,
}

impl<'a> Standing<'a> {
    fn of(view: &'a State, pool: &'a GuestPool) -> Self {
        let mut standing = Self {
            pool,
            counted: Vec::new(),
            retiring: Vec::new(),
            draining: 0,
        };
        for one in view.guests_of(&pool.name) {
            match one.guest.phase {
                Phase::Gone => {}
                Phase::Leaving => standing.draining += usize::from(one.node.is_some()),
                _ if one.is_retiring => standing.retiring.push(one),
                _ => standing.counted.push(one),
            }
        }
        standing
    }

    /// How many more are planned now.
    fn lacking(&self) -> usize {
        let wanted = self.pool.size.wanted as usize;
        let most = match self.retiring.is_empty() {
            true => wanted,
            false => wanted + SURGE,
        };
        let there = self.counted.len() + self.retiring.len();
        let coming = self.counted.iter().filter(|one| !one.is_ready()).count();
        wanted
            .saturating_sub(self.counted.len())
            .min(most.saturating_sub(there))
            .min(COMING_MAX.saturating_sub(coming))
    }

    /// Who leaves now.
    fn leaving(&self, view: &State, now_ms: u64) -> Vec<Kind> {
        let leave = |one: &PoolGuest| {
            Kind::RetireGuest(v1::RetireGuest {
                id: id_bytes(one.guest.id.as_u128()),
                replace: one.is_retiring,
                leave: true,
                drain_deadline_ms: now_ms + DRAIN_MS,
            })
        };
        let wanted = self.pool.size.wanted as usize;
        let (ready, coming): (Vec<&PoolGuest>, Vec<&PoolGuest>) =
            self.all().partition(|one| one.is_ready());
        // Nothing runs in what is not ready.
        let mut surplus = self.counted.len().saturating_sub(wanted);
        let mut gone = Vec::new();
        for one in coming.iter().rev() {
            if one.is_retiring {
                gone.push(*one);
            } else if surplus > 0 {
                surplus -= 1;
                gone.push(*one);
            }
        }
        // Of those that are, as many stay as are wanted, and one goes after the other.
        let mut drains = DRAINS_MAX.saturating_sub(self.draining);
        let mut over = ready.len().saturating_sub(wanted);
        for one in by_use(view, ready) {
            let may_go = one.is_retiring || surplus > 0;
            if drains == 0 || over == 0 || !may_go || !loses_nothing(view, one) {
                continue;
            }
            (drains, over) = (drains - 1, over - 1);
            surplus = surplus.saturating_sub(usize::from(!one.is_retiring));
            gone.push(one);
        }
        gone.into_iter().map(leave).collect()
    }

    fn all(&self) -> impl Iterator<Item = &'a PoolGuest> {
        self.counted.iter().chain(&self.retiring).copied()
    }
}

/// Those that are being replaced first, then those on which least runs, then the newest.
fn by_use<'a>(view: &State, mut ready: Vec<&'a PoolGuest>) -> Vec<&'a PoolGuest> {
    ready.sort_by_key(|one| {
        let node = one.node.map(|id| view.allocations_on(id));
        let used = node.map_or(0, |there| there.filter(|it| it.is_live()).count());
        (!one.is_retiring, used, std::cmp::Reverse(one.guest.id))
    });
    ready
}

fn loses_nothing(view: &State, one: &PoolGuest) -> bool {
    let node = one.node.and_then(|id| view.node(id));
    node.is_none_or(|node| keeps_volumes(view, node).is_ok())
}

#[cfg(test)]
mod tests;
