//! How guests of a pool come and go on Proxmox. What is to be done follows from what is written down about a guest and what
//! the hosts show of it: [`next()`] decides and does nothing, [`Driver`] looks and does one thing at a time. Whoever
//! calls writes each note down before the next turn; killed anywhere, the next turn goes on from what there is.
//!
//! What holds at every moment: a guest is asked for under a number that is written down; nothing is changed or removed that
//! is not proven to be the guest that was made; what carries our name and is written down nowhere is told, and left alone.

mod backups;
mod driver;
pub mod exec;
mod fence;
mod fixed;
mod introduce;
mod next;
mod place;
mod provider;
mod resize;
mod restore;
mod seen;
mod sweep;
mod wanted;
mod whereabouts;

pub use backups::{Archive, Left, due, left, of_guest, surplus};
pub use driver::{Driver, Turn};
pub use fence::{Around, Away, LOOKS_APART_MS, Verdict, WATCHDOG_MS, confirmed_dead};
pub use fixed::Fixed;
pub use introduce::ENV_FILE;
pub use next::{Ask, INTRODUCED_MS, Step, next};
pub use place::{Choice, choose};
pub use provider::{Provider, Trouble};
pub use resize::{Hot, Look, Way, way};
pub use seen::{Facts, Presence, Seen};
pub use sweep::{Orphan, orphans};
pub use whereabouts::{Overcommit, overcommitted, promised, whereabouts};

/// The tag of every guest that a pool has made.
pub const TAG: &str = "skep";
