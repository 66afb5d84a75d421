//! What the log drives, and what it tells the rest of the server.
//!
//! Owns the types only. An implementation is pure: the same commands give the same state.

/// The replicated state.
pub trait StateMachine: Send + 'static {
    /// An immutable picture of the state; cloning it is O(1) (persistent maps).
    type View: Clone + Send + Sync + 'static;
    /// What the proposer of a command gets back, refusals included.
    type Outcome: Send + 'static;
    /// One typed change for the feed.
    type Change: Send + Sync + 'static;

    /// Applies the command at `index`; reads no clock, no file, no random number, and never
    /// fails: a command that cannot be obeyed changes nothing and says so in its outcome.
    fn apply(&mut self, index: u64, command: &[u8]) -> (Self::Outcome, Vec<Self::Change>);
    /// Why nothing may be applied any more, in words for the operator: a command was written by a newer
    /// version. Asked after each command; the server then stops, as if that one had not been applied,
    /// rather than let its state part from the others'.
    fn halted(&self) -> Option<String> {
        None
    }
    /// The state as of the last applied command.
    fn view(&self) -> Self::View;
    /// The snapshot of a view; runs on its own thread, beside applying.
    fn encode(view: &Self::View) -> Vec<u8>;
    /// Replaces the state by a snapshot. Views of the old state stay in use meanwhile: what the two
    /// have in common is shared, so that a server never needs the memory of two.
    ///
    /// # Errors
    /// In words for the operator, when the bytes do not decode or are of a newer format.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// An outcome as the leader sends it to the server that forwarded the command.
    fn encode_outcome(outcome: &Self::Outcome) -> Vec<u8>;
    /// What [`StateMachine::encode_outcome`] made.
    ///
    /// # Errors
    /// In words for the operator, when the bytes do not decode.
    fn decode_outcome(bytes: &[u8]) -> Result<Self::Outcome, String>;
}

/// The changes of a run of commands, in order. A view read after receiving a batch is never
/// older than the batch.
#[derive(Debug)]
pub struct Batch<C> {
    /// Index of the last command of the run.
    pub index: u64,
    /// At least one change, unless everything may have changed.
    pub changes: Vec<C>,
    /// The state was replaced by a leader's snapshot: everything may have changed, and whoever
    /// follows the feed starts anew from a view.
    pub is_reset: bool,
}

/// Whether this server leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// True only once everything before this term, and the term's own first entry, is applied.
    pub is_leader: bool,
    /// The current term.
    pub term: u64,
    /// The leader's server id, if known.
    pub leader: Option<u64>,
}
