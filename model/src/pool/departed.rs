//! Guests that are there no more: what is remembered of each, so that copies of it are known as copies of a guest of ours.

use crate::id::GuestId;

/// So many are remembered of a pool; the oldest are forgotten first.
pub const MAX_DEPARTED: usize = 2_000;

/// A guest that was made, and is gone. Whoever keeps copies may keep those of other clusters in the same place, which name
/// their guests in the same way: a copy was ours where its guest is remembered here, and in no other way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    /// Which.
    pub id: GuestId,
    /// The pool that it was in.
    pub pool: String,
    /// The number that it had.
    pub vmid: u32,
    /// When it was forgotten, ms since 1970.
    pub gone_ms: u64,
}
