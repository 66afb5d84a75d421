//! Which formats and feature levels this build understands. Owns the numbers; what a level means is in
//! the rules of `apply`.
//!
//! With the feature `next-level` the build stands for the version after this one: it understands one
//! level more, and one rule that this level does not have. Servers of both builds side by side prove
//! the path that every later level takes; what users get is built without it.

use skep_proto::v1::command::Kind;

/// The newest level of this version.
const PRESENT: u32 = 3;
/// Newest format of commands and snapshots that this build writes and reads.
pub const FORMAT: u32 = if IS_NEXT { PRESENT + 1 } else { PRESENT };
/// Newest feature level that this build understands: the level of a cluster that it founds. One number
/// with [`FORMAT`], since a level is what adds commands and fields to the formats.
pub const FEATURE_LEVEL: u32 = FORMAT;
/// Whether this build stands for the next version.
pub const IS_NEXT: bool = cfg!(feature = "next-level");
/// Metadata keys that the next level's rule is about.
const NEXT_KEYS: &str = "next.";

/// Whether a command makes use of what the next level alone knows; never in this version. Asked of
/// commands that this build makes: one that an older build made is what that build says it is.
pub(crate) fn is_of_next(kind: &Kind) -> bool {
    let Kind::SetNodeMeta(message) = kind else {
        return false;
    };
    IS_NEXT && message.set.keys().any(|key| key.starts_with(NEXT_KEYS))
}
