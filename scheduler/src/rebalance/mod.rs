//! Which allocations should move so that fewer nodes are in use, or that what fits nowhere fits.
//! Owns the choice and its order; never starts or stops anything, never knows why a node may not
//! take an allocation ([`Rules`] does), never decides whether moving is wanted at all.
//!
//! A move is proposed only as part of a whole gain: a node that becomes empty, or a waiting ask
//! that finds room. What was moved lately stays where it is and counts against the budget, so
//! planning again changes nothing.

mod allowed;
mod apart;
mod empty;
mod floor;
mod unstrand;

use std::collections::BTreeSet;

use skep_model::id::{AllocationId, NodeId};

use crate::packing::{Aim, Demand, Packing, Size, Supply};
pub use allowed::allowed;
pub use apart::apart;
use floor::Floor;

/// An allocation on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub id: AllocationId,
    /// What it uses.
    pub size: Size,
    /// Whether it may be moved at all: not with a volume, not within a rollout, not beyond its
    /// service's disruption budget.
    pub is_movable: bool,
}

/// A node, as it is or as the moves so far would leave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which.
    pub id: NodeId,
    /// What all of its allocations may use together.
    pub capacity: Size,
    /// What uses it now.
    pub items: Vec<Item>,
    /// Whether moved allocations may come here: not to a node that is lost or cordoned.
    pub is_open: bool,
}

/// An ask that fits nowhere as things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The allocation that is to be.
    pub id: AllocationId,
    /// What it needs.
    pub size: Size,
}

/// Everything but room that decides where an allocation may be.
pub trait Rules {
    /// Whether it may go there, beside what the moves so far leave there.
    fn may_go(&self, allocation: AllocationId, place: &Place) -> bool;

    /// Whether it may go to a node for the sake of others that are near it, on its physical host: what they are is
    /// told by the moves so far.
    fn keeps_apart(
        &self,
        _allocation: AllocationId,
        _to: NodeId,
        _moved: &mut dyn Iterator<Item = Move>,
    ) -> bool {
        true
    }
}

impl<F: Fn(AllocationId, &Place) -> bool> Rules for F {
    fn may_go(&self, allocation: AllocationId, place: &Place) -> bool {
        self(allocation, place)
    }
}

/// What is decided upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The nodes.
    pub places: Vec<Place>,
    /// What fits nowhere.
    pub waiting: Vec<Waiting>,
    /// Allocations moved within the caller's window; each has used up one of `budget`.
    pub recent: BTreeSet<AllocationId>,
    /// Moves allowed within the window.
    pub budget: usize,
}

/// One allocation from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub allocation: AllocationId,
    /// Where it is.
    pub from: NodeId,
    /// Where it is to be.
    pub to: NodeId,
}

/// What to do, in this order: each move fits when those before it are done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// The moves.
    pub moves: Vec<Move>,
    /// Nodes that have nothing on them afterwards.
    pub emptied: Vec<NodeId>,
    /// Waiting asks that have room afterwards, and where: the room is theirs.
    pub roomed: Vec<(AllocationId, NodeId)>,
}

/// The moves that are worth making now. Deterministic; the order of the view's places and items
/// does not matter.
pub fn plan(view: &View, rules: &dyn Rules) -> Moves {
    let mut floor = Floor::new(view, rules, packing_of(view));
    let mut waiting = view.waiting.clone();
    // What one of them changes may be what the other has waited for: only when neither finds anything more
    // would planning again change nothing.
    loop {
        let has_roomed = unstrand::make_room(&mut floor, &mut waiting);
        let has_emptied = empty::empty_nodes(&mut floor);
        if !has_roomed && !has_emptied {
            return floor.into_moves();
        }
    }
}

/// Whatever packing is for elsewhere, here it keeps nodes empty. What waits is demand as what runs is: it
/// changes nothing when it gets its room.
fn packing_of(view: &View) -> Packing {
    let (mut demand, mut supply) = (Demand::default(), Supply::default());
    for place in &view.places {
        supply.put(place.capacity, place.items.is_empty());
        place.items.iter().for_each(|item| demand.put(item.size));
    }
    view.waiting.iter().for_each(|ask| demand.put(ask.size));
    Packing::with_aim(&demand, &supply, Aim::KeepNodesEmpty)
}
