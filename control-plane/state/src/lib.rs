//! The replicated state machine: what the cluster knows, and how commands change it.
//!
//! `apply` is a pure function of state and command: no clock, no randomness, no IO; the same log
//! gives the same bytes on every server. A [`State`] is made of persistent ordered maps, so that a
//! view is a clone that costs nothing and blocks nobody.

mod answer;
mod apply;
mod certificates;
mod change;
mod claims;
mod format;
mod keys;
mod names;
mod notify;
mod query;
mod routes;
mod snapshot;
mod state;
mod tcp;

pub use answer::{Answer, Outcome, Repeat, Reply, Taken};
pub use apply::{Applied, Key, command, name, with_key};
pub use change::Change;
pub use format::{feature_level, format, is_next, stand_for_next};
pub use keys::{DIGEST_BYTES, KEY_BYTES, KEY_FIELD};
pub use query::ServicePath;
pub use snapshot::Error as SnapshotError;
pub use state::{Cluster, Delivery, FIRST_MEMBER, OtherCa, State};

#[cfg(test)]
mod tests;
