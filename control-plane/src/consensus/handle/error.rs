//! Why a request was not done, and whether to ask again.
//!
//! Owns the type only.

use super::MAX_COMMAND_BYTES;
use skep_raft_core::Reason;

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The command is too large.
    #[error("the command has {bytes} bytes, at most {MAX_COMMAND_BYTES} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The command has no bytes.
    #[error("the command is empty")]
    Empty,
    /// Another server leads.
    #[error("this server does not lead{}", leader.map_or(String::new(), |id| format!("; server {id} does")))]
    NotLeader {
        /// Its id, if known.
        leader: Option<u64>,
    },
    /// This server has just been elected, or hands leadership on.
    #[error("this server takes nothing just now: it was just elected, or hands leadership on")]
    NotReady,
    /// Too much is waiting to be committed.
    #[error("too many commands are waiting to be committed")]
    Busy,
    /// Another leader's entry took the command's place in the log.
    #[error("the leader changed and the command was not applied")]
    Superseded,
    /// The server's state was replaced by a leader's snapshot while the command was under way.
    #[error("this server fell behind its group; the command may or may not have been applied")]
    Unknown,
    /// A change of members, or of the leader, that cannot be made.
    #[error("refused: {why}")]
    Refused {
        /// In words.
        why: String,
    },
    /// Leadership is still here.
    #[error("no other server has taken over leadership")]
    NotMoved,
    /// No answer in time.
    #[error("no answer after {after_ms} ms; {}", if *.is_write { "the command may still be applied" } else { "nothing was read" })]
    Timeout {
        /// Whether a command was under way.
        is_write: bool,
        /// The deadline.
        after_ms: u64,
    },
    /// The consensus thread has ended.
    #[error("the server is stopping; a command under way may or may not have been applied")]
    Stopped,
}

impl Error {
    /// Whether the same request may succeed later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self,
            Self::TooLarge { .. } | Self::Empty | Self::Refused { .. }
        )
    }

    /// Whether a command may have been, or may yet be, applied: retry it only if applying it
    /// twice does no harm.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Timeout { is_write: true, .. } | Self::Stopped | Self::Unknown
        )
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotLeader { leader } => Self::NotLeader { leader },
            Reason::NotReady => Self::NotReady,
            Reason::Busy => Self::Busy,
            Reason::Invalid { why } => Self::Refused { why },
        }
    }
}
