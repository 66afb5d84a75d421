//! The way of a command to the leader, from a server that does not lead. Owns the contract only: who
//! carries the bytes, and over what, is not known here.

use std::pin::Pin;

/// What became of a forwarded command.
pub type Forwarded<'a> =
    Pin<Box<dyn Future<Output = Result<(u64, Vec<u8>), ForwardError>> + Send + 'a>>;

/// Carries commands to the server that leads.
pub trait Forward: Send + Sync + 'static {
    /// Proposes `command` at member `leader`, which must not pass it on. Answers with the log index and
    /// the encoded answer of the state machine (`Machine::encode_outcome` at the leader). Dropping the
    /// future does not take the command back.
    fn forward(&self, leader: u64, command: Vec<u8>) -> Forwarded<'_>;
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The command never got into a log: another try does no harm.
    #[error("the server that was thought to lead did not take the command")]
    NotTaken {
        /// Who leads, as far as the called server knows.
        leader: Option<u64>,
    },
    /// The command may have been, or may yet be, applied.
    #[error("the connection to the leader ended before its answer")]
    Unknown,
}
