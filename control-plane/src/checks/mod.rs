//! What forges say of the commits that deployments wait for, as far as the leader has asked. Who is asked when, and what an
//! answer means, is decided here; `reconcile::checks` asks.

mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::id::DeploymentId;
use tokio::sync::watch as channel;

pub(crate) use watch::{Answer, Wanted, Watched, wanted};

/// What was seen of the checks of a deployment's commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// All that count are green.
    Green,
    /// One is not, and which.
    Red(String),
    /// Not all have ended, or the forge did not say; in words.
    Pending(String),
    /// This leader has not asked for long enough to say that time is over; what it saw so far, in words.
    Unknown(String),
}

type All = Arc<BTreeMap<DeploymentId, Seen>>;

/// What was seen of each deployment that waits. The duty that asks writes it, the one that decides reads it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Board(channel::Sender<All>);

impl Default for Board {
    fn default() -> Self {
        Self(channel::channel(All::default()).0)
    }
}

impl Board {
    /// What is known.
    pub(crate) fn seen(&self) -> All {
        Arc::clone(&self.0.borrow())
    }

    /// Tells when something else is known.
    pub(crate) fn changed(&self) -> channel::Receiver<All> {
        self.0.subscribe()
    }

    /// Replaces what is known; whoever waits is woken where that makes a difference.
    pub(crate) fn put(&self, seen: BTreeMap<DeploymentId, Seen>) {
        self.0.send_if_modified(|known| {
            let is_new = **known != seen;
            if is_new {
                *known = Arc::new(seen);
            }
            is_new
        });
    }
}
