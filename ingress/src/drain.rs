//! Which revision is applied, and up to which one every request on a removed backend has
//! ended. Event driven: told by [`crate::backend`] when the last request leaves; no polling.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backend::LiveBackend;

/// How far an ingress is with the tables that it was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// The revision of the table in use: no request starts on a backend that is not in it.
    pub applied_revision: u64,
    /// The greatest revision such that no request that started on a backend removed at or
    /// before it is still in flight: streaming answers and upgraded connections included.
    pub drained_revision: u64,
}

/// Counts removed backends that still have requests.
#[derive(Debug)]
pub(crate) struct Drains {
    inner: Mutex<Inner>,
    status: watch::Sender<Status>,
}

#[derive(Debug, Default)]
struct Inner {
    publications: u64,
    applied_revision: u64,
    /// By publication, because a restored backup may make revisions go back.
    draining: BTreeMap<u64, Removal>,
}

#[derive(Debug)]
struct Removal {
    revision: u64,
    busy_backends: usize,
}

impl Drains {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            status: watch::Sender::new(Status::default()),
        })
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// A table without `removed` is in use: nothing can enter them any more.
    pub(crate) fn published(&self, revision: u64, removed: &[Arc<LiveBackend>]) {
        let mut inner = self.inner.lock();
        if revision < inner.applied_revision {
            // Old removals stay undrained from the new, smaller revision's point of view.
            for removal in inner.draining.values_mut() {
                removal.revision = removal.revision.min(revision);
            }
        }
        inner.publications += 1;
        inner.applied_revision = revision;
        let publication = inner.publications;
        // A request that leaves from here on finds its entry: it waits for the lock.
        let busy_backends = removed
            .iter()
            .filter(|backend| backend.remove(publication, revision))
            .count();
        if busy_backends > 0 {
            inner.draining.insert(
                publication,
                Removal {
                    revision,
                    busy_backends,
                },
            );
        }
        self.tell(&inner);
    }

    /// A request enters a backend that was removed by a publication of a revision. `enter` counts it, and
    /// tells whether it is the only one there.
    pub(crate) fn entered_late(
        &self,
        (publication, revision): (u64, u64),
        enter: impl FnOnce() -> bool,
    ) {
        let mut inner = self.inner.lock();
        if enter() {
            let revision = revision.min(inner.applied_revision);
            let removal = inner.draining.entry(publication).or_insert(Removal {
                revision,
                busy_backends: 0,
            });
            removal.busy_backends += 1;
            self.tell(&inner);
        }
    }

    /// The last request has left a backend that was removed in `publication`.
    pub(crate) fn emptied(&self, publication: u64) {
        let mut inner = self.inner.lock();
        let removal = inner
            .draining
            .get_mut(&publication)
            .expect("a busy removed backend is counted");
        removal.busy_backends -= 1;
        if removal.busy_backends == 0 {
            inner.draining.remove(&publication);
            self.tell(&inner);
        }
    }

    fn tell(&self, inner: &Inner) {
        let oldest = inner
            .draining
            .values()
            .map(|removal| removal.revision)
            .min();
        let drained = oldest.map_or(inner.applied_revision, |revision| {
            revision.saturating_sub(1)
        });
        let status = Status {
            applied_revision: inner.applied_revision,
            drained_revision: drained.min(inner.applied_revision),
        };
        self.status
            .send_if_modified(|last| std::mem::replace(last, status) != status);
    }
}
