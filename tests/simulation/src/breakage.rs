//! Known classes of bugs that the simulation must be able to catch: each is one deliberate mistake
//! of the driver, and a test that expects the run to fail.

/// A deliberate mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// Says that a write is on disk before it is.
    AckBeforeFlush,
    /// Sends a vote before term and vote are on disk.
    VoteBeforeFlush,
    /// Takes an entry for committed because a majority has it, whatever its term.
    CountOlderTerms,
    /// After a restart, applies entries that the snapshot already holds.
    ApplyTwice,
    /// Answers reads from the own state without asking whether it still leads.
    StaleReads,
    /// A server whose disk was damaged goes on with what is left of it.
    VoteAfterDamage,
}

impl Breakage {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::AckBeforeFlush,
        Self::VoteBeforeFlush,
        Self::CountOlderTerms,
        Self::ApplyTwice,
        Self::StaleReads,
        Self::VoteAfterDamage,
    ];
}
