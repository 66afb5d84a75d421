//! Which formats and feature levels this build understands. Owns the numbers; what a level means is in
//! the rules of `apply`.
//!
//! A binary may stand for the version after this one: it understands one level more, and one rule that this
//! level does not have. Servers of both side by side prove the path that every later level takes; what users
//! get is built without the call of [`stand_for_next`].

use std::sync::atomic::{AtomicBool, Ordering};

use skep_proto::v1::command::Kind;

/// The newest level of this version.
const PRESENT: u32 = 3;
/// Metadata keys that the next level's rule is about.
const NEXT_KEYS: &str = "next.";
/// Of the process and not of a build of this crate: else all that stands on it is compiled twice.
static IS_NEXT: AtomicBool = AtomicBool::new(false);

/// From here on this process stands for the next version: first thing in its `main`, or never.
pub fn stand_for_next() {
    IS_NEXT.store(true, Ordering::Relaxed);
}

/// Whether this process stands for the next version.
#[must_use]
pub fn is_next() -> bool {
    IS_NEXT.load(Ordering::Relaxed)
}

/// Newest format of commands and snapshots that this process writes and reads.
#[must_use]
pub fn format() -> u32 {
    if is_next() { PRESENT + 1 } else { PRESENT }
}

/// Newest feature level that this process understands: the level of a cluster that it founds. One number
/// with [`format`], since a level is what adds commands and fields to the formats.
#[must_use]
pub fn feature_level() -> u32 {
    format()
}

/// Whether a command makes use of what the next level alone knows; never in this version. Asked of
/// commands that this build makes: one that an older build made is what that build says it is.
pub(crate) fn is_of_next(kind: &Kind) -> bool {
    let Kind::SetNodeMeta(message) = kind else {
        return false;
    };
    is_next() && message.set.keys().any(|key| key.starts_with(NEXT_KEYS))
}
