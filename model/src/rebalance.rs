//! Rebalancing: whether allocations are moved so that fewer nodes are in use, how fast, and which are
//! on their way. Written by operators (mode, pace) and by whoever begins a move.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AllocationId, NodeId, ServiceId};
use crate::problem::Problem;

/// Most moves a minute that may be asked for, and most of one command.
pub const MAX_MOVES: u32 = 60;
/// A move is remembered for so long: what was moved stays where it is meanwhile, and counts against
/// the pace.
pub const REMEMBERED_MS: u64 = 3_600_000;
/// A move that has not come about by then is given up: the allocation stays where it is.
pub const PATIENCE_MS: u64 = 300_000;

/// What is done about allocations that could be packed more tightly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing, and nothing is said about it.
    Off,
    /// What could be moved is shown; people decide.
    #[default]
    Advise,
    /// The leader moves it, at the pace that is allowed.
    Auto,
}

impl Mode {
    /// Every mode, in the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Off, Self::Advise, Self::Auto];

    /// The word, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Advise => "advise",
            Self::Auto => "auto",
        }
    }
}

/// An allocation that is to go to another node, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moving {
    /// Whose it is.
    pub service: ServiceId,
    /// Where it is to go.
    pub to: NodeId,
    /// Cluster time at which it was decided, ms since the epoch.
    pub at_ms: u64,
}

/// How the cluster is rebalanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebalance {
    /// What is done.
    pub mode: Mode,
    /// Moves that the leader begins in a minute at most, 1 to [`MAX_MOVES`].
    pub moves_per_minute: u32,
    /// Moves of the last [`REMEMBERED_MS`], by the allocation that leaves.
    pub moves: BTreeMap<AllocationId, Moving>,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            // Each is a start, a probe and a drain: few enough to watch.
            moves_per_minute: 2,
            moves: BTreeMap::new(),
        }
    }
}

impl Rebalance {
    /// Whether the pace is one.
    ///
    /// # Errors
    /// `Invalid`, with what is accepted.
    pub fn check_pace(moves_per_minute: u32) -> Result<(), Problem> {
        if (1..=MAX_MOVES).contains(&moves_per_minute) {
            return Ok(());
        }
        let text = format!("{moves_per_minute} moves a minute");
        Err(Problem::invalid("moves_per_minute", text).hint(format!("1 to {MAX_MOVES}")))
    }

    /// Moves that are still meant at this time.
    pub fn under_way(&self, now_ms: u64) -> impl Iterator<Item = (AllocationId, Moving)> + '_ {
        let all = self.moves.iter().map(|(id, moving)| (*id, *moving));
        all.filter(move |(_, moving)| now_ms < moving.at_ms.saturating_add(PATIENCE_MS))
    }

    /// Whether an allocation was made by a move that is remembered, or is itself to leave: it is not
    /// moved again.
    pub fn is_recent(
        &self,
        id: AllocationId,
        service: ServiceId,
        created_ms: u64,
        now_ms: u64,
    ) -> bool {
        let remembered = |moving: &Moving| now_ms < moving.at_ms.saturating_add(REMEMBERED_MS);
        self.moves.get(&id).is_some_and(remembered)
            || self.moves.values().any(|moving| {
                moving.service == service && moving.at_ms <= created_ms && remembered(moving)
            })
    }
}
