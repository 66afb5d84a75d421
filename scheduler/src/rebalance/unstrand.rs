//! Makes room for asks that fit nowhere: a few allocations leave the node that then can take it.

use std::cmp::Reverse;

use super::floor::Floor;
use super::{Item, Waiting};

/// Moves that one waiting ask is worth.
const MOST_MOVES: usize = 4;

/// Makes room for as many as the budget allows, the largest first; who got it no longer waits. False: nobody
/// did.
pub(super) fn make_room(floor: &mut Floor<'_>, waiting: &mut Vec<Waiting>) -> bool {
    waiting.sort_by_key(|ask| (Reverse(ask.size), ask.id));
    let before = waiting.len();
    waiting.retain(|ask| match room_for(floor, ask) {
        Some((item, at)) => {
            floor.commit_roomed(item, at);
            false
        }
        None => true,
    });
    waiting.len() < before
}

/// Where there is room for it, or where there is when the attempt on the floor is done.
fn room_for(floor: &mut Floor<'_>, ask: &Waiting) -> Option<(Item, usize)> {
    let item = Item {
        id: ask.id,
        size: ask.size,
        is_movable: false,
    };
    let fits = |at: &usize| floor.free(*at).holds(ask.size) && floor.may_go(ask.id, *at);
    // It has room already: the scheduler's affair, and nothing else may take it.
    if let Some(at) = (0..floor.len()).find(fits) {
        return Some((item, at));
    }
    let most = MOST_MOVES.min(floor.budget());
    let made = (1..=most)
        .find_map(|moves| (0..floor.len()).find(|at| try_to_make_room(floor, &item, *at, moves)));
    made.map(|at| (item, at))
}

/// Leaves the attempt on the floor when it succeeds, and nothing when it does not.
fn try_to_make_room(floor: &mut Floor<'_>, ask: &Item, at: usize, moves: usize) -> bool {
    if !floor.place(at).capacity.holds(ask.size) || !floor.may_go(ask.id, at) {
        return false;
    }
    let mut items = floor.place(at).items.clone();
    // The largest first: the fewest moves. One that leaves the rest in the way is no loss.
    items.sort_by_key(|item| (Reverse(item.size), item.id));
    let mut made = 0;
    for item in items {
        if made == moves || !floor.is_free_to_go(&item) {
            continue;
        }
        let Some(to) = floor.best_for(&item, &[at]) else {
            continue;
        };
        floor.step(item, at, to);
        made += 1;
        if floor.free(at).holds(ask.size) {
            return true;
        }
    }
    floor.undo(0);
    false
}
