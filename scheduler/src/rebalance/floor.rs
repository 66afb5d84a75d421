//! The nodes as the moves so far leave them, with a mark to which unfinished attempts are undone.
//! Keeps the books (room, budget, what may move again); knows no goal.

use std::collections::BTreeSet;

use skep_model::id::{AllocationId, NodeId};

use super::{Item, Move, Moves, Place, Rules, View};
use crate::packing::{Packing, Parts, Size};

/// A place and what is left of it.
#[derive(Debug, Clone)]
struct Spot {
    place: Place,
    free: Size,
    parts: Parts,
}

/// The working copy. Places are spoken of by their index, in the order of node ids.
pub(super) struct Floor<'a> {
    spots: Vec<Spot>,
    rules: &'a dyn Rules,
    packing: Packing,
    fixed: BTreeSet<AllocationId>,
    budget: usize,
    steps: Vec<Step>,
    result: Moves,
}

/// A move as the floor did it.
#[derive(Debug, Clone, Copy)]
struct Step {
    item: Item,
    from: usize,
    to: usize,
}

impl<'a> Floor<'a> {
    pub(super) fn new(view: &View, rules: &'a dyn Rules, packing: Packing) -> Self {
        let mut spots: Vec<Spot> = view
            .places
            .iter()
            .map(|place| {
                let used = |used: Size, item: &Item| used.plus(item.size);
                let free = place
                    .capacity
                    .minus(place.items.iter().fold(Size::default(), used));
                let mut place = place.clone();
                place.items.sort_by_key(|item| item.id);
                let parts = packing.parts(free);
                Spot { place, free, parts }
            })
            .collect();
        spots.sort_by_key(|spot| spot.place.id);
        Self {
            spots,
            rules,
            packing,
            fixed: view.recent.clone(),
            budget: view.budget.saturating_sub(view.recent.len()),
            steps: Vec::new(),
            result: Moves::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.spots.len()
    }

    pub(super) fn place(&self, at: usize) -> &Place {
        &self.spots[at].place
    }

    pub(super) fn free(&self, at: usize) -> Size {
        self.spots[at].free
    }

    /// Moves that may still be made, with those of the attempt.
    pub(super) fn budget(&self) -> usize {
        self.budget - self.steps.len()
    }

    /// Whether it may be moved, and was not yet.
    pub(super) fn is_free_to_go(&self, item: &Item) -> bool {
        let moved = |step: &Step| step.item.id == item.id;
        item.is_movable && !self.fixed.contains(&item.id) && !self.steps.iter().any(moved)
    }

    /// Whether an allocation would be taken there by the rules.
    pub(super) fn may_go(&self, allocation: AllocationId, to: usize) -> bool {
        let place = &self.spots[to].place;
        place.is_open
            && self.rules.may_go(allocation, place)
            && self
                .rules
                .keeps_apart(allocation, place.id, &mut self.moved())
    }

    /// Every move so far, with those of the attempt.
    fn moved(&self) -> impl Iterator<Item = Move> {
        let attempt = self.steps.iter().map(|step| self.as_move(step));
        self.result.moves.iter().copied().chain(attempt)
    }

    fn as_move(&self, step: &Step) -> Move {
        Move {
            allocation: step.item.id,
            from: self.spots[step.from].place.id,
            to: self.spots[step.to].place.id,
        }
    }

    /// The best place in use for an item, of those that are not closed to it.
    pub(super) fn best_for(&self, item: &Item, closed: &[usize]) -> Option<usize> {
        let ask = self.packing.parts(item.size);
        (0..self.spots.len())
            .filter(|at| {
                let spot = &self.spots[*at];
                spot.free.holds(item.size)
                    && !spot.place.items.is_empty()
                    && !closed.contains(at)
                    && self.may_go(item.id, *at)
            })
            .min_by_key(|at| (self.packing.cost(self.spots[*at].parts, false, ask), *at))
    }

    /// Puts an item elsewhere, within the attempt.
    pub(super) fn step(&mut self, item: Item, from: usize, to: usize) {
        self.shift(item, from, to);
        self.steps.push(Step { item, from, to });
    }

    /// How far the attempt has come.
    pub(super) fn mark(&self) -> usize {
        self.steps.len()
    }

    /// Undoes the attempt down to a mark.
    pub(super) fn undo(&mut self, mark: usize) {
        while self.steps.len() > mark {
            let Some(step) = self.steps.pop() else { return };
            self.shift(step.item, step.to, step.from);
        }
    }

    /// The attempt emptied a node: it counts.
    pub(super) fn commit_emptied(&mut self, at: usize) {
        self.commit();
        self.result.emptied.push(self.spots[at].place.id);
    }

    /// The attempt made room for an ask, which takes it: it counts.
    pub(super) fn commit_roomed(&mut self, item: Item, at: usize) {
        self.commit();
        self.fixed.insert(item.id);
        self.take_in(item, at);
        let node: NodeId = self.spots[at].place.id;
        self.result.emptied.retain(|emptied| *emptied != node);
        self.result.roomed.push((item.id, node));
    }

    pub(super) fn into_moves(self) -> Moves {
        self.result
    }

    fn commit(&mut self) {
        self.budget -= self.steps.len();
        for step in self.steps.drain(..) {
            self.fixed.insert(step.item.id);
            self.result.moves.push(Move {
                allocation: step.item.id,
                from: self.spots[step.from].place.id,
                to: self.spots[step.to].place.id,
            });
        }
    }

    fn shift(&mut self, item: Item, from: usize, to: usize) {
        let spot = &mut self.spots[from];
        spot.place.items.retain(|other| other.id != item.id);
        self.settle(from);
        self.take_in(item, to);
    }

    /// Items stay in order, so that an attempt that was undone leaves no trace.
    fn take_in(&mut self, item: Item, at: usize) {
        let items = &mut self.spots[at].place.items;
        let index = items.partition_point(|other| other.id < item.id);
        items.insert(index, item);
        self.settle(at);
    }

    /// Counted anew: what uses more than there is would not come back by adding.
    fn settle(&mut self, at: usize) {
        let spot = &mut self.spots[at];
        let used = |used: Size, item: &Item| used.plus(item.size);
        let items = spot.place.items.iter();
        spot.free = spot.place.capacity.minus(items.fold(Size::default(), used));
        spot.parts = self.packing.parts(spot.free);
    }
}
