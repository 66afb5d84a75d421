//! What can go wrong in a step. Owns no recovery: the caller decides whether to stop.

/// Why the core refused to start, to go on, or to take one message from a peer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stored parts contradict each other: the data is damaged or incomplete.
    #[error("the stored Raft parts do not fit together: {0}")]
    Restore(String),
    /// The library refused the configuration or a stored membership.
    #[error("the Raft library refused: {0}")]
    Raft(#[from] raft::Error),
    /// A committed membership change does not decode: the log is damaged.
    #[error("the membership change committed at index {index} does not decode")]
    Membership {
        /// Log index of the entry.
        index: u64,
        /// The decoding failure.
        #[source]
        source: protobuf::ProtobufError,
    },
    /// A peer's message does not decode.
    #[error("a message from a peer does not decode")]
    Decode(#[source] protobuf::ProtobufError),
    /// A peer's message is larger than [`MAX_MESSAGE_BYTES`](crate::MAX_MESSAGE_BYTES).
    #[error("a message from a peer has {bytes} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Size received.
        bytes: usize,
        /// Size accepted.
        limit: usize,
    },
    /// A peer sent a message of a kind that peers may not send here.
    #[error("a peer sent a {kind} message, which is not accepted from peers")]
    Kind {
        /// The library's name of the kind.
        kind: String,
    },
    /// A message was addressed to another member.
    #[error("a message for member {to} arrived at member {id}")]
    Misrouted {
        /// Who it was for.
        to: u64,
        /// Who we are.
        id: u64,
    },
    /// A leader counts on entries that this member has acknowledged and no longer has.
    #[error(
        "the leader knows that this server had the log up to index {commit}, but it ends at \
         {last}: data that was acknowledged is lost here. Rebuild this server from its peers with \
         `skep server rebuild`"
    )]
    LostLog {
        /// What the leader has seen acknowledged.
        commit: u64,
        /// Where the log ends.
        last: u64,
    },
}
