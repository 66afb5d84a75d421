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
use crate::lens::{CELL_VALUES, Cell, Lens};
use crate::refusal::Refusal;
use crate::room::Room;
use crate::score::{Frame, Score, crowded};

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
    let share = lens.share(1);
    Score {
        broken: lens.broken(ordinal),
        levels,
        on_node: if lens.spreads_nodes { neighbours } else { 0 },
        against: -lens.affinity(ordinal),
        together: crowded(lens.staying_on_host(ordinal), share),
        crowded: crowded(lens.staying_on(ordinal), share),
        packing: frame.cost(draft.free(ordinal), cluster.capacity[ordinal as usize]),
        neighbours,
        node: cluster.id_of(ordinal),
    }
}

fn frame(draft: &Draft<'_>, ask: &Ask, lens: &Lens<'_, '_>, wanted: usize) -> Frame {
    let (cluster, placement) = (draft.cluster(), &ask.placement);
    let strategy = placement.strategy;
    let strategy = strategy.unwrap_or_else(|| cluster.strategy(placement.pool.as_deref()));
    let needs = lens.needs.room;
    Frame::new(strategy, needs, draft.packing(needs, wanted as u64))
}

/// What ranks nodes of one cell, and which node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NodeKey {
    on_node: u32,
    against: i64,
    crowded: u32,
    packing: i64,
    neighbours: u32,
    id: NodeId,
    ordinal: u32,
    /// Those of the service that stay there; decides nothing more.
    staying: u32,
}

/// What ranks cells: the same fields as [`Score`], in its order. All nodes of a cell are on the same host, so
/// what is on it ranks cells only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct CellKey {
    broken: u32,
    levels: [u64; MAX_SPREADS],
    on_node: u32,
    against: i64,
    together: u32,
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
    /// How many of the service a node or a host may have before it is crowded.
    share: u32,
    cells: Vec<Nodes>,
    order: BinaryHeap<Reverse<(CellKey, u32)>>,
    fitting: usize,
    cluster: &'a crate::cluster::Cluster,
}

/// Nodes sorted into cells.
struct Lists {
    lists: Vec<(Cell, Vec<Reverse<NodeKey>>)>,
    /// By the number of a cell, where there can only be few: its list, plus one.
    dense: Vec<u32>,
    sparse: BTreeMap<Cell, u32>,
    radix: [u64; CELL_VALUES + 1],
}

/// Most entries of the table of cells: as many as fit into the cache beside the nodes.
const DENSE: u64 = 1 << 16;

impl Lists {
    fn new(lens: &Lens<'_, '_>) -> Self {
        let radix = lens.radix();
        let product = radix
            .iter()
            .try_fold(1_u64, |all, one| all.checked_mul(*one));
        let size = product.filter(|size| *size <= DENSE).unwrap_or(0);
        Self {
            lists: Vec::new(),
            dense: vec![0; size as usize],
            sparse: BTreeMap::new(),
            radix,
        }
    }

    fn push(&mut self, lens: &Lens<'_, '_>, ordinal: u32, key: NodeKey) {
        let cell = lens.cell(ordinal);
        let slot = if self.dense.is_empty() {
            self.sparse.entry(cell).or_default()
        } else {
            let parts = std::iter::once(&cell.broken).chain(&cell.values);
            let mut number = 0;
            for (part, radix) in parts.zip(self.radix) {
                number = number * radix + u64::from(*part);
            }
            &mut self.dense[number as usize]
        };
        if *slot == 0 {
            self.lists.push((cell, Vec::new()));
            *slot = self.lists.len() as u32;
        }
        self.lists[*slot as usize - 1].1.push(Reverse(key));
    }
}

/// Of the service on a node: all of them, and those that stay.
#[derive(Debug, Clone, Copy)]
struct Here {
    neighbours: u32,
    staying: u32,
}

/// Every node that can take one, skew apart: its ordinal, what is free there, and how many of the
/// service are there.
fn each_fitting(lens: &Lens<'_, '_>, draft: &Draft<'_>, mut found: impl FnMut(u32, Room, Here)) {
    let allowed = lens.allowed();
    let mut neighbours = lens.neighbours.iter().peekable();
    let mut staying = lens.staying.iter().flatten().peekable();
    draft.each_free(|ordinal, free| {
        let is_here = |(node, _): &&(u32, u32)| *node == ordinal;
        let count = |found: Option<&(u32, u32)>| found.map_or(0, |(_, count)| *count);
        let here = Here {
            neighbours: count(neighbours.next_if(is_here)),
            staying: count(staying.next_if(is_here)),
        };
        if allowed[ordinal as usize]
            && lens.has_room(draft, ordinal, free)
            && lens.node_takes(here.neighbours)
            && !lens.is_closed(ordinal)
        {
            found(ordinal, free, here);
        }
    });
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
        let share = lens.share(wanted);
        let mut search = Self {
            lens,
            frame,
            share,
            cells: Vec::new(),
            order: BinaryHeap::new(),
            fitting: 0,
            cluster,
        };
        search.scan(draft, wanted);
        search
    }

    fn scan(&mut self, draft: &Draft<'a>, wanted: usize) {
        let mut lists = Lists::new(&self.lens);
        let mut best: Option<(CellKey, Cell)> = None;
        let mut fitting = 0;
        let lens = &self.lens;
        each_fitting(lens, draft, |ordinal, free, here| {
            fitting += 1;
            let key = self.key(ordinal, free, here);
            if wanted > 1 {
                lists.push(lens, ordinal, key);
                return;
            }
            // One alone is the least of all: there is nothing to keep in order.
            let cell = lens.cell(ordinal);
            let full = self.full_key(&cell, key);
            if best.is_none_or(|(least, _)| full < least) && !self.breaks_skew(&cell) {
                best = Some((full, cell));
            }
        });
        let mut lists = lists.lists;
        lists.extend(best.map(|(key, cell)| (cell, vec![Reverse(key.head)])));
        self.fitting = fitting;
        for (cell, mut list) in lists {
            let fitting = list.len();
            // Each start uses up one node of its cell: what is worse than so many is never reached.
            if wanted.saturating_mul(4) < list.len() {
                list.select_nth_unstable_by(wanted, |a, b| b.cmp(a));
                list.truncate(wanted);
            }
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

    fn key(&self, ordinal: u32, free: Room, here: Here) -> NodeKey {
        NodeKey {
            on_node: if self.lens.spreads_nodes {
                here.neighbours
            } else {
                0
            },
            against: -self.lens.affinity(ordinal),
            crowded: crowded(here.staying, self.share),
            packing: self
                .frame
                .cost(free, self.cluster.capacity[ordinal as usize]),
            neighbours: here.neighbours,
            id: self.cluster.id_of(ordinal),
            ordinal,
            staying: here.staying,
        }
    }

    fn full_key(&self, cell: &Cell, head: NodeKey) -> CellKey {
        let mut levels = [0; MAX_SPREADS];
        let spreads = self.lens.spreads.iter().zip(&cell.values);
        for (level, (spread, value)) in levels.iter_mut().zip(spreads) {
            *level = spread.level(*value);
        }
        CellKey {
            broken: cell.broken,
            levels,
            on_node: head.on_node,
            against: head.against,
            together: crowded(self.lens.staying_on_host_of(cell), self.share),
            head,
        }
    }

    fn cell_key(&self, number: u32) -> Option<CellKey> {
        let nodes = &self.cells[number as usize];
        let Reverse(head) = *nodes.heap.peek()?;
        Some(self.full_key(&nodes.cell, head))
    }

    fn queue(&mut self, number: u32) {
        if let Some(key) = self.cell_key(number) {
            self.order.push(Reverse((key, number)));
        }
    }

    fn breaks_skew(&self, cell: &Cell) -> bool {
        let mut spreads = self.lens.spreads.iter().zip(&cell.values);
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
                Some(_) if self.breaks_skew(&self.cells[cell as usize].cell) => {
                    aside.push(Reverse((key, cell)))
                }
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
                together: key.together,
                crowded: head.crowded,
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
        let here = Here {
            neighbours: found.key.head.neighbours + 1,
            staying: found.key.head.staying + 1,
        };
        let free = draft.free(ordinal);
        let still =
            self.lens.has_room(draft, ordinal, free) && self.lens.node_takes(here.neighbours);
        let again = still.then(|| self.key(ordinal, free, here));
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

    /// How many of the others are on the host of the last one taken, where there are others and hosts.
    fn apart(&self, ordinal: u32) -> String {
        let hosts = self.lens.hosts.as_ref();
        let Some(hosts) = hosts.filter(|hosts| hosts.total() > 1) else {
            return String::new();
        };
        let value = hosts.value(ordinal);
        let host = match hosts.text(value) {
            Some(host) => format!("host `{host}`"),
            None => "no known host".to_owned(),
        };
        let others = hosts.total() - 1;
        let there = hosts.count_of(value).saturating_sub(1);
        format!("apart by host: {host} has {there} of {others} others, ")
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
        words.push_str(&self.apart(ordinal));
        words.push_str(self.frame.word());
        let (fitting, nodes) = (choice.fitting, choice.nodes);
        words.push_str(&format!(", {fitting} of {nodes} nodes can take it"));
        words
    }
}
