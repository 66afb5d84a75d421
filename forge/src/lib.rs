//! What forges deliver to webhooks: who made a delivery, whether it is signed right, what it says, and whether
//! a service cares; and what is written back to them. Pure: headers and bytes in, words out. Knows no state, no clock
//! and no IO.

pub mod api;
mod event;
mod kind;
mod parse;
mod repository;
mod rules;
mod verify;

pub use event::{
    Action, Asked, Change, Commit, Event, Gone, Push, PushedCommit, Reported, Repository, Tag,
    clean,
};
pub use kind::{Forge, delivery_id, detect, event_name};
pub use parse::{ParseError, parse};
pub use repository::{canonical, is_of, place};
pub use rules::{Rules, Verdict, skip_marker, skips_preview};
pub use verify::{Clock, Refusal, signing_key, verify};

#[cfg(test)]
mod tests;
