//! Empties nodes: everything on one finds room on others, directly or by pushing one smaller
//! allocation further, where the shapes match better.

use std::cmp::Reverse;

use super::Item;
use super::floor::Floor;

/// Nodes that are tried for each node that becomes empty: those with the fewest to move. The rest
/// are ever harder to empty.
const TRIED_NODES: usize = 64;
/// Pairs of an allocation and a place that are tried for one that fits nowhere directly.
const TRIED_PUSHES: usize = 256;

/// Empties one node after the other, until none can be emptied within the budget. False: not one.
pub(super) fn empty_nodes(floor: &mut Floor<'_>) -> bool {
    let mut has_emptied = false;
    while let Some(at) = easiest(floor)
        .into_iter()
        .find(|at| try_to_empty(floor, *at))
    {
        floor.commit_emptied(at);
        has_emptied = true;
    }
    has_emptied
}

/// Nodes whose allocations may all move, the fewest and then the smallest first.
fn easiest(floor: &Floor<'_>) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..floor.len())
        .filter(|at| {
            let items = &floor.place(*at).items;
            let all_go = || items.iter().all(|item| floor.is_free_to_go(item));
            !items.is_empty() && items.len() <= floor.budget() && all_go()
        })
        .collect();
    nodes.sort_by_cached_key(|at| {
        let items = &floor.place(*at).items;
        let cpu: u128 = items.iter().map(|item| u128::from(item.size.cpu)).sum();
        (items.len(), cpu, *at)
    });
    nodes.truncate(TRIED_NODES);
    nodes
}

/// Leaves the attempt on the floor when it succeeds, and nothing when it does not.
fn try_to_empty(floor: &mut Floor<'_>, at: usize) -> bool {
    let mut items = floor.place(at).items.clone();
    // The most difficult first.
    items.sort_by_key(|item| (Reverse(item.size), item.id));
    let mut left = items.len();
    for item in items {
        let is_placed = match floor.best_for(&item, &[at]) {
            Some(to) => {
                floor.step(item, at, to);
                true
            }
            None => floor.budget() > left && push(floor, item, at),
        };
        if !is_placed {
            floor.undo(0);
            return false;
        }
        left -= 1;
    }
    true
}

/// Makes room for an item by moving one other on; then moves it there.
fn push(floor: &mut Floor<'_>, item: Item, at: usize) -> bool {
    let mut pairs: Vec<(usize, Item)> = Vec::new();
    for to in (0..floor.len()).filter(|to| *to != at) {
        let place = floor.place(to);
        if place.items.len() < 2 {
            continue;
        }
        let makes_room = |other: &&Item| {
            floor.free(to).plus(other.size).holds(item.size) && floor.is_free_to_go(other)
        };
        pairs.extend(
            place
                .items
                .iter()
                .filter(makes_room)
                .map(|other| (to, *other)),
        );
    }
    // The smallest that makes room goes on most easily.
    pairs.sort_by_key(|(to, other)| (other.size, *to, other.id));
    pairs.truncate(TRIED_PUSHES);
    let mark = floor.mark();
    for (to, other) in pairs {
        let Some(onto) = floor.best_for(&other, &[at, to]) else {
            continue;
        };
        floor.step(other, to, onto);
        if floor.free(to).holds(item.size) && floor.may_go(item.id, to) {
            floor.step(item, at, to);
            return true;
        }
        floor.undo(mark);
    }
    false
}
