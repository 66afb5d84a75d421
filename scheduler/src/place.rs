//! Allocations to nodes: each to the best of all that can take it, never of a sample. Knows nothing
//! of services' states; the same answer for the same cluster, always.
//!
//! A group of equal allocations is placed in one search. Nodes that share every value by which
//! allocations are counted form a cell: a heap of nodes. A start changes the score of one node, and
//! the levels of cells, which only grow; so the order of the cells is corrected when a cell comes
//! up, and each answer is what a scan of every node would give.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use skep_model::id::NodeId;
use skep_model::placement::MAX_SPREADS;

use crate::draft::Draft;
use crate::filter::Ask;
use crate::lens::{Cell, Lens};
use crate::refusal::Refusal;
use crate::score::{Frame, Score};

/// Where an allocation goes, and how that came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Where.
    pub node: NodeId,
    /// The generation of the node that this was based on.
    pub generation: u64,
    /// Why there.
    pub score: Score,
    /// Nodes that could have taken it, skew apart.
    pub fitting: usize,
    /// Nodes that there are.
    pub nodes: usize,
}

/// The best node for one allocation. The draft is left as it is ([`Draft::start`] counts the
/// answer).
///
/// # Errors
/// No node can take it; the reasons are counted.
pub fn place(draft: &Draft<'_>, ask: &Ask) -> Result<Choice, Refusal> {
    let mut search = Search::new(draft, ask, 1);
    match search.find() {
        Some(found) => Ok(search.choice(&found)),
        None => Err(Refusal::explain(draft, ask)),
    }
}

/// How good one node would be for one more, given that it can take it.
pub(crate) fn score_of(draft: &Draft<'_>, ask: &Ask, lens: &Lens<'_, '_>, ordinal: u32) -> Score {
    let cluster = draft.cluster();
    let neighbours = lens.neighbours_on(ordinal);
    let mut levels = [0; MAX_SPREADS];
    for (level, spread) in levels.iter_mut().zip(&lens.spreads) {
        *level = spread.level(spread.value(ordinal));
    }
    let frame = frame(draft, ask, lens, 1);
    Score {
        broken: lens.broken(ordinal),
        levels,
        on_node: if lens.spreads_nodes { neighbours } else { 0 },
        against: -lens.affinity(ordinal),
        packing: frame.cost(draft.free(ordinal), cluster.capacity[ordinal as usize]),
        neighbours,
        node: cluster.id_of(ordinal),
    }
}

fn frame(draft: &Draft<'_>, ask: &Ask, lens: &Lens<'_, '_>, wanted: usize) -> Frame {
    let (cluster, placement) = (draft.cluster(), &ask.placement);
    let strategy = placement.strategy;
    let strategy = strategy.unwrap_or_else(|| cluster.strategy(placement.pool.as_deref()));
    let mean = draft.mean(lens.needs.room, wanted as u64);
    Frame::new(strategy, lens.needs.room, cluster.largest(), mean)
}

/// What ranks nodes of one cell, and which node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NodeKey {
    on_node: u32,
    against: i64,
    packing: i64,
    neighbours: u32,
    id: NodeId,
    ordinal: u32,
}

/// What ranks cells: the same fields as [`Score`], in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct CellKey {
    broken: u32,
    levels: [u64; MAX_SPREADS],
    head: NodeKey,
}

struct Nodes {
    cell: Cell,
    heap: BinaryHeap<Reverse<NodeKey>>,
    /// Nodes that can take one, in the heap or not.
    fitting: usize,
    /// A limit is reached in it.
    is_closed: bool,
}

/// The search for places for a group of equal allocations.
pub struct Search<'a, 'q> {
    lens: Lens<'a, 'q>,
    frame: Frame,
    cells: Vec<Nodes>,
    order: BinaryHeap<Reverse<(CellKey, u32)>>,
    fitting: usize,
    cluster: &'a crate::cluster::Cluster,
}

/// The best node found, taken out of its heap.
struct Found {
    key: CellKey,
    cell: u32,
}

impl<'a, 'q> Search<'a, 'q> {
    /// Looks at every node once. `wanted`: as many are asked for at most.
    pub fn new(draft: &Draft<'a>, ask: &'q Ask, wanted: usize) -> Self {
        let cluster = draft.cluster();
        let lens = Lens::new(draft, ask);
        let frame = frame(draft, ask, &lens, wanted);
        let mut search = Self {
            lens,
            frame,
            cells: Vec::new(),
            order: BinaryHeap::new(),
            fitting: 0,
            cluster,
        };
        search.scan(draft, wanted);
        search
    }

    fn scan(&mut self, draft: &Draft<'a>, wanted: usize) {
        let allowed = self.lens.allowed();
        let is_one = self.lens.is_one_cell();
        let mut numbers: BTreeMap<Cell, usize> = BTreeMap::new();
        let mut lists: Vec<(Cell, usize, Vec<Reverse<NodeKey>>)> = Vec::new();
        let mut neighbours = self.lens.neighbours.iter().peekable();
        draft.each_free(|ordinal, free| {
            let here = neighbours.next_if(|(node, _)| *node == ordinal);
            let here = here.map_or(0, |(_, count)| *count);
            if !allowed[ordinal as usize]
                || !self.lens.has_room(draft, ordinal, free)
                || !self.lens.node_takes(here)
                || self.lens.is_closed(ordinal)
            {
                return;
            }
            let number = if is_one && !lists.is_empty() {
                0
            } else {
                let cell = self.lens.cell(ordinal);
                *numbers.entry(cell).or_insert_with(|| {
                    lists.push((cell, 0, Vec::new()));
                    lists.len() - 1
                })
            };
            let key = Reverse(self.key(ordinal, free, here));
            let (_, fitting, list) = &mut lists[number];
            *fitting += 1;
            match list.first_mut() {
                Some(best) if wanted == 1 => *best = (*best).max(key),
                _ => list.push(key),
            }
        });
        for (cell, fitting, mut list) in lists {
            // Each start uses up one node of its cell: what is worse than so many is never reached.
            if wanted.saturating_mul(4) < list.len() {
                list.select_nth_unstable_by(wanted, |a, b| b.cmp(a));
                list.truncate(wanted);
            }
            self.fitting += fitting;
            self.cells.push(Nodes {
                cell,
                heap: list.into(),
                fitting,
                is_closed: false,
            });
        }
        for number in 0..self.cells.len() as u32 {
            self.queue(number);
        }
    }

    fn key(&self, ordinal: u32, free: crate::room::Room, neighbours: u32) -> NodeKey {
        NodeKey {
            on_node: if self.lens.spreads_nodes {
                neighbours
            } else {
                0
            },
            against: -self.lens.affinity(ordinal),
            packing: self
                .frame
                .cost(free, self.cluster.capacity[ordinal as usize]),
            neighbours,
            id: self.cluster.id_of(ordinal),
            ordinal,
        }
    }

    fn cell_key(&self, number: u32) -> Option<CellKey> {
        let nodes = &self.cells[number as usize];
        let Reverse(head) = *nodes.heap.peek()?;
        let mut levels = [0; MAX_SPREADS];
        let values = nodes.cell.values.iter();
        for ((level, spread), value) in levels.iter_mut().zip(&self.lens.spreads).zip(values) {
            *level = spread.level(*value);
        }
        Some(CellKey {
            broken: nodes.cell.broken,
            levels,
            head,
        })
    }

    fn queue(&mut self, number: u32) {
        if let Some(key) = self.cell_key(number) {
            self.order.push(Reverse((key, number)));
        }
    }

    fn breaks_skew(&self, number: u32) -> bool {
        let values = self.cells[number as usize].cell.values.iter();
        let mut spreads = self.lens.spreads.iter().zip(values);
        spreads.any(|(spread, value)| spread.breaks_skew(*value))
    }

    /// The best node of all; its cell is out of the order until it is put back.
    fn find(&mut self) -> Option<Found> {
        let mut aside = Vec::new();
        let mut found = None;
        while let Some(Reverse((key, cell))) = self.order.pop() {
            if self.cells[cell as usize].is_closed {
                continue;
            }
            match self.cell_key(cell) {
                Some(now) if now > key => self.order.push(Reverse((now, cell))),
                Some(_) if self.breaks_skew(cell) => aside.push(Reverse((key, cell))),
                Some(key) => {
                    found = Some(Found { key, cell });
                    break;
                }
                None => {}
            }
        }
        self.order.extend(aside);
        found
    }

    fn choice(&self, found: &Found) -> Choice {
        let (key, head) = (found.key, found.key.head);
        Choice {
            node: head.id,
            generation: self.cluster.slot(head.ordinal).generation,
            score: Score {
                broken: key.broken,
                levels: key.levels,
                on_node: head.on_node,
                against: head.against,
                packing: head.packing,
                neighbours: head.neighbours,
                node: head.id,
            },
            fitting: self.fitting,
            nodes: self.cluster.node_count(),
        }
    }

    /// The best node for one more, which is counted in the draft. The draft must be the one that
    /// the search began with, and no other start may come between. None: no node can take it.
    pub fn take(&mut self, draft: &mut Draft<'a>) -> Option<Choice> {
        let found = self.find()?;
        let choice = self.choice(&found);
        let ordinal = found.key.head.ordinal;
        draft.start_at(ordinal, self.lens.ask_service(), &self.lens.needs);
        self.lens.count_domains(ordinal);
        let neighbours = found.key.head.neighbours + 1;
        let free = draft.free(ordinal);
        let still = self.lens.has_room(draft, ordinal, free) && self.lens.node_takes(neighbours);
        let again = still.then(|| self.key(ordinal, free, neighbours));
        let nodes = &mut self.cells[found.cell as usize];
        nodes.heap.pop();
        match again {
            Some(key) => nodes.heap.push(Reverse(key)),
            None => {
                nodes.fitting -= 1;
                self.fitting -= 1;
            }
        }
        if self.lens.is_closed(ordinal) {
            self.close_full();
        }
        self.queue(found.cell);
        Some(choice)
    }

    /// Closes every cell in which a limit is reached: once per value that fills up.
    fn close_full(&mut self) {
        let lens = &self.lens;
        for nodes in self.cells.iter_mut().filter(|nodes| !nodes.is_closed) {
            if lens.is_full(&nodes.cell) {
                nodes.is_closed = true;
                self.fitting -= nodes.fitting;
            }
        }
    }

    /// Why the last one taken went where it did, in words: what was behind, what was preferred.
    pub(crate) fn words(&self, choice: &Choice) -> String {
        let Some(ordinal) = self.cluster.ordinal(choice.node) else {
            return String::new();
        };
        let mut words = String::new();
        let keys = self.lens.spread_keys();
        for (key, spread) in keys.zip(&self.lens.spreads) {
            let value = spread.value(ordinal);
            let before = spread.count_of(value).saturating_sub(1);
            let name = spread.text(value).unwrap_or("none");
            words.push_str(&format!(
                "{key} `{name}` is furthest behind with {before}, "
            ));
        }
        for wish in self.lens.broken_wishes(ordinal) {
            words.push_str(&format!(
                "although `{wish}` does not hold there (relaxed), "
            ));
        }
        if choice.score.against != 0 {
            words.push_str(&format!("affinity {}, ", -choice.score.against));
        }
        words.push_str(self.frame.word());
        let (fitting, nodes) = (choice.fitting, choice.nodes);
        words.push_str(&format!(", {fitting} of {nodes} nodes can take it"));
        words
    }
}
