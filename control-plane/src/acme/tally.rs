//! How many orders this server has made as the leader, and how many failed: for `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start of this server. Cheap to clone: all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    issued: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    /// An order has ended so.
    pub(crate) fn count(&self, is_issued: bool) {
        let counter = match is_issued {
            true => &self.0.issued,
            false => &self.0.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Certificates that were issued.
    pub(crate) fn issued(&self) -> u64 {
        self.0.issued.load(Ordering::Relaxed)
    }

    /// Orders that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }
}
